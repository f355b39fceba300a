/* The linearised step handed from the pipe to the learners: whitened innovations e and Jacobian blocks H of the
   whitened outputs, in the two shapes that layers produce, and the products of them that a filter needs. Plain data;
   local.

   Whitened: with R = L_R L_Rᵀ, e = L_R⁻¹(y - ŷ) and H = L_R⁻¹ ∂ŷ/∂θ, so that HᵀH is the Fisher information and Hᵀe the
   score (equations.md 1). An observation is a mini-batch of n samples with m outputs each: n·m rows.

   Sampled: one row a sample in place of m, the score of a label drawn from the model: HᵀH has the Fisher information as
   its expectation. The score of the label that was seen then stands beside it, in g. */
#pragma once

#include "kwm/base.h"
#include "kwm/consistency.h"
#include "kwm/device.h"
#include "kwm/health.h"

enum kwm_jac_shape {
  KWM_JAC_UNITS, /* many small blocks: row (i,r) of H_u is sum_c J[i][r][c][u] S[i][c][:][u] */
  KWM_JAC_OUTER, /* one matrix block W (d_o, d_i): row (i,r) of H is J[i][r][:] ⊗ a[i][:] (row-major vec) */
};

/* Jacobian of one parameter group's blocks on this rank. All pointers borrowed. */
struct kwm_jac {
  enum kwm_jac_shape shape;
  int64_t n, m;     /* samples, outputs per sample */
  int64_t count;    /* UNITS: blocks */
  int64_t channels; /* UNITS: numbers through which a unit acts (re, im) */
  int64_t params;   /* UNITS: parameters per block */
  int64_t d_o, d_i; /* OUTER */
  const float *J;   /* UNITS (n, m, channels, count), OUTER (n, m, d_o) */
  const float *S;   /* UNITS (n, channels, params, count): sensitivities */
  const float *a;   /* OUTER (n, d_i): layer inputs, 1 appended */
  const float *aU;  /* OUTER (n, d_i): the same in the block's frame; NULL if it has none */
  const float *e;   /* (n, m): whitened innovations; NULL if g says it all */
  const float *g;   /* OUTER (n, d_o): the scores of the outputs; NULL: sum_r e_r J_r */
};

/* The frame of a matrix block's mean W (d_o, d_i): what is kept is VᵀWU, U (d_i, d_i), V (d_o, d_o) orthogonal. */
struct kwm_frame {
  const float *U, *V; /* borrowed; NULL, NULL: W itself */
};

/* Samples [first, first + n) of jac. */
struct kwm_jac kwm_jac_part(const struct kwm_jac *jac, int64_t first, int64_t n);

/* UNITS: F (packed, count) += HᵀH of every block, its upper triangle row by row: element (k,l), k <= l, of block u at
   F[index(k,l)·count + u]; s (params, count) += Hᵀe. */
void kwm_jac_fisher(const struct kwm_jac *jac, float *F, float *s);

/* Length of a packed triangle of order p. */
static inline int64_t kwm_packed(int64_t p) {
  return p * (p + 1) / 2;
}

/* UNITS: s (params, count) += Hᵀe. OUTER: s (d_o, d_i) += Hᵀe; g: scratch (n, d_o). */
void kwm_jac_score(const struct kwm_jac *jac, float *s, float *g);

/* OUTER: g (n, d_o) <- sum_r e[i][r] J[i][r][:], the output-side score of each sample. */
void kwm_jac_output_score(const struct kwm_jac *jac, float *g);

/* f += diag(HᵀH), s += Hᵀe. UNITS: f, s (params, count), scratch NULL. OUTER: f, s (d_o, d_i), scratch
   (n, d_o + d_i). */
void kwm_jac_diagonal(const struct kwm_jac *jac, float *f, float *s, float *scratch);

/* H <- dense rows. UNITS: (n·m, count·params), block u's parameters at columns u·params... OUTER: (n·m, d_o·d_i). */
void kwm_jac_dense(const struct kwm_jac *jac, float *H);

/* The same, products in double precision: H exactly as J, S and a say. */
void kwm_jac_dense_f64(const struct kwm_jac *jac, double *H);

/* Scalar facts of one mini-batch's innovation; sums over samples, so that they add over chunks and replicas. */
struct kwm_innovation {
  double samples;
  double surprisal;                   /* sum of -log p(y), nats */
  double entropy;                     /* sum of H(p) */
  double variance;                    /* sum of Var_p(log p): the surprisal's own variance */
  double correct;                     /* samples whose most likely class is the label */
  double squared;                     /* sum of |y - p|² */
  double expected;                    /* sum of its expectation tr(R) = 1 - |p|² */
  struct kwm_calibration calibration; /* categorical outputs */
};
enum { KWM_INNOVATION_FIELDS = sizeof(struct kwm_innovation) / sizeof(double) };

/* sum += more, field by field. */
void kwm_innovation_add(struct kwm_innovation *sum, const struct kwm_innovation *more);

/* sum += the facts (n, KWM_FACTS) of n samples that a device observed (kwm/device_ops.h). */
void kwm_innovation_facts(struct kwm_innovation *sum, bool categorical, int64_t n, const double *facts);

/* One step's linearisation on this rank: the Jacobians of the parts that it owns over its replica's samples. */
enum { KWM_LIN_PARTS = 32, KWM_CHUNKS_MAX = 64 };
struct kwm_lin {
  int n_parts;
  struct kwm_jac jac[KWM_LIN_PARTS];
  int64_t chunks; /* local chunks; chunk c holds samples [bounds[c], bounds[c+1]) of the jac */
  int64_t bounds[KWM_CHUNKS_MAX + 1];
  int64_t batch;                    /* samples of the step over all replicas */
  struct kwm_innovation innovation; /* of this rank's samples if it is the output's owner, else zero */
  double surprisal[KWM_CHUNKS_MAX]; /* of each local chunk, likewise */
  kwm_device *device;               /* borrowed: where the jac are; NULL: host */
  const double *facts;              /* device, output's owner: (n, KWM_FACTS) in place of the two above; else NULL */
  bool categorical;                 /* what the facts are of */
};

/* lin's innovation, and surprisal (chunks): from the facts where there are some, after waiting for them. */
struct kwm_innovation kwm_lin_innovation(const struct kwm_lin *lin);
void kwm_lin_surprisals(const struct kwm_lin *lin, double *surprisal);

/* Room on the host for a step's linearisation on a device, for learners that work on the host. fetch: *on_host <- lin
   with all arrays in the mirror, valid until the next fetch; rows that lie in one array for several groups are brought
   once for each. KWM_ERR_SYSTEM: no room. */
struct kwm_lin_mirror {
  float *at[KWM_LIN_PARTS][6]; /* J, S, a, aU, e, g of each part; owned */
  size_t bytes[KWM_LIN_PARTS][6];
};
kwm_status kwm_lin_fetch(struct kwm_lin_mirror *mirror, const struct kwm_lin *lin, struct kwm_lin *on_host);
void kwm_lin_mirror_fini(struct kwm_lin_mirror *mirror);

/* What one step did. The same on all ranks. */
struct kwm_step {
  enum kwm_verdict verdict;
  struct kwm_innovation innovation; /* summed over the step's samples */
  double nis;                       /* squared innovation over its expectation, summed over samples; 1 expected */
  double chi2, rows;                /* eᵀS⁻¹e and its degrees of freedom; 0, 0 where no S covers all groups */
  double kl[KWM_LIN_PARTS];         /* predicted KL per sample before the trust region */
  double expected[KWM_LIN_PARTS];   /* its expectation under the model; 0 unless trust_expected asks for it */
  double scale[KWM_LIN_PARTS];      /* what is left of each group's step */
  double search;                    /* what was then applied of all of them (kwm_filter_search), 1 without */
  double moved[KWM_LIN_PARTS];      /* δᵀP0⁻¹δ of each group, before the scales */
  double product;                   /* s_tᵀP0 s_{t-1} over all groups; NAN where no two scores follow each other */
  double process_noise[KWM_LIN_PARTS], noise; /* q and ρ of this step */
  int failed_rank, failed_part; /* verdict not finite or indefinite: the first rank; its part, -1: S, outputs */
};

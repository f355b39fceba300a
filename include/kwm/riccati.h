/* kron with evidence from innovations: one tensor's covariance, diagonal in a Kronecker eigenbasis, a scalar Riccati
   recursion in every coordinate (equations.md 3(a)).

     A, G    running means of a aᵀ and s sᵀ over tokens: inputs, and scores of outputs (kwm/sublayer.h)
     U_A, U_G  their eigenvectors, refreshed on a schedule; a side without a basis keeps plain coordinates
     Y = U_Gᵀ X U_A, X the summed score of a step
     f       running mean of Y²: what a step's innovations say of the information in it
     m       running mean of Y: innovations of neighbouring steps are alike (overlapping contexts, one drifting
             optimum), so that a step's score is taken as a coloured observation of a slowly moving one and smoothed
     p       the recursion p + q, then p / (1 + p f), or at once its fixed point for the f and q of the moment
   (`steady`) δ       = U_G (p ∘ m) U_Aᵀ

   Squared scores over-estimate the information (equations.md 3(a) [caution]): the filter then trusts itself more, and q
   holds it open. Local, but for save and load. All arrays are the device's (NULL: the host's). */
#pragma once

#include "kwm/ckpt.h"
#include "kwm/tensor.h"

struct kwm_riccati_spec {
  const char *name;      /* tensor, for checkpoints: /cov/NAME; borrowed */
  int64_t rows, columns; /* outputs, inputs */
  bool left, right;      /* bases of outputs, of inputs */
  double prior;          /* precision 1/p0: p never exceeds p0 */
  double rate_f, rate_m; /* of the running means; rate_m 1: nothing is smoothed */
  double rate_factor;    /* of A and G, each time that they are observed */
  bool steady;
  kwm_device *device; /* borrowed */
};

/* Room that the tensors of a rank share: `matrix` (2 rows columns) of the largest, `square` (6 n²) of the largest n
   with a basis, `line` (rows + columns). */
struct kwm_riccati_room {
  float *matrix, *square, *line;
};

struct kwm_riccati {
  struct kwm_riccati_spec spec;
  float *f, *m, *p;            /* (rows, columns) */
  float *A, *U_A;              /* (columns, columns), NULL without right */
  float *G, *U_G;              /* (rows, rows), NULL without left */
  int64_t seen;                /* steps taken */
  int64_t observed, refreshes; /* times that the factors were observed, that the basis was refreshed */
};

kwm_status kwm_riccati_create(struct kwm_riccati *cov, const struct kwm_riccati_spec *spec);
void kwm_riccati_destroy(struct kwm_riccati *cov); /* accepts a zeroed one */
int64_t kwm_riccati_floats(const struct kwm_riccati_spec *spec);
/* Operations of a step, its part of a refresh every `refresh` steps included; about. */
double kwm_riccati_operations(const struct kwm_riccati_spec *spec, int64_t refresh);
/* Floats that a tensor wants of the room's three parts. */
void kwm_riccati_room_floats(const struct kwm_riccati_spec *spec, int64_t floats[3]);

/* A, G += rate_factor / tokens of s (n, rows), a (n, columns); `first`: of a step, the running means decay before.
   tokens: of the step over all ranks that add to the same sums. */
void kwm_riccati_observe(struct kwm_riccati *cov, bool first, int64_t n, int64_t tokens, const float *s,
                         const float *a);

/* The same where one of several ranks keeps the factors, a side at a time: share (d, d), d outputs (`left`) or inputs,
   <- what x (n, d) adds to G or A; then, with the sum of all ranks' shares, G or A += share. All of the ranks count
   `observed` themselves, before. */
void kwm_riccati_share(const struct kwm_riccati *cov, bool left, int64_t n, int64_t tokens, const float *x,
                       float *share);
void kwm_riccati_add_share(struct kwm_riccati *cov, bool left, bool first, const float *share);

/* New bases from A and G. anew: exact, and f from the eigenvalues' products times tokens; else the bases that are there
   are improved and f is kept; m and p turn with the basis. False: no eigenvectors; nothing changed but, maybe, one
   side.
 */
bool kwm_riccati_refresh(struct kwm_riccati *cov, bool anew, int64_t tokens, const struct kwm_riccati_room *room);

/* One step with the summed score X (rows, columns): f, m, p move, and the result, δ (rows, columns), lies in
   room->matrix or, without bases, in X. q: process noise of this step, the same units as p. change (kwm_device_share,
   known after a wait; NULL: not wanted) <- δᵀFδ, F the information f. */
float *kwm_riccati_gain(struct kwm_riccati *cov, double q, float *score, const struct kwm_riccati_room *room,
                        double *change);

/* mean (rows, columns) += U_G (√(scale p) ∘ z) U_Aᵀ, z normal draws keyed by `key`: with scale 1 a draw from the
   posterior around the mean. m is lost (no step can follow); host: as for inflate. */
struct kwm_riccati_key {
  uint64_t seed, draw, first; /* first: index of the tensor's first element, so that tensors differ */
};
void kwm_riccati_draw(struct kwm_riccati *cov, double scale, const struct kwm_riccati_key *key, float *host,
                      const struct kwm_riccati_room *room, float *mean);

/* p <- factor p, at most p0; without effect on the fixed point. host: (rows columns), unused without a device. */
void kwm_riccati_inflate(struct kwm_riccati *cov, double factor, float *host);

/* Collective over the checkpoint's ranks: arrays under /cov/NAME; holds: this rank has the tensor. host: room for the
   largest array, unused without a device. The three counts are the caller's to keep. */
kwm_status kwm_riccati_save(const struct kwm_riccati *cov, kwm_ckpt *ckpt, bool holds, float *host);
kwm_status kwm_riccati_load(struct kwm_riccati *cov, kwm_ckpt *ckpt, bool holds, float *host);

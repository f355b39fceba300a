/* Operations of a step by structure and form, two for a multiplication with its addition, leading terms only: what
   `kwm plan` prints, nothing that a step depends on. Each formula stands beside the names of what it counts.

   n samples, m outputs, R = n m rows; p parameters of a block, N = count p; a matrix block is o x i. Cholesky factor
   d³/3, its inverse 2/3 d³, symmetric square of k rows d²k, eigenvectors of order d EIGEN d³. */
#include <limits.h>

#include "full_state.h"

/* Reduction 4/3, divide and conquer up to 8/3, back transformation 2, and the row-major copies. */
static const double EIGEN = 6;

/* Eigenvectors of order d take 2 d² + 6 d + 1 numbers, which LAPACK counts in an int. */
enum { ORDER_MAX = 32766 };

struct sizes {
  double n, m, R, p, N, count, o, i;
  bool innovation, narrow, forgets, diffuses;
};

static struct sizes sizes_of(const struct kwm_cov_spec *spec) {
  return (struct sizes){.n = (double)spec->n_max,
                        .m = (double)spec->m,
                        .R = (double)spec->n_max * (double)spec->m,
                        .p = (double)spec->params,
                        .N = (double)spec->count * (double)spec->params,
                        .count = (double)spec->count,
                        .o = (double)spec->d_o,
                        .i = (double)spec->d_i,
                        .innovation = spec->form == KWM_FORM_INNOVATION,
                        .narrow = spec->real == KWM_REAL_FLOAT,
                        .forgets = (spec->forgetting < 1),
                        .diffuses = spec->process_noise > 0};
}

static double cube(double d) {
  return d * d * d;
}

/* JᵀJ and Jᵀe of a unit's two channels, and per parameter what `each` says (lin/jac.c). */
static double units_evidence(const struct sizes *s, double each) {
  return s->n * s->count * (10 * s->m + s->p * each);
}

/* g = Jᵀe of every sample, then gᵀa. */
static double matrix_score(const struct sizes *s) {
  return 2 * s->R * s->o + 2 * s->n * s->o * s->i;
}

/* ---- block: p² for each row, p³ a step */

static double block_predict(const struct sizes *s) {
  double each = 0;
  if (s->forgets) each += s->innovation ? 2 * cube(s->p) : cube(s->p) / 3;
  if (s->diffuses && !s->innovation) each += 2 * cube(s->p);
  return each + (s->narrow && (s->forgets || s->diffuses) ? 2 * cube(s->p) / 3 : 0);
}

/* Evidence R p² of a matrix, 2 n p² of a unit; factor p³/3, in float L Lᵀ before it; solution and δᵀFδ 4 p². */
static double block_information(const struct sizes *s) {
  const double matrix = s->R * s->p * s->p + s->R * s->p + matrix_score(s);
  const double evidence = s->o > 0 ? s->count * matrix : units_evidence(s, 2 * s->p + 12);
  return evidence + s->count * ((s->narrow ? 2 : 1) * cube(s->p) / 3 + 4 * s->p * s->p);
}

/* H 3 R N, δ 2 R N; Z 2 R p², S 2 R² N, L⁻¹Z R² N, downdate R p²; a look at definiteness p³/3, of a matrix only once in
   p rows. Float units: Z = H Y, I - AᵀA factored, Y V. Float matrix (block_root.c): H Y R p², S and Q 4 R² p + 2 R³,
   panels p² (2 R + 64) + 5 R² p + p R³/192. */
static double block_innovation_form(const struct sizes *s) {
  const double R = s->R, p = s->p, rows = 5 * R * s->N;
  if (s->o > 0 && s->narrow)
    return s->count * (rows + 3 * R * p * p + 64 * p * p + 9 * R * R * p + 2 * cube(R) + p * cube(R) / 192);
  const double looks = s->o == 0 || R > p ? 1 : R / p;
  const double each = s->narrow ? 3 * R * p * p + 2 * cube(p) / 3 : 3 * R * p * p + looks * cube(p) / 3;
  return rows + 3 * R * R * s->N + s->count * each;
}

static double block_operations(const struct kwm_cov_spec *spec) {
  const struct sizes s = sizes_of(spec);
  return s.count * block_predict(&s) + (s.innovation ? block_innovation_form(&s) : block_information(&s));
}

/* ---- kron: products with the bases, n (o² m + i²) evidence, their eigenvectors every `refresh` steps */

static double kron_turns(const struct kwm_cov_spec *spec, const struct sizes *s) {
  const double both = s->o * s->i * (s->o + s->i), cubes = cube(s->o) + cube(s->i);
  const double turned = (EIGEN + 2) * cubes + (spec->framed ? 4 : 2) * both;
  return (s->forgets ? (spec->framed ? 2 : 4) * both : 0) + turned / (double)(spec->refresh > 0 ? spec->refresh : 1);
}

/* Grams n i² + R o²; float: rows turned 2 n (i² + o²) (framed: the inputs were, by the forward pass), G once a step or,
   if a sample has one row, those rows; double: the sums once a step; the step turned back, but for a framed mean. */
static double kron_information(const struct kwm_cov_spec *spec, const struct sizes *s) {
  const double o = s->o, i = s->i, both = o * i * (o + i), grams = s->n * i * i + s->R * o * o;
  const double outputs = 2 * s->n * o * o + (s->m > 1 ? 2 * cube(o) : 2 * s->n * o * o);
  const double rows = (spec->framed ? 0 : 2 * s->n * i * i) + outputs, sums = 2 * both + 2 * cube(o) + 2 * cube(i);
  return grams + matrix_score(s) + (s->narrow ? rows : sums) + (spec->framed ? 0 : 2 * both) + 8 * o * i;
}

/* o (4 n² i + 6 R²) for S and the posterior's diagonal; rows turned 2 n i² + 2 R o², grams, S⁻¹ 2 R³. */
static double kron_innovation_form(const struct sizes *s) {
  const double o = s->o, i = s->i, R = s->R;
  return o * (4 * s->n * s->n * i + 6 * R * R) + 3 * (s->n * i * i + R * o * o) + 2 * cube(R) + matrix_score(s) +
         2 * o * i * (o + i);
}

static double kron_operations(const struct kwm_cov_spec *spec) {
  const struct sizes s = sizes_of(spec);
  if (spec->count == 0) return 0;
  return kron_turns(spec, &s) + (s.innovation ? kron_innovation_form(&s) : kron_information(spec, &s));
}

/* ---- diag: information 4 n N; innovation 10 R N for its rows, S 2 R² N, L⁻¹Y R² N */

static double diag_operations(const struct kwm_cov_spec *spec) {
  const struct sizes s = sizes_of(spec);
  const double squares = s.o > 0 ? 2 * s.n * s.o * s.i + 2 * s.R * s.o + matrix_score(&s) : 0;
  const double evidence = s.o > 0 ? s.count * squares : units_evidence(&s, 13);
  const double step = s.innovation ? 10 * s.R * s.N + 3 * s.R * s.R * s.N : evidence;
  return step + (s.forgets || s.diffuses ? 16 : 8) * s.N;
}

/* ---- lowrank: n (s² + 2 s r) with s = r + R over the parameters here, EIGEN s³ on every rank of the group */

/* Of order s: H P Hᵀ, S_o⁻½ (innovation) or S (information), the posterior's mix. */
static double lowrank_small(const struct kwm_cov_spec *spec, double R, double r) {
  const double s = r + R, whitening = 4 * cube(R) + 4 * r * R * R;
  double work = spec->form == KWM_FORM_INNOVATION ? (EIGEN + 1) * cube(R) : cube(R) / 3;
  switch (spec->kind) {
  case KWM_LOWRANK_PRECISION:
  case KWM_LOWRANK_DIAGONAL: return work + 4 * R * r * r + cube(r) / 3 + whitening + EIGEN * cube(s);
  case KWM_LOWRANK_COVARIANCE: return work + 3 * R * R * r + whitening + (2 * EIGEN + 4) * cube(s) + 2 * R * s * s;
  case KWM_LOWRANK_SUBSPACE: work += 2 * R * R * r + 2 * R * r * r; break;
  }
  return work + 2 * R * R * r + (2 * EIGEN + 6) * cube(r);
}

static double lowrank_operations(const struct kwm_cov_spec *spec) {
  const struct sizes z = sizes_of(spec);
  const double most = (double)spec->total * z.p, r = (double)spec->rank < most ? (double)spec->rank : most, s = r + z.R;
  if (spec->count == 0 && spec->layout == NULL) return 0;
  double work = z.N * (6 * z.R + 2 * r + s * s + 2 * s * r) + lowrank_small(spec, z.R, r);
  const bool diagonal = spec->kind == KWM_LOWRANK_DIAGONAL, gram = diagonal || spec->kind == KWM_LOWRANK_PRECISION;
  if (diagonal) work += z.N * (2 * s * z.R + (z.diffuses ? 3 * r * r : 0)); /* what is given up; noise */
  if (z.forgets || z.diffuses) work += z.N * 5 * r;
  if (z.forgets) work += z.N * (2 * r + (gram ? r * r : 0));
  return work;
}

double kwm_cov_operations(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec) {
  if (ops == &kwm_cov_block) return block_operations(spec);
  if (ops == &kwm_cov_kron) return kron_operations(spec);
  if (ops == &kwm_cov_diag) return diag_operations(spec);
  KWM_ASSERT(ops == &kwm_cov_lowrank);
  return lowrank_operations(spec);
}

/* ---- one covariance of all parameters */

static double full_predict(const struct kwm_full_spec *spec, bool forgets, bool diffuses) {
  const double n3 = cube((double)spec->n);
  if (spec->real == KWM_REAL_DOUBLE) return forgets ? 2 * n3 : 0;
  return (forgets ? 7 * n3 / 3 : 0) + (diffuses ? 10 * n3 / 3 : 0);
}

/* Double: Z 2 n²R, P n²R; S 2 n R², L⁻¹ n R². Float: F, Y Aᵀ, Y 6 n²R; S, L⁻¹, A Aᵀ, B 7 n R²; R eigenvectors on every
   rank. Rows of H 3 n R. */
double kwm_full_operations(const struct kwm_full_spec *spec, int ranks, bool forgets, bool diffuses) {
  const double n = (double)spec->n, R = (double)spec->rows_max;
  const bool narrow = spec->real == KWM_REAL_FLOAT;
  const double square = (narrow ? 6 : 3) * n * n * R, thin = (narrow ? 7 : 3) * n * R * R;
  return (full_predict(spec, forgets, diffuses) + square + thin + 3 * n * R) / ranks + (narrow ? EIGEN * cube(R) : 0);
}

/* ---- what create refuses, or a library would */

bool kwm_cov_countable(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec) {
  if (ops == &kwm_cov_block) return spec->params <= ORDER_MAX;
  if (ops == &kwm_cov_kron) return spec->d_o <= ORDER_MAX && spec->d_i <= ORDER_MAX;
  return ops != &kwm_cov_lowrank || spec->rank + spec->n_max * spec->m <= ORDER_MAX;
}

bool kwm_full_countable(const struct kwm_full_spec *spec, int ranks) {
  const int64_t rows = spec->rows_max;
  if (spec->n > INT_MAX || rows > INT_MAX || rows * rows > INT_MAX) return false;
  const struct full_shape s = full_shape_of(spec, ranks, 0, 0); /* rank 0 has the first blocks: the most */
  const int64_t columns = s.y_columns > s.z_columns ? s.y_columns : s.z_columns;
  return (s.p_rows > 0 ? s.p_rows : 1) * columns <= INT_MAX;
}

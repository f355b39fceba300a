/* The time update (equations.md 3(d)): stabilised forgetting, the pull of the mean to the anchor, process noise.

   In double, forgetting inverts twice, and an inversion destroys what it works on when it fails. It therefore works in
   the upper triangle, which nothing else uses: the lower one and a copy of the diagonal are the way back. The same in
   float is in full_root_predict.c. */
#include <math.h>

#include "full_state.h"
#include "scalapack.h"

static const int origin = 1;

void full_add_to_diagonal(kwm_full *full, double factor, bool inverse) {
  for (int64_t l = 0, at; l < full->shape.p_rows; l++)
    if (full_diagonal_at(&full->shape, l, &at)) full->P[at] += factor * (inverse ? 1 / full->prior[l] : full->prior[l]);
}

/* P's upper triangle <- its inverse; false if it is not positive definite or not finite. */
static bool invert(kwm_full *full) {
  const int n = (int)full->shape.n;
  int factored = 0, inverted = 0;
  pdpotrf_("U", &n, full->P, &origin, &origin, full->desc_p, &factored, 1);
  KWM_ASSERT(factored >= 0);
  if (!full_all(full, factored == 0)) return false;
  pdpotri_("U", &n, full->P, &origin, &origin, full->desc_p, &inverted, 1);
  KWM_ASSERT(inverted >= 0);
  bool good = inverted == 0;
  for (int64_t l = 0, at; l < full->shape.p_rows; l++)
    if (full_diagonal_at(&full->shape, l, &at)) good = good && full->P[at] > 0 && isfinite(full->P[at]);
  return full_all(full, good);
}

static void scale_upper(kwm_full *full, double factor) {
  const struct full_shape *const s = &full->shape;
  for (int64_t j = 0; j < s->p_columns; j++) {
    const int64_t g = full_global_of(&s->across, j);
    double *const column = full->P + j * s->p_rows;
    for (int64_t i = 0; i < s->p_rows && full_global_of(&s->down, i) <= g; i++) column[i] *= factor;
  }
}

/* Diagonal elements stored here: to or from full->partial. */
static void keep_diagonal(kwm_full *full, bool restore) {
  for (int64_t l = 0, at; l < full->shape.p_rows; l++) {
    if (!full_diagonal_at(&full->shape, l, &at)) continue;
    if (restore)
      full->P[at] = full->partial[l];
    else
      full->partial[l] = full->P[at];
  }
}

static bool forget(kwm_full *full, double lambda) {
  full_mirror(full, true);
  keep_diagonal(full, false);
  bool good = invert(full);
  if (good) {
    scale_upper(full, lambda);
    full_add_to_diagonal(full, 1 - lambda, true);
    good = invert(full);
  }
  if (good)
    full_mirror(full, false);
  else
    keep_diagonal(full, true);
  return good;
}

/* partial <- P times partial, in the grid's first column; 0 in others. */
static void covary(kwm_full *full) {
  const struct full_shape *const s = &full->shape;
  const int n = (int)s->n, m = 1;
  const double one = 1, zero = 0;
  const bool mine = full_part_of(&s->thin, 0) == s->thin.mine;
  for (int64_t l = 0; mine && l < s->p_rows; l++) full->Ht[l] = full->partial[l];
  pdsymm_("L", "L", &n, &m, &one, full->P, &origin, &origin, full->desc_p, full->Ht, &origin, &origin, full->desc_z,
          &zero, full->Z, &origin, &origin, full->desc_z);
  for (int64_t l = 0; l < s->p_rows; l++) full->partial[l] = mine ? full->Z[l] : 0;
}

/* mean += (1-λ) P P0⁻¹ (anchor - mean) for the forgetful P. */
static void pull(kwm_full *full, double lambda, const float *anchor, float *mean) {
  const struct full_shape *const s = &full->shape;
  for (int64_t k = 0; k < s->n_local; k++) full->owned[k] = (double)anchor[k] - (double)mean[k];
  full_spread(full, full->owned, full->partial);
  for (int64_t l = 0; l < s->p_rows; l++) full->partial[l] /= full->prior[l];
  if (s->real == KWM_REAL_FLOAT)
    full_root_covary(full);
  else
    covary(full);
  full_collect(full, full->partial, full->owned);
  for (int64_t k = 0; k < s->n_local; k++) mean[k] += (float)((1 - lambda) * full->owned[k]);
}

bool kwm_full_predict(kwm_full *full, double lambda, double q, const float *anchor, float *mean) {
  const bool is_root = full->shape.real == KWM_REAL_FLOAT;
  KWM_ASSERT(lambda > 0 && lambda <= 1 && q >= 0);
  full->rows = 0;
  full->conditioned = false;
  if (lambda == 1 && q == 0) return true;
  KWM_ASSERT(!is_root || full->shape.dynamics);
  if (is_root && !full_root_finite(full)) return false;
  if (lambda < 1) {
    if (!(is_root ? full_root_forget(full, lambda) : forget(full, lambda))) return false;
    pull(full, lambda, anchor, mean);
  }
  if (q > 0 && is_root) full_root_walk(full, q);
  if (q > 0 && !is_root) full_add_to_diagonal(full, q, false);
  return true;
}

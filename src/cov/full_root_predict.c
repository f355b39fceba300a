/* The time update of the square root Y in float, without ever forming P: that would square its condition number.

     forgetting  P' = Y (λI + (1-λ) YᵀP0⁻¹Y)⁻¹ Yᵀ, since (λ(YYᵀ)⁻¹ + μP0⁻¹)⁻¹ = Y (λI + μYᵀP0⁻¹Y)⁻¹ Yᵀ. With the
                 bracket's Cholesky factor G, Y' = Y G⁻ᵀ. Its condition number is 1 + (1-λ)/λ times the largest
                 eigenvalue of P0⁻¹P, and Y changes only in the last call, which can't fail.
     noise       P' = Y Yᵀ + q P0 = L Lᵀ with the LQ factorisation of [Y, √q P0^½]; it can't fail either.

   Both work in a spare matrix behind Y's columns. */
#include <math.h>
#include <string.h>

#include "full_state.h"
#include "kwm/par.h"
#include "scalapack.h"

static const int origin = 1;

bool full_root_finite(const kwm_full *full) {
  bool good = true;
  for (int64_t k = 0; k < full->shape.p_rows * full->shape.p_columns; k++) good = good && isfinite(full->Y[k]);
  return full_all(full, good);
}

/* The spare matrix, of Y's layout, with a diagonal that the caller sets; zeros elsewhere, also between Y and it. */
static float *clear_spare(kwm_full *full) {
  const struct full_shape *const s = &full->shape;
  memset(full->Y + s->p_columns * s->p_rows, 0, (size_t)((s->y_columns - s->p_columns) * s->p_rows) * sizeof(float));
  return full->Y + s->spare_column * s->p_rows;
}

/* panel <- P0^-½ Y of the local rows from `first` on, one block of every grid row. */
static void fill_panel(kwm_full *full, int64_t first) {
  const struct full_shape *const s = &full->shape;
  const int64_t left = s->p_rows - first, rows = left < s->block ? (left > 0 ? left : 0) : s->block;
  memset(full->panel, 0, (size_t)(s->block * s->p_columns) * sizeof(float));
  for (int64_t l = 0; l < rows; l++) {
    const double weight = 1 / sqrt(full->prior[first + l]);
    for (int64_t j = 0; j < s->p_columns; j++)
      full->panel[j * s->block + l] = (float)(weight * (double)full->Y[j * s->p_rows + first + l]);
  }
}

bool full_root_forget(kwm_full *full, double lambda) {
  const struct full_shape *const s = &full->shape;
  const int n = (int)s->n, turn = kwm_int(s->block * s->down.parts);
  const float one = 1, rest = (float)(1 - lambda);
  float *const G = clear_spare(full);
  int failed = 0;
  for (int64_t l = 0, at; l < s->p_rows; l++)
    if (full_diagonal_at(s, l, &at)) G[at] = (float)lambda;
  for (int64_t k = 0; k * turn < s->n; k++) {
    fill_panel(full, k * s->block);
    pssyrk_("L", "T", &n, &turn, &rest, full->panel, &origin, &origin, full->desc_panel, &one, G, &origin, &origin,
            full->desc_p);
  }
  pspotrf_("L", &n, G, &origin, &origin, full->desc_p, &failed, 1);
  KWM_ASSERT(failed >= 0);
  bool good = failed == 0;
  for (int64_t l = 0, at; l < s->p_rows; l++)
    if (full_diagonal_at(s, l, &at)) good = good && isfinite(G[at]);
  if (!full_all(full, good)) return false;
  pstrsm_("R", "L", "T", "N", &n, &n, &one, G, &origin, &origin, full->desc_p, full->Y, &origin, &origin, full->desc_p);
  return true;
}

void full_root_walk(kwm_full *full, double q) {
  const struct full_shape *const s = &full->shape;
  const int n = (int)s->n, columns = kwm_int(s->spare_first + s->n);
  const int length = kwm_int(s->block * (s->p_rows + s->y_columns + s->block));
  float *const spare = clear_spare(full);
  int failed = 0;
  for (int64_t l = 0, at; l < s->p_rows; l++)
    if (full_diagonal_at(s, l, &at)) spare[at] = (float)sqrt(q * full->prior[l]);
  psgelqf_(&n, &columns, full->Y, &origin, &origin, full->desc_wide, full->tau, full->work, &length, &failed);
  KWM_ASSERT(failed == 0);
  for (int64_t j = 0; j < s->p_columns; j++) {
    const int64_t g = full_global_of(&s->across, j);
    for (int64_t l = 0; l < s->p_rows && full_global_of(&s->down, l) < g; l++) full->Y[j * s->p_rows + l] = 0;
  }
}

/* The exact filter on a square root in float, P = Y Yᵀ: Potter's update (equations.md 3(c)) for many rows at once.

   With A = L⁻¹F, F = H Y, the posterior is Y (I - AᵀA) Yᵀ, and a square root of the bracket is I - AᵀCA with
   C = (I + (I - A Aᵀ)^½)⁻¹. From A Aᵀ = V diag(a) Vᵀ: C = V diag(c) Vᵀ, c = 1/(1 + √(1-a)). So Y <- Y - (Y Bᵀ) B with
   B = diag(√c) Vᵀ A, which takes three products with n²m multiplications and no other memory than Y:

     F = H Y       psgemm        Y Bᵀ      psgemm        Y <- Y - (Y Bᵀ) B   psgemm

   What is of order n m² stays in double, on F as it was rounded: S = I + F Fᵀ is positive definite whatever Y is. */
#include <math.h>

#include "full_state.h"
#include "kwm/backend.h"
#include "scalapack.h"

static const int origin = 1;

/* The least 1 - a: below, A Aᵀ in double says nothing. */
static const double least = 1e-14;

/* What a may exceed 1 by, rounding of the caller's L included. */
static const double beyond = 1e-6;

void full_root_start(kwm_full *full) {
  for (int64_t l = 0, at; l < full->shape.p_rows; l++)
    if (full_diagonal_at(&full->shape, l, &at)) full->Y[at] = (float)sqrt(full->prior[l]);
}

/* Elements of a step's Z that are stored here. */
static int64_t z_count(const kwm_full *full, int64_t rows) {
  return full->shape.p_rows * full_count_of(&full->shape.thin, rows);
}

static void narrow(int64_t n, const double *from, float *to) {
  for (int64_t k = 0; k < n; k++) to[k] = (float)from[k];
}

void full_root_project(kwm_full *full, int64_t rows) {
  const int n = (int)full->shape.n, m = (int)rows;
  const float one = 1, zero = 0;
  const int64_t count = z_count(full, rows);
  narrow(count, full->Ht, full->Hf);
  psgemm_("T", "N", &n, &m, &n, &one, full->Y, &origin, &origin, full->desc_p, full->Hf, &origin, &origin, full->desc_z,
          &zero, full->F, &origin, &origin, full->desc_z);
  for (int64_t k = 0; k < count; k++) full->Z[k] = (double)full->F[k];
}

/* partial <- this grid column's part of Y slab. */
static void multiply(kwm_full *full) {
  const struct full_shape *const s = &full->shape;
  for (int64_t l = 0; l < s->p_rows; l++) full->partial[l] = 0;
  for (int64_t j = 0; j < s->p_columns; j++) {
    const double weight = full->slab[full_global_of(&s->across, j)];
    const float *const column = full->Y + j * s->p_rows;
    for (int64_t l = 0; l < s->p_rows; l++) full->partial[l] += (double)column[l] * weight;
  }
}

void full_root_multiply(kwm_full *full) {
  full_share(full, full->partial);
  multiply(full);
}

void full_root_covary(kwm_full *full) {
  const struct full_shape *const s = &full->shape;
  for (int64_t g = 0; g < s->n; g++) full->slab[g] = 0;
  for (int64_t j = 0; j < s->p_columns; j++) {
    const float *const column = full->Y + j * s->p_rows;
    double sum = 0;
    for (int64_t l = 0; l < s->p_rows; l++) sum += (double)column[l] * full->partial[l];
    full->slab[full_global_of(&s->across, j)] = sum;
  }
  MPI_Allreduce(MPI_IN_PLACE, full->slab, (int)s->n, MPI_DOUBLE, MPI_SUM, full->comm);
  multiply(full);
}

/* gather (rows, rows) <- V diag(√c) from Z = Aᵀ; false if I - A Aᵀ is not positive. The same on all ranks. */
static bool root_of_weights(kwm_full *full, int64_t rows) {
  full_gather_product(full, rows, full->Z, full->Z);
  bool good = true;
  for (int64_t k = 0; k < rows * rows; k++) good = good && isfinite(full->gather[k]);
  if (!good || !kwm_eigen_f64(rows, full->gather, full->root)) return false;
  if (!(full->root[rows - 1] <= 1 + beyond)) return false;
  for (int64_t i = 0; i < rows; i++) full->root[i] = sqrt(1 / (1 + sqrt(fmax(1 - full->root[i], least))));
  for (int64_t k = 0; k < rows * rows; k++) full->gather[k] *= full->root[k % rows];
  return true;
}

bool full_root_condition(kwm_full *full, int64_t rows) {
  const int n = (int)full->shape.n, m = (int)rows;
  const double one = 1, zero = 0;
  const float one_f = 1, zero_f = 0;
  const int64_t count = z_count(full, rows);
  if (!full_all(full, root_of_weights(full, rows))) return false;
  full_scatter(full, rows, full->gather);
  pdgemm_("N", "N", &n, &m, &m, &one, full->Z, &origin, &origin, full->desc_z, full->S, &origin, &origin, full->desc_s,
          &zero, full->Ht, &origin, &origin, full->desc_z);
  narrow(count, full->Ht, full->F);
  psgemm_("N", "N", &n, &m, &n, &one_f, full->Y, &origin, &origin, full->desc_p, full->F, &origin, &origin,
          full->desc_z, &zero_f, full->Hf, &origin, &origin, full->desc_z);
  bool good = true;
  for (int64_t k = 0; k < count; k++) good = good && isfinite(full->Hf[k]);
  return good;
}

void full_root_apply(kwm_full *full, int64_t rows) {
  const int n = (int)full->shape.n, m = (int)rows;
  const float one = 1, minus_one = -1;
  psgemm_("N", "T", &n, &n, &m, &minus_one, full->Hf, &origin, &origin, full->desc_z, full->F, &origin, &origin,
          full->desc_z, &one, full->Y, &origin, &origin, full->desc_p);
}

void full_root_variances(const kwm_full *full) {
  const struct full_shape *const s = &full->shape;
  for (int64_t l = 0; l < s->p_rows; l++) full->partial[l] = 0;
  for (int64_t j = 0; j < s->p_columns; j++) {
    const float *const column = full->Y + j * s->p_rows;
    for (int64_t l = 0; l < s->p_rows; l++) full->partial[l] += (double)column[l] * (double)column[l];
  }
}

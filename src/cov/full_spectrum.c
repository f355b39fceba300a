/* The covariance as others see it: dense on one rank, and the eigenvalues of what is left of the prior uncertainty,
   P0^-½ P P0^-½, in double from a copy. The same matrix Y that is kept in float is widened, not its product. */
#include <math.h>

#include "full_state.h"
#include "kwm/par.h"
#include "scalapack.h"

static const int origin = 1;

/* What lives only during the call. */
struct copy {
  double *A;    /* (p_rows, p_columns): the matrix */
  double *Y;    /* (p_rows, p_columns): float only */
  double *work; /* pdsyev's */
};

static void drop(struct copy *copy) {
  kwm_free(copy->A);
  kwm_free(copy->Y);
  kwm_free(copy->work);
}

/* False if it is not finite here. */
static bool fill_from_covariance(const kwm_full *full, struct copy *copy) {
  const struct full_shape *const s = &full->shape;
  bool good = true;
  for (int64_t j = 0; j < s->p_columns; j++) {
    const int64_t g = full_global_of(&s->across, j);
    const double column = sqrt(full->slab[g]);
    for (int64_t l = 0; l < s->p_rows; l++) {
      const int64_t k = j * s->p_rows + l;
      if (full_global_of(&s->down, l) < g) continue;
      copy->A[k] = full->P[k] / (sqrt(full->prior[l]) * column);
      good = good && isfinite(copy->A[k]);
    }
  }
  return good;
}

static bool fill_from_root(const kwm_full *full, struct copy *copy) {
  const struct full_shape *const s = &full->shape;
  const int n = (int)s->n;
  const double one = 1, zero = 0;
  bool good = true;
  for (int64_t k = 0; k < s->p_rows * s->p_columns; k++) {
    copy->Y[k] = (double)full->Y[k] / sqrt(full->prior[k % s->p_rows]);
    good = good && isfinite(copy->Y[k]);
  }
  pdsyrk_("L", "N", &n, &n, &one, copy->Y, &origin, &origin, full->desc_p, &zero, copy->A, &origin, &origin,
          full->desc_p);
  return good;
}

static kwm_status allocate(kwm_full *full, struct copy *copy, double *values, int *length) {
  const struct full_shape *const s = &full->shape;
  const size_t bytes = (size_t)(s->p_rows * s->p_columns) * sizeof(double);
  const int n = (int)s->n, ask = -1;
  double wanted = 0, none = 0;
  int failed = 0;
  pdsyev_("N", "L", &n, &none, &origin, &origin, full->desc_p, values, &none, &origin, &origin, full->desc_p, &wanted,
          &ask, &failed, 1, 1);
  KWM_ASSERT(failed == 0);
  *length = (int)wanted;
  kwm_status status = kwm_alloc((void **)&copy->A, bytes, "copy of the full covariance");
  if (status == KWM_OK && s->real == KWM_REAL_FLOAT)
    status = kwm_alloc((void **)&copy->Y, bytes, "copy of the full covariance");
  if (status == KWM_OK) status = kwm_alloc((void **)&copy->work, (size_t)*length * sizeof(double), "eigenvalues");
  return kwm_agree(full->comm, status);
}

/* Each parameter's prior variance comes from the one place that has its diagonal element: slab (n). */
static void share_prior(kwm_full *full) {
  for (int64_t l = 0, at; l < full->shape.p_rows; l++)
    full->partial[l] = full_diagonal_at(&full->shape, l, &at) ? full->prior[l] : 0;
  full_share(full, full->partial);
}

static kwm_status solve(kwm_full *full, struct copy *copy, double *values, int length) {
  const int n = (int)full->shape.n;
  double none = 0;
  int failed = 0;
  share_prior(full);
  const bool finite =
      full->shape.real == KWM_REAL_FLOAT ? fill_from_root(full, copy) : fill_from_covariance(full, copy);
  KWM_CHECK(full_all(full, finite), KWM_ERR_NUMERIC, "full covariance: wanted its eigenvalues, found it not finite");
  pdsyev_("N", "L", &n, copy->A, &origin, &origin, full->desc_p, values, &none, &origin, &origin, full->desc_p,
          copy->work, &length, &failed, 1, 1);
  KWM_CHECK(full_all(full, failed == 0), KWM_ERR_NUMERIC,
            "full covariance: wanted its %d eigenvalues, found no convergence (pdsyev: %d)", n, failed);
  MPI_Bcast(values, n, MPI_DOUBLE, 0, full->comm);
  return KWM_OK;
}

kwm_status kwm_full_spectrum(kwm_full *full, double *values) {
  struct copy copy = {.A = NULL};
  int length;
  kwm_status status = allocate(full, &copy, values, &length);
  if (status == KWM_OK) status = solve(full, &copy, values, length);
  drop(&copy);
  return status;
}

/* One rank: its share is the whole matrix, column by column. */
void kwm_full_covariance(const kwm_full *full, double *P) {
  const int64_t n = full->shape.n;
  KWM_ASSERT(full->shape.size == 1);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) {
      double sum = 0;
      if (full->shape.real == KWM_REAL_DOUBLE) sum = full->P[j * n + i];
      for (int64_t k = 0; k < n && full->shape.real == KWM_REAL_FLOAT; k++)
        sum += (double)full->Y[k * n + i] * (double)full->Y[k * n + j];
      P[i * n + j] = P[j * n + i] = sum;
    }
}

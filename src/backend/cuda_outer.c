/* Rows H = J ⊗ a of a matrix with P - YᵀY: Z = H (P - YᵀY), and Z Hᵀ. The m rows of a sample share a: so a matrix is
   multiplied by a alone, block of i by block, and J weighs what comes of it, m times fewer operations than by H. For
   few rows that is no gain: H P takes the time to read P, of which then a triangle is enough (cuda_large.c). */
#include "cuda_large.h"
#include "cuda_state.h"

struct outer_rows_call {
  int64_t n, m, o, i;
  const float *J, *a;
  double *H;
};

static void play_outer_rows(kwm_device *d, const void *call) {
  const struct outer_rows_call *const c = call;
  CUDA_LAUNCH(d, outer_rows, c->n, c->m, c->o, c->i, c->J, c->a, c->H);
}

void cuda_form_rows(kwm_device *d, int64_t n, int64_t m, int64_t o, int64_t i, const float *J, const float *a,
                    double *H) {
  CUDA_ASK(d, outer_rows, n, m, o, i, J, a, H);
}

static double *widened(kwm_device *d, const struct kwm_device_outer *rows, double *to) {
  CUDA_LAUNCH(d, outer_widen, rows->n * rows->i, rows->a, to);
  return to;
}

/* H, formed in the scratch. */
static double *formed(kwm_device *d, const struct kwm_device_outer *rows) {
  CUDA_LAUNCH(d, outer_rows, rows->n, rows->m, rows->o, rows->i, rows->J, rows->a, rows->scratch);
  return rows->scratch;
}

/* G (n·m, k) <- keep G + H Yᵀ for many samples. False: there is no memory for it. */
static bool times_many(kwm_device *d, const struct kwm_device_outer *rows, int64_t k, const double *Y, double keep,
                       double *G) {
  const int64_t n = rows->n, i = rows->i, p = rows->o * i;
  const double one = 1, zero = 0;
  double *const T = cuda_room(d, (size_t)(rows->o * n * k + n * i));
  if (T == NULL) return false;
  const double *const a = widened(d, rows, T + rows->o * n * k);
  CUDA_MUST(blas, cublasDgemmStridedBatched_64(cuda_blas(d), CUBLAS_OP_T, CUBLAS_OP_N, k, n, i, &one, Y, p, i, a, i, 0,
                                               &zero, T, k, n * k, rows->o));
  CUDA_LAUNCH(d, outer_weigh, rows, k, T, keep, G);
  return true;
}

/* False: neither way suits. */
static bool times(kwm_device *d, const struct kwm_device_outer *rows, int64_t k, const double *Y, double keep,
                  double *G) {
  if (rows->o > CUDA_OUTER_BLOCKS) return false;
  if (rows->n > CUDA_OUTER_FEW) return times_many(d, rows, k, Y, keep, G);
  CUDA_LAUNCH(d, outer_times, rows, k, Y, keep, G);
  return true;
}

struct outer_symm_call {
  struct kwm_device_outer rows;
  const double *P;
  int64_t k;
  const double *Y;
  double *Z;
};

/* Z <- H P, by samples. False: there is no memory for it, or it does not suit. */
static bool symm_samples(kwm_device *d, const struct outer_symm_call *c) {
  const struct kwm_device_outer *const rows = &c->rows;
  const int64_t n = rows->n, i = rows->i, p = rows->o * i;
  const double one = 1, zero = 0;
  if (n * rows->m <= KWM_OUTER_FEW || rows->m == 1 || rows->o > CUDA_OUTER_BLOCKS) return false;
  double *const U = cuda_room(d, (size_t)(rows->o * n * p + n * i));
  if (U == NULL) return false;
  const double *const a = widened(d, rows, U + rows->o * n * p);
  CUDA_MUST(blas, cublasDgemmStridedBatched_64(cuda_blas(d), CUBLAS_OP_N, CUBLAS_OP_N, p, n, i, &one, c->P, p, i * p, a,
                                               i, 0, &zero, U, p, n * p, rows->o));
  CUDA_LAUNCH(d, outer_weigh, rows, p, U, 0, c->Z);
  return true;
}

/* Z -= (H Yᵀ) Y */
static void correct(kwm_device *d, const struct outer_symm_call *c) {
  const int64_t count = c->rows.n * c->rows.m, k = c->k, p = c->rows.o * c->rows.i;
  double *const G = c->rows.scratch + count * p;
  if (!times(d, &c->rows, k, c->Y, 0, G))
    cuda_gemm_f64(d, false, true, count, k, p, 1, formed(d, &c->rows), p, c->Y, p, 0, G, k);
  if (count <= CUDA_LARGE_FEW)
    CUDA_LAUNCH(d, outer_less, count, p, k, G, c->Y, c->Z);
  else
    cuda_gemm_f64(d, false, false, count, p, k, -1, G, k, c->Y, p, 1, c->Z, p);
}

static void play_outer_symm(kwm_device *d, const void *call) {
  const struct outer_symm_call *const c = call;
  const int64_t count = c->rows.n * c->rows.m, p = c->rows.o * c->rows.i;
  if (!symm_samples(d, c)) cuda_symm_f64(d, count, p, c->P, formed(d, &c->rows), c->Z);
  if (c->k > 0) correct(d, c);
}

void cuda_outer_symm(kwm_device *d, const struct kwm_device_outer *rows, const double *P, int64_t k, const double *Y,
                     double *Z) {
  CUDA_ASK(d, outer_symm, *rows, P, k, Y, Z);
}

struct outer_share_call {
  struct kwm_device_outer rows;
  const double *Z;
  double keep;
  double *S;
};

/* Z Hᵀ is symmetric, so H Zᵀ is the same. */
static void play_outer_share(kwm_device *d, const void *call) {
  const struct outer_share_call *const c = call;
  const int64_t count = c->rows.n * c->rows.m;
  if (!times(d, &c->rows, count, c->Z, c->keep, c->S))
    cuda_gemmt_f64(d, count, c->rows.o * c->rows.i, c->Z, formed(d, &c->rows), c->keep, c->S);
}

void cuda_outer_share(kwm_device *d, const struct kwm_device_outer *rows, const double *Z, double keep, double *S) {
  CUDA_ASK(d, outer_share, *rows, Z, keep, S);
}

/* Rows from which cuBLAS and a mirror image are faster than both triangles at once. */
enum { DOWNDATE_MANY = 450 };

struct downdate_call {
  int64_t n, k;
  const double *Y;
  double *P;
};

static void play_downdate(kwm_device *d, const void *call) {
  const struct downdate_call *const c = call;
  if (c->k < DOWNDATE_MANY) {
    CUDA_LAUNCH(d, large_gram, c->n, c->k, -1, c->Y, 1, true, c->P);
  } else {
    cuda_gram_f64(d, c->n, c->k, -1, c->Y, 1, c->P);
    CUDA_LAUNCH(d, mirror_f64, c->n, c->P);
  }
}

void cuda_downdate_both(kwm_device *d, int64_t n, int64_t k, const double *Y, double *P) {
  CUDA_ASK(d, downdate, n, k, Y, P);
}

struct mirror_f64_call {
  int64_t n;
  double *A;
};

static void play_mirror_f64(kwm_device *d, const void *call) {
  const struct mirror_f64_call *const c = call;
  CUDA_LAUNCH(d, mirror_f64, c->n, c->A);
}

void cuda_mirror_upper(kwm_device *d, int64_t n, double *A) {
  CUDA_ASK(d, mirror_f64, n, A);
}

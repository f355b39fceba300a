/* The measurement update of one large symmetric matrix P (p, p), of which the upper triangle stands for all, in double
   precision by r rows: Z = H P, Z Hᵀ, L⁻¹Z and P - ZᵀZ, each by what is fastest for so many rows (measured on an H200):
   own kernels (cuda_large_*.cu, with the reasons) or cuBLAS.

   At least, at 4.1 TB/s of memory and 60 TFLOP/s, for p = 5120: 25 µs for each of the three times that a triangle is
   read or written, or, from r = 30 on (H P) and 115 on, the 2p²r and p²r operations: 1300 µs in all for r = 1000. */
#include "cuda_large.h"
#include "cuda_state.h"

/* Rows from which cuBLAS forms P - ZᵀZ faster, H P, and one triangle of Z Hᵀ than all of it; size of the blocks of L
   that are inverted, and rows above which they are. */
enum { GRAM_MANY = 400, SYMM_MANY = 257, GEMMT_MANY = 640, INVERSE = 2 * CUDA_LARGE_SOLVE };

static int processors_of(const kwm_device *d) {
  int processors = 0;
  CUDA_MUST(cuda, cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, d->index));
  return processors;
}

struct gram_call {
  int64_t n, k;
  double alpha, beta;
  const double *A;
  double *C;
};

static void play_gram(kwm_device *d, const void *call) {
  const struct gram_call *const c = call;
  const int64_t rows = c->alpha == 0 ? 0 : c->k;
  if (rows < GRAM_MANY)
    CUDA_LAUNCH(d, large_gram, c->n, rows, c->alpha, c->A, c->beta, false, c->C);
  else
    CUDA_MUST(blas, cublasDsyrk_64(cuda_blas(d), CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, c->n, c->k, &c->alpha, c->A, c->n,
                                   &c->beta, c->C, c->n));
}

/* alpha 0 takes no notice of A, as with BLAS. */
void cuda_gram_f64(kwm_device *d, int64_t n, int64_t k, double alpha, const double *A, double beta, double *C) {
  CUDA_ASK(d, gram, n, k, alpha, beta, A, C);
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* False: there is no memory for it. */
static bool symm_few(kwm_device *d, int64_t m, int64_t n, const double *A, const double *B, double *C) {
  const struct cuda_large_cut cut = cuda_large_cut_of(n, processors_of(d));
  double *const parts = cuda_room(d, (size_t)(cut.parts * m * n));
  if (parts == NULL) return false;
  CUDA_LAUNCH(d, large_symm, &cut, m, n, A, B, parts, C);
  return true;
}

/* The same by groups of rows, as large as each other. */
static bool symm_rows(kwm_device *d, int64_t m, int64_t n, const double *A, const double *B, double *C) {
  const int64_t groups = (m + CUDA_LARGE_ROWS - 1) / CUDA_LARGE_ROWS;
  const struct cuda_large_cut cut = cuda_large_rows_cut(n, processors_of(d));
  double *const parts = cuda_room(d, (size_t)(cut.parts * smaller(m, CUDA_LARGE_ROWS) * n));
  if (parts == NULL) return false;
  for (int64_t g = 0; g < groups; g++) {
    const int64_t first = g * m / groups, rows = (g + 1) * m / groups - first;
    CUDA_LAUNCH(d, large_rows, &cut, rows, n, A, B + first * n, parts, C + first * n);
  }
  return true;
}

struct symm_call {
  int64_t m, n;
  const double *A, *B;
  double *C;
};

static void play_symm(kwm_device *d, const void *call) {
  const struct symm_call *const c = call;
  const double one = 1, zero = 0;
  if (c->m <= CUDA_LARGE_FEW && symm_few(d, c->m, c->n, c->A, c->B, c->C)) return;
  if (c->m < SYMM_MANY && symm_rows(d, c->m, c->n, c->A, c->B, c->C)) return;
  CUDA_MUST(blas, cublasDsymm_64(cuda_blas(d), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, c->n, c->m, &one, c->A, c->n,
                                 c->B, c->n, &zero, c->C, c->n));
}

void cuda_symm_f64(kwm_device *d, int64_t m, int64_t n, const double *A, const double *B, double *C) {
  CUDA_ASK(d, symm, m, n, A, B, C);
}

/* False: there is no memory for it. */
static bool gemmt_few(kwm_device *d, int64_t m, int64_t k, const double *A, const double *B, double beta, double *C) {
  double *const parts = cuda_room(d, (size_t)cuda_large_share_parts(k));
  if (parts == NULL) return false;
  CUDA_LAUNCH(d, large_share, m, k, A, B, beta, C, parts, cuda_state_of(d)->scratch.done);
  return true;
}

struct gemmt_call {
  int64_t m, k;
  double beta;
  const double *A, *B;
  double *C;
};

/* Our lower triangle is cuBLAS's upper one. */
static void play_gemmt(kwm_device *d, const void *call) {
  const struct gemmt_call *const c = call;
  const double one = 1;
  if (c->m <= CUDA_LARGE_FEW && gemmt_few(d, c->m, c->k, c->A, c->B, c->beta, c->C)) return;
  if (c->m < GEMMT_MANY)
    cuda_gemm_f64(d, false, true, c->m, c->m, c->k, 1, c->A, c->k, c->B, c->k, c->beta, c->C, c->m);
  else
    CUDA_MUST(blas, cublasDsyrkx_64(cuda_blas(d), CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T, c->m, c->k, &one, c->B, c->k,
                                    c->A, c->k, &c->beta, c->C, c->m));
}

void cuda_gemmt_f64(kwm_device *d, int64_t m, int64_t k, const double *A, const double *B, double beta, double *C) {
  CUDA_ASK(d, gemmt, m, k, beta, A, B, C);
}

/* Rows [first, first + rows) of B (n, k), less what the rows above have to do with them. */
static double *rest_of(kwm_device *d, int64_t n, int64_t k, const double *L, int64_t first, int64_t rows, double *B) {
  double *const own = B + first * k;
  if (first > 0) cuda_gemm_f64(d, false, false, rows, k, first, -1, L + first * n, n, B, k, 1, own, k);
  return own;
}

static void solve_by_rows(kwm_device *d, int64_t n, int64_t k, const double *L, double *B) {
  for (int64_t first = 0; first < n; first += CUDA_LARGE_SOLVE) {
    const struct cuda_large_lower lower = {smaller(n - first, CUDA_LARGE_SOLVE), 1, L + first * (n + 1), n, 0};
    double *const own = rest_of(d, n, k, L, first, lower.n, B);
    CUDA_LAUNCH(d, large_solve, &lower, k, own, k, 0);
  }
}

/* C <- alpha A B for the `count` squares (CUDA_LARGE_SOLVE, same) that stand in a row of blocks on the diagonal of (N,
   N), of each. */
static void multiply(kwm_device *d, int64_t N, double alpha, const double *A, const double *B, double *C) {
  const int64_t size = CUDA_LARGE_SOLVE, apart = INVERSE * (N + 1);
  const double zero = 0;
  CUDA_MUST(blas, cublasDgemmStridedBatched_64(cuda_blas(d), CUBLAS_OP_N, CUBLAS_OP_N, size, size, size, &alpha, B, N,
                                               apart, A, N, apart, &zero, C, N, apart, N / INVERSE));
}

/* Blocks (INVERSE, INVERSE) on the diagonal of inverse (N, N) <- inverses of those of L (n, n), in a frame of the unit
   matrix. The quarter of `framed` (N, N) above the diagonal holds the first of two products. */
static void invert(kwm_device *d, int64_t n, const double *L, int64_t N, double *framed, double *inverse) {
  const int64_t size = CUDA_LARGE_SOLVE, below = size * N, last = below + size;
  const struct cuda_large_lower lower = {size, N / size, framed, N, last};
  CUDA_LAUNCH(d, large_frame, n, L, N, framed, inverse);
  CUDA_LAUNCH(d, large_solve, &lower, size, inverse, N, last);
  multiply(d, N, 1, framed + below, inverse, framed + size);
  multiply(d, N, -1, inverse + last, framed + size, inverse + below);
}

/* False: there is no memory for it. */
static bool solve_by_inverses(kwm_device *d, int64_t n, int64_t k, const double *L, double *B) {
  const int64_t N = (n + INVERSE - 1) / INVERSE * INVERSE, square = N * N;
  double *const framed = cuda_room(d, (size_t)(2 * square + INVERSE * k));
  if (framed == NULL) return false;
  double *const inverse = framed + square, *const rest = inverse + square;
  invert(d, n, L, N, framed, inverse);
  for (int64_t first = 0; first < n; first += INVERSE) {
    const int64_t rows = smaller(n - first, INVERSE);
    double *const own = rest_of(d, n, k, L, first, rows, B);
    cuda_copy_rows(d, 1, (size_t)(rows * k) * sizeof *rest, rest, 0, own, 0);
    cuda_gemm_f64(d, false, false, rows, k, rows, 1, inverse + first * (N + 1), N, rest, k, 0, own, k);
  }
  return true;
}

struct solve_call {
  int64_t n, k;
  const double *L;
  double *B;
};

static void play_solve(kwm_device *d, const void *call) {
  const struct solve_call *const c = call;
  if (c->n <= INVERSE || !solve_by_inverses(d, c->n, c->k, c->L, c->B)) solve_by_rows(d, c->n, c->k, c->L, c->B);
}

void cuda_solve_lower_f64(kwm_device *d, int64_t n, int64_t k, const double *L, double *B) {
  CUDA_ASK(d, solve, n, k, L, B);
}

/* Elementwise kernels, sums of columns and of outputs, and what turns a matrix over its diagonal. */
#include "cuda_map.cuh"
#include "dropout.h"

static constexpr int TILE = 32, TILE_ROWS = 8;

struct scaled_sum {
  float scale;
  __device__ float operator()(float x, float, float y) const {
    return y + scale * x;
  }
};

void cuda_add_scaled(int64_t n, float scale, const float *x, float *y, cudaStream_t stream) {
  cuda_map<1>(n, x, NULL, y, scaled_sum{scale}, stream);
}

struct squared {
  __device__ float operator()(float, float, float x) const {
    return x * x;
  }
};

void cuda_square(int64_t n, float *x, cudaStream_t stream) {
  cuda_map<0>(n, NULL, NULL, x, squared{}, stream);
}

/* sums (width) <- or += column sums of x∘y. A block of TILE x TILE threads takes TILE columns: down the rows first,
   then across the rows' threads, turned so that a warp holds what belongs to one column. */
static __global__ void __launch_bounds__(TILE *TILE)
    column_sums(int64_t n, int64_t width, const float *x, const float *y, bool adds, float *sums) {
  __shared__ double part[TILE][TILE + 1];
  const int64_t from = (int64_t)blockIdx.x * TILE, column = from + threadIdx.x;
  double sum = 0;
  if (column < width)
    for (int64_t row = threadIdx.y; row < n; row += TILE)
      sum += (double)x[row * width + column] * (double)y[row * width + column];
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = cuda_warp_sum(part[threadIdx.x][threadIdx.y]);
  const int64_t to = from + threadIdx.y;
  if (threadIdx.x == 0 && to < width) sums[to] = (float)(adds ? (double)sums[to] + sum : sum);
}

static unsigned tiles(int64_t n) {
  return (unsigned)((n + TILE - 1) / TILE);
}

void cuda_add_squares(int64_t n, int64_t width, const float *rows, float *sums, cudaStream_t stream) {
  column_sums<<<tiles(width), dim3(TILE, TILE), 0, stream>>>(n, width, rows, rows, true, sums);
}

void cuda_column_dots(int64_t n, int64_t width, const float *x, const float *y, float *dots, cudaStream_t stream) {
  column_sums<<<tiles(width), dim3(TILE, TILE), 0, stream>>>(n, width, x, y, false, dots);
}

/* A tile on or above the diagonal is read by its rows and written by its columns. */
static __global__ void mirror_tiles(int64_t n, float *C) {
  __shared__ float tile[TILE][TILE + 1];
  if (blockIdx.x < blockIdx.y) return;
  const int64_t top = (int64_t)blockIdx.y * TILE, left = (int64_t)blockIdx.x * TILE;
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
    if (top + k < n && left + threadIdx.x < n) tile[k][threadIdx.x] = C[(top + k) * n + left + threadIdx.x];
  __syncthreads();
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS) {
    const int64_t row = left + k, column = top + threadIdx.x;
    if (row < n && column < row) C[row * n + column] = tile[threadIdx.x][k];
  }
}

void cuda_mirror(int64_t n, float *C, cudaStream_t stream) {
  mirror_tiles<<<dim3(tiles(n), tiles(n)), dim3(TILE, TILE_ROWS), 0, stream>>>(n, C);
}

static __global__ void widen_upper(int64_t n, const float *A, double *B, int *not_finite) {
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t column = cuda_thread(); column < n; column += cuda_stride()) {
      const float value = column < row ? 0.0f : A[row * n + column];
      if (!isfinite(value)) *not_finite = 1;
      B[row * n + column] = (double)value;
    }
}

void cuda_widen(int64_t n, const float *A, double *B, int *not_finite, cudaStream_t stream) {
  widen_upper<<<cuda_grid(n, n), CUDA_THREADS, 0, stream>>>(n, A, B, not_finite);
}

static __global__ void narrow_transposed(int64_t n, const double *B, float *V, int *not_finite) {
  __shared__ float tile[TILE][TILE + 1];
  const int64_t top = (int64_t)blockIdx.y * TILE, left = (int64_t)blockIdx.x * TILE;
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
    if (top + k < n && left + threadIdx.x < n) {
      const float value = (float)B[(top + k) * n + left + threadIdx.x];
      if (!isfinite(value)) *not_finite = 1;
      tile[k][threadIdx.x] = value;
    }
  __syncthreads();
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
    if (left + k < n && top + threadIdx.x < n) V[(left + k) * n + top + threadIdx.x] = tile[threadIdx.x][k];
}

void cuda_narrow(int64_t n, const double *B, float *V, int *not_finite, cudaStream_t stream) {
  narrow_transposed<<<dim3(tiles(n), tiles(n)), dim3(TILE, TILE_ROWS), 0, stream>>>(n, B, V, not_finite);
}

static __global__ void check_diagonal(int64_t n, const double *W, int *not_finite) {
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride())
    if (!isfinite(W[k * n + k])) *not_finite = 1;
}

void cuda_check_factor(int64_t n, const double *W, int *not_finite, cudaStream_t stream) {
  check_diagonal<<<cuda_blocks(n), CUDA_THREADS, 0, stream>>>(n, W, not_finite);
}

static __global__ void take_pixels(int64_t n, int64_t length, const uint8_t *pixels, float *a) {
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t k = cuda_thread(); k <= length; k += cuda_stride())
      a[row * (length + 1) + k] = k < length ? (float)pixels[row * length + k] * (1.0f / 255) : 1.0f;
}

void cuda_pixels(int64_t n, int64_t length, const uint8_t *pixels, float *a, cudaStream_t stream) {
  take_pixels<<<cuda_grid(n, length + 1), CUDA_THREADS, 0, stream>>>(n, length, pixels, a);
}

static __global__ void rectify(int64_t n, int64_t w, const float *u, float *act) {
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t k = cuda_thread(); k <= w; k += cuda_stride()) {
      const float value = k < w ? u[row * w + k] : 1.0f;
      act[row * (w + 1) + k] = value <= 0 ? 0 : value; /* NaN stays NaN */
    }
}

void cuda_relu(int64_t n, int64_t w, const float *u, float *act, cudaStream_t stream) {
  rectify<<<cuda_grid(n, w + 1), CUDA_THREADS, 0, stream>>>(n, w, u, act);
}

static __global__ void rectify_rows(int64_t rows, int64_t m, int64_t w, const float *u, float *J) {
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y)
    for (int64_t k = cuda_thread(); k < w; k += cuda_stride())
      if (!(u[row / m * w + k] > 0)) J[row * w + k] = 0;
}

void cuda_relu_mask(int64_t n, int64_t m, int64_t w, const float *u, float *J, cudaStream_t stream) {
  rectify_rows<<<cuda_grid(n * m, w), CUDA_THREADS, 0, stream>>>(n * m, m, w, u, J);
}

/* A thread has four columns of a sample's rows: one draw. */
static __global__ void drop_rows(int64_t n, int64_t m, int64_t w, int64_t ld, struct kwm_dropout drop, float *x) {
  const uint32_t threshold = dropout_threshold(&drop);
  const float scale = dropout_scale(&drop);
  for (int64_t i = blockIdx.y; i < n; i += gridDim.y)
    for (int64_t quad = cuda_thread(); 4 * quad < w; quad += cuda_stride()) {
      const philox4x32_ctr_t words = dropout_words(&drop, i, quad);
      float *const first = x + i * m * ld + 4 * quad;
      const int columns = w - 4 * quad < 4 ? (int)(w - 4 * quad) : 4;
      for (int64_t r = 0; r < m; r++)
#pragma unroll
        for (int k = 0; k < 4; k++)
          if (k < columns) first[r * ld + k] *= words.v[k] < threshold ? 0.0f : scale;
    }
}

void cuda_drop(int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop, float *x,
               cudaStream_t stream) {
  const unsigned rows = (unsigned)(n < CUDA_ROWS ? n : CUDA_ROWS);
  drop_rows<<<dim3(cuda_blocks((w + 3) / 4), rows), CUDA_THREADS, 0, stream>>>(n, m, w, ld, *drop, x);
}

/* out (n, w) <- sum over r of J (n, m, w) times e (n, m), NULL: times itself. */
static __global__ void output_sums(int64_t n, int64_t m, int64_t w, const float *e, const float *J, float *out) {
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t k = cuda_thread(); k < w; k += cuda_stride()) {
      float sum = 0;
#pragma unroll 4
      for (int64_t r = 0; r < m; r++) {
        const float value = J[(row * m + r) * w + k];
        sum += (e != NULL ? e[row * m + r] : value) * value;
      }
      out[row * w + k] = sum;
    }
}

void cuda_output_score(int64_t n, int64_t m, int64_t w, const float *e, const float *J, float *g, cudaStream_t stream) {
  output_sums<<<cuda_grid(n, w), CUDA_THREADS, 0, stream>>>(n, m, w, e, J, g);
}

void cuda_output_squares(int64_t n, int64_t m, int64_t w, const float *J, float *squares, cudaStream_t stream) {
  output_sums<<<cuda_grid(n, w), CUDA_THREADS, 0, stream>>>(n, m, w, NULL, J, squares);
}

/* Row (n·m, o) of a's length at a time. */
static __global__ void outer(int64_t rows, int64_t m, int64_t o, int64_t i, const float *J, const float *a, double *H) {
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const double left = (double)J[row];
    const float *const right = a + row / o / m * i;
    for (int64_t j = cuda_thread(); j < i; j += cuda_stride()) H[row * i + j] = left * (double)right[j];
  }
}

void cuda_outer_rows(int64_t n, int64_t m, int64_t o, int64_t i, const float *J, const float *a, double *H,
                     cudaStream_t stream) {
  outer<<<cuda_grid(n * m * o, i), CUDA_THREADS, 0, stream>>>(n * m * o, m, o, i, J, a, H);
}

static __global__ void shift_diagonal(int64_t n, double value, double *A) {
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride()) A[k * n + k] += value;
}

void cuda_add_diagonal(int64_t n, double value, double *A, cudaStream_t stream) {
  shift_diagonal<<<cuda_blocks(n), CUDA_THREADS, 0, stream>>>(n, value, A);
}

static __global__ void __launch_bounds__(CUDA_THREADS) add_doubles(int64_t n, const double *x, double *y) {
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride()) y[k] += x[k];
}

void cuda_add_f64(int64_t n, const double *x, double *y, cudaStream_t stream) {
  add_doubles<<<cuda_blocks(n), CUDA_THREADS, 0, stream>>>(n, x, y);
}

/* G = keep G + H Yᵀ for the rows H = J ⊗ a: of each row of Y, T = sum_i a_si Y_oi first, which J weighs. For few
   samples: a block of threads has a row of Y (o, i), a warp multiplies 8 rows of that by a, for a share of i, numbers
   of a sum in an order of their own so that two neighbours are read at once, and many before the first is needed. */
#include "cuda_large.cuh"

enum { SAMPLES = CUDA_OUTER_FEW, STEPS = 4, CHUNK = 8 * STEPS };

/* c (SAMPLES, 8 rows) += a (n, i) times the rows of Y, numbers [from, end) of each; y, above, below: the lane's. */
template <bool PAIRED>
static __device__ inline void multiply_chunk(int i, int from, const double *y, const float *above, const float *below,
                                             double c[4]) {
  double b[STEPS][2], w[STEPS][4];
  const int place = 2 * lane_of().place;
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
    const int at = from + 8 * k + place;
    if (PAIRED && from + CHUNK <= i) {
      const double2 pair = *(const double2 *)&y[at];
      const float2 up = *(const float2 *)&above[at], down = *(const float2 *)&below[at];
      b[k][0] = pair.x, b[k][1] = pair.y;
      w[k][0] = (double)up.x, w[k][1] = (double)down.x, w[k][2] = (double)up.y, w[k][3] = (double)down.y;
    } else {
      const int x = min(at, i - 1), next = min(at + 1, i - 1);
      b[k][0] = y[x], b[k][1] = y[next];
      w[k][0] = (double)above[x], w[k][1] = (double)below[x], w[k][2] = (double)above[next],
      w[k][3] = (double)below[next];
      if (at >= i) b[k][0] = 0, w[k][0] = 0, w[k][1] = 0;
      if (at + 1 >= i) b[k][1] = 0, w[k][2] = 0, w[k][3] = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < STEPS; k++) multiply(w[k], b[k], c);
}

/* dots (shares, o, SAMPLES): every warp has rows [8 (warp / shares), ...) and a share of the chunks. */
template <bool PAIRED>
static __global__ void __launch_bounds__(THREADS)
    outer_times(struct kwm_device_outer rows, int shares, int64_t k, const double *Y, double keep, double *G) {
  extern __shared__ double dots[];
  const struct lane lane = lane_of();
  const int n = (int)rows.n, m = (int)rows.m, o = (int)rows.o, i = (int)rows.i, own = lane.warp % shares;
  const int chunks = (i + CHUNK - 1) / CHUNK, begin = own * chunks / shares, end = (own + 1) * chunks / shares;
  const float *const above = rows.a + (int64_t)min(lane.group, n - 1) * i;
  const float *const below = rows.a + (int64_t)min(lane.group + 8, n - 1) * i;
  for (int top = lane.warp / shares * 8; top < o; top += WARPS / shares * 8) {
    const double *const y = Y + ((int64_t)blockIdx.x * o + min(top + lane.group, o - 1)) * i;
    double c[4] = {};
    for (int chunk = begin; chunk < end; chunk++) multiply_chunk<PAIRED>(i, chunk * CHUNK, y, above, below, c);
#pragma unroll
    for (int v = 0; v < 4; v++) {
      const int b = top + 2 * lane.place + v % 2;
      if (b < o) dots[(own * o + b) * SAMPLES + lane.group + v / 2 * 8] = c[v];
    }
  }
  __syncthreads();
  for (int e = (int)threadIdx.x; e < o * SAMPLES; e += THREADS)
    for (int share = 1; share < shares; share++) dots[e] += dots[share * o * SAMPLES + e];
  __syncthreads();
  for (int e = (int)threadIdx.x; e < n * m; e += THREADS) {
    double *const to = &G[e * k + blockIdx.x], sum = 0;
#pragma unroll 8
    for (int b = 0; b < o; b++) sum += (double)rows.J[e * o + b] * dots[b * SAMPLES + e / m];
    *to = keep == 0 ? sum : keep * *to + sum;
  }
}

void cuda_outer_times(const struct kwm_device_outer *rows, int64_t k, const double *Y, double keep, double *G,
                      cudaStream_t stream) {
  const bool pairs = rows->i % 2 == 0 && paired(rows->i, Y, Y) && (uintptr_t)rows->a % sizeof(float2) == 0;
  const auto kernel = pairs ? outer_times<true> : outer_times<false>;
  int shares = WARPS;
  while (shares > 1 && shares * (int)ceiling(rows->o, 8) > WARPS) shares /= 2;
  kernel<<<(unsigned)k, THREADS, (size_t)(shares * rows->o * SAMPLES) * sizeof(double), stream>>>(*rows, shares, k, Y,
                                                                                                  keep, G);
}

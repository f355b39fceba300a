/* The gated recurrence on the GPU: the mathematics and the symbols of src/layer/gated.c.

   A symbol of L pixels with forcing f = g u, u = b x + c, takes from its table a^L, g F_L and g G_L; what else the host
   keeps there follows from them, which is cheaper here than to fetch it:

     h  <- a^L h + gF u       d = L a^L h + gG u (L = 1: a h)       y <- a^L y + d, w1 <- a^L w1 + r d, ...
     s8 <- a^L s8 + gF        s6: x gF        s5: (1-g) gF u        s4: x (1-g) gF u

   One pixel has F = 1, G = 0, so that its row of four floats has room for r; a run has x = 0 and the r and g of pixel
   0, which a unit keeps in registers. A warp walks through one sample with a unit in each lane: all lanes meet the same
   symbol, and rows are fetched DEPTH symbols ahead. With sensitivities two warps share the work. */
#include "cuda_map.cuh"

enum { VALUES = 256, RUN_MAX = 48, SYMBOLS = VALUES + RUN_MAX };
enum { CONSTANTS = 8, PARAMS = 10, CHANNELS = 2 };
enum { DEPTH = 4, WALKERS = 4, ENCODE_CHUNKS = 8, TABLE_SYMBOLS = 8 };

static const unsigned ALL = 0xffffffffu;

/* The tables of `count` units inside one array of floats, whose room is larger than they are: they begin where rows of
   four floats may. */
struct tables {
  float4 *rows;     /* (SYMBOLS, count): a^L, then g and r (one pixel) or gF (a run) */
  float2 *late;     /* (RUN_MAX, count): gG of runs */
  float *constants; /* (CONSTANTS, count): -e^ν, e^φ, b, c, r and g of pixel 0 */
  int64_t count;
};

static struct tables tables_in(float *room, int64_t count) {
  float *const at = (float *)(((uintptr_t)room + sizeof(float4) - 1) / sizeof(float4) * sizeof(float4));
  struct tables tables;
  tables.rows = (float4 *)at;
  tables.late = (float2 *)(at + 4 * SYMBOLS * count);
  tables.constants = at + (4 * SYMBOLS + 2 * RUN_MAX) * count;
  tables.count = count;
  return tables;
}

/* Rows of single pixels: gates in double, the decay's modulus in float, as on the host. */
static __device__ float4 row_of_value(const double *p, double en, double co, double si, int value) {
  const double x = value / 255.0;
  const float r = (float)(1 / (1 + exp(-p[2] * x - p[3]))), g = (float)(1 / (1 + exp(-p[4] * x - p[5])));
  const float m = expf(-(float)en * r);
  return make_float4(m * (float)co, m * (float)si, g, r);
}

/* Row of a run of L background pixels with the gates r, g; late <- gG. */
static __device__ float4 row_of_run(double r, double g, double en, double co, double si, int L, float2 *late) {
  const double m = exp(-en * r), a_re = m * co, a_im = m * si;
  double A_re = a_re, A_im = a_im, F_re = 1, F_im = 0, G_re = 0, G_im = 0;
  for (int l = 2; l <= L; l++) {
    const double aF_re = a_re * F_re - a_im * F_im, aF_im = a_re * F_im + a_im * F_re;
    const double aG_re = a_re * G_re - a_im * G_im, aG_im = a_re * G_im + a_im * G_re;
    const double aA_re = a_re * A_re - a_im * A_im, aA_im = a_re * A_im + a_im * A_re;
    A_re = aA_re, A_im = aA_im, G_re = aG_re + aF_re, G_im = aG_im + aF_im, F_re = aF_re + 1, F_im = aF_im;
  }
  *late = make_float2((float)(g * G_re), (float)(g * G_im));
  return make_float4((float)A_re, (float)A_im, (float)(g * F_re), (float)(g * F_im));
}

static __global__ void __launch_bounds__(CUDA_WARP *TABLE_SYMBOLS)
    fill_tables(const float *__restrict__ theta, struct tables to) {
  const int64_t count = to.count, u = (int64_t)blockIdx.x * CUDA_WARP + threadIdx.x;
  const int symbol = (int)(blockIdx.y * TABLE_SYMBOLS + threadIdx.y);
  if (u >= count || symbol >= SYMBOLS) return;
  double p[PARAMS], co, si;
  for (int k = 0; k < PARAMS; k++) p[k] = (double)theta[u * PARAMS + k];
  const double en = exp(p[0]), om = exp(p[1]);
  sincos(om, &si, &co);
  if (symbol < VALUES) {
    to.rows[symbol * count + u] = row_of_value(p, en, co, si, symbol);
  } else {
    const double r = 1 / (1 + exp(-p[3])), g = 1 / (1 + exp(-p[5]));
    to.rows[symbol * count + u] =
        row_of_run(r, g, en, co, si, symbol - VALUES + 1, &to.late[(symbol - VALUES) * count + u]);
  }
  if (symbol != 0) return;
  const float4 row = row_of_value(p, en, co, si, 0);
  const float constants[CONSTANTS] = {(float)-en,  (float)om,   (float)p[6], (float)p[7],
                                      (float)p[8], (float)p[9], row.w,       row.z};
  for (int k = 0; k < CONSTANTS; k++) to.constants[k * count + u] = constants[k];
}

void cuda_gated_tables(int64_t count, const float *theta, float *tables, cudaStream_t stream) {
  const dim3 grid((unsigned)((count + CUDA_WARP - 1) / CUDA_WARP), (SYMBOLS + TABLE_SYMBOLS - 1) / TABLE_SYMBOLS);
  fill_tables<<<grid, dim3(CUDA_WARP, TABLE_SYMBOLS), 0, stream>>>(theta, tables_in(tables, count));
}

/* What one warp knows of a sequence so far. */
struct encoder {
  int bright;  /* the last pixel that was not background, -1 before the first */
  int symbols; /* so many of them */
};

/* Symbols are written where they end: a pixel that is not background at once, a piece of a run at its last pixel.
   `value`, `after`: pixels t and t + 1, not background beyond the end. */
static __device__ void encode_chunk(struct encoder *state, int t, bool inside, int value, int after,
                                    uint16_t *symbols) {
  const unsigned lane = threadIdx.x, below = (1u << lane) - 1, bright = __ballot_sync(ALL, value != 0);
  const int last = (bright & below) != 0 ? t - (int)lane + 31 - __clz((int)(bright & below)) : state->bright;
  const int place = (t - last - 1) % RUN_MAX;
  const bool ends = inside && (value != 0 || after != 0 || place == RUN_MAX - 1);
  const unsigned ending = __ballot_sync(ALL, ends);
  if (ends) {
    const int symbol = value != 0 ? value : place == 0 ? 0 : VALUES + place;
    symbols[state->symbols + __popc(ending & below)] = (uint16_t)symbol;
  }
  state->symbols += __popc(ending);
  if (bright != 0) state->bright = t - (int)lane + 31 - __clz((int)bright);
}

static __global__ void __launch_bounds__(CUDA_WARP)
    encode(int length, const uint8_t *__restrict__ pixels, uint16_t *__restrict__ symbols,
           int32_t *__restrict__ n_symbols) {
  const int64_t i = blockIdx.x;
  const uint8_t *const from = pixels + i * length;
  struct encoder state = {-1, 0};
  for (int first = 0; first < length; first += ENCODE_CHUNKS * CUDA_WARP) {
    int value[ENCODE_CHUNKS], after[ENCODE_CHUNKS];
#pragma unroll
    for (int c = 0; c < ENCODE_CHUNKS; c++) {
      const int t = first + c * CUDA_WARP + (int)threadIdx.x;
      value[c] = t < length ? from[t] : 255;
      after[c] = t + 1 < length ? from[t + 1] : 255;
    }
#pragma unroll
    for (int c = 0; c < ENCODE_CHUNKS; c++) {
      const int t = first + c * CUDA_WARP + (int)threadIdx.x;
      encode_chunk(&state, t, t < length, value[c], after[c], symbols + i * length);
    }
  }
  if (threadIdx.x == 0) n_symbols[i] = state.symbols;
}

void cuda_gated_encode(int64_t n, int64_t length, const uint8_t *pixels, uint16_t *symbols, int32_t *n_symbols,
                       cudaStream_t stream) {
  encode<<<(unsigned)n, CUDA_WARP, 0, stream>>>(kwm_int(length), pixels, symbols, n_symbols);
}

/* One symbol, as it is fetched for one unit. */
struct step {
  float4 row;
  float2 late; /* gG */
  float x, L;  /* pixel; pixels */
  bool run;
};

/* A unit's constants. */
struct unit {
  float nu, phi, b_re, b_im, c_re, c_im, r, g;
};

static __device__ struct unit unit_at(const struct tables &tables, int64_t u) {
  const float *const at = tables.constants + u;
  const int64_t count = tables.count;
  const struct unit unit = {at[0],         at[count],     at[2 * count], at[3 * count],
                            at[4 * count], at[5 * count], at[6 * count], at[7 * count]};
  return unit;
}

struct pair {
  float re, im;
};

/* a z. Rounded as written, so that prediction and training see the same bits. */
static __device__ struct pair times(float a_re, float a_im, struct pair z) {
  const struct pair product = {__fmaf_rn(a_re, z.re, -__fmul_rn(a_im, z.im)),
                               __fmaf_rn(a_re, z.im, __fmul_rn(a_im, z.re))};
  return product;
}

/* z <- a z + f, the forcing first: two multiply-adds a component from step to step. */
static __device__ void rotate(const struct step &step, struct pair *z, float f_re, float f_im) {
  const float turned = (f_re - step.row.y * z->im) + step.row.x * z->re;
  z->im = (f_im + step.row.y * z->re) + step.row.x * z->im;
  z->re = turned;
}

static __device__ struct pair input(const struct step &step, const struct unit &unit) {
  const struct pair u = {__fmaf_rn(unit.b_re, step.x, unit.c_re), __fmaf_rn(unit.b_im, step.x, unit.c_im)};
  return u;
}

/* gF u */
static __device__ struct pair force(const struct step &step, struct pair u) {
  return times(step.row.z, step.run ? step.row.w : 0.0f, u);
}

/* h <- a^L h + gF u; returns a^L h. */
static __device__ struct pair advance(const struct step &step, struct pair u, struct pair *h) {
  const struct pair t = times(step.row.x, step.row.y, *h), f = force(step, u);
  h->re = __fadd_rn(t.re, f.re);
  h->im = __fadd_rn(t.im, f.im);
  return t;
}

/* What a warp carries through the symbols: the state alone, the traces driven by it, those driven by the input. LATE:
   whether gG is needed. */
struct state_walk {
  static const bool LATE = false;
  struct pair h;

  __device__ void take(const struct step &step, const struct unit &unit) {
    advance(step, input(step, unit), &h);
  }
};

struct decay_walk {
  static const bool LATE = true;
  struct pair h, y, w1, w2, w3;

  __device__ void take(const struct step &step, const struct unit &unit) {
    const struct pair u = input(step, unit), t = advance(step, u, &h);
    const float r = step.run ? unit.r : step.row.w, k = r * (1 - r);
    const float d_re = step.L * t.re + (step.late.x * u.re - step.late.y * u.im);
    const float d_im = step.L * t.im + (step.late.x * u.im + step.late.y * u.re);
    const float k_re = k * d_re, k_im = k * d_im;
    rotate(step, &y, d_re, d_im);
    rotate(step, &w1, r * d_re, r * d_im);
    rotate(step, &w2, k_re, k_im);
    rotate(step, &w3, step.x * k_re, step.x * k_im);
  }
};

struct force_walk {
  static const bool LATE = false;
  struct pair s4, s5, s6, s8;

  __device__ void take(const struct step &step, const struct unit &unit) {
    const struct pair f = force(step, input(step, unit));
    const float rest = 1 - (step.run ? unit.g : step.row.z), f_re = rest * f.re, f_im = rest * f.im;
    rotate(step, &s4, step.x * f_re, step.x * f_im);
    rotate(step, &s5, f_re, f_im);
    rotate(step, &s6, step.x * step.row.z, 0.0f); /* x = 0 in a run */
    rotate(step, &s8, step.row.z, step.run ? step.row.w : 0.0f);
  }
};

/* 32 symbols of a sequence, one a lane: where the symbol's rows begin, and its pixel x, or -L for a run of L. */
struct chunk {
  int offset;
  float number;
};

static __device__ struct chunk chunk_at(const struct tables &tables, const uint16_t *symbols, int n, int first) {
  const int at = first + (int)threadIdx.x, symbol = at < n ? symbols[at] : 0;
  const struct chunk chunk = {symbol * (int)tables.count,
                              symbol < VALUES ? (float)symbol / 255.0f : (float)(VALUES - 1 - symbol)};
  return chunk;
}

template <bool LATE>
static __device__ struct step fetch(const struct tables &tables, int64_t u, const struct chunk &chunk, int lane) {
  const int offset = __shfl_sync(ALL, chunk.offset, lane);
  const float number = __shfl_sync(ALL, chunk.number, lane);
  struct step step;
  step.row = __ldg(tables.rows + u + offset);
  step.run = number < 0;
  step.late = LATE && step.run ? __ldg(tables.late + u + offset - VALUES * tables.count) : make_float2(0, 0);
  step.x = step.run ? 0.0f : number;
  step.L = step.run ? -number : 1.0f;
  return step;
}

/* Takes all n symbols of a sequence in their order; for a whole warp. */
template <class WALK>
static __device__ void walk(const struct tables &tables, int64_t u, const struct unit &unit,
                            const uint16_t *__restrict__ symbols, int n, WALK *to) {
  struct chunk now = chunk_at(tables, symbols, n, 0), next = chunk_at(tables, symbols, n, CUDA_WARP);
  struct step ahead[DEPTH];
#pragma unroll
  for (int j = 0; j < DEPTH; j++) ahead[j] = fetch<WALK::LATE>(tables, u, now, j);
  int i = 0;
  for (; i + DEPTH <= n; i += DEPTH) {
    if ((i + DEPTH) % CUDA_WARP == 0) {
      now = next;
      next = chunk_at(tables, symbols, n, i + DEPTH + CUDA_WARP);
    }
#pragma unroll
    for (int j = 0; j < DEPTH; j++) {
      const struct step step = ahead[j];
      ahead[j] = fetch<WALK::LATE>(tables, u, now, (i + DEPTH + j) % CUDA_WARP);
      to->take(step, unit);
    }
  }
#pragma unroll
  for (int j = 0; j < DEPTH; j++)
    if (i + j < n) to->take(ahead[j], unit);
}

/* Arguments of the walks. */
struct sequences {
  int64_t n, length, groups; /* groups: of CUDA_WARP units */
  const uint16_t *symbols;
  const int32_t *n_symbols;
  float *h, *S;
};

static __device__ void store_pair(float *S, int64_t count, int k, float re, float im) {
  S[k * count] = re;
  S[(PARAMS + k) * count] = im;
}

static __device__ void store_decay(const struct decay_walk &walked, const struct unit &unit, int64_t count, float *h,
                                   float *S) {
  h[0] = walked.h.re;
  h[count] = walked.h.im;
  store_pair(S, count, 0, unit.nu * walked.w1.re, unit.nu * walked.w1.im);
  store_pair(S, count, 1, -unit.phi * walked.y.im, unit.phi * walked.y.re);
  store_pair(S, count, 2, unit.nu * walked.w3.re, unit.nu * walked.w3.im);
  store_pair(S, count, 3, unit.nu * walked.w2.re, unit.nu * walked.w2.im);
}

static __device__ void store_force(const struct force_walk &walked, int64_t count, float *S) {
  store_pair(S, count, 4, walked.s4.re, walked.s4.im);
  store_pair(S, count, 5, walked.s5.re, walked.s5.im);
  store_pair(S, count, 6, walked.s6.re, walked.s6.im);
  store_pair(S, count, 7, -walked.s6.im, walked.s6.re);
  store_pair(S, count, 8, walked.s8.re, walked.s8.im);
  store_pair(S, count, 9, -walked.s8.im, walked.s8.re);
}

/* Neighbouring blocks have different units, so that those of a multiprocessor are often the same and the first cache
   keeps their rows. Lanes beyond the last unit walk along with it and store nothing. */
template <bool SENSITIVE>
static __global__ void __launch_bounds__(CUDA_WARP *WALKERS)
    run_sequences(const struct tables tables, const struct sequences all) {
  const int64_t parts = SENSITIVE ? 2 : 1, worker = blockIdx.x / all.groups * WALKERS + threadIdx.y;
  const int64_t i = worker / parts, u = blockIdx.x % all.groups * CUDA_WARP + threadIdx.x, count = tables.count;
  if (i >= all.n) return;
  const int64_t here = u < count ? u : count - 1;
  const struct unit unit = unit_at(tables, here);
  const uint16_t *const symbols = all.symbols + i * all.length;
  float *const h = all.h + i * CHANNELS * count + u;
  if (!SENSITIVE) {
    struct state_walk walked = {};
    walk(tables, here, unit, symbols, all.n_symbols[i], &walked);
    if (u >= count) return;
    h[0] = walked.h.re;
    h[count] = walked.h.im;
  } else if (worker % parts == 0) {
    struct decay_walk walked = {};
    walk(tables, here, unit, symbols, all.n_symbols[i], &walked);
    if (u < count) store_decay(walked, unit, count, h, all.S + i * CHANNELS * PARAMS * count + u);
  } else {
    struct force_walk walked = {};
    walk(tables, here, unit, symbols, all.n_symbols[i], &walked);
    if (u < count) store_force(walked, count, all.S + i * CHANNELS * PARAMS * count + u);
  }
}

void cuda_gated_forward(int64_t n, int64_t length, int64_t count, const float *tables, const uint16_t *symbols,
                        const int32_t *n_symbols, float *h, float *S, cudaStream_t stream) {
  KWM_ASSERT(SYMBOLS * count <= INT32_MAX);
  const int64_t groups = (count + CUDA_WARP - 1) / CUDA_WARP, workers = S == NULL ? n : 2 * n;
  const struct sequences all = {n, length, groups, symbols, n_symbols, h, S};
  const unsigned blocks = (unsigned)((workers + WALKERS - 1) / WALKERS * groups);
  const struct tables held = tables_in((float *)tables, count);
  if (S == NULL)
    run_sequences<false><<<blocks, dim3(CUDA_WARP, WALKERS), 0, stream>>>(held, all);
  else
    run_sequences<true><<<blocks, dim3(CUDA_WARP, WALKERS), 0, stream>>>(held, all);
}

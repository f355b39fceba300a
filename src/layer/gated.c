/* Gated complex diagonal recurrence with forward sensitivities (equations.md 3(h)), for inputs that take 256 values.

   Gates depend only on the pixel's value, so a step is an affine map chosen from a table. A run of L background pixels
   (value 0) is the same map applied L times, again an affine map, so the table also holds runs; a sequence of 784
   pixels becomes some 200 symbols, exactly (up to rounding). Per unit, with t = a h the decayed state, seven traces
   suffice for ten sensitivities (b, c enter linearly and Im b, Im c are i times Re b, Re c):

     y <- a y + t        w1 <- a w1 + r t       w2 <- a w2 + r(1-r) t       w3 <- a w3 + x r(1-r) t
     s4 <- a s4 + x g(1-g) u     s5 <- a s5 + g(1-g) u     s6 <- a s6 + x g     s8 <- a s8 + g        u = b x + c
     ∂h/∂ν = -e^ν w1   ∂h/∂φ = i e^φ y   ∂h/∂ρ = -e^ν w3   ∂h/∂ρ₀ = -e^ν w2   ∂h/∂(γ,γ₀) = s4, s5
     ∂h/∂(Re b, Im b, Re c, Im c) = s6, i s6, s8, i s8

   A run of L equal pixels with forcing f = g u:  F_L = sum_{i<L} a^i,  G_L = sum_{i=1..L} a^{L-i+1} F_{i-1};
     d = L a^L h + f G_L (what a single t is for L = 1),  h <- a^L h + f F_L,  y <- a^L y + d,  w <- a^L w + r d, ... */
#include "kwm/layer.h"

#include <math.h>
#include <string.h>

#include "kwm/device_ops.h"

#if defined(__AVX512F__)
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
typedef float vec __attribute__((vector_size(LANES * sizeof(float))));

/* Symbols 0..255 are single pixels, 255 + L a run of L >= 2 background pixels (longer runs take several symbols). */
enum { VALUES = 256, RUN_MAX = 48, SYMBOLS = VALUES + RUN_MAX };

/* Table rows: what one symbol does to LANES units. */
struct decay_row { /* state h and the traces driven by t = a h */
  vec a_re, a_im, h_re, h_im, d_re, d_im, length, r, k, kx;
};
struct force_row { /* traces driven by the input alone */
  vec a_re, a_im, s4_re, s4_im, s5_re, s5_im, s6_re, s6_im, s8_re, s8_im;
};

/* Per-unit constants that turn traces into sensitivities. */
struct unit_scale {
  vec nu, phi; /* -e^ν, e^φ */
};

struct kwm_gated {
  kwm_device *device;
  int64_t count, length, n_max;
  float *tables;            /* of a device, in its own form; it has none of the next three */
  struct decay_row *decay;  /* (count/LANES, SYMBOLS) */
  struct force_row *force;  /* (count/LANES, SYMBOLS) */
  struct unit_scale *scale; /* (count/LANES) */
  uint16_t *symbols;        /* (n_max, length) */
  int32_t *n_symbols;       /* (n_max) */
};

static size_t table_rows(int64_t count) {
  return (size_t)(count / LANES) * SYMBOLS;
}

size_t kwm_gated_bytes(int64_t count, int64_t length, int64_t n_max) {
  return kwm_mem_rounded(sizeof(struct kwm_gated)) + kwm_mem_rounded(table_rows(count) * sizeof(struct decay_row)) +
         kwm_mem_rounded(table_rows(count) * sizeof(struct force_row)) +
         kwm_mem_rounded((size_t)(count / LANES) * sizeof(struct unit_scale)) +
         kwm_mem_rounded((size_t)(n_max * length) * sizeof(uint16_t)) +
         kwm_mem_rounded((size_t)n_max * sizeof(int32_t));
}

size_t kwm_gated_device_bytes(int64_t count, int64_t length, int64_t n_max) {
  return (size_t)kwm_device_gated_floats(count) * sizeof(float) + (size_t)(n_max * length) * sizeof(uint16_t) +
         (size_t)n_max * sizeof(int32_t);
}

static kwm_status create_tables(kwm_gated *g) {
  const size_t rows = table_rows(g->count);
  if (g->device != NULL)
    return kwm_device_alloc(g->device, (void **)&g->tables, (size_t)kwm_device_gated_floats(g->count) * sizeof(float),
                            "gated tables");
  KWM_TRY(kwm_alloc((void **)&g->decay, rows * sizeof *g->decay, "gated tables"));
  KWM_TRY(kwm_alloc((void **)&g->force, rows * sizeof *g->force, "gated tables"));
  return kwm_alloc((void **)&g->scale, (size_t)(g->count / LANES) * sizeof *g->scale, "gated tables");
}

kwm_status kwm_gated_create(kwm_gated **gated, kwm_device *device, int64_t count, int64_t length, int64_t n_max) {
  KWM_ASSERT(count % KWM_GATED_LANES == 0);
  KWM_TRY(kwm_alloc((void **)gated, sizeof **gated, "gated layer"));
  kwm_gated *g = *gated;
  g->device = device;
  g->count = count;
  g->length = length;
  g->n_max = n_max;
  KWM_TRY(create_tables(g));
  const size_t symbols = (size_t)(n_max * length) * sizeof *g->symbols;
  KWM_TRY(kwm_device_alloc(device, (void **)&g->symbols, symbols, "pixel runs"));
  return kwm_device_alloc(device, (void **)&g->n_symbols, (size_t)n_max * sizeof *g->n_symbols, "pixel runs");
}

void kwm_gated_destroy(kwm_gated *gated) {
  if (gated == NULL) return;
  kwm_free(gated->decay);
  kwm_free(gated->force);
  kwm_free(gated->scale);
  kwm_device_free(gated->device, gated->tables);
  kwm_device_free(gated->device, gated->symbols);
  kwm_device_free(gated->device, gated->n_symbols);
  kwm_free(gated);
}

/* One unit's constants in double precision. */
struct unit {
  double en, om, p[KWM_GATED_PARAMS];
  double rho_ratio,
      gamma_ratio; /* e^{-ρ/255}, e^{-γ/255}: the gates' exponentials form geometric sequences over values */
};

static struct unit unit_of(const float *theta) {
  struct unit unit;
  for (int k = 0; k < KWM_GATED_PARAMS; k++) unit.p[k] = (double)theta[k];
  unit.en = exp(unit.p[0]);
  unit.om = exp(unit.p[1]);
  unit.rho_ratio = exp(-unit.p[2] / 255);
  unit.gamma_ratio = exp(-unit.p[4] / 255);
  return unit;
}

static void fill_values(const struct unit *unit, int lane, struct decay_row *decay, struct force_row *force) {
  const double *const p = unit->p;
  const float co = (float)cos(unit->om), si = (float)sin(unit->om), en = (float)unit->en;
  double rho = exp(-p[3]), gamma = exp(-p[5]);
  for (int v = 0; v < VALUES; v++, rho *= unit->rho_ratio, gamma *= unit->gamma_ratio) {
    const float x = (float)(v / 255.0), r = (float)(1 / (1 + rho)), g = (float)(1 / (1 + gamma));
    const float m = expf(-en * r), u_re = (float)p[6] * x + (float)p[8], u_im = (float)p[7] * x + (float)p[9];
    const float k = r * (1 - r), q = g * (1 - g);
    struct decay_row *const d = &decay[v];
    struct force_row *const f = &force[v];
    d->a_re[lane] = f->a_re[lane] = m * co;
    d->a_im[lane] = f->a_im[lane] = m * si;
    d->h_re[lane] = g * u_re;
    d->h_im[lane] = g * u_im;
    d->d_re[lane] = d->d_im[lane] = 0;
    d->length[lane] = 1;
    d->r[lane] = r;
    d->k[lane] = k;
    d->kx[lane] = k * x;
    f->s4_re[lane] = q * x * u_re;
    f->s4_im[lane] = q * x * u_im;
    f->s5_re[lane] = q * u_re;
    f->s5_im[lane] = q * u_im;
    f->s6_re[lane] = g * x;
    f->s6_im[lane] = 0;
    f->s8_re[lane] = g;
    f->s8_im[lane] = 0;
  }
}

/* Rows of runs of L = 2..RUN_MAX background pixels, from the row of one. */
static void fill_runs(const struct unit *unit, int lane, struct decay_row *decay, struct force_row *force) {
  const double r = 1 / (1 + exp(-unit->p[3])), g = 1 / (1 + exp(-unit->p[5])), m = exp(-unit->en * r);
  const double a_re = m * cos(unit->om), a_im = m * sin(unit->om), c_re = unit->p[8], c_im = unit->p[9];
  double A_re = a_re, A_im = a_im, F_re = 1, F_im = 0, G_re = 0, G_im = 0;
  for (int L = 2; L <= RUN_MAX; L++) {
    const double aF_re = a_re * F_re - a_im * F_im, aF_im = a_re * F_im + a_im * F_re;
    const double aG_re = a_re * G_re - a_im * G_im, aG_im = a_re * G_im + a_im * G_re;
    const double aA_re = a_re * A_re - a_im * A_im, aA_im = a_re * A_im + a_im * A_re;
    A_re = aA_re, A_im = aA_im, G_re = aG_re + aF_re, G_im = aG_im + aF_im, F_re = aF_re + 1, F_im = aF_im;
    struct decay_row *const d = &decay[VALUES - 1 + L];
    struct force_row *const f = &force[VALUES - 1 + L];
    d->a_re[lane] = f->a_re[lane] = (float)A_re;
    d->a_im[lane] = f->a_im[lane] = (float)A_im;
    d->h_re[lane] = (float)(g * (c_re * F_re - c_im * F_im));
    d->h_im[lane] = (float)(g * (c_re * F_im + c_im * F_re));
    d->d_re[lane] = (float)(g * (c_re * G_re - c_im * G_im));
    d->d_im[lane] = (float)(g * (c_re * G_im + c_im * G_re));
    d->length[lane] = (float)L;
    d->r[lane] = decay[0].r[lane];
    d->k[lane] = decay[0].k[lane];
    d->kx[lane] = 0;
    f->s4_re[lane] = f->s4_im[lane] = f->s6_re[lane] = f->s6_im[lane] = 0;
    f->s5_re[lane] = (1 - (float)g) * d->h_re[lane];
    f->s5_im[lane] = (1 - (float)g) * d->h_im[lane];
    f->s8_re[lane] = (float)(g * F_re);
    f->s8_im[lane] = (float)(g * F_im);
  }
}

void kwm_gated_refresh(kwm_gated *gated, const float *theta) {
  if (gated->device != NULL) {
    gated->device->ops->gated_tables(gated->device, gated->count, theta, gated->tables);
    return;
  }
  for (int64_t u = 0; u < gated->count; u++) {
    const struct unit unit = unit_of(theta + u * KWM_GATED_PARAMS);
    struct decay_row *const decay = gated->decay + u / LANES * SYMBOLS;
    struct force_row *const force = gated->force + u / LANES * SYMBOLS;
    const int lane = (int)(u % LANES);
    gated->scale[u / LANES].nu[lane] = (float)-unit.en;
    gated->scale[u / LANES].phi[lane] = (float)unit.om;
    fill_values(&unit, lane, decay, force);
    fill_runs(&unit, lane, decay, force);
  }
}

/* Writes the symbols of one sequence; returns their number. */
static int32_t encode(const uint8_t *pixels, int64_t length, uint16_t *symbols) {
  int32_t n = 0;
  for (int64_t t = 0; t < length;) {
    if (pixels[t] != 0) {
      symbols[n++] = pixels[t++];
      continue;
    }
    int64_t run = 1;
    while (run < RUN_MAX && t + run < length && pixels[t + run] == 0) run++;
    symbols[n++] = run == 1 ? 0 : (uint16_t)(VALUES - 1 + run);
    t += run;
  }
  return n;
}

static inline void store(float *to, vec value) {
  memcpy(to, &value, sizeof value);
}

/* out: this sample's S at these units; trace pair (re, im) as parameter k. */
static inline void store_pair(float *S, int64_t count, int k, vec re, vec im) {
  store(S + k * count, re);
  store(S + (KWM_GATED_PARAMS + k) * count, im);
}

/* (re, im) <- a (re, im) + (f_re, f_im): two multiply-adds a component, the forcing first, so that the chain from step
   to step is as short as it can be. */
static inline void rotate(const vec a_re, const vec a_im, vec *re, vec *im, const vec f_re, const vec f_im) {
  const vec turned = (f_re - a_im * *im) + a_re * *re;
  *im = (f_im + a_im * *re) + a_re * *im;
  *re = turned;
}

static void run_state(const struct decay_row *rows, const uint16_t *symbols, int32_t n, int64_t count, float *h) {
  vec h_re = {0}, h_im = {0};
  for (int32_t i = 0; i < n; i++) {
    const struct decay_row *const row = &rows[symbols[i]];
    /* Rounded as in run_decay: prediction and training see the same bits. */
    const vec t_re = row->a_re * h_re - row->a_im * h_im, t_im = row->a_re * h_im + row->a_im * h_re;
    h_re = t_re + row->h_re;
    h_im = t_im + row->h_im;
  }
  store(h, h_re);
  store(h + count, h_im);
}

static void run_decay(const struct decay_row *rows, const struct unit_scale *scale, const uint16_t *symbols, int32_t n,
                      int64_t count, float *h, float *S) {
  vec h_re = {0}, h_im = {0}, y_re = {0}, y_im = {0}, w1_re = {0}, w1_im = {0}, w2_re = {0}, w2_im = {0}, w3_re = {0},
      w3_im = {0};
  for (int32_t i = 0; i < n; i++) {
    const struct decay_row *const row = &rows[symbols[i]];
    const vec a_re = row->a_re, a_im = row->a_im;
    const vec t_re = a_re * h_re - a_im * h_im, t_im = a_re * h_im + a_im * h_re;
    h_re = t_re + row->h_re;
    h_im = t_im + row->h_im;
    const vec d_re = row->length * t_re + row->d_re, d_im = row->length * t_im + row->d_im;
    rotate(a_re, a_im, &y_re, &y_im, d_re, d_im);
    rotate(a_re, a_im, &w1_re, &w1_im, row->r * d_re, row->r * d_im);
    rotate(a_re, a_im, &w2_re, &w2_im, row->k * d_re, row->k * d_im);
    rotate(a_re, a_im, &w3_re, &w3_im, row->kx * d_re, row->kx * d_im);
  }
  store(h, h_re);
  store(h + count, h_im);
  store_pair(S, count, 0, scale->nu * w1_re, scale->nu * w1_im);
  store_pair(S, count, 1, -scale->phi * y_im, scale->phi * y_re);
  store_pair(S, count, 2, scale->nu * w3_re, scale->nu * w3_im);
  store_pair(S, count, 3, scale->nu * w2_re, scale->nu * w2_im);
}

static void run_force(const struct force_row *rows, const uint16_t *symbols, int32_t n, int64_t count, float *S) {
  vec s4_re = {0}, s4_im = {0}, s5_re = {0}, s5_im = {0}, s6_re = {0}, s6_im = {0}, s8_re = {0}, s8_im = {0};
  for (int32_t i = 0; i < n; i++) {
    const struct force_row *const row = &rows[symbols[i]];
    const vec a_re = row->a_re, a_im = row->a_im;
    rotate(a_re, a_im, &s4_re, &s4_im, row->s4_re, row->s4_im);
    rotate(a_re, a_im, &s5_re, &s5_im, row->s5_re, row->s5_im);
    rotate(a_re, a_im, &s6_re, &s6_im, row->s6_re, row->s6_im);
    rotate(a_re, a_im, &s8_re, &s8_im, row->s8_re, row->s8_im);
  }
  store_pair(S, count, 4, s4_re, s4_im);
  store_pair(S, count, 5, s5_re, s5_im);
  store_pair(S, count, 6, s6_re, s6_im);
  store_pair(S, count, 7, -s6_im, s6_re);
  store_pair(S, count, 8, s8_re, s8_im);
  store_pair(S, count, 9, -s8_im, s8_re);
}

static void encode_all(kwm_gated *gated, int64_t n, const uint8_t *pixels, const int32_t *index) {
  KWM_ASSERT(n <= gated->n_max);
  for (int64_t i = 0; i < n; i++)
    gated->n_symbols[i] = encode(pixels + index[i] * gated->length, gated->length, gated->symbols + i * gated->length);
}

static void forward_on_device(kwm_gated *gated, int64_t n, const uint8_t *pixels, float *h, float *S) {
  kwm_device *const d = gated->device;
  KWM_ASSERT(n <= gated->n_max);
  if (n == 0) return;
  d->ops->gated_encode(d, n, gated->length, pixels, gated->symbols, gated->n_symbols);
  d->ops->gated_forward(d, n, gated->length, gated->count, gated->tables, gated->symbols, gated->n_symbols, h, S);
}

void kwm_gated_forward(kwm_gated *gated, int64_t n, const uint8_t *pixels, const int32_t *index, float *h, float *S) {
  if (gated->device != NULL) {
    forward_on_device(gated, n, pixels, h, S);
    return;
  }
  encode_all(gated, n, pixels, index);
  const int64_t count = gated->count;
  for (int64_t group = 0; group < count / LANES; group++) {
    const struct decay_row *const decay = gated->decay + group * SYMBOLS;
    const struct force_row *const force = gated->force + group * SYMBOLS;
    for (int64_t i = 0; i < n; i++) {
      const uint16_t *const symbols = gated->symbols + i * gated->length;
      float *const to = h + i * KWM_GATED_CHANNELS * count + group * LANES;
      if (S == NULL) {
        run_state(decay, symbols, gated->n_symbols[i], count, to);
        continue;
      }
      float *const Si = S + i * KWM_GATED_CHANNELS * KWM_GATED_PARAMS * count + group * LANES;
      run_decay(decay, &gated->scale[group], symbols, gated->n_symbols[i], count, to, Si);
      run_force(force, symbols, gated->n_symbols[i], count, Si);
    }
  }
}

/* Counted from the loops above: multiplications and additions of one symbol, and of one pixel of the plain recurrence
   (complex h and ten complex sensitivities: 4 multiply-adds each for a s, 2 for the forcing). */
enum { SYMBOL_OPERATIONS = 6 + 2 + 4 + 8 + 3 * 10 + 4 * 8, PIXEL_OPERATIONS = 11 * (8 + 4) };

void kwm_gated_operations(kwm_gated *gated, int64_t n, const uint8_t *pixels, const int32_t *index, double *executed,
                          double *plain) {
  KWM_ASSERT(gated->device == NULL);
  encode_all(gated, n, pixels, index);
  double symbols = 0;
  for (int64_t i = 0; i < n; i++) symbols += gated->n_symbols[i];
  *executed = symbols * SYMBOL_OPERATIONS * (double)gated->count;
  *plain = (double)(n * gated->length) * PIXEL_OPERATIONS * (double)gated->count;
}

/* A tensor's covariance in its Kronecker eigenbasis: memory, factors, bases, and the step (kwm/riccati.h). */
#include "kwm/riccati.h"

#include <math.h>
#include <string.h>

#include "kwm/device_ops.h"
#include "kwm/rng.h"

static int64_t size_of(const struct kwm_riccati_spec *spec) {
  return spec->rows * spec->columns;
}

int64_t kwm_riccati_floats(const struct kwm_riccati_spec *spec) {
  return 3 * size_of(spec) + (spec->left ? 2 * spec->rows * spec->rows : 0) +
         (spec->right ? 2 * spec->columns * spec->columns : 0);
}

void kwm_riccati_room_floats(const struct kwm_riccati_spec *spec, int64_t floats[3]) {
  const int64_t left = spec->left ? spec->rows : 0, right = spec->right ? spec->columns : 0;
  const int64_t side = left > right ? left : right;
  floats[0] = side > 0 ? 2 * size_of(spec) : 0;
  floats[1] = 6 * side * side;
  floats[2] = side > 0 ? spec->rows + spec->columns : 0;
}

double kwm_riccati_operations(const struct kwm_riccati_spec *spec, int64_t refresh) {
  const double o = (double)spec->rows, i = (double)spec->columns, products = 15,
               numbers = 100; /* an element's traffic */
  const double sides[2] = {spec->left ? o : 0, spec->right ? i : 0};
  double operations = numbers * o * i;
  for (int k = 0; k < 2; k++) {
    const double n = sides[k];
    operations += 4 * n * o * i + (2 * products * n * n * n + 4 * n * o * i) / (double)refresh;
  }
  return operations;
}

/* Zeroed floats on the device. */
static kwm_status take(const struct kwm_riccati_spec *spec, float **at, int64_t floats, bool wanted) {
  if (!wanted) return KWM_OK;
  KWM_TRY(kwm_device_alloc(spec->device, (void **)at, (size_t)floats * sizeof **at, spec->name));
  kwm_device_zero(spec->device, *at, (size_t)floats * sizeof **at);
  return KWM_OK;
}

/* p <- p0 everywhere, by way of the host: once. */
static kwm_status fill_prior(struct kwm_riccati *cov) {
  float *prior;
  const int64_t n = size_of(&cov->spec);
  KWM_TRY(kwm_alloc((void **)&prior, (size_t)n * sizeof *prior, "prior"));
  for (int64_t k = 0; k < n; k++) prior[k] = (float)(1 / cov->spec.prior);
  kwm_device_put(cov->spec.device, cov->p, prior, (size_t)n * sizeof *prior);
  kwm_free(prior);
  return KWM_OK;
}

kwm_status kwm_riccati_create(struct kwm_riccati *cov, const struct kwm_riccati_spec *spec) {
  const int64_t o = spec->rows, i = spec->columns;
  *cov = (struct kwm_riccati){.spec = *spec};
  KWM_TRY(take(spec, &cov->f, o * i, true));
  KWM_TRY(take(spec, &cov->m, o * i, true));
  KWM_TRY(take(spec, &cov->p, o * i, true));
  KWM_TRY(take(spec, &cov->A, i * i, spec->right));
  KWM_TRY(take(spec, &cov->U_A, i * i, spec->right));
  KWM_TRY(take(spec, &cov->G, o * o, spec->left));
  KWM_TRY(take(spec, &cov->U_G, o * o, spec->left));
  return fill_prior(cov);
}

void kwm_riccati_destroy(struct kwm_riccati *cov) {
  float *const arrays[] = {cov->f, cov->m, cov->p, cov->A, cov->U_A, cov->G, cov->U_G};
  for (size_t k = 0; k < sizeof arrays / sizeof arrays[0]; k++) kwm_device_free(cov->spec.device, arrays[k]);
  memset(cov, 0, sizeof *cov);
}

/* C (d, d) <- beta C + alpha xᵀx for x (n, d) */
static void moment(const struct kwm_riccati *cov, int64_t n, int64_t d, double alpha, double beta, const float *x,
                   float *C) {
  kwm_device_gemm(cov->spec.device, true, false, d, d, n, (float)alpha, x, d, x, d, (float)beta, C, d);
}

/* A plain mean until it is as long as the running one. */
static double rate_of(const struct kwm_riccati *cov) {
  const double plain = 1 / (double)cov->observed;
  return plain > cov->spec.rate_factor ? plain : cov->spec.rate_factor;
}

void kwm_riccati_observe(struct kwm_riccati *cov, bool first, int64_t n, int64_t tokens, const float *s,
                         const float *a) {
  if (first) cov->observed++;
  const double rate = rate_of(cov);
  const double alpha = rate / (double)tokens, beta = first ? 1 - rate : 1;
  if (cov->A != NULL) moment(cov, n, cov->spec.columns, alpha, beta, a, cov->A);
  if (cov->G != NULL) moment(cov, n, cov->spec.rows, alpha, beta, s, cov->G);
}

void kwm_riccati_share(const struct kwm_riccati *cov, bool left, int64_t n, int64_t tokens, const float *x,
                       float *share) {
  moment(cov, n, left ? cov->spec.rows : cov->spec.columns, rate_of(cov) / (double)tokens, 0, x, share);
}

void kwm_riccati_add_share(struct kwm_riccati *cov, bool left, bool first, const float *share) {
  const int64_t d = left ? cov->spec.rows : cov->spec.columns;
  const float keep = first ? (float)(1 - rate_of(cov)) : 1;
  kwm_tensor_of(cov->spec.device)->drift(cov->spec.device, d * d, keep, 1, share, left ? cov->G : cov->A);
}

static void square(kwm_device *device, int64_t n, float *x) {
  if (device != NULL)
    device->ops->square(device, n, x);
  else
    for (int64_t k = 0; k < n; k++) x[k] *= x[k];
}

/* X <- R X (left, R (rows, rows)) or X Rᵀ (R (columns, columns)), by way of `room`. */
static void turn(const struct kwm_riccati *cov, bool left, const float *R, float *X, float *room) {
  kwm_device *const device = cov->spec.device;
  const int64_t o = cov->spec.rows, i = cov->spec.columns;
  if (left)
    kwm_device_gemm(device, false, false, o, i, o, 1, R, o, X, i, 0, room, i);
  else
    kwm_device_gemm(device, false, true, o, i, i, 1, X, i, R, i, 0, room, i);
  kwm_device_copy(device, X, room, (size_t)(o * i) * sizeof *X);
}

/* One side's new basis U; m, p turn with it. values (n) <- the eigenvalues' estimates diag(UᵀCU) of an exact one. */
static bool refresh_side(struct kwm_riccati *cov, bool left, bool anew, const struct kwm_riccati_room *room,
                         float *values) {
  kwm_device *const device = cov->spec.device;
  const int64_t n = left ? cov->spec.rows : cov->spec.columns;
  const float *const C = left ? cov->G : cov->A;
  float *const U = left ? cov->U_G : cov->U_A, *const old = room->square, *const R = old + n * n,
               *const scratch = R + n * n;
  const bool begun = cov->refreshes > 0;
  kwm_device_copy(device, old, U, (size_t)(n * n) * sizeof *U);
  if (!kwm_tensor_of(device)->basis(device, n, anew || !begun, C, U, scratch)) return false;
  if (anew || !begun) {
    kwm_device_gemm(device, true, false, n, n, n, 1, U, n, C, n, 0, scratch, n);
    kwm_device_gemm(device, false, false, n, n, n, 1, scratch, n, U, n, 0, R, n);
    kwm_device_copy_rows(device, n, 1, values, 1, R, n + 1);
  }
  if (!begun) return true;
  kwm_device_gemm(device, true, false, n, n, n, 1, U, n, old, n, 0, R, n);
  turn(cov, left, R, cov->m, room->matrix);
  square(device, n * n, R);
  turn(cov, left, R, cov->p, room->matrix);
  return true;
}

bool kwm_riccati_refresh(struct kwm_riccati *cov, bool anew, int64_t tokens, const struct kwm_riccati_room *room) {
  const int64_t o = cov->spec.rows, i = cov->spec.columns;
  float *const of_outputs = room->line, *const of_inputs = room->line + o;
  if (cov->A != NULL && !refresh_side(cov, false, anew, room, of_inputs)) return false;
  if (cov->G != NULL && !refresh_side(cov, true, anew, room, of_outputs)) return false;
  const bool begun = cov->refreshes++ > 0;
  if (cov->A != NULL && cov->G != NULL && (anew || !begun))
    kwm_device_gemm(cov->spec.device, false, false, o, i, 1, (float)tokens, of_outputs, 1, of_inputs, i, 0, cov->f, i);
  return true;
}

/* U_G Y U_Aᵀ, where it lies: Y or `other`, both of the tensor's size. */
static float *leave_basis(const struct kwm_riccati *cov, float *Y, float *other) {
  kwm_device *const device = cov->spec.device;
  const int64_t o = cov->spec.rows, i = cov->spec.columns;
  if (cov->G != NULL) {
    kwm_device_gemm(device, false, false, o, i, o, 1, cov->U_G, o, Y, i, 0, other, i);
    float *const was = Y;
    Y = other, other = was;
  }
  if (cov->A != NULL) {
    kwm_device_gemm(device, false, true, o, i, i, 1, Y, i, cov->U_A, i, 0, other, i);
    Y = other;
  }
  return Y;
}

float *kwm_riccati_gain(struct kwm_riccati *cov, double q, float *score, const struct kwm_riccati_room *room,
                        double *change) {
  kwm_device *const device = cov->spec.device;
  const int64_t o = cov->spec.rows, i = cov->spec.columns;
  float *Y = score, *other = room->matrix;
  const bool product = cov->A != NULL && cov->G != NULL; /* f began with the eigenvalues' product */
  if (cov->A != NULL) {
    kwm_device_gemm(device, false, false, o, i, i, 1, Y, i, cov->U_A, i, 0, other, i);
    Y = other, other = room->matrix + o * i;
  }
  if (cov->G != NULL) {
    kwm_device_gemm(device, true, false, o, i, o, 1, cov->U_G, o, Y, i, 0, other, i);
    float *const was = Y;
    Y = other, other = was == score ? room->matrix + o * i : was;
  }
  const struct kwm_riccati_step step = {.q = (float)q,
                                        .p0 = (float)(1 / cov->spec.prior),
                                        .rate_f = (float)cov->spec.rate_f,
                                        .rate_m = (float)cov->spec.rate_m,
                                        .first = cov->seen == 0 && !product,
                                        .steady = cov->spec.steady};
  cov->seen++;
  kwm_tensor_of(device)->riccati(device, o * i, &step, Y, cov->f, cov->m, cov->p, Y);
  if (change != NULL) kwm_tensor_of(device)->quadratic(device, o * i, cov->f, Y, change);
  return leave_basis(cov, Y, other);
}

void kwm_riccati_draw(struct kwm_riccati *cov, double scale, const struct kwm_riccati_key *key, float *host,
                      const struct kwm_riccati_room *room, float *mean) {
  kwm_device *const device = cov->spec.device;
  const int64_t n = size_of(&cov->spec);
  float *const z = device != NULL ? host : cov->m;
  kwm_device_get(device, z, cov->p, (size_t)n * sizeof *z);
  for (int64_t k = 0; k < n; k++)
    z[k] = (float)(sqrt(scale * (double)z[k]) *
                   kwm_rng_normal(key->seed, KWM_RNG_PREDICTIVE, key->draw, key->first + (uint64_t)k));
  if (z != cov->m) kwm_device_put(device, cov->m, z, (size_t)n * sizeof *z);
  kwm_tensor_of(device)->drift(device, n, 1, 1, leave_basis(cov, cov->m, room->matrix), mean);
}

void kwm_riccati_inflate(struct kwm_riccati *cov, double factor, float *host) {
  kwm_device *const device = cov->spec.device;
  const int64_t n = cov->spec.rows * cov->spec.columns;
  const float p0 = (float)(1 / cov->spec.prior);
  float *const p = device != NULL ? host : cov->p;
  if (device != NULL) kwm_device_get(device, p, cov->p, (size_t)n * sizeof *p);
  for (int64_t k = 0; k < n; k++) p[k] = (float)factor * p[k] < p0 ? (float)factor * p[k] : p0;
  if (device != NULL) kwm_device_put(device, cov->p, p, (size_t)n * sizeof *p);
}

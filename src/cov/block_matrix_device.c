/* block on a device: one large matrix in the innovation form, in double precision, without forgetting
   (block_innovation.c, block_predict.c). The rows, Z = H P and P stay there; S, its factor and w = S⁻¹e are the host's,
   so a step waits twice: for its share of S, and for δ, whose δᵀδ says whether it is finite. Or S is on the device, too
   (filter/shared_device.c).

   P is looked at as often as on the host, and lifted in the same way. Only there is a variance that a step brought
   below zero found: the host's floor under each of them would need them one by one, every step. */
#include <math.h>

#include "block.h"
#include "device_home.h"

struct block_matrix {
  struct device_home home;
  double *P, *W;       /* (p, p), upper triangles: the covariance, and scratch */
  double *H, *Z;       /* (n·m, p) rows; H P, later L⁻¹H P */
  double *S, *w;       /* (n·m, n·m) own share of S, later L; (n·m) */
  double *delta;       /* (p) prepared step */
  double *diagonal;    /* (p) scratch */
  double *seen;        /* shared memory: a share of S, a diagonal, δ */
  int64_t rows;        /* n·m of the step in hand */
  int64_t unchecked;   /* rows since P was last seen to be positive definite */
  double prior, moved; /* variance; δᵀP0⁻¹δ */
  double floor_hits;
};

static size_t matrix_bytes(const struct kwm_cov_spec *spec) {
  return kwm_cov_block.bytes(spec) + kwm_mem_rounded(sizeof(struct block_matrix));
}

static size_t matrix_room(const struct kwm_cov_spec *spec) {
  const int64_t p = spec->count * spec->params, rows = spec->count * spec->n_max * spec->m;
  return (size_t)(2 * p * (p + rows + 1) + rows * (rows + 1)) * sizeof(double);
}

static kwm_status matrix_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_TRY(home_create(cov, &kwm_cov_block, sizeof(struct block_matrix)));
  struct block_matrix *const state = cov->state;
  struct device_home *const home = &state->home;
  const struct block_state *const twin = home->twin.state;
  const int64_t p = spec->count * spec->params, rows = spec->count * spec->n_max * spec->m;
  const int64_t most = rows * rows > p ? rows * rows : p;
  const struct {
    double **at;
    int64_t length;
  } arrays[] = {{&state->P, p * p}, {&state->W, p * p},       {&state->H, rows * p}, {&state->Z, rows * p},
                {&state->w, rows},  {&state->S, rows * rows}, {&state->diagonal, p}, {&state->delta, p}};
  for (size_t k = 0; k < sizeof arrays / sizeof arrays[0]; k++)
    KWM_TRY(home_take(home, (void **)arrays[k].at, (size_t)arrays[k].length * sizeof(double)));
  KWM_TRY(kwm_device_share(home->device, (void **)&state->seen, (size_t)most * sizeof(double), "covariance"));
  state->prior = 1 / spec->prior_precision;
  home_pair(home, (void **)&state->P, 0, twin->M.f64, (size_t)(p * p) * sizeof(double));
  home_send(home);
  return KWM_OK;
}

static void matrix_destroy(kwm_cov *cov) {
  const struct block_matrix *const state = cov->state;
  if (state != NULL) kwm_device_free(cov->spec.device, state->seen);
  home_destroy(cov);
}

/* The host's view of n numbers of the device, until the next. */
static const double *look(const kwm_cov *cov, const double *at, int64_t n) {
  const struct block_matrix *const state = cov->state;
  kwm_device_copy(cov->spec.device, state->seen, at, (size_t)n * sizeof *at);
  kwm_device_wait(cov->spec.device);
  return state->seen;
}

/* The variances (p). */
static const double *look_at_diagonal(const kwm_cov *cov) {
  const struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  const int64_t p = cov->spec.params;
  const size_t size = sizeof(double);
  device->ops->copy_rows(device, p, size, state->diagonal, size, state->P, (size_t)(p + 1) * size);
  return look(cov, state->diagonal, p);
}

/* Lifts the diagonal, a little at first and tenfold each time, until P is positive definite. */
static void lift(kwm_cov *cov) {
  struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  const int64_t p = cov->spec.params;
  const size_t bytes = (size_t)(p * p) * sizeof *state->P;
  double jitter = 0;
  const double *const variances = look_at_diagonal(cov);
  for (int64_t k = 0; k < p; k++) jitter += 1e-12 * fabs(variances[k]) / (double)p;
  for (;; jitter *= 10) {
    kwm_device_copy(device, state->W, state->P, bytes);
    if (device->ops->factor_f64(device, p, state->W)) return;
    if (!isfinite(jitter) || jitter == 0) return;
    device->ops->add_diagonal(device, p, jitter, state->P);
    state->floor_hits++;
  }
}

/* See block_check. */
static void check(kwm_cov *cov) {
  struct block_matrix *const state = cov->state;
  if (state->unchecked < cov->spec.params) return;
  lift(cov);
  state->unchecked = 0;
}

static bool matrix_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  (void)step, (void)anchor, (void)mean;
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct block_matrix *const state = cov->state;
  check(cov);
  if (spec->process_noise > 0)
    spec->device->ops->add_diagonal(spec->device, spec->params, spec->process_noise * state->prior, state->P);
  return true;
}

/* Z = H P for the step's rows; false: there are none. */
static bool take_rows(kwm_cov *cov, const struct kwm_jac *jac) {
  struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  const int64_t p = cov->spec.params, rows = jac->n * jac->m;
  KWM_ASSERT(jac->shape == KWM_JAC_OUTER);
  state->rows = rows;
  state->unchecked += rows;
  if (rows == 0) return false;
  device->ops->outer_rows(device, jac->n, jac->m, jac->d_o, jac->d_i, jac->J, jac->a, state->H);
  device->ops->symm_f64(device, rows, p, state->P, state->H, state->Z);
  return true;
}

/* S, lower triangle, <- keep S + Z Hᵀ */
static void form_share(const kwm_cov *cov, double keep, double *S) {
  const struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  device->ops->gemmt_f64(device, state->rows, cov->spec.params, state->Z, state->H, keep, S);
}

static void matrix_project(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  const struct block_matrix *const state = cov->state;
  if (!take_rows(cov, jac)) return;
  form_share(cov, 0, state->S);
  const double *const share = look(cov, state->S, state->rows * state->rows);
  for (int64_t i = 0; i < state->rows; i++)
    for (int64_t j = 0; j < state->rows; j++)
      S[i * state->rows + j] += j <= i ? share[i * state->rows + j] : share[j * state->rows + i];
}

static void matrix_project_there(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  if (take_rows(cov, jac)) form_share(cov, 1, S);
}

/* Four sums at a time: one would wait for itself. */
static double square_of(int64_t n, const double *x) {
  double sums[4] = {0};
  int64_t k = 0;
  for (; k + 4 <= n; k += 4)
    for (int s = 0; s < 4; s++) sums[s] += x[k + s] * x[k + s];
  for (; k < n; k++) sums[0] += x[k] * x[k];
  return sums[0] + sums[1] + (sums[2] + sums[3]);
}

/* δ = Zᵀw; L, w on the device; on_host: L, if it has yet to come there, which it does while δ is made. The solve comes
   after the wait: it needs nobody until P is made the posterior. */
static bool prepare(kwm_cov *cov, double *L, const double *w, const double *on_host) {
  struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  const int64_t p = cov->spec.params, rows = state->rows;
  double square = 0;
  if (rows == 0) {
    kwm_device_zero(device, state->delta, (size_t)p * sizeof *state->delta);
  } else {
    device->ops->gemm_f64(device, false, false, 1, p, rows, 1, w, rows, state->Z, p, 0, state->delta, p);
    if (on_host != NULL) kwm_device_put(device, L, on_host, (size_t)(rows * rows) * sizeof *L);
    square = square_of(p, look(cov, state->delta, p));
    device->ops->solve_lower_f64(device, rows, p, L, state->Z);
  }
  state->moved = square / state->prior;
  return isfinite(square);
}

static bool matrix_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w) {
  (void)jac;
  const struct block_matrix *const state = cov->state;
  if (state->rows > 0) kwm_device_put(cov->spec.device, state->w, w, (size_t)state->rows * sizeof *w);
  return prepare(cov, state->S, state->w, L);
}

static bool matrix_condition_there(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w) {
  (void)jac;
  return prepare(cov, (double *)(uintptr_t)L, w, NULL);
}

static void matrix_delta(const kwm_cov *cov, double *delta) {
  const struct block_matrix *const state = cov->state;
  kwm_device_get(cov->spec.device, delta, state->delta, (size_t)cov->spec.params * sizeof *delta);
}

static void matrix_moved(const kwm_cov *cov, double *moved) {
  const struct block_matrix *const state = cov->state;
  moved[0] = state->moved;
}

static void matrix_apply(kwm_cov *cov, double scale, float *mean) {
  const struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  const int64_t p = cov->spec.params;
  device->ops->move_f64(device, p, scale, state->delta, mean);
  if (state->rows > 0) device->ops->gram_f64(device, p, state->rows, -1, state->Z, 1, state->P);
  check(cov);
}

static void matrix_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct block_matrix *const state = cov->state;
  const int64_t p = cov->spec.params;
  const double *const variances = look_at_diagonal(cov);
  for (int64_t k = 0; k < p; k++) health->trace += variances[k];
  health->prior_trace += (double)p * state->prior;
  health->parameters += (double)p;
  health->floor_hits += state->floor_hits;
}

const struct kwm_cov_ops kwm_cov_block_matrix_device = {
    .name = "block",
    .bytes = matrix_bytes,
    .device_bytes = matrix_room,
    .evidence_length = block_evidence_length,
    .create = matrix_create,
    .predict = matrix_predict,
    .project = matrix_project,
    .condition = matrix_condition,
    .project_there = matrix_project_there,
    .condition_there = matrix_condition_there,
    .delta = matrix_delta,
    .moved = matrix_moved,
    .apply = matrix_apply,
    .health = matrix_health,
    .spectrum_length = home_spectrum_length,
    .spectrum = home_spectrum,
    .covariance = home_covariance,
    .predictive = home_predictive,
    .save = home_save,
    .load = home_load,
    .destroy = matrix_destroy,
};

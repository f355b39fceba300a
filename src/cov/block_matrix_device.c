/* A matrix on a device: one large matrix in the innovation form, in double precision, without forgetting
   (block_innovation.c, block_predict.c). The rows, Z = H P and P = P0 - YᵀY stay there; S, its factor and w = S⁻¹e are
   the host's, so a step waits twice: for its share of S, and for δ, whose δᵀδ says whether it is finite. Or S is on the
   device, too (filter/shared_device.c).

   P is looked at as often as on the host, and lifted in the same way. Only there is a variance that a step brought
   below zero found: the host's floor under each of them would need them one by one, every step. */
#include <math.h>

#include "block_matrix.h"

/* Y has room for so many steps, but for no more rows than KWM_PENDING_ROWS (or one step's). To subtract Y from P0 costs
   a step the less the more steps share it, and to take Y out of H P0 the more: measured on an H200 for p = 5120
   (analysis/bench-gpu.txt), 86 µs at 8 steps of 10 rows (2: 102, 32: 92), 185 at 6 of 100 (1: 224, 4: 189). */
enum { STEPS = 8 };

int64_t block_matrix_capacity(const struct kwm_cov_spec *spec) {
  const int64_t rows = spec->n_max * spec->m, steps = rows > 0 ? KWM_PENDING_ROWS / rows : 1;
  return rows * (steps < 1 ? 1 : steps > STEPS ? STEPS : steps);
}

static size_t matrix_bytes(const struct kwm_cov_spec *spec) {
  return kwm_cov_block.bytes(spec) + kwm_mem_rounded(sizeof(struct block_matrix));
}

static size_t matrix_room(const struct kwm_cov_spec *spec) {
  const int64_t p = spec->count * spec->params, rows = spec->count * spec->n_max * spec->m;
  const int64_t capacity = spec->count * block_matrix_capacity(spec);
  return (size_t)(2 * p * (p + 1) + capacity * p + rows * (p + capacity) + rows * (rows + 1)) * sizeof(double);
}

static kwm_status matrix_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_TRY(home_create(cov, &kwm_cov_block, sizeof(struct block_matrix)));
  struct block_matrix *const state = cov->state;
  struct device_home *const home = &state->home;
  const struct block_state *const twin = home->twin.state;
  const int64_t p = spec->count * spec->params, rows = spec->count * spec->n_max * spec->m;
  const int64_t capacity = spec->count * block_matrix_capacity(spec), seen = rows * rows > p ? rows * rows : p;
  const struct {
    double **at;
    int64_t length;
  } arrays[] = {
      {&state->P, p * p}, {&state->W, p * p},       {&state->Y, capacity * p}, {&state->scratch, rows * (p + capacity)},
      {&state->w, rows},  {&state->S, rows * rows}, {&state->diagonal, p},     {&state->delta, p}};
  for (size_t k = 0; k < sizeof arrays / sizeof arrays[0]; k++)
    KWM_TRY(home_take(home, (void **)arrays[k].at, (size_t)arrays[k].length * sizeof(double)));
  KWM_TRY(kwm_device_share(home->device, (void **)&state->seen, (size_t)seen * sizeof(double), "covariance"));
  state->prior = 1 / spec->prior_precision;
  state->most = spec->n_max * spec->m;
  state->capacity = block_matrix_capacity(spec);
  state->whole = state->P;
  home_pair(home, (void **)&state->whole, 0, twin->M.f64, (size_t)(p * p) * sizeof(double));
  home_send(home);
  block_matrix_mirror(cov);
  return KWM_OK;
}

static void matrix_destroy(kwm_cov *cov) {
  const struct block_matrix *const state = cov->state;
  if (state != NULL) kwm_device_free(cov->spec.device, state->seen);
  home_destroy(cov);
}

const double *block_matrix_look(const kwm_cov *cov, const double *at, int64_t n) {
  const struct block_matrix *const state = cov->state;
  kwm_device_copy(cov->spec.device, state->seen, at, (size_t)n * sizeof *at);
  kwm_device_wait(cov->spec.device);
  return state->seen;
}

/* Steps of more rows want both triangles of P0. */
static bool wants_both(const kwm_cov *cov) {
  const struct block_matrix *const state = cov->state;
  return state->most > KWM_OUTER_FEW;
}

void block_matrix_subtract(kwm_cov *cov) {
  struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  const int64_t p = cov->spec.params;
  if (state->pending > 0 && wants_both(cov))
    device->ops->downdate_both(device, p, state->pending, state->Y, state->P);
  else if (state->pending > 0)
    device->ops->gram_f64(device, p, state->pending, -1, state->Y, 1, state->P);
  state->pending = 0;
}

void block_matrix_mirror(const kwm_cov *cov) {
  const struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  if (cov->spec.count > 0 && wants_both(cov)) device->ops->mirror_f64(device, cov->spec.params, state->P);
}

static bool matrix_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  (void)step, (void)anchor, (void)mean;
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct block_matrix *const state = cov->state;
  block_matrix_check(cov);
  if (spec->process_noise > 0)
    spec->device->ops->add_diagonal(spec->device, spec->params, spec->process_noise * state->prior, state->P);
  return true;
}

static struct kwm_device_outer outer_of(const kwm_cov *cov, const struct kwm_jac *jac) {
  const struct block_matrix *const state = cov->state;
  KWM_ASSERT(jac->shape == KWM_JAC_OUTER);
  return (struct kwm_device_outer){jac->n, jac->m, jac->d_o, jac->d_i, jac->J, jac->a, state->scratch};
}

/* H P, later L⁻¹H P, of the step in hand. */
static double *rows_of(const kwm_cov *cov) {
  const struct block_matrix *const state = cov->state;
  return state->Y + state->pending * cov->spec.params;
}

/* S, lower triangle, <- keep S + H P Hᵀ; false: there are no rows. */
static bool form_share(kwm_cov *cov, const struct kwm_jac *jac, double keep, double *S) {
  struct block_matrix *const state = cov->state;
  const struct kwm_device_ops *const ops = cov->spec.device->ops;
  const struct kwm_device_outer rows = outer_of(cov, jac);
  double *const Z = rows_of(cov);
  state->rows = jac->n * jac->m;
  state->unchecked += state->rows;
  if (state->rows == 0) return false;
  ops->outer_symm(cov->spec.device, &rows, state->P, state->pending, state->Y, Z);
  ops->outer_share(cov->spec.device, &rows, Z, keep, S);
  return true;
}

static void matrix_project(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  const struct block_matrix *const state = cov->state;
  if (!form_share(cov, jac, 0, state->S)) return;
  const double *const share = block_matrix_look(cov, state->S, state->rows * state->rows);
  for (int64_t i = 0; i < state->rows; i++)
    for (int64_t j = 0; j < state->rows; j++)
      S[i * state->rows + j] += j <= i ? share[i * state->rows + j] : share[j * state->rows + i];
}

static void matrix_project_there(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  form_share(cov, jac, 1, S);
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
  double *const Z = rows_of(cov), square = 0;
  if (rows == 0) {
    kwm_device_zero(device, state->delta, (size_t)p * sizeof *state->delta);
  } else {
    device->ops->gemm_f64(device, false, false, 1, p, rows, 1, w, rows, Z, p, 0, state->delta, p);
    if (on_host != NULL) kwm_device_put(device, L, on_host, (size_t)(rows * rows) * sizeof *L);
    square = square_of(p, block_matrix_look(cov, state->delta, p));
    device->ops->solve_lower_f64(device, rows, p, L, Z);
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
  struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  device->ops->move_f64(device, cov->spec.params, scale, state->delta, mean);
  state->pending += state->rows;
  if (state->pending + state->most > state->capacity) block_matrix_subtract(cov);
  block_matrix_check(cov);
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
    .health = block_matrix_health,
    .spectrum_length = home_spectrum_length,
    .spectrum = block_matrix_spectrum,
    .covariance = block_matrix_covariance,
    .predictive = block_matrix_predictive,
    .save = block_matrix_save,
    .load = block_matrix_load,
    .destroy = matrix_destroy,
};

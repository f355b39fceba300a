/* diag on a device, information form: D and the step are there, in float or in double as the spec says (diag.c).

     f = diag(HᵀH): of a matrix, the squares of J and of a, summed by one product */
#include "device_home.h"
#include "diag.h"
#include "prior.h"

struct diag_device {
  struct device_home home;
  void *D, *next;              /* (count, params) precision, and what it is after the step in hand */
  double *delta;               /* (count, params) prepared step */
  double *prior;               /* (period) */
  float *g, *squares, *inputs; /* matrix: (n_max, d_o), (n_max, d_o), (n_max, d_i) scratch */
};

bool diag_on_device(const struct kwm_cov_spec *spec) {
  return spec->form == KWM_FORM_INFORMATION;
}

static size_t device_bytes(const struct kwm_cov_spec *spec) {
  return kwm_cov_diag.bytes(spec) + kwm_mem_rounded(sizeof(struct diag_device));
}

static size_t device_room(const struct kwm_cov_spec *spec) {
  const int64_t n = diag_numbers(spec), samples = spec->n_max * spec->count;
  return (size_t)n * (2 * reals_size(spec->real) + sizeof(double)) + (size_t)prior_period(spec) * sizeof(double) +
         (size_t)(samples * (2 * spec->d_o + spec->d_i)) * sizeof(float);
}

static kwm_status device_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_TRY(home_create(cov, &kwm_cov_diag, sizeof(struct diag_device)));
  struct diag_device *const state = cov->state;
  struct device_home *const home = &state->home;
  const struct diag_state *const twin = home->twin.state;
  const int64_t n = diag_numbers(spec), samples = spec->n_max * spec->count;
  const size_t real = reals_size(spec->real), prior = (size_t)prior_period(spec) * sizeof(double);
  KWM_TRY(home_take(home, &state->D, (size_t)n * real));
  KWM_TRY(home_take(home, &state->next, (size_t)n * real));
  KWM_TRY(home_take(home, (void **)&state->delta, (size_t)n * sizeof(double)));
  KWM_TRY(home_take(home, (void **)&state->prior, prior));
  KWM_TRY(home_take(home, (void **)&state->g, (size_t)(samples * spec->d_o) * sizeof(float)));
  KWM_TRY(home_take(home, (void **)&state->squares, (size_t)(samples * spec->d_o) * sizeof(float)));
  KWM_TRY(home_take(home, (void **)&state->inputs, (size_t)(samples * spec->d_i) * sizeof(float)));
  home_pair(home, &state->D, 0, reals_data(&twin->D), (size_t)n * real);
  home_pair(home, (void **)&state->delta, 0, twin->delta, (size_t)n * sizeof(double));
  home_pair(home, (void **)&state->prior, 0, twin->prior, prior);
  home_send(home);
  return KWM_OK;
}

static bool wide(const kwm_cov *cov) {
  return cov->spec.real == KWM_REAL_DOUBLE;
}

static bool device_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  (void)step;
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct diag_device *const state = cov->state;
  state->home.prepared = false;
  if (spec->forgetting == 1 && spec->process_noise == 0) return true;
  spec->device->ops->diag_predict(spec->device, wide(cov), spec->count, spec->params, prior_period(spec),
                                  spec->forgetting, spec->process_noise, state->prior,
                                  spec->forgetting < 1 ? anchor : NULL, state->D, mean);
  return true;
}

static void matrix_evidence(const kwm_cov *cov, const struct kwm_jac *jac, float *f, float *s) {
  kwm_device *const device = cov->spec.device;
  const int64_t n = jac->n, o = jac->d_o, i = jac->d_i;
  const struct diag_device *const state = cov->state;
  if (jac->g == NULL) device->ops->output_score(device, n, jac->m, o, jac->e, jac->J, state->g);
  kwm_device_gemm(device, true, false, o, i, n, 1, jac->g != NULL ? jac->g : state->g, o, jac->a, i, 1, s, i);
  device->ops->output_squares(device, n, jac->m, o, jac->J, state->squares);
  kwm_device_copy(device, state->inputs, jac->a, (size_t)(n * i) * sizeof *jac->a);
  device->ops->square(device, n * i, state->inputs);
  kwm_device_gemm(device, true, false, o, i, n, 1, state->squares, o, state->inputs, i, 1, f, i);
}

static void device_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  kwm_device *const device = cov->spec.device;
  struct diag_device *const state = cov->state;
  float *const score = evidence + diag_numbers(&cov->spec);
  state->home.prepared = false;
  if (jac->shape == KWM_JAC_OUTER) {
    KWM_ASSERT(jac->n <= cov->spec.n_max);
    matrix_evidence(cov, jac, evidence, score);
    return;
  }
  KWM_ASSERT(jac->channels == 2);
  const struct kwm_device_units units = {
      .n = jac->n, .m = jac->m, .count = jac->count, .params = jac->params, .J = jac->J, .S = jac->S, .e = jac->e};
  device->ops->units_diagonal(device, &units, evidence, score);
}

static void device_prepare(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch) {
  (void)jac;
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct diag_device *const state = cov->state;
  spec->device->ops->diag_absorb(spec->device, wide(cov), spec->count, spec->params, prior_period(spec), state->prior,
                                 evidence, state->D, state->next, state->delta, state->home.facts);
  home_hold(&state->home, evidence, batch);
}

static void device_move(kwm_cov *cov, double scale, float *mean) {
  kwm_device *const device = cov->spec.device;
  const struct diag_device *const state = cov->state;
  device->ops->move_f64(device, diag_numbers(&cov->spec), scale, state->delta, mean);
}

static void device_apply(kwm_cov *cov, double scale, float *mean) {
  struct diag_device *const state = cov->state;
  void *const before = state->D;
  device_move(cov, scale, mean);
  state->D = state->next;
  state->next = before;
}

static void device_health(const kwm_cov *cov, struct kwm_health *health) {
  kwm_device *const device = cov->spec.device;
  const struct diag_device *const state = cov->state;
  device->ops->diag_trace(device, wide(cov), diag_numbers(&cov->spec), state->D, state->home.trace);
  kwm_device_wait(device);
  health->trace += state->home.trace[0];
  health->prior_trace += prior_trace(&cov->spec, cov->spec.prior_variance);
  health->parameters += (double)diag_numbers(&cov->spec);
}

static int64_t device_evidence_length(const struct kwm_cov_spec *spec) {
  return kwm_cov_diag.evidence_length(spec);
}

const struct kwm_cov_ops kwm_cov_diag_device = {
    .name = "diag",
    .bytes = device_bytes,
    .device_bytes = device_room,
    .evidence_length = device_evidence_length,
    .create = device_create,
    .predict = device_predict,
    .evidence = device_evidence,
    .prepare = device_prepare,
    .absorb = home_absorb,
    .delta = home_delta,
    .moved = home_moved,
    .slope = home_slope,
    .expected = home_expected,
    .apply = device_apply,
    .move = device_move,
    .health = device_health,
    .spectrum_length = home_spectrum_length,
    .spectrum = home_spectrum,
    .covariance = home_covariance,
    .predictive = home_predictive,
    .save = home_save,
    .load = home_load,
    .destroy = home_destroy,
};

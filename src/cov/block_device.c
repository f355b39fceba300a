/* block on a device: units in the information form, in double precision (block_information.c, block_predict.c). What
   a rank has of small matrices is one call; nothing but a time update that may fail is waited for. */
#include "block.h"
#include "device_home.h"

struct block_device {
  struct device_home home;
  double *M, *W; /* (count, p, p) precisions, both triangles, and scratch */
  double *prior; /* (p) */
  double *delta; /* (count, p) prepared step */
};

bool block_on_device(const struct kwm_cov_spec *spec) {
  if (spec->real != KWM_REAL_DOUBLE) return false;
  return block_is_matrix(spec) ? block_innovation(spec) && spec->forgetting == 1 : !block_innovation(spec);
}

static size_t device_bytes(const struct kwm_cov_spec *spec) {
  return kwm_cov_block.bytes(spec) + kwm_mem_rounded(sizeof(struct block_device));
}

static size_t device_room(const struct kwm_cov_spec *spec) {
  const int64_t p = spec->params;
  if (block_is_matrix(spec)) return kwm_cov_block_matrix_device.device_bytes(spec);
  return (size_t)(spec->count * (2 * p * p + p) + p) * sizeof(double);
}

static kwm_status device_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  if (block_is_matrix(spec)) {
    cov->ops = &kwm_cov_block_matrix_device;
    return cov->ops->create(cov);
  }
  KWM_TRY(home_create(cov, &kwm_cov_block, sizeof(struct block_device)));
  struct block_device *const state = cov->state;
  struct device_home *const home = &state->home;
  const struct block_state *const twin = home->twin.state;
  const int64_t p = spec->params;
  const size_t vectors = (size_t)(spec->count * p) * sizeof(double), squares = vectors * (size_t)p;
  KWM_TRY(home_take(home, (void **)&state->M, squares));
  KWM_TRY(home_take(home, (void **)&state->W, squares));
  KWM_TRY(home_take(home, (void **)&state->prior, (size_t)p * sizeof(double)));
  KWM_TRY(home_take(home, (void **)&state->delta, vectors));
  home_pair(home, (void **)&state->M, 0, twin->M.f64, squares);
  home_pair(home, (void **)&state->prior, 0, twin->prior, (size_t)p * sizeof(double));
  home_pair(home, (void **)&state->delta, 0, twin->delta, vectors);
  home_send(home);
  return KWM_OK;
}

static bool device_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  (void)step;
  const struct kwm_cov_spec *const spec = &cov->spec;
  kwm_device *const device = spec->device;
  struct block_device *const state = cov->state;
  state->home.prepared = false;
  if (spec->forgetting == 1 && spec->process_noise == 0) return true;
  device->ops->block_predict(device, spec->count, spec->params, spec->forgetting, spec->process_noise, state->prior,
                             spec->forgetting < 1 ? anchor : NULL, state->M, state->W, mean, state->home.trace);
  kwm_device_wait(device);
  return !(state->home.trace[0] > 0);
}

static void device_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  kwm_device *const device = cov->spec.device;
  struct block_device *const state = cov->state;
  KWM_ASSERT(jac->shape == KWM_JAC_UNITS && jac->channels == 2);
  const struct kwm_device_units units = {
      .n = jac->n, .m = jac->m, .count = jac->count, .params = jac->params, .J = jac->J, .S = jac->S, .e = jac->e};
  state->home.prepared = false;
  device->ops->units_fisher(device, &units, evidence, evidence + kwm_packed(jac->params) * jac->count);
}

static void device_prepare(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch) {
  (void)jac;
  kwm_device *const device = cov->spec.device;
  struct block_device *const state = cov->state;
  device->ops->block_absorb(device, cov->spec.count, cov->spec.params, state->M, state->prior, evidence, state->delta,
                            state->home.facts);
  home_hold(&state->home, evidence, batch);
}

static void device_apply(kwm_cov *cov, double scale, float *mean) {
  kwm_device *const device = cov->spec.device;
  const int64_t count = cov->spec.count, p = cov->spec.params;
  const struct block_device *const state = cov->state;
  device->ops->move_f64(device, count * p, scale, state->delta, mean);
  device->ops->block_take(device, count, p, state->home.evidence, state->M);
}

static void device_health(const kwm_cov *cov, struct kwm_health *health) {
  kwm_device *const device = cov->spec.device;
  const int64_t count = cov->spec.count, p = cov->spec.params;
  const struct block_device *const state = cov->state;
  device->ops->block_trace(device, count, p, state->M, state->home.trace);
  kwm_device_wait(device);
  health->trace += state->home.trace[0];
  health->prior_trace += prior_trace(&cov->spec, cov->spec.prior_variance);
  health->parameters += (double)(count * p);
}

const struct kwm_cov_ops kwm_cov_block_device = {
    .name = "block",
    .bytes = device_bytes,
    .device_bytes = device_room,
    .evidence_length = block_evidence_length,
    .create = device_create,
    .predict = device_predict,
    .evidence = device_evidence,
    .prepare = device_prepare,
    .absorb = home_absorb,
    .delta = home_delta,
    .moved = home_moved,
    .apply = device_apply,
    .health = device_health,
    .spectrum_length = home_spectrum_length,
    .spectrum = home_spectrum,
    .covariance = home_covariance,
    .predictive = home_predictive,
    .save = home_save,
    .load = home_load,
    .destroy = home_destroy,
};

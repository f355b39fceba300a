/* The table of structures, and the checked door to their operations. */
#include "kwm/cov_ops.h"

#include <string.h>

static const struct kwm_cov_ops *const structures[] = {&kwm_cov_block, &kwm_cov_kron, &kwm_cov_diag, &kwm_cov_lowrank,
                                                       NULL};

const struct kwm_cov_ops *kwm_cov_find(const char *structure) {
  for (int i = 0; structures[i] != NULL; i++)
    if (strcmp(structures[i]->name, structure) == 0) return structures[i];
  return NULL;
}

bool kwm_cov_on_device(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec) {
  return ops->device != NULL && ops->on_device(spec);
}

kwm_status kwm_cov_create(kwm_cov *cov, const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec) {
  KWM_ASSERT(spec->device == NULL || kwm_cov_on_device(ops, spec));
  KWM_ASSERT(spec->count >= 0 && spec->first + spec->count <= spec->total);
  KWM_ASSERT(spec->forgetting > 0 && spec->forgetting <= 1 && spec->process_noise >= 0);
  memset(cov, 0, sizeof *cov);
  cov->ops = spec->device == NULL ? ops : ops->device;
  cov->spec = *spec;
  return cov->ops->create(cov);
}

void kwm_cov_destroy(kwm_cov *cov) {
  if (cov->ops != NULL) cov->ops->destroy(cov);
  memset(cov, 0, sizeof *cov);
}

size_t kwm_cov_bytes(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec) {
  return ops->bytes(spec);
}

size_t kwm_cov_device_bytes(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec) {
  KWM_ASSERT(kwm_cov_on_device(ops, spec));
  return ops->device->device_bytes(spec);
}

int64_t kwm_cov_evidence_length(const kwm_cov *cov) {
  return cov->ops->evidence_length(&cov->spec);
}

/* A rank without blocks takes part where others wait for it. */
static bool takes_part(const kwm_cov *cov) {
  return cov->spec.count > 0 || (cov->ops->collective && cov->spec.layout != NULL);
}

bool kwm_cov_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  KWM_ASSERT(cov->spec.forgetting == 1 || cov->spec.count == 0 || (anchor != NULL && mean != NULL));
  cov->step = step;
  return !takes_part(cov) || cov->ops->predict(cov, step, anchor, mean);
}

void kwm_cov_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  if (cov->spec.count > 0 && jac->n > 0) cov->ops->evidence(cov, jac, evidence);
}

void kwm_cov_prepare(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch) {
  KWM_ASSERT(cov->spec.form == KWM_FORM_INFORMATION && batch > 0);
  if (takes_part(cov) && cov->ops->prepare != NULL) cov->ops->prepare(cov, jac, evidence, batch);
}

bool kwm_cov_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl) {
  KWM_ASSERT(cov->spec.form == KWM_FORM_INFORMATION && batch > 0);
  return !takes_part(cov) || cov->ops->absorb(cov, jac, evidence, batch, kl);
}

void kwm_cov_project(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  KWM_ASSERT(cov->spec.form == KWM_FORM_INNOVATION && jac->n <= cov->spec.n_max);
  if (takes_part(cov)) cov->ops->project(cov, jac, S);
}

bool kwm_cov_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w) {
  KWM_ASSERT(cov->spec.form == KWM_FORM_INNOVATION);
  return !takes_part(cov) || cov->ops->condition(cov, jac, L, w);
}

void kwm_cov_delta(const kwm_cov *cov, double *delta) {
  if (cov->spec.count > 0) cov->ops->delta(cov, delta);
}

void kwm_cov_moved(const kwm_cov *cov, double *moved) {
  if (cov->spec.count > 0) cov->ops->moved(cov, moved);
}

void kwm_cov_slope(const kwm_cov *cov, double *slope) {
  KWM_ASSERT(cov->spec.form == KWM_FORM_INFORMATION && cov->ops->slope != NULL);
  if (cov->spec.count > 0) cov->ops->slope(cov, slope);
}

void kwm_cov_expected(const kwm_cov *cov, double *expected) {
  KWM_ASSERT(cov->spec.form == KWM_FORM_INFORMATION && cov->ops->expected != NULL);
  if (cov->spec.count > 0) cov->ops->expected(cov, expected);
}

void kwm_cov_apply(kwm_cov *cov, double scale, float *mean) {
  if (takes_part(cov)) cov->ops->apply(cov, scale, mean);
}

void kwm_cov_move(kwm_cov *cov, double scale, float *mean) {
  KWM_ASSERT(cov->ops->move != NULL);
  if (cov->spec.count > 0) cov->ops->move(cov, scale, mean);
}

void kwm_cov_health(const kwm_cov *cov, struct kwm_health *health) {
  if (takes_part(cov)) cov->ops->health(cov, health);
}

int64_t kwm_cov_spectrum_length(const kwm_cov *cov) {
  return cov->ops->spectrum_length(&cov->spec);
}

bool kwm_cov_spectrum(const kwm_cov *cov, double *values) {
  return !takes_part(cov) || cov->ops->spectrum(cov, values);
}

bool kwm_cov_covariance(const kwm_cov *cov, double *P) {
  KWM_ASSERT(!cov->ops->collective || cov->spec.count == cov->spec.total || cov->spec.count == 0);
  return cov->spec.count == 0 || cov->ops->covariance(cov, P);
}

bool kwm_cov_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  KWM_ASSERT(jac->n <= cov->spec.n_max);
  return cov->spec.count == 0 || (cov->ops->predictive != NULL && cov->ops->predictive(cov, jac, C));
}

struct kwm_frame kwm_cov_frame(const kwm_cov *cov) {
  const bool framed = cov->spec.framed && cov->spec.count > 0;
  KWM_ASSERT(!framed || cov->ops->frame != NULL);
  return framed ? cov->ops->frame(cov) : (struct kwm_frame){NULL, NULL};
}

void kwm_cov_unframe(const kwm_cov *cov, const float *framed, float *plain) {
  if (cov->spec.count == 0) return;
  if (cov->spec.framed)
    cov->ops->unframe(cov, framed, plain);
  else
    memmove(plain, framed, (size_t)(cov->spec.count * cov->spec.params) * sizeof *plain);
}

kwm_status kwm_cov_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  return cov->ops->save(cov, ckpt, writes);
}

kwm_status kwm_cov_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  return cov->ops->load(cov, ckpt);
}

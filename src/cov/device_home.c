/* The twin of a structure on a device, and the operations that are the same for all of them. */
#include "device_home.h"

#include <math.h>

static struct device_home *home_of(const kwm_cov *cov) {
  return cov->state;
}

kwm_status home_create(kwm_cov *cov, const struct kwm_cov_ops *host, size_t size) {
  KWM_TRY(kwm_alloc(&cov->state, size, "covariance on a device"));
  struct device_home *const home = cov->state;
  struct kwm_cov_spec spec = cov->spec;
  home->device = spec.device;
  spec.device = NULL;
  KWM_TRY(kwm_cov_create(&home->twin, host, &spec));
  cov->spec.prior_variance = home->twin.spec.prior_variance;
  KWM_TRY(kwm_device_share(home->device, (void **)&home->facts, (size_t)(spec.count * KWM_GAINS) * sizeof *home->facts,
                           "facts of a covariance"));
  return kwm_device_share(home->device, (void **)&home->trace, sizeof *home->trace, "facts of a covariance");
}

kwm_status home_take(struct device_home *home, void **at, size_t bytes) {
  KWM_ASSERT(home->n_arrays < HOME_ARRAYS);
  home->arrays[home->n_arrays++] = at;
  return kwm_device_alloc(home->device, at, bytes, "covariance");
}

void home_pair(struct device_home *home, void **at, size_t offset, void *host, size_t bytes) {
  KWM_ASSERT(home->n_pairs < HOME_PAIRS);
  home->pairs[home->n_pairs++] = (struct home_pair){at, offset, host, bytes};
}

static char *place_of(const struct home_pair *pair) {
  return (char *)*pair->at + pair->offset;
}

void home_send(struct device_home *home) {
  for (int k = 0; k < home->n_pairs; k++) {
    const struct home_pair *const pair = &home->pairs[k];
    if (pair->bytes > 0) kwm_device_put(home->device, place_of(pair), pair->host, pair->bytes);
  }
}

/* The twin <- the device's state. */
static kwm_cov *fetched(const kwm_cov *cov) {
  struct device_home *const home = home_of(cov);
  for (int k = 0; k < home->n_pairs; k++) {
    const struct home_pair *const pair = &home->pairs[k];
    if (pair->bytes > 0) kwm_device_get(home->device, pair->host, place_of(pair), pair->bytes);
  }
  return &home->twin;
}

void home_hold(struct device_home *home, const float *evidence, int64_t batch) {
  home->evidence = evidence;
  home->batch = (double)batch;
  home->prepared = true;
}

bool home_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl) {
  struct device_home *const home = home_of(cov);
  const bool asked = home->prepared && home->evidence == evidence && home->batch == (double)batch;
  if (!asked) cov->ops->prepare(cov, jac, evidence, batch);
  home->prepared = false;
  kwm_device_wait(home->device);
  for (int64_t b = 0; b < cov->spec.count; b++) {
    kl[b] = home->facts[b * KWM_GAINS + KWM_GAIN_CHANGE] / home->batch;
    if (!isfinite(kl[b])) return false;
  }
  return true;
}

void home_delta(const kwm_cov *cov, double *delta) {
  kwm_cov_delta(fetched(cov), delta);
}

void home_moved(const kwm_cov *cov, double *moved) {
  const struct device_home *const home = home_of(cov);
  for (int64_t b = 0; b < cov->spec.count; b++) moved[b] = home->facts[b * KWM_GAINS + KWM_GAIN_MOVED];
}

void home_slope(const kwm_cov *cov, double *slope) {
  const struct device_home *const home = home_of(cov);
  for (int64_t b = 0; b < cov->spec.count; b++) slope[b] = home->facts[b * KWM_GAINS + KWM_GAIN_SLOPE];
}

void home_expected(const kwm_cov *cov, double *expected) {
  const struct device_home *const home = home_of(cov);
  for (int64_t b = 0; b < cov->spec.count; b++)
    expected[b] = home->facts[b * KWM_GAINS + KWM_GAIN_EXPECTED] / home->batch;
}

int64_t home_spectrum_length(const struct kwm_cov_spec *spec) {
  return spec->count * spec->params;
}

bool home_spectrum(const kwm_cov *cov, double *values) {
  return kwm_cov_spectrum(fetched(cov), values);
}

bool home_covariance(const kwm_cov *cov, double *P) {
  return kwm_cov_covariance(fetched(cov), P);
}

/* *to <- a copy on the host of n floats of the device. */
static kwm_status bring(kwm_device *device, float **to, const float *from, int64_t n) {
  const size_t bytes = (size_t)n * sizeof **to;
  KWM_TRY(kwm_alloc((void **)to, bytes, "outputs' covariance"));
  kwm_device_get(device, *to, from, bytes);
  return KWM_OK;
}

/* The rows alone: neither the innovations nor the frame say anything of P. */
bool home_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  kwm_device *const device = cov->spec.device;
  const bool units = jac->shape == KWM_JAC_UNITS;
  const int64_t nm = jac->n * jac->m, width = jac->channels * jac->count;
  const int64_t second = units ? jac->n * width * jac->params : jac->n * jac->d_i;
  float *first_rows = NULL, *second_rows = NULL;
  bool good = bring(device, &first_rows, jac->J, nm * (units ? width : jac->d_o)) == KWM_OK &&
              bring(device, &second_rows, units ? jac->S : jac->a, second) == KWM_OK;
  if (good) {
    struct kwm_jac here = *jac;
    here.J = first_rows;
    here.S = units ? second_rows : NULL;
    here.a = units ? NULL : second_rows;
    here.aU = here.e = here.g = NULL;
    good = kwm_cov_predictive(fetched(cov), &here, C);
  }
  kwm_free(first_rows);
  kwm_free(second_rows);
  return good;
}

void home_unframe(const kwm_cov *cov, const float *framed, float *plain) {
  kwm_cov_unframe(fetched(cov), framed, plain);
}

kwm_status home_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  struct device_home *const home = home_of(cov);
  home->twin.step = cov->step;
  return kwm_cov_save(writes ? fetched(cov) : &home->twin, ckpt, writes);
}

kwm_status home_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  struct device_home *const home = home_of(cov);
  KWM_TRY(kwm_cov_load(&home->twin, ckpt));
  cov->step = home->twin.step;
  home->prepared = false;
  home_send(home);
  return KWM_OK;
}

void home_destroy(kwm_cov *cov) {
  struct device_home *const home = home_of(cov);
  if (home == NULL) return;
  for (int k = 0; k < home->n_arrays; k++) kwm_device_free(home->device, *home->arrays[k]);
  kwm_device_free(home->device, home->facts);
  kwm_device_free(home->device, home->trace);
  kwm_cov_destroy(&home->twin);
  kwm_free(home);
}

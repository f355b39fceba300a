/* What the structures on a device share. Their steps run there. What is asked only now and then (checkpoints, spectra,
   dense covariances) is left to a twin: the same structure on the host, whose state is fetched from the device before
   and, where it was changed, sent back.

   Each structure's state begins with a struct device_home: that is how the operations below find it. */
#pragma once

#include "kwm/cov_ops.h"
#include "kwm/device_ops.h"

enum { HOME_ARRAYS = 16, HOME_PAIRS = 8 };

/* An array of the state in both places: `bytes` at *at + offset, and at host. */
struct home_pair {
  void **at;
  size_t offset;
  void *host;
  size_t bytes;
};

struct device_home {
  kwm_cov twin;
  kwm_device *device;
  void **arrays[HOME_ARRAYS]; /* where the state keeps its own arrays of the device */
  int n_arrays;
  struct home_pair pairs[HOME_PAIRS];
  int n_pairs;
  double *facts, *trace; /* (count, KWM_GAINS) of the step in hand; (1) of anything else; shared memory */
  const float *evidence; /* of the step in hand, borrowed until apply */
  double batch;          /* its samples */
  bool prepared;         /* asked for, and not yet absorbed */
};

/* Makes the state of `size` bytes, its head and the twin of structure `host`. */
kwm_status home_create(kwm_cov *cov, const struct kwm_cov_ops *host, size_t size);

/* *at <- memory of the device, freed by home_destroy even if *at was exchanged with another such array since. */
kwm_status home_take(struct device_home *home, void **at, size_t bytes);

void home_pair(struct device_home *home, void **at, size_t offset, void *host, size_t bytes);

/* All pairs to the device. */
void home_send(struct device_home *home);

/* Notes what prepare was asked for. */
void home_hold(struct device_home *home, const float *evidence, int64_t batch);

/* Operations (see kwm/cov.h). absorb prepares what was not, and takes the facts of all blocks. */
bool home_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl);
void home_delta(const kwm_cov *cov, double *delta);
void home_moved(const kwm_cov *cov, double *moved);
void home_slope(const kwm_cov *cov, double *slope);
void home_expected(const kwm_cov *cov, double *expected);
int64_t home_spectrum_length(const struct kwm_cov_spec *spec);
bool home_spectrum(const kwm_cov *cov, double *values);
bool home_covariance(const kwm_cov *cov, double *P);
bool home_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C);
void home_unframe(const kwm_cov *cov, const float *framed, float *plain);
kwm_status home_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes);
kwm_status home_load(kwm_cov *cov, kwm_ckpt *ckpt);
void home_destroy(kwm_cov *cov);

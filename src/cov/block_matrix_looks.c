/* Whoever looks at P = P0 - YᵀY of a matrix on a device: the check that it is positive definite, health, spectra and
   checkpoints. P is formed in scratch, so that a look leaves P0, Y and all later bits as they were; only a P that is
   not positive definite becomes another: then the pending rows are subtracted, and the diagonal is lifted.

   A checkpoint has P as every block (src/cov/block.c) and, where rows are pending, P0 and Y as
   /cov/GROUP/deferred/{covariance,rows}, from which the run goes on. */
#include <math.h>
#include <stdio.h>

#include "block_matrix.h"

static size_t square_bytes(const kwm_cov *cov) {
  return (size_t)(cov->spec.params * cov->spec.params) * sizeof(double);
}

/* P, for the next fetch, too. */
static const double *form_whole(const kwm_cov *cov) {
  struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  state->whole = state->pending == 0 ? state->P : state->W;
  if (state->pending == 0) return state->whole;
  kwm_device_copy(device, state->W, state->P, square_bytes(cov));
  device->ops->gram_f64(device, cov->spec.params, state->pending, -1, state->Y, 1, state->W);
  return state->whole;
}

/* The variances (p). */
static const double *look_at_diagonal(const kwm_cov *cov) {
  const struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  const int64_t p = cov->spec.params;
  const size_t size = sizeof(double);
  device->ops->copy_rows(device, p, size, state->diagonal, size, form_whole(cov), (size_t)(p + 1) * size);
  return block_matrix_look(cov, state->diagonal, p);
}

/* W <- P, then whether it has a factor, which W becomes. */
static bool is_positive(const kwm_cov *cov) {
  const struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  if (form_whole(cov) == state->P) kwm_device_copy(device, state->W, state->P, square_bytes(cov));
  return device->ops->factor_f64(device, cov->spec.params, state->W);
}

/* Lifts the diagonal, a little at first and tenfold each time, until P is positive definite. */
static void lift(kwm_cov *cov) {
  struct block_matrix *const state = cov->state;
  kwm_device *const device = cov->spec.device;
  const int64_t p = cov->spec.params;
  double jitter = 0;
  const double *const variances = look_at_diagonal(cov);
  for (int64_t k = 0; k < p; k++) jitter += 1e-12 * fabs(variances[k]) / (double)p;
  for (; !is_positive(cov); jitter *= 10) {
    if (!isfinite(jitter) || jitter == 0) return;
    block_matrix_subtract(cov);
    device->ops->add_diagonal(device, p, jitter, state->P);
    state->floor_hits++;
  }
}

void block_matrix_check(kwm_cov *cov) {
  struct block_matrix *const state = cov->state;
  if (state->unchecked < cov->spec.params) return;
  lift(cov);
  state->unchecked = 0;
}

void block_matrix_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct block_matrix *const state = cov->state;
  const int64_t p = cov->spec.params;
  const double *const variances = look_at_diagonal(cov);
  for (int64_t k = 0; k < p; k++) health->trace += variances[k];
  health->prior_trace += (double)p * state->prior;
  health->parameters += (double)p;
  health->floor_hits += state->floor_hits;
}

bool block_matrix_spectrum(const kwm_cov *cov, double *values) {
  form_whole(cov);
  return home_spectrum(cov, values);
}

bool block_matrix_covariance(const kwm_cov *cov, double *P) {
  form_whole(cov);
  return home_covariance(cov, P);
}

bool block_matrix_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  form_whole(cov);
  return home_predictive(cov, jac, C);
}

/* One of the two arrays from which a run goes on: `rows` rows of p numbers on the device. */
struct part {
  char name[128];
  int64_t dims[2];
  double *there;
};

static struct part part_of(const kwm_cov *cov, const char *leaf, int64_t rows, double *there) {
  struct part part = {.dims = {rows, cov->spec.params}, .there = there};
  snprintf(part.name, sizeof part.name, "/cov/%s/deferred/%s", cov->spec.name, leaf);
  return part;
}

/* here: (rows, p) scratch of the host. */
static kwm_status put(const kwm_cov *cov, kwm_ckpt *ckpt, const struct part *part, bool writes, double *here) {
  const int64_t rows = part->dims[0], *const dims = part->dims;
  if (writes) kwm_device_get(cov->spec.device, here, part->there, (size_t)(rows * dims[1]) * sizeof *here);
  return kwm_ckpt_put(ckpt, part->name, KWM_F64, 2, dims, 0, writes ? rows : 0, here);
}

static kwm_status get(const kwm_cov *cov, kwm_ckpt *ckpt, const struct part *part, double *here) {
  const int64_t rows = part->dims[0], *const dims = part->dims, count = cov->spec.count > 0 ? rows : 0;
  KWM_TRY(kwm_ckpt_get(ckpt, part->name, KWM_F64, 2, dims, 0, count, here));
  if (count > 0) kwm_device_put(cov->spec.device, part->there, here, (size_t)(rows * dims[1]) * sizeof *here);
  return KWM_OK;
}

/* Both, by way of the twin's scratch (p, p), where that is large enough for the rows as well. */
static kwm_status move_deferred(const kwm_cov *cov, kwm_ckpt *ckpt, int64_t pending, bool save, bool writes) {
  const struct block_matrix *const state = cov->state;
  const struct block_state *const twin = state->home.twin.state;
  const int64_t p = cov->spec.params;
  const struct part parts[] = {part_of(cov, "covariance", p, state->P), part_of(cov, "rows", pending, state->Y)};
  double *more = NULL;
  if (pending > p) KWM_TRY(kwm_alloc((void **)&more, (size_t)(pending * p) * sizeof *more, "pending rows"));
  kwm_status status = KWM_OK;
  for (int k = 0; k < 2 && status == KWM_OK; k++) {
    double *const here = k == 1 && more != NULL ? more : twin->W;
    status = save ? put(cov, ckpt, &parts[k], writes, here) : get(cov, ckpt, &parts[k], here);
  }
  kwm_free(more);
  return status;
}

/* Ranks without the matrix don't know how many rows are pending. */
kwm_status block_matrix_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  const struct block_matrix *const state = cov->state;
  form_whole(cov);
  KWM_TRY(home_save(cov, ckpt, writes));
  const int64_t pending = kwm_ckpt_largest(ckpt, state->pending);
  return pending == 0 ? KWM_OK : move_deferred(cov, ckpt, pending, true, writes && cov->spec.count > 0);
}

/* A checkpoint of another batch may have more rows than there is room for: then P is what there is. */
kwm_status block_matrix_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  struct block_matrix *const state = cov->state;
  struct part part = part_of(cov, "rows", 0, state->Y);
  int n_dims = 2;
  state->pending = 0;
  state->whole = state->P;
  KWM_TRY(home_load(cov, ckpt));
  block_matrix_mirror(cov);
  if (kwm_ckpt_shape(ckpt, part.name, &n_dims, part.dims) != KWM_OK) return KWM_OK;
  const int64_t pending = part.dims[0];
  if (pending + state->most > state->capacity) return KWM_OK;
  KWM_TRY(move_deferred(cov, ckpt, pending, false, false));
  block_matrix_mirror(cov);
  state->pending = cov->spec.count > 0 ? pending : 0;
  return KWM_OK;
}

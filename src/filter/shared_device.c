/* S on devices, where every block that shares it is on one: formed where its rows are, summed over the ranks between
   the devices, factored and solved with on each of them: equal devices give equal bits. */
#include "kwm/cov_ops.h"
#include "kwm/device_ops.h"
#include "parts.h"

static int64_t rows_of(const struct kwm_filter_spec *spec, int64_t m) {
  return spec->adapt_noise == 0 ? spec->batch * m : 0;
}

size_t shared_there_bytes(const struct kwm_filter_spec *spec, bool alone, int64_t m) {
  const int64_t rows = rows_of(spec, m);
  return (size_t)(rows * (rows + 1) + (alone ? 0 : rows * rows)) * sizeof(double);
}

static kwm_status init_sum(struct kwm_filter *filter, int64_t rows) {
  const size_t bytes = (size_t)(rows * rows) * sizeof(double);
  if (filter->layout->stages * filter->layout->owners == 1) return KWM_OK;
  if (!filter->layout->owners_talk) KWM_TRY(kwm_alloc((void **)&filter->S_there.staging, 2 * bytes, "S on its way"));
  return kwm_device_alloc(filter->device, (void **)&filter->S_there.scratch, bytes, "S");
}

kwm_status shared_there_init(struct kwm_filter *filter) {
  const int64_t rows = rows_of(&filter->spec, filter->group[0].part.m);
  if (filter->device == NULL || !filter->shared || rows == 0) return KWM_OK;
  for (int g = 0; g < filter->n_groups; g++) {
    const kwm_cov *const cov = &filter->group[g].cov;
    if (cov->spec.form == KWM_FORM_INNOVATION && cov->ops->project_there == NULL) return KWM_OK;
  }
  KWM_TRY(
      kwm_device_alloc(filter->device, (void **)&filter->S_there.values, (size_t)(rows * rows) * sizeof(double), "S"));
  KWM_TRY(kwm_device_alloc(filter->device, (void **)&filter->w_there, (size_t)rows * sizeof(double), "S⁻¹e"));
  return init_sum(filter, rows);
}

/* The innovations come first: they are ready before there is anything to wait for. */
void shared_there_form(struct kwm_filter *filter, const struct kwm_lin *lin) {
  kwm_device *const device = filter->device;
  const int64_t rows = lin->batch * lin->jac[0].m;
  kwm_device_get(device, filter->e, lin->jac[0].e, (size_t)rows * sizeof *filter->e);
  for (int64_t k = 0; k < rows; k++) filter->w[k] = (double)filter->e[k];
  kwm_device_put(device, filter->w_there, filter->w, (size_t)rows * sizeof *filter->w);
  kwm_device_zero(device, filter->S_there.values, (size_t)(rows * rows) * sizeof *filter->S_there.values);
  for (int g = 0; g < filter->n_groups; g++) {
    kwm_cov *const cov = &filter->group[g].cov;
    if (cov->spec.form == KWM_FORM_INNOVATION && cov->spec.count > 0)
      cov->ops->project_there(cov, &lin->jac[g], filter->S_there.values);
  }
  filter->S_there.n = rows * rows;
  kwm_par_sum_group_device(filter->layout, device, &filter->S_there);
  device->ops->add_diagonal(device, rows, filter->noise, filter->S_there.values);
}

bool shared_there_solve(struct kwm_filter *filter, int64_t rows) {
  kwm_device *const device = filter->device;
  return device->ops->factor_solve_f64(device, rows, filter->S_there.values, filter->w_there, filter->w);
}

bool shared_there_condition(struct kwm_filter *filter, struct kwm_filter_group *group, const struct kwm_jac *jac) {
  if (group->cov.spec.count == 0) return true;
  return group->cov.ops->condition_there(&group->cov, jac, filter->S_there.values, filter->w_there);
}

/* S on a device, where every block that shares it is there, on one rank: formed, factored and solved with where its
   rows are. */
#include "kwm/cov_ops.h"
#include "kwm/device_ops.h"
#include "parts.h"

int64_t shared_there_rows(const struct kwm_filter_spec *spec, bool alone, int64_t m) {
  const int64_t rows = spec->batch * m;
  return alone && spec->adapt_noise == 0 ? rows : 0;
}

kwm_status shared_there_init(struct kwm_filter *filter) {
  const bool alone = filter->layout->stages * filter->layout->owners == 1;
  const int64_t rows = shared_there_rows(&filter->spec, alone, filter->group[0].part.m);
  if (filter->device == NULL || !filter->shared || rows == 0) return KWM_OK;
  for (int g = 0; g < filter->n_groups; g++) {
    const kwm_cov *const cov = &filter->group[g].cov;
    if (cov->spec.form == KWM_FORM_INNOVATION && cov->ops->project_there == NULL) return KWM_OK;
  }
  KWM_TRY(kwm_device_alloc(filter->device, (void **)&filter->S_there, (size_t)(rows * rows) * sizeof(double), "S"));
  return kwm_device_alloc(filter->device, (void **)&filter->w_there, (size_t)rows * sizeof(double), "S⁻¹e");
}

/* The innovations come first: they are ready before there is anything to wait for. */
void shared_there_form(struct kwm_filter *filter, const struct kwm_lin *lin) {
  kwm_device *const device = filter->device;
  const int64_t rows = lin->batch * lin->jac[0].m;
  kwm_device_get(device, filter->e, lin->jac[0].e, (size_t)rows * sizeof *filter->e);
  for (int64_t k = 0; k < rows; k++) filter->w[k] = (double)filter->e[k];
  kwm_device_put(device, filter->w_there, filter->w, (size_t)rows * sizeof *filter->w);
  kwm_device_zero(device, filter->S_there, (size_t)(rows * rows) * sizeof *filter->S_there);
  for (int g = 0; g < filter->n_groups; g++) {
    kwm_cov *const cov = &filter->group[g].cov;
    if (cov->spec.form == KWM_FORM_INNOVATION) cov->ops->project_there(cov, &lin->jac[g], filter->S_there);
  }
  device->ops->add_diagonal(device, rows, filter->noise, filter->S_there);
}

bool shared_there_solve(struct kwm_filter *filter, int64_t rows) {
  kwm_device *const device = filter->device;
  return device->ops->factor_solve_f64(device, rows, filter->S_there, filter->w_there, filter->w);
}

bool shared_there_condition(struct kwm_filter *filter, struct kwm_filter_group *group, const struct kwm_jac *jac) {
  return group->cov.ops->condition_there(&group->cov, jac, filter->S_there, filter->w_there);
}

/* kwm spectra of a language model: P is diagonal in each tensor's basis and the prior the same in all of them, so that
   the eigenvalues relative to the prior are p times the prior precision. */
#include "language_spectra.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "language_run.h"
#include "spectra_group.h"

static int ascending(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

/* The variances of a tensor as eigenvalues, on the rank that works on it; room: as many floats. */
static kwm_status read_values(const struct kwm_tensor *tensor, double prior, kwm_ckpt *ckpt, float *room,
                              struct kwm_group_spectrum *spectrum) {
  const int64_t dims[2] = {tensor->rows, tensor->columns}, rows = spectrum->count > 0 ? tensor->rows : 0;
  const int64_t n = rows * tensor->columns;
  char name[64];
  snprintf(name, sizeof name, "/cov/%s/variance", tensor->name);
  KWM_TRY(kwm_ckpt_get(ckpt, name, KWM_F32, 2, dims, 0, rows, room));
  for (int64_t k = 0; k < n; k++) spectrum->values[k] = prior * (double)room[k];
  qsort(spectrum->values, (size_t)n, sizeof *spectrum->values, ascending);
  return KWM_OK;
}

static kwm_status spectrum_of(const struct kwm_run *run, const struct kwm_tensor *tensor, double prior, bool mine,
                              kwm_ckpt *ckpt, kwm_ckpt *file) {
  struct kwm_layout layout = run->layout;
  struct kwm_group_spectrum spectrum = {
      .name = tensor->name, .blocks = 1, .width = tensor->rows * tensor->columns, .last = 1, .count = mine};
  float *room = NULL;
  kwm_status status = kwm_group_spectrum_allocate(&spectrum);
  if (status == KWM_OK) status = kwm_alloc((void **)&room, (size_t)(mine ? spectrum.width : 0) * sizeof *room, "room");
  status = kwm_agree(run->layout.world, status);
  if (status == KWM_OK) status = read_values(tensor, prior, ckpt, room, &spectrum);
  kwm_free(room);
  if (status == KWM_OK) {
    kwm_group_spectrum_share(&spectrum, &layout);
    spectrum.gain[0] = NAN; /* not kept */
    status = kwm_group_spectrum_put(&spectrum, &layout, file);
  }
  if (status == KWM_OK && run->layout.rank == 0) kwm_group_spectrum_print(&spectrum);
  kwm_group_spectrum_fini(&spectrum);
  return status;
}

kwm_status kwm_language_spectra(const struct kwm_run *run, kwm_ckpt *ckpt, kwm_ckpt *file) {
  struct kwm_language_run language = {.run = (struct kwm_run *)(uintptr_t)run};
  int64_t types = 0;
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "types", &types));
  KWM_TRY(kwm_language_run_model(&language, types));
  const struct kwm_language_learn_spec spec = kwm_language_run_learn_spec(&language);
  for (int t = 0; t < language.model.n_tensors; t++) {
    const struct kwm_tensor *const tensor = &language.model.tensors[t];
    KWM_TRY(spectrum_of(run, tensor, spec.prior[tensor->role], t % run->layout.size == run->layout.rank, ckpt, file));
  }
  return KWM_OK;
}

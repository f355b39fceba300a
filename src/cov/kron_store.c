/* kron in a checkpoint: every array that belongs to the state, of which the owner holds all rows; while a basis is
   awaited (kron_schedule.c), the factors that it comes from and the step at which they were set aside, too. */
#include "kron.h"

#include <stdio.h>
#include <string.h>

/* AWAITED of the leaves are there only while a basis is awaited. */
enum { KRON_FILES = 7, KRON_AWAITED = 2 };
struct kron_file {
  const char *leaf;
  const struct reals *data;
  int64_t rows, cols;
};

static void files_of(const kwm_cov *cov, struct kron_file files[KRON_FILES]) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const struct kron_state *const state = cov->state;
  const struct kron_file list[KRON_FILES] = {{"precision", &state->D, o, i},
                                             {"input_factor", &state->A, i, i},
                                             {"output_factor", &state->G, o, o},
                                             {"input_basis", &state->U, i, i},
                                             {"output_basis", &state->V, o, o},
                                             {"awaited_input_factor", &state->past_A, i, i},
                                             {"awaited_output_factor", &state->past_G, o, o}};
  memcpy(files, list, sizeof list);
}

static const char *name_of(const kwm_cov *cov, const char *leaf, char name[128]) {
  snprintf(name, 128, "/cov/%s/%s", cov->spec.name, leaf);
  return name;
}

kwm_status kron_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  static const int64_t one = 1;
  const struct kron_state *const state = cov->state;
  const bool awaited = kron_awaited(&cov->spec, cov->step) > 0, ours = writes && cov->spec.count > 0;
  struct kron_file files[KRON_FILES];
  char name[128];
  files_of(cov, files);
  for (int k = 0; k < KRON_FILES - (awaited ? 0 : KRON_AWAITED); k++) {
    const int64_t dims[2] = {files[k].rows, files[k].cols};
    KWM_TRY(kwm_ckpt_put(ckpt, name_of(cov, files[k].leaf, name), reals_type(cov->spec.real), 2, dims, 0,
                         ours ? dims[0] : 0, reals_data(files[k].data)));
  }
  if (!awaited) return KWM_OK;
  return kwm_ckpt_put(ckpt, name_of(cov, "awaited_since", name), KWM_I64, 1, &one, 0, ours, &state->since);
}

/* The step at which the awaited basis's factors were set aside, on every rank; 0: the checkpoint has none. */
static kwm_status load_since(kwm_cov *cov, kwm_ckpt *ckpt, int64_t *since) {
  static const int64_t one = 1;
  char name[128];
  int64_t dims[1];
  int n_dims = 1;
  *since = 0;
  name_of(cov, "awaited_since", name);
  if (cov->spec.delay == 0 || kwm_ckpt_shape(ckpt, name, &n_dims, dims) != KWM_OK) return KWM_OK;
  return kwm_ckpt_get(ckpt, name, KWM_I64, 1, &one, 0, 1, since);
}

kwm_status kron_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  struct kron_state *const state = cov->state;
  struct kron_file files[KRON_FILES];
  char name[128];
  KWM_TRY(load_since(cov, ckpt, &state->since));
  cov->step = state->since;
  files_of(cov, files);
  for (int k = 0; k < KRON_FILES - (state->since > 0 ? 0 : KRON_AWAITED); k++) {
    const int64_t dims[2] = {files[k].rows, files[k].cols};
    KWM_TRY(kwm_ckpt_get(ckpt, name_of(cov, files[k].leaf, name), reals_type(cov->spec.real), 2, dims, 0,
                         cov->spec.count > 0 ? dims[0] : 0, reals_data(files[k].data)));
  }
  return KWM_OK;
}

/* A device's linearisation brought to the host, array by array. */
#include "kwm/lin.h"

enum { ARRAYS = 6 };

/* One array of a jac: its place there and its length. */
struct field {
  const float **at;
  int64_t floats;
};

static void fields_of(struct kwm_jac *jac, struct field fields[ARRAYS]) {
  const bool units = jac->shape == KWM_JAC_UNITS;
  const int64_t n = jac->n, states = n * jac->channels * jac->count;
  fields[0] = (struct field){&jac->J, units ? states * jac->m : n * jac->m * jac->d_o};
  fields[1] = (struct field){&jac->S, states * jac->params};
  fields[2] = (struct field){&jac->a, n * jac->d_i};
  fields[3] = (struct field){&jac->aU, n * jac->d_i};
  fields[4] = (struct field){&jac->e, n * jac->m};
  fields[5] = (struct field){&jac->g, n * jac->d_o};
}

/* *room holds at least `bytes`. */
static kwm_status provide(float **room, size_t *held, size_t bytes) {
  if (*room != NULL && bytes <= *held) return KWM_OK;
  kwm_free(*room);
  *held = 0;
  KWM_TRY(kwm_alloc((void **)room, bytes, "a device's step on the host"));
  *held = bytes;
  return KWM_OK;
}

kwm_status kwm_lin_fetch(struct kwm_lin_mirror *mirror, const struct kwm_lin *lin, struct kwm_lin *on_host) {
  *on_host = *lin;
  if (lin->device == NULL) return KWM_OK;
  for (int p = 0; p < lin->n_parts; p++) {
    struct field fields[ARRAYS];
    fields_of(&on_host->jac[p], fields);
    for (int k = 0; k < ARRAYS; k++) {
      if (*fields[k].at == NULL) continue;
      const size_t bytes = (size_t)fields[k].floats * sizeof(float);
      KWM_TRY(provide(&mirror->at[p][k], &mirror->bytes[p][k], bytes));
      kwm_device_get(lin->device, mirror->at[p][k], *fields[k].at, bytes);
      *fields[k].at = mirror->at[p][k];
    }
  }
  on_host->innovation = kwm_lin_innovation(lin);
  kwm_lin_surprisals(lin, on_host->surprisal);
  on_host->device = NULL;
  on_host->facts = NULL;
  return KWM_OK;
}

void kwm_lin_mirror_fini(struct kwm_lin_mirror *mirror) {
  for (int p = 0; p < KWM_LIN_PARTS; p++)
    for (int k = 0; k < ARRAYS; k++) kwm_free(mirror->at[p][k]);
  *mirror = (struct kwm_lin_mirror){0};
}

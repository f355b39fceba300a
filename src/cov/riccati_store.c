/* A tensor's covariance to and from checkpoints. */
#include <stdio.h>

#include "kwm/riccati.h"

enum { ARRAYS = 7, NAME_BYTES = 96 };

struct array {
  const char *name;
  float *at;
  int64_t rows, columns;
};

/* Which arrays a tensor of this shape has, where they lie if it is here. */
static int list(const struct kwm_riccati *cov, struct array arrays[ARRAYS]) {
  const struct kwm_riccati_spec *const spec = &cov->spec;
  const int64_t o = spec->rows, i = spec->columns;
  int n = 0;
  arrays[n++] = (struct array){"information", cov->f, o, i};
  arrays[n++] = (struct array){"smoothed_score", cov->m, o, i};
  arrays[n++] = (struct array){"variance", cov->p, o, i};
  if (spec->right) {
    arrays[n++] = (struct array){"input_factor", cov->A, i, i};
    arrays[n++] = (struct array){"input_basis", cov->U_A, i, i};
  }
  if (spec->left) {
    arrays[n++] = (struct array){"output_factor", cov->G, o, o};
    arrays[n++] = (struct array){"output_basis", cov->U_G, o, o};
  }
  return n;
}

/* A device's array passes through `host`; the host's is read and written where it is. */
static float *way(const struct kwm_riccati *cov, const struct array *array, float *host) {
  return cov->spec.device == NULL ? array->at : host;
}

kwm_status kwm_riccati_save(const struct kwm_riccati *cov, kwm_ckpt *ckpt, bool holds, float *host) {
  struct array arrays[ARRAYS];
  char name[NAME_BYTES];
  const int n = list(cov, arrays);
  for (int k = 0; k < n; k++) {
    const int64_t dims[2] = {arrays[k].rows, arrays[k].columns};
    float *const data = way(cov, &arrays[k], host);
    snprintf(name, sizeof name, "/cov/%s/%s", cov->spec.name, arrays[k].name);
    if (holds && data == host)
      kwm_device_get(cov->spec.device, data, arrays[k].at, (size_t)(dims[0] * dims[1]) * sizeof *data);
    KWM_TRY(kwm_ckpt_put(ckpt, name, KWM_F32, 2, dims, 0, holds ? dims[0] : 0, data));
  }
  return KWM_OK;
}

kwm_status kwm_riccati_load(struct kwm_riccati *cov, kwm_ckpt *ckpt, bool holds, float *host) {
  struct array arrays[ARRAYS];
  char name[NAME_BYTES];
  const int n = list(cov, arrays);
  for (int k = 0; k < n; k++) {
    const int64_t dims[2] = {arrays[k].rows, arrays[k].columns};
    float *const data = way(cov, &arrays[k], host);
    snprintf(name, sizeof name, "/cov/%s/%s", cov->spec.name, arrays[k].name);
    KWM_TRY(kwm_ckpt_get(ckpt, name, KWM_F32, 2, dims, 0, holds ? dims[0] : 0, data));
    if (holds && data == host)
      kwm_device_put(cov->spec.device, arrays[k].at, data, (size_t)(dims[0] * dims[1]) * sizeof *data);
  }
  return KWM_OK;
}

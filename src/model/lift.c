#include "kwm/lift.h"

#include <math.h>
#include <string.h>

#include "kwm/monomials.h"

enum { SIZE_MAX_LIFT = 4000 };

kwm_status kwm_lift_init(struct kwm_lift *lift, const struct kwm_lift_spec *spec) {
  const int window = spec->m * (spec->delays + 1);
  const int64_t monomials =
      spec->degree > 1 && spec->encoder == NULL ? kwm_monomials_count(window, 2, spec->degree) : 0;
  memset(lift, 0, sizeof *lift);
  KWM_CHECK(
      monomials >= 0 && window + 1 + monomials + spec->radials <= SIZE_MAX_LIFT, KWM_ERR_USAGE,
      "world: wanted at most %d elements in the dictionary, a window of %d of degree %d and %d radial functions has "
      "more",
      SIZE_MAX_LIFT, window, spec->degree, spec->radials);
  const bool learned = spec->encoder != NULL;
  const int size = learned ? spec->encoder->spec.size : window + 1 + (int)monomials + spec->radials;
  *lift = (struct kwm_lift){.spec = *spec, .window = window, .size = size, .monomials = (int)monomials, .width = 1};
  const size_t numbers = (size_t)(size * (size + spec->k) + spec->radials * window);
  const size_t powers = (size_t)monomials * (size_t)window;
  KWM_TRY(kwm_alloc((void **)&lift->A, numbers * sizeof(double) + powers, "dictionary"));
  lift->centres = lift->A + (int64_t)size * (size + spec->k);
  lift->powers = (uint8_t *)(lift->A + numbers);
  if (monomials > 0) kwm_monomials_list(window, 2, spec->degree, lift->powers);
  return KWM_OK;
}

void kwm_lift_fini(struct kwm_lift *lift) {
  kwm_free(lift->A);
  memset(lift, 0, sizeof *lift);
}

void kwm_lift_apply(const struct kwm_lift *lift, const double *window, double *z) {
  const int w = lift->window;
  if (lift->spec.encoder != NULL) {
    kwm_encoder_lift(lift->spec.encoder, lift->spec.theta, window, z, NULL);
    return;
  }
  memcpy(z, window, (size_t)w * sizeof *z);
  z[w] = 1;
  kwm_monomials_value(w, lift->monomials, lift->powers, window, z + w + 1, NULL);
  double *const radial = z + w + 1 + lift->monomials;
  for (int c = 0; c < lift->spec.radials; c++) {
    double distance = 0;
    for (int i = 0; i < w; i++) {
      const double difference = window[i] - lift->centres[(int64_t)c * w + i];
      distance += difference * difference;
    }
    radial[c] = exp(-distance / (2 * lift->width * lift->width));
  }
}

bool kwm_lift_window(const struct kwm_lift *lift, const double *y, int64_t t, int64_t first, double *window) {
  const int m = lift->spec.m;
  bool whole = true;
  for (int i = 0; i < m; i++) {
    double newer = NAN;
    for (int64_t back = t; back >= first && isnan(newer); back--) newer = y[back * m + i];
    if (isnan(newer)) newer = 0;
    for (int l = 0; l <= lift->spec.delays; l++) {
      const double value = t - l >= first ? y[(t - l) * m + i] : NAN;
      whole = whole && !isnan(value);
      if (!isnan(value)) newer = value;
      window[l * m + i] = newer;
    }
  }
  return whole;
}

void kwm_lift_step(const struct kwm_lift *lift, const double *z, const double *u, double *next) {
  const int size = lift->size, width = size + lift->spec.k;
  for (int i = 0; i < size; i++) {
    const double *const row = lift->A + (int64_t)i * width;
    double sum = 0;
    for (int j = 0; j < size; j++) sum += row[j] * z[j];
    for (int j = 0; j < lift->spec.k; j++) sum += row[size + j] * u[j];
    next[i] = sum;
  }
}

void kwm_lift_read(const struct kwm_lift *lift, const double *z, double *y, double *C) {
  if (lift->spec.encoder != NULL) {
    kwm_encoder_read(lift->spec.encoder, lift->spec.theta, z, y, C, NULL);
    return;
  }
  memcpy(y, z, (size_t)lift->spec.m * sizeof *y);
  if (C == NULL) return;
  memset(C, 0, (size_t)lift->spec.m * (size_t)lift->size * sizeof *C);
  for (int i = 0; i < lift->spec.m; i++) C[(int64_t)i * lift->size + i] = 1;
}

static void step(const void *context, const double *x, const double *u, const double *theta, double *next, double *Fx,
                 double *Ft) {
  const struct kwm_lift *const lift = context;
  (void)theta, (void)Ft;
  kwm_lift_step(lift, x, u, next);
  for (int i = 0; Fx != NULL && i < lift->size; i++)
    memcpy(Fx + (int64_t)i * lift->size, lift->A + (int64_t)i * (lift->size + lift->spec.k),
           (size_t)lift->size * sizeof *Fx);
}

static void observe(const void *context, const double *x, const double *theta, double *y, double *Hx, double *Ht) {
  (void)theta, (void)Ht;
  kwm_lift_read(context, x, y, Hx);
}

void kwm_lift_space(const struct kwm_lift *lift, struct kwm_space *space) {
  *space = (struct kwm_space){
      .d = lift->size, .m = lift->spec.m, .k = lift->spec.k, .context = lift, .step = step, .observe = observe};
}

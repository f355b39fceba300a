/* A segment's window of a local polynomial model, x_i⁺ = x_i + θ_i · monomials(x_{i-near} .. x_{i+near}), u: its own
   states with those within reach. What lies outside comes as inputs. */
#include "kwm/statespace.h"

#include <string.h>

#include "kwm/monomials.h"

/* θ of window state j: its own segment's from `theta`, the others' from the inputs. */
static const double *row_of(const struct kwm_statespace_window *window, int j, const double *theta,
                            const double *outside) {
  const struct kwm_segment *const segment = window->segment;
  const int64_t features = window->model->features;
  if (j < segment->reach) return outside + j * features;
  if (j < segment->reach + segment->count) return theta + (j - segment->reach) * features;
  return outside + (j - segment->count) * features;
}

/* Row j of both Jacobians. */
static void slopes_of(const struct kwm_statespace_window *window, int j, const double *row, double *Fx, double *Ft) {
  const struct kwm_segment *const segment = window->segment;
  const int features = window->model->features, inner = window->model->inner, k = window->model->spec.k;
  const double *const values = window->values, *const slopes = values + features;
  for (int l = 0; l < inner; l++) {
    const int column = j - segment->near + l;
    double slope = l == segment->near;
    if (column < 0 || column >= segment->size) continue;
    for (int f = 0; f < features - k; f++) slope += row[f] * slopes[(int64_t)f * inner + l];
    Fx[(int64_t)j * segment->size + column] = slope;
  }
  const int own = j - segment->reach;
  if (Ft == NULL || own < 0 || own >= segment->count) return;
  const int64_t n = (int64_t)segment->count * features;
  memcpy(Ft + j * n + (int64_t)own * features, values, (size_t)features * sizeof *values);
}

static void step(const void *context, const double *x, const double *u, const double *theta, double *next, double *Fx,
                 double *Ft) {
  const struct kwm_statespace_window *const window = context;
  const struct kwm_statespace *const model = window->model;
  const int k = model->spec.k, near = model->spec.near, size = window->segment->size, features = model->features;
  const double *const ghosts = u + k, *const outside = ghosts + 2 * near;
  double *const padded = window->padded, *const values = window->values;
  if (Fx != NULL) memset(Fx, 0, (size_t)size * (size_t)size * sizeof *Fx);
  if (Ft != NULL) memset(Ft, 0, (size_t)(size * window->segment->count * features) * sizeof *Ft);
  memcpy(padded, ghosts, (size_t)near * sizeof *padded);
  memcpy(padded + near, x, (size_t)size * sizeof *padded);
  memcpy(padded + near + size, ghosts + near, (size_t)near * sizeof *padded);
  for (int j = 0; j < k; j++) values[features - k + j] = u[j];
  for (int j = 0; j < size; j++) {
    const double *const row = row_of(window, j, theta, outside);
    double sum = x[j];
    kwm_monomials_value(model->inner, features - k, model->powers, padded + j, values,
                        Fx != NULL ? values + features : NULL);
    for (int f = 0; f < features; f++) sum += row[f] * values[f];
    next[j] = sum;
    if (Fx != NULL) slopes_of(window, j, row, Fx, Ft);
  }
}

static void observe(const void *context, const double *x, const double *theta, double *y, double *Hx, double *Ht) {
  const struct kwm_statespace_window *const window = context;
  const struct kwm_segment *const segment = window->segment;
  (void)theta;
  if (Hx != NULL) memset(Hx, 0, (size_t)(segment->m * segment->size) * sizeof *Hx);
  if (Ht != NULL) memset(Ht, 0, (size_t)(segment->m * segment->count * window->model->features) * sizeof *Ht);
  for (int i = 0; i < segment->m; i++) {
    y[i] = x[segment->outputs[i]];
    if (Hx != NULL) Hx[(int64_t)i * segment->size + segment->outputs[i]] = 1;
  }
}

kwm_status kwm_statespace_window_init(struct kwm_statespace_window *window, const struct kwm_statespace *model,
                                      const struct kwm_segment *segment) {
  const struct kwm_statespace_spec *const spec = &model->spec;
  const size_t padded = (size_t)(segment->size + 2 * spec->near);
  memset(window, 0, sizeof *window);
  KWM_CHECK(spec->transition == KWM_TRANSITION_POLYNOMIAL && spec->near > 0 && spec->readout == KWM_READOUT_IDENTITY,
            KWM_ERR_USAGE,
            "world.segments: wanted world.transition polynomial, world.near above 0 and world.readout identity, found "
            "others");
  *window = (struct kwm_statespace_window){.model = model, .segment = segment};
  KWM_TRY(kwm_alloc((void **)&window->padded,
                    (padded + (size_t)(model->features * (model->inner + 1))) * sizeof *window->padded, "window"));
  window->values = window->padded + padded;
  return KWM_OK;
}

void kwm_statespace_window_fini(struct kwm_statespace_window *window) {
  kwm_free(window->padded);
  memset(window, 0, sizeof *window);
}

void kwm_statespace_window_space(const struct kwm_statespace_window *window, struct kwm_space *space) {
  const struct kwm_statespace *const model = window->model;
  const struct kwm_segment *const segment = window->segment;
  *space = (struct kwm_space){.d = segment->size,
                              .n = segment->count * model->features,
                              .m = segment->m,
                              .k = model->spec.k + 2 * segment->near + 2 * segment->reach * model->features,
                              .context = window,
                              .step = step,
                              .observe = observe};
}

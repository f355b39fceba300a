/* Learned transitions. θ in this order: rows of Θ (d, features) where g is linear in its parameters; else W₁ (hidden,
   d + k + 1), W₂ (d, hidden), then the linear part (d, d + k + 1); last, the read-out's [C c] (m, d + 1). */
#include "kwm/statespace.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/monomials.h"
#include "kwm/rng.h"

enum { FEATURES_MAX = 20000 };

static int inner_parameters(const struct kwm_statespace_spec *spec, int64_t features) {
  const int inputs = spec->d + spec->k + 1;
  if (spec->transition != KWM_TRANSITION_MLP) return (int)(spec->d * features);
  return spec->hidden * (inputs + spec->d) + spec->d * inputs;
}

kwm_status kwm_statespace_init(struct kwm_statespace *model, const struct kwm_statespace_spec *spec) {
  const int degree = spec->transition == KWM_TRANSITION_POLYNOMIAL ? spec->degree : 1;
  const bool local = spec->transition == KWM_TRANSITION_POLYNOMIAL && spec->near > 0;
  const int inner = local ? 2 * spec->near + 1 : spec->d;
  const int64_t monomials = kwm_monomials_count(inner, 0, degree), features = monomials + spec->k;
  memset(model, 0, sizeof *model);
  KWM_CHECK(spec->readout == KWM_READOUT_LINEAR || spec->d >= spec->m, KWM_ERR_USAGE,
            "world.states: wanted at least the %d outputs with world.readout identity, found %d", spec->m, spec->d);
  KWM_CHECK(inner <= spec->d, KWM_ERR_USAGE, "world.near: wanted %d neighbours and a state among %d states", inner - 1,
            spec->d);
  KWM_CHECK(monomials > 0 && features <= FEATURES_MAX, KWM_ERR_USAGE,
            "world.degree: wanted at most %d monomials, %d states of degree %d have more", FEATURES_MAX, inner, degree);
  *model = (struct kwm_statespace){.spec = *spec, .features = (int)features, .inner = inner};
  model->n = inner_parameters(spec, features) + (spec->readout == KWM_READOUT_LINEAR ? spec->m * (spec->d + 1) : 0);
  const size_t numbers = (size_t)(features * (inner + 1) + inner + 2 * spec->hidden + spec->d + spec->k + 1);
  KWM_TRY(kwm_alloc((void **)&model->work, numbers * sizeof(double) + (size_t)(features * inner), "state-space model"));
  model->powers = (uint8_t *)(model->work + numbers);
  kwm_monomials_list(inner, 0, degree, model->powers);
  return KWM_OK;
}

void kwm_statespace_fini(struct kwm_statespace *model) {
  kwm_free(model->work);
  memset(model, 0, sizeof *model);
}

/* State j of those that row i's monomials are of. */
static int neighbour(const struct kwm_statespace *model, int i, int j) {
  return model->inner == model->spec.d ? j : (i + j - model->spec.near + model->spec.d) % model->spec.d;
}

static void features_step(const struct kwm_statespace *model, const double *x, const double *u, const double *theta,
                          double *next, double *Fx, double *Ft) {
  const int d = model->spec.d, k = model->spec.k, count = model->features, inner = model->inner;
  double *const values = model->work, *const slopes = values + count, *const near = slopes + (int64_t)count * inner;
  if (Fx != NULL) memset(Fx, 0, (size_t)d * (size_t)d * sizeof *Fx);
  for (int j = 0; j < k; j++) values[count - k + j] = u[j];
  for (int i = 0; i < d; i++) {
    const double *const row = theta + (int64_t)i * count;
    double sum = x[i];
    for (int j = 0; j < inner; j++) near[j] = x[neighbour(model, i, j)];
    if (i == 0 || inner < d)
      kwm_monomials_value(inner, count - k, model->powers, near, values, Fx != NULL ? slopes : NULL);
    for (int f = 0; f < count; f++) sum += row[f] * values[f];
    next[i] = sum;
    for (int j = 0; Fx != NULL && j < inner; j++) {
      double slope = 0;
      for (int f = 0; f < count - k; f++) slope += row[f] * slopes[(int64_t)f * inner + j];
      Fx[(int64_t)i * d + neighbour(model, i, j)] = slope;
    }
    if (Fx != NULL) Fx[(int64_t)i * (d + 1)] += 1;
    if (Ft != NULL) memcpy(Ft + (int64_t)i * model->n + (int64_t)i * count, values, (size_t)count * sizeof *values);
  }
}

static void mlp_step(const struct kwm_statespace *model, const double *x, const double *u, const double *theta,
                     double *next, double *Fx, double *Ft) {
  const int d = model->spec.d, k = model->spec.k, hidden = model->spec.hidden, inputs = d + k + 1;
  const double *const W1 = theta, *const W2 = W1 + hidden * inputs, *const A = W2 + d * hidden;
  double *const in = model->work, *const out = in + inputs;
  memcpy(in, x, (size_t)d * sizeof *x);
  if (k > 0) memcpy(in + d, u, (size_t)k * sizeof *u);
  in[d + k] = 1;
  for (int l = 0; l < hidden; l++) {
    double sum = 0;
    for (int j = 0; j < inputs; j++) sum += W1[l * inputs + j] * in[j];
    out[l] = tanh(sum);
  }
  for (int i = 0; i < d; i++) {
    const double *const w = W2 + i * hidden, *const a = A + i * inputs;
    double sum = x[i];
    for (int l = 0; l < hidden; l++) sum += w[l] * out[l];
    for (int j = 0; j < inputs; j++) sum += a[j] * in[j];
    next[i] = sum;
    for (int j = 0; Fx != NULL && j < d; j++) {
      double slope = (i == j) + a[j];
      for (int l = 0; l < hidden; l++) slope += w[l] * (1 - out[l] * out[l]) * W1[l * inputs + j];
      Fx[i * d + j] = slope;
    }
    if (Ft == NULL) continue;
    double *const row = Ft + (int64_t)i * model->n, *const of_W2 = row + hidden * inputs;
    for (int l = 0; l < hidden; l++) {
      const double back = w[l] * (1 - out[l] * out[l]);
      for (int j = 0; j < inputs; j++) row[l * inputs + j] = back * in[j];
    }
    memcpy(of_W2 + i * hidden, out, (size_t)hidden * sizeof *out);
    memcpy(of_W2 + d * hidden + i * inputs, in, (size_t)inputs * sizeof *in);
  }
}

static void step(const void *context, const double *x, const double *u, const double *theta, double *next, double *Fx,
                 double *Ft) {
  const struct kwm_statespace *const model = context;
  if (Ft != NULL) memset(Ft, 0, (size_t)model->spec.d * (size_t)model->n * sizeof *Ft);
  if (model->spec.transition == KWM_TRANSITION_MLP)
    mlp_step(model, x, u, theta, next, Fx, Ft);
  else
    features_step(model, x, u, theta, next, Fx, Ft);
}

static void observe(const void *context, const double *x, const double *theta, double *y, double *Hx, double *Ht) {
  const struct kwm_statespace *const model = context;
  const int d = model->spec.d, m = model->spec.m, first = model->n - m * (d + 1);
  if (Ht != NULL) memset(Ht, 0, (size_t)m * (size_t)model->n * sizeof *Ht);
  if (model->spec.readout == KWM_READOUT_IDENTITY) {
    memcpy(y, x, (size_t)m * sizeof *y);
    for (int i = 0; Hx != NULL && i < m; i++)
      for (int j = 0; j < d; j++) Hx[i * d + j] = i == j;
    return;
  }
  for (int i = 0; i < m; i++) {
    const double *const C = theta + first + i * (d + 1);
    double sum = C[d];
    for (int j = 0; j < d; j++) sum += C[j] * x[j];
    y[i] = sum;
    if (Hx != NULL) memcpy(Hx + i * d, C, (size_t)d * sizeof *C);
    if (Ht == NULL) continue;
    double *const row = Ht + (int64_t)i * model->n + first + i * (d + 1);
    memcpy(row, x, (size_t)d * sizeof *x);
    row[d] = 1;
  }
}

void kwm_statespace_space(const struct kwm_statespace *model, struct kwm_space *space) {
  *space = (struct kwm_space){.d = model->spec.d,
                              .n = model->n,
                              .m = model->spec.m,
                              .k = model->spec.k,
                              .context = model,
                              .step = step,
                              .observe = observe};
}

int kwm_statespace_blocks(const struct kwm_statespace *model, int *sizes) {
  const struct kwm_statespace_spec *const spec = &model->spec;
  const bool mlp = spec->transition == KWM_TRANSITION_MLP;
  const int inputs = spec->d + spec->k + 1, readouts = spec->readout == KWM_READOUT_LINEAR ? spec->m : 0;
  const struct {
    int count, size;
  } groups[] = {{mlp ? spec->hidden : 0, inputs},
                {mlp ? spec->d : 0, spec->hidden},
                {spec->d, mlp ? inputs : model->features},
                {readouts, spec->d + 1}};
  int n = 0;
  for (int g = 0; g < 4; g++)
    for (int b = 0; b < groups[g].count; b++, n++)
      if (sizes != NULL) sizes[n] = groups[g].size;
  return n;
}

void kwm_statespace_prior(const struct kwm_statespace *model, uint64_t seed, double scale, double *mean,
                          double *variance) {
  const struct kwm_statespace_spec *const spec = &model->spec;
  const int inputs = spec->d + spec->k + 1, inner = inner_parameters(spec, model->features);
  const bool mlp = spec->transition == KWM_TRANSITION_MLP;
  const int W1 = mlp ? spec->hidden * inputs : 0, W2 = mlp ? W1 + spec->d * spec->hidden : 0;
  for (int i = 0; i < model->n; i++) {
    mean[i] = 0;
    variance[i] = scale * scale;
    if (i < W1) {
      mean[i] = kwm_rng_normal(seed, KWM_RNG_WORLD, 0, (uint64_t)i);
      variance[i] = 1;
    } else if (i < W2) {
      variance[i] = scale * scale / spec->hidden;
      mean[i] = 0.1 * sqrt(variance[i]) * kwm_rng_normal(seed, KWM_RNG_WORLD, 0, (uint64_t)i);
    } else if (i >= inner) {
      const int row = (i - inner) / (spec->d + 1), column = (i - inner) % (spec->d + 1);
      mean[i] = row == column % (spec->m > 0 ? spec->m : 1) && column < spec->d;
      variance[i] = 0.1;
    }
  }
}

const char *kwm_statespace_name(const struct kwm_statespace *model, int i, char *text) {
  const struct kwm_statespace_spec *const spec = &model->spec;
  const int inner = inner_parameters(spec, model->features), monomials = model->features - spec->k;
  if (spec->transition == KWM_TRANSITION_MLP || i >= inner) {
    snprintf(text, 64, i >= inner ? "readout%d" : "w%d", i >= inner ? i - inner + 1 : i + 1);
    return text;
  }
  const int row = i / model->features, f = i % model->features;
  int at = snprintf(text, 64, "dx%d", row + 1);
  if (f >= monomials) snprintf(text + at, (size_t)(64 - at), "_u%d", f - monomials + 1);
  if (f == 0) snprintf(text + at, (size_t)(64 - at), "_1");
  for (int j = 0; f < monomials && j < model->inner && at < 48; j++) {
    const int power = model->powers[(int64_t)f * model->inner + j], state = neighbour(model, row, j) + 1;
    if (power > 0) at += snprintf(text + at, (size_t)(64 - at), power > 1 ? "_x%d^%d" : "_x%d", state, power);
  }
  return text;
}

/* kron on a device: the information form in float, its formulas those of kron_f32.c and kron_time.h.

   What differs is the shape of a step: full squares in place of packed panels, since a device does the whole product in
   the time of its half; A and G beside each other in the evidence as in the state, so that one sum takes both; a new
   basis, or a new D, by exchanging arrays. A step has no wait of its own but absorb's; a refresh waits for its bases,
   which with a delay are worked out beside the steps until then. The step at which they were asked for is the twin's.
 */
#include "device_home.h"
#include "kron.h"

struct kron_device {
  struct device_home home;
  float *D, *X, *f, *T;         /* (d_o, d_i) as in struct kron_state */
  float *sums;                  /* A (d_i, d_i) and G (d_o, d_o) where the evidence has them */
  float *past;                  /* with a delay: sums as they stood when the awaited basis was asked for */
  float *U, *V, *new_U, *new_V; /* (d_i, d_i), (d_o, d_o); new ones: the next basis, scratch of a step */
  bool begun;                   /* the eigenproblems of A and G are: */
  void *bases[2];               /* what was begun */
  float *overlap;               /* (d, d), d = max(d_o, d_i) scratch */
  float *gt2;                   /* (d_o) scratch */
  float *aU, *g, *gV;           /* (n_max, d_i), (n_max, d_o), (n_max, d_o) scratch */
};

/* Evidence of a chunk: A (d_i, d_i), G (d_o, d_o), X (d_o, d_i), at2 (d_i), gt2 (d_o) as in struct kron_evidence, each
   beginning where wide loads may. */
struct squares {
  int64_t A, G, X, at2, gt2, length;
};

static int64_t aligned(int64_t floats) {
  return (floats + 31) / 32 * 32;
}

static struct squares squares_of(const struct kwm_cov_spec *spec) {
  const int64_t o = spec->d_o, i = spec->d_i;
  struct squares at = {0};
  at.G = at.A + aligned(i * i);
  at.X = at.G + aligned(o * o);
  at.at2 = at.X + aligned(o * i);
  at.gt2 = at.at2 + aligned(i);
  at.length = at.gt2 + (kron_turns_rows(spec) ? aligned(o) : 0);
  return at;
}

bool kron_on_device(const struct kwm_cov_spec *spec) {
  return spec->form == KWM_FORM_INFORMATION && spec->real == KWM_REAL_FLOAT;
}

static size_t device_bytes(const struct kwm_cov_spec *spec) {
  return kwm_cov_kron.bytes(spec) + kwm_mem_rounded(sizeof(struct kron_device));
}

static size_t device_room(const struct kwm_cov_spec *spec) {
  const int64_t o = spec->d_o, i = spec->d_i, d = o > i ? o : i, n = spec->n_max;
  if (spec->count == 0) return 0;
  const int64_t sums = squares_of(spec).X * (spec->delay > 0 ? 2 : 1);
  return (size_t)(4 * o * i + sums + 2 * (i * i + o * o) + d * d + o + n * (i + 2 * o)) * sizeof(float);
}

static int64_t device_evidence_length(const struct kwm_cov_spec *spec) {
  return spec->count == 0 ? 0 : squares_of(spec).length;
}

/* The twin's arrays that are here too. */
static void pair_all(struct kron_device *state, const struct kwm_cov_spec *spec) {
  struct device_home *const home = &state->home;
  const struct kron_state *const twin = home->twin.state;
  const size_t o = (size_t)spec->d_o, i = (size_t)spec->d_i, one = sizeof(float);
  const struct squares at = squares_of(spec);
  home_pair(home, (void **)&state->D, 0, twin->D.f32, o * i * one);
  home_pair(home, (void **)&state->X, 0, twin->X.f32, o * i * one);
  home_pair(home, (void **)&state->sums, (size_t)at.A * one, twin->A.f32, i * i * one);
  home_pair(home, (void **)&state->sums, (size_t)at.G * one, twin->G.f32, o * o * one);
  if (state->past != NULL) {
    home_pair(home, (void **)&state->past, (size_t)at.A * one, twin->past_A.f32, i * i * one);
    home_pair(home, (void **)&state->past, (size_t)at.G * one, twin->past_G.f32, o * o * one);
  }
  home_pair(home, (void **)&state->U, 0, twin->U.f32, i * i * one);
  home_pair(home, (void **)&state->V, 0, twin->V.f32, o * o * one);
}

static kwm_status device_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_TRY(home_create(cov, &kwm_cov_kron, sizeof(struct kron_device)));
  if (spec->count == 0) return KWM_OK;
  struct kron_device *const state = cov->state;
  const int64_t o = spec->d_o, i = spec->d_i, d = o > i ? o : i, n = spec->n_max, sums = squares_of(spec).X;
  const struct {
    float **at;
    int64_t length;
  } arrays[] = {{&state->D, o * i},     {&state->X, o * i},       {&state->f, o * i}, {&state->T, o * i},
                {&state->sums, sums},   {&state->U, i * i},       {&state->V, o * o}, {&state->new_U, i * i},
                {&state->new_V, o * o}, {&state->overlap, d * d}, {&state->gt2, o},   {&state->aU, n * i},
                {&state->g, n * o},     {&state->gV, n * o}};
  for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++)
    KWM_TRY(home_take(&state->home, (void **)arrays[k].at, (size_t)arrays[k].length * sizeof(float)));
  if (spec->delay > 0) KWM_TRY(home_take(&state->home, (void **)&state->past, (size_t)sums * sizeof(float)));
  kwm_device_zero(spec->device, state->sums, (size_t)sums * sizeof(float)); /* with what lies between A and G */
  if (spec->device->ops->eigen_wake != NULL) {
    spec->device->ops->eigen_wake(spec->device, i);
    spec->device->ops->eigen_wake(spec->device, o);
  }
  pair_all(state, spec);
  home_send(&state->home);
  return KWM_OK;
}

/* C (m, n) <- op(A) op(B) + beta C, all contiguous. */
static void multiply(const kwm_cov *cov, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                     const float *A, const float *B, float beta, float *C) {
  kwm_device_gemm(cov->spec.device, transpose_a, transpose_b, m, n, k, 1, A, transpose_a ? m : k, B,
                  transpose_b ? k : n, beta, C, n);
}

static void exchange(float **a, float **b) {
  float *const before = *a;
  *a = *b;
  *b = before;
}

/* overlap (n, n) <- freshᵀE; E <- fresh */
static void take_basis(const kwm_cov *cov, int64_t n, float **fresh, float **E, float *overlap) {
  multiply(cov, true, false, n, n, n, *fresh, *E, 0, overlap);
  exchange(fresh, E);
}

/* D, U, V, and a framed mean <- in the basis new_U, new_V (kron_time.h). */
static void turn(kwm_cov *cov, float *mean) {
  kwm_device *const device = cov->spec.device;
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const bool framed = cov->spec.framed;
  struct kron_device *const state = cov->state;
  float *const overlap = state->overlap, *const MU = state->f;
  take_basis(cov, i, &state->new_U, &state->U, overlap);
  if (framed) multiply(cov, false, true, o, i, i, mean, overlap, 0, MU);
  device->ops->square(device, i * i, overlap);
  multiply(cov, false, true, o, i, i, state->D, overlap, 0, state->T);
  take_basis(cov, o, &state->new_V, &state->V, overlap);
  if (framed) multiply(cov, false, false, o, i, o, overlap, MU, 0, mean);
  device->ops->square(device, o * o, overlap);
  multiply(cov, false, false, o, i, o, overlap, state->T, 0, state->D);
}

/* mean += V Y Uᵀ */
static void add_plain(const kwm_cov *cov, float scale, const float *Y, float *mean) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const struct kron_device *const state = cov->state;
  kwm_device_gemm(cov->spec.device, false, true, o, i, i, scale, Y, i, state->U, i, 0, state->T, i);
  multiply(cov, false, false, o, i, o, state->V, state->T, 1, mean);
}

/* mean += weight V (D0 Vᵀ(anchor - mean)U / D) Uᵀ for the D that was just weighted (kron_time.h). */
static void pull(kwm_cov *cov, float weight, const float *anchor, float *mean) {
  kwm_device *const device = cov->spec.device;
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = o * i;
  const bool framed = cov->spec.framed;
  const float share = weight * (float)cov->spec.prior_precision;
  struct kron_device *const state = cov->state;
  if (!framed) {
    kwm_device_copy(device, state->X, anchor, (size_t)n * sizeof *anchor);
    device->ops->add_scaled(device, n, -1, mean, state->X);
  }
  multiply(cov, true, false, o, i, o, state->V, framed ? anchor : state->X, 0, state->T);
  multiply(cov, false, false, o, i, i, state->T, state->U, 0, state->X);
  device->ops->kron_pull(device, n, share, state->D, framed ? mean : NULL, state->X);
  if (framed)
    device->ops->add_scaled(device, n, 1, state->X, mean);
  else
    add_plain(cov, 1, state->X, mean);
}

/* The basis of the sums, or, with a delay, of the past ones, is on its way. */
static void begin_bases(kwm_cov *cov) {
  kwm_device *const device = cov->spec.device;
  const struct squares at = squares_of(&cov->spec);
  struct kron_device *const state = cov->state;
  const float *const sums = state->past != NULL ? state->past : state->sums;
  const struct kwm_device_eigen of[] = {{cov->spec.d_i, sums + at.A, state->new_U},
                                        {cov->spec.d_o, sums + at.G, state->new_V}};
  for (int k = 0; k < 2; k++) state->bases[k] = device->ops->eigen_begin(device, &of[k]);
  state->begun = true;
}

/* new_U, new_V <- the basis that was begun. */
static bool end_bases(kwm_cov *cov) {
  kwm_device *const device = cov->spec.device;
  struct kron_device *const state = cov->state;
  bool good = true;
  if (!state->begun) begin_bases(cov);
  for (int k = 0; k < 2; k++) good = device->ops->eigen_end(device, state->bases[k]) && good;
  state->begun = false;
  return good;
}

static void set_aside(kwm_cov *cov, int64_t step) {
  struct kron_device *const state = cov->state;
  struct kron_state *const twin = state->home.twin.state;
  kwm_device_copy(cov->spec.device, state->past, state->sums, (size_t)squares_of(&cov->spec).X * sizeof(float));
  twin->since = step;
  begin_bases(cov);
}

/* The next basis comes first: it is all that can fail. */
static bool time_update(kwm_cov *cov, bool refresh, const float *anchor, float *mean) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  kwm_device *const device = spec->device;
  struct kron_device *const state = cov->state;
  const float lambda = (float)spec->forgetting, d0 = (float)spec->prior_precision;
  const float q = (float)(spec->process_noise / spec->prior_precision);
  KWM_ASSERT(!spec->framed || mean != NULL);
  state->home.prepared = false;
  if (refresh && !end_bases(cov)) return false;
  if (lambda < 1) {
    device->ops->kron_forget(device, spec->params, lambda, d0, state->D);
    if (anchor != mean) pull(cov, 1 - lambda, anchor, mean);
  }
  if (q > 0) device->ops->kron_diffuse(device, spec->params, q, state->D);
  if (refresh) turn(cov, mean);
  return true;
}

/* As on the host. After a resume an awaited basis is begun anew. */
static bool device_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  struct kron_device *const state = cov->state;
  struct kron_state *const twin = state->home.twin.state;
  if (twin->since > 0 && !state->begun) begin_bases(cov);
  const bool turns = kron_turns(&cov->spec, twin->since, step), good = time_update(cov, turns, anchor, mean);
  if (turns) twin->since = 0;
  if (kron_sets_aside(&cov->spec, twin->since, step)) set_aside(cov, step);
  return good;
}

static void device_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  kwm_device *const device = cov->spec.device;
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n;
  const struct squares at = squares_of(&cov->spec);
  struct kron_device *const state = cov->state;
  const float *const aU = jac->aU != NULL ? jac->aU : state->aU, *const g = jac->g != NULL ? jac->g : state->g;
  KWM_ASSERT(n <= cov->spec.n_max && jac->m <= cov->spec.m);
  state->home.prepared = false;
  if (jac->aU == NULL) multiply(cov, false, false, n, i, i, jac->a, state->U, 0, state->aU);
  multiply(cov, true, false, i, i, n, jac->a, jac->a, 1, evidence + at.A);
  multiply(cov, true, false, o, o, n * jac->m, jac->J, jac->J, 1, evidence + at.G);
  if (jac->g == NULL) device->ops->output_score(device, n, jac->m, o, jac->e, jac->J, state->g);
  multiply(cov, false, false, n, o, o, g, state->V, 0, state->gV);
  multiply(cov, true, false, o, i, n, state->gV, aU, 1, evidence + at.X);
  device->ops->add_squares(device, n, i, aU, evidence + at.at2);
  if (!kron_turns_rows(&cov->spec)) return;
  multiply(cov, false, false, n, o, o, jac->J, state->V, 0, state->gV);
  device->ops->add_squares(device, n, o, state->gV, evidence + at.gt2);
}

static void device_prepare(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch) {
  (void)jac;
  kwm_device *const device = cov->spec.device;
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const bool turned = kron_turns_rows(&cov->spec);
  const struct squares at = squares_of(&cov->spec);
  struct kron_device *const state = cov->state;
  if (!turned) {
    multiply(cov, false, false, o, o, o, evidence + at.G, state->V, 0, state->new_V);
    device->ops->column_dots(device, o, o, state->V, state->new_V, state->gt2);
  }
  device->ops->kron_gain(device, o, i, (double)batch, turned ? evidence + at.gt2 : state->gt2, evidence + at.at2,
                         evidence + at.X, state->D, state->f, state->X, state->home.facts);
  home_hold(&state->home, evidence, batch);
}

/* A rotation changes no norm, and P0 is the same in any basis. */
static void device_moved(const kwm_cov *cov, double *moved) {
  home_moved(cov, moved);
  moved[0] *= cov->spec.prior_precision;
}

static void device_move(kwm_cov *cov, double scale, float *mean) {
  kwm_device *const device = cov->spec.device;
  const struct kron_device *const state = cov->state;
  if (cov->spec.framed)
    device->ops->add_scaled(device, cov->spec.params, (float)scale, state->X, mean);
  else
    add_plain(cov, (float)scale, state->X, mean);
}

static void device_apply(kwm_cov *cov, double scale, float *mean) {
  kwm_device *const device = cov->spec.device;
  struct kron_device *const state = cov->state;
  const float share = (float)(1 / state->home.batch);
  device_move(cov, scale, mean);
  device->ops->add_scaled(device, squares_of(&cov->spec).X, share, state->home.evidence, state->sums);
  device->ops->add_scaled(device, cov->spec.params, 1, state->f, state->D);
}

static void device_health(const kwm_cov *cov, struct kwm_health *health) {
  kwm_device *const device = cov->spec.device;
  const struct kron_device *const state = cov->state;
  const double n = (double)cov->spec.params;
  device->ops->sum_inverse(device, cov->spec.params, state->D, state->home.trace);
  kwm_device_wait(device);
  health->trace += state->home.trace[0];
  health->prior_trace += n / cov->spec.prior_precision;
  health->parameters += n;
}

static struct kwm_frame device_frame(const kwm_cov *cov) {
  const struct kron_device *const state = cov->state;
  return (struct kwm_frame){.U = state->U, .V = state->V};
}

/* What is begun is ended first. */
static kwm_status device_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  const struct kron_device *const state = cov->state;
  if (state->begun) (void)end_bases(cov);
  return home_load(cov, ckpt);
}

static void device_destroy(kwm_cov *cov) {
  const struct kron_device *const state = cov->state;
  if (state != NULL && state->begun) (void)end_bases(cov);
  home_destroy(cov);
}

const struct kwm_cov_ops kwm_cov_kron_device = {
    .name = "kron",
    .bytes = device_bytes,
    .device_bytes = device_room,
    .evidence_length = device_evidence_length,
    .create = device_create,
    .predict = device_predict,
    .evidence = device_evidence,
    .prepare = device_prepare,
    .absorb = home_absorb,
    .delta = home_delta,
    .moved = device_moved,
    .slope = home_slope,
    .expected = home_expected,
    .apply = device_apply,
    .move = device_move,
    .health = device_health,
    .spectrum_length = home_spectrum_length,
    .spectrum = home_spectrum,
    .covariance = home_covariance,
    .predictive = home_predictive,
    .frame = device_frame,
    .unframe = home_unframe,
    .save = home_save,
    .load = device_load,
    .destroy = device_destroy,
};

/* A filter of one or a few blocks, driven as src/filter drives them: predict; evidence and absorb, or project over all
   blocks, factor the one S, condition; apply. The faults sit here and nowhere else. */
#include "subject.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

static float *new_floats(struct theory *t, int64_t n) {
  return (float *)theory_new(t, (n + 1) / 2);
}

static struct kwm_cov_spec cov_spec_of(const struct subject *s) {
  const struct subject_spec *const spec = &s->spec;
  const double noise = s->t->fault == KWM_FAULT_Q_DROPPED ? 0 : spec->noise;
  return (struct kwm_cov_spec){.name = "subject",
                               .form = spec->form,
                               .count = 1,
                               .total = 1,
                               .params = spec->n / spec->parts,
                               .d_o = spec->n / spec->parts / spec->d_i,
                               .d_i = spec->d_i,
                               .prior_precision = spec->precision,
                               .forgetting = spec->forgetting,
                               .process_noise = noise * spec->precision,
                               .refresh = 1,
                               .rank = spec->rank,
                               .kind = spec->kind,
                               .seed = s->t->seed,
                               .n_max = spec->samples,
                               .m = spec->rows / spec->samples};
}

/* Rows of H given densely are those of one sample whose input is 1. */
static bool subject_takes_rows(const struct subject *s) {
  return s->spec.d_i == 1 && s->spec.samples == 1;
}

kwm_status subject_open(struct subject *s, struct theory *t, const struct subject_spec *spec) {
  *s = (struct subject){.spec = *spec, .t = t, .good = true};
  if (spec->parts == 0) s->spec.parts = 1;
  if (spec->d_i == 0) s->spec.d_i = 1;
  if (spec->samples == 0) s->spec.samples = 1;
  if (spec->forgetting <= 0) s->spec.forgetting = 1;
  if (spec->rank == 0) s->spec.rank = 1;
  const int64_t n = spec->n, rows = spec->rows;
  KWM_ASSERT(s->spec.parts <= SUBJECT_PARTS && n % (s->spec.parts * s->spec.d_i) == 0);
  s->mean = theory_new(t, n), s->delta = theory_new(t, n);
  if (spec->form == KWM_FORM_INNOVATION) s->S = theory_new(t, rows * rows), s->w = theory_new(t, rows);
  if (subject_takes_rows(s)) s->J = new_floats(t, rows * n), s->one = new_floats(t, rows + 1);
  s->still = new_floats(t, 2 * n);
  const struct kwm_cov_spec cov = cov_spec_of(s);
  kwm_status status = KWM_OK;
  for (int64_t b = 0; b < s->spec.parts && status == KWM_OK; b++)
    status = kwm_cov_create(&s->cov[b], kwm_cov_find(spec->structure), &cov);
  if (status != KWM_OK)
    subject_close(s);
  else
    s->evidence = new_floats(t, kwm_cov_evidence_length(&s->cov[0]) + 1);
  return status;
}

void subject_close(struct subject *s) {
  for (int b = 0; b < SUBJECT_PARTS; b++) kwm_cov_destroy(&s->cov[b]);
}

/* The anchor and the mean that covariances see are zero and stay so: forgetting moves nothing. */
void subject_predict(struct subject *s) {
  const int64_t p = s->spec.n / s->spec.parts;
  for (int64_t b = 0; b < s->spec.parts && s->good; b++)
    s->good = kwm_cov_predict(&s->cov[b], s->step, s->still, s->still + p);
  s->step++;
}

/* S (rows, rows) of the blocks [first, last), factored; w <- S⁻¹e. */
static bool innovate(struct subject *s, int64_t first, int64_t last, const double *e) {
  const int64_t rows = s->spec.rows;
  memset(s->S, 0, (size_t)(rows * rows) * sizeof *s->S);
  for (int64_t b = first; b < last; b++) kwm_cov_project(&s->cov[b], &s->jac[b], s->S);
  for (int64_t k = 0; k < rows; k++) s->S[k * rows + k] += 1;
  if (!kwm_cholesky_f64(rows, s->S, rows)) return false;
  memcpy(s->w, e, (size_t)rows * sizeof *s->w);
  kwm_cholesky_solve_f64(rows, s->S, rows, s->w);
  return true;
}

static bool prepare_innovation(struct subject *s, const double *e) {
  const int64_t parts = s->spec.parts;
  const bool local = s->t->fault == KWM_FAULT_LOCAL_S;
  if (!local && !innovate(s, 0, parts, e)) return false;
  for (int64_t b = 0; b < parts; b++)
    if ((local && !innovate(s, b, b + 1, e)) || !kwm_cov_condition(&s->cov[b], &s->jac[b], s->S, s->w)) return false;
  return true;
}

static bool prepare_information(struct subject *s) {
  for (int64_t b = 0; b < s->spec.parts; b++) {
    double kl = 0;
    const int64_t length = kwm_cov_evidence_length(&s->cov[b]);
    memset(s->evidence, 0, (size_t)(length + 1) * sizeof *s->evidence);
    kwm_cov_evidence(&s->cov[b], &s->jac[b], s->evidence);
    if (!kwm_cov_absorb(&s->cov[b], &s->jac[b], s->evidence, s->spec.samples, &kl)) return false;
  }
  return true;
}

static void prepare(struct subject *s, const double *e) {
  const int64_t p = s->spec.n / s->spec.parts;
  if (s->good) s->good = s->spec.form == KWM_FORM_INFORMATION ? prepare_information(s) : prepare_innovation(s, e);
  for (int64_t b = 0; b < s->spec.parts && s->good; b++) kwm_cov_delta(&s->cov[b], s->delta + b * p);
  for (int64_t k = 0; k < s->spec.n; k++) {
    if (s->t->fault == KWM_FAULT_GAIN_HALVED) s->delta[k] /= 2;
    if (!s->good) s->delta[k] = NAN;
  }
}

void subject_prepare_jac(struct subject *s, const struct kwm_jac *jac, const double *e) {
  s->jac[0] = *jac;
  prepare(s, e);
}

void subject_prepare(struct subject *s, const double *H, const double *e) {
  const int64_t n = s->spec.n, rows = s->spec.rows, p = n / s->spec.parts;
  KWM_ASSERT(subject_takes_rows(s));
  float *const J = s->J, *const innovation = s->one + 1;
  s->one[0] = 1;
  for (int64_t i = 0; i < rows; i++) innovation[i] = (float)e[i];
  for (int64_t k = 0; k < rows * n; k++) {
    const int64_t row = k / n, b = k % n / p, column = k % p;
    float *const at = J + (b * rows + row) * p + column;
    *at = (float)H[k];
    KWM_ASSERT(!((double)*at < H[k]) && !((double)*at > H[k]));
  }
  for (int64_t b = 0; b < s->spec.parts; b++)
    s->jac[b] = (struct kwm_jac){.shape = KWM_JAC_OUTER,
                                 .n = 1,
                                 .m = rows,
                                 .d_o = p,
                                 .d_i = 1,
                                 .J = J + b * rows * p,
                                 .a = s->one,
                                 .e = innovation};
  prepare(s, e);
}

void subject_apply(struct subject *s) {
  for (int64_t b = 0; b < s->spec.parts && s->good; b++) kwm_cov_apply(&s->cov[b], 0, s->still);
  for (int64_t k = 0; k < s->spec.n; k++) s->mean[k] += s->delta[k];
}

void subject_measure(struct subject *s, const double *H, const double *e) {
  subject_prepare(s, H, e);
  subject_apply(s);
}

void subject_observe(struct subject *s, const double *H, const double *y) {
  const int64_t n = s->spec.n, rows = s->spec.rows, mark = s->t->used;
  double *const e = theory_new(s->t, rows);
  for (int64_t i = 0; i < rows; i++) {
    e[i] = y[i];
    for (int64_t k = 0; k < n; k++) e[i] -= H[i * n + k] * s->mean[k];
  }
  subject_measure(s, H, e);
  s->t->used = mark;
}

double *subject_gain(struct subject *s, const double *H) {
  const int64_t n = s->spec.n, rows = s->spec.rows;
  double *const K = theory_new(s->t, n * rows), *const e = theory_new(s->t, rows);
  for (int64_t i = 0; i < rows; i++) {
    e[i] = 1;
    subject_prepare(s, H, e);
    e[i] = 0;
    for (int64_t k = 0; k < n; k++) K[k * rows + i] = s->delta[k];
  }
  return K;
}

double *subject_covariance(struct subject *s) {
  const int64_t n = s->spec.n, p = n / s->spec.parts;
  double *const P = theory_new(s->t, n * n), *const own = theory_new(s->t, p * p);
  for (int64_t b = 0; b < s->spec.parts; b++) {
    s->good = s->good && kwm_cov_covariance(&s->cov[b], own);
    for (int64_t k = 0; k < p * p; k++) P[(b * p + k / p) * n + b * p + k % p] = s->good ? own[k] : NAN;
  }
  return P;
}

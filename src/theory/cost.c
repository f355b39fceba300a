/* Time, Sec. 9 and 12: processor time of a whole measurement update, its growth with n, r, N and m. Each size is
   measured in several rounds; each round gives an exponent; their median is the number, half the range between their
   quartiles the spread. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "fit.h"
#include "kwm/backend.h"
#include "kwm/full.h"
#include "matrix.h"

enum {
  FULL,
  BLOCK,
  BLOCK_M,
  BLOCK_N,
  INFORMATION_N,
  DIAG,
  DIAG_N,
  KRON,
  KRON_N,
  LOWRANK,
  LOWRANK_R,
  OUTPUTS,
  NAIVE,
  BACKPROP,
  CLAIMS
};
static const struct kwm_claim claims[CLAIMS] = {
    [FULL] = {"time-full-n", "(104)", KWM_CLAIM_TRUE, KWM_WITHIN, 2, 0.35, "full: n^2 m", "exponent of n"},
    [BLOCK] = {"time-block-n", "(104)", KWM_CLAIM_TRUE, KWM_WITHIN, 2, 0.35, "block, innovation form: n^2 m",
               "exponent of n"},
    [BLOCK_M] = {"time-block-m", "(104)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.35, "block, innovation form: n^2 m, n >> m",
                 "exponent of m"},
    [BLOCK_N] = {"time-block-N", "(104)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.35, "block, information form: N",
                 "exponent of N"},
    /* At these orders a fast vector unit still waits for the n^2 numbers. */
    [INFORMATION_N] = {"time-block-factor", "(103)", KWM_CLAIM_TRUE, KWM_WITHIN, 3, 0.7,
                       "block, information form: n^3 for its factor", "exponent of n"},
    [DIAG] = {"time-diag-n", "(109)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.35, "diag: n", "exponent of n"},
    [DIAG_N] = {"time-diag-N", "(109)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.35, "diag: N", "exponent of N"},
    [KRON] = {"time-kron-n", "(150),(151)", KWM_CLAIM_TRUE, KWM_WITHIN, 1.5, 0.35, "kron: d_o^3 + d_i^3, so n^1.5",
              "exponent of n, d_o = d_i"},
    [KRON_N] = {"time-kron-N", "(148)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.35, "kron: N", "exponent of N"},
    [LOWRANK] = {"time-lowrank-n", "(108),(152)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.35, "lowrank: n", "exponent of n"},
    [LOWRANK_R] = {"time-lowrank-r", "(109),(152)", KWM_CLAIM_PAPER, KWM_WITHIN, 2, 0.35,
                   "false as stated: O(nr) a step (r^2 with re-compression)", "exponent of r"},
    [OUTPUTS] = {"time-m", "(104),(108)", KWM_CLAIM_TRUE, KWM_AT_MOST, 3.1, 0, "S, its factor and root: at most m^3",
                 "largest exponent of m, full, diag, kron, lowrank"},
    [NAIVE] = {"time-KHP", "(101),(103)", KWM_CLAIM_TRUE, KWM_WITHIN, 3, 0.35, "forming KH and (KH)P: n^3",
               "exponent of n"},
    [BACKPROP] = {"time-backprop", "(98)", KWM_CLAIM_TRUE, KWM_WITHIN, 3, 0.6, "forward and backward: 3 times forward",
                  "ratio for a dense layer"},
};

enum { ROUNDS = 9 };
static const struct {
  int claim;
  struct fit_case fit;
} cases[] = {
    {FULL, {"block", KWM_FORM_INNOVATION, FIT_PARAMETERS, 0, 1, 1, 8, 1, {384, 512, 768, 1024}, true}},
    {BLOCK, {"block", KWM_FORM_INNOVATION, FIT_PARAMETERS, 0, 1, 1, 8, 1, {256, 384, 512, 768}, false}},
    {BLOCK_M, {"block", KWM_FORM_INNOVATION, FIT_OUTPUTS, 512, 1, 1, 1, 1, {16, 32, 64, 128}, false}},
    {BLOCK_N, {"block", KWM_FORM_INFORMATION, FIT_SAMPLES, 64, 1, 1, 4, 1, {128, 256, 512, 1024}, false}},
    {INFORMATION_N, {"block", KWM_FORM_INFORMATION, FIT_PARAMETERS, 0, 1, 1, 4, 1, {384, 512, 768, 1024}, false}},
    {DIAG, {"diag", KWM_FORM_INFORMATION, FIT_PARAMETERS, 0, 64, 16, 4, 1, {64, 128, 256, 512}, false}},
    {DIAG_N, {"diag", KWM_FORM_INFORMATION, FIT_SAMPLES, 64, 64, 1, 2, 1, {64, 128, 256, 512}, false}},
    {KRON, {"kron", KWM_FORM_INFORMATION, FIT_PARAMETERS, 0, 0, 8, 2, 1, {96, 128, 192, 256}, false}},
    {KRON_N, {"kron", KWM_FORM_INFORMATION, FIT_SAMPLES, 16, 16, 1, 2, 1, {512, 1024, 2048, 4096}, false}},
    {LOWRANK, {"lowrank", KWM_FORM_INNOVATION, FIT_PARAMETERS, 0, 16, 1, 4, 16, {512, 1024, 2048, 4096}, false}},
    {LOWRANK_R, {"lowrank", KWM_FORM_INNOVATION, FIT_RANK, 256, 16, 1, 4, 1, {96, 128, 192, 256}, false}},
    {OUTPUTS, {"block", KWM_FORM_INNOVATION, FIT_OUTPUTS, 512, 1, 1, 1, 1, {32, 64, 96, 128}, true}},
    {OUTPUTS, {"diag", KWM_FORM_INNOVATION, FIT_OUTPUTS, 512, 1, 1, 1, 1, {32, 64, 96, 128}, false}},
    {OUTPUTS, {"kron", KWM_FORM_INNOVATION, FIT_OUTPUTS, 32, 32, 1, 1, 1, {32, 64, 96, 128}, false}},
    {OUTPUTS, {"lowrank", KWM_FORM_INNOVATION, FIT_OUTPUTS, 1024, 1, 1, 1, 8, {32, 64, 96, 128}, false}},
};

static double now(void) {
  struct timespec clock;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &clock);
  return (double)clock.tv_sec + 1e-9 * (double)clock.tv_nsec;
}

/* One thing to be timed. */
struct work {
  struct subject subject;
  struct kwm_jac jac;
  kwm_full *full;
  float *H, *mean;
  double *S, *w, *e, *A, *B, *C;
  int64_t n, rows;
  bool good;
  void (*once)(struct work *);
};

static void once_subject(struct work *work) {
  subject_prepare_jac(&work->subject, &work->jac, work->e);
  subject_apply(&work->subject);
  work->good = work->subject.good;
}

static void once_full(struct work *work) {
  const int64_t rows = work->rows;
  for (int64_t k = 0; k < rows * rows; k++) work->S[k] = k % (rows + 1) == 0;
  kwm_full_project(work->full, rows, work->H, work->S);
  work->good =
      work->good && kwm_cholesky_f64(rows, work->S, rows) && kwm_full_condition(work->full, rows, work->S, work->w);
  if (work->good) kwm_full_apply(work->full, 1, work->mean);
}

/* K H, then (KH) P. */
static void once_naive(struct work *work) {
  const int64_t n = work->n, m = work->rows;
  kwm_gemm_f64(false, true, n, n, m, 1, work->w, m, work->e, m, 0, work->B, n);
  kwm_gemm_f64(false, false, n, n, n, 1, work->B, n, work->A, n, 0, work->C, n);
}

/* Small rows: P hardly changes however often they are taken. */
static float *small_rows(struct theory *t, int64_t n) {
  float *const rows = (float *)theory_new(t, (n + 1) / 2);
  for (int64_t k = 0; k < n; k++) rows[k] = 0.01f * (float)theory_normal(t);
  return rows;
}

static kwm_status make_subject(struct theory *t, const struct fit_case *at, struct work *work) {
  const struct subject_spec spec = fit_spec(at);
  const int64_t samples = at->samples, m = at->m;
  work->e = theory_normals(t, samples * m);
  work->jac = (struct kwm_jac){.shape = KWM_JAC_OUTER,
                               .n = samples,
                               .m = m,
                               .d_o = at->d_o,
                               .d_i = at->d_i,
                               .J = small_rows(t, samples * m * at->d_o),
                               .a = small_rows(t, samples * at->d_i),
                               .e = small_rows(t, samples * m)};
  work->once = once_subject;
  return subject_open(&work->subject, t, &spec);
}

static kwm_status make_full(struct theory *t, const struct fit_case *at, struct work *work) {
  const int64_t n = work->n = at->d_o, rows = work->rows = at->m;
  const struct kwm_full_segment all = {0, n};
  double *const prior = theory_new(t, n);
  for (int64_t k = 0; k < n; k++) prior[k] = 1;
  work->H = small_rows(t, rows * n), work->mean = (float *)theory_new(t, n);
  work->S = theory_new(t, rows * rows), work->w = theory_normals(t, rows);
  work->once = once_full;
  const struct kwm_full_spec spec = {
      .comm = MPI_COMM_SELF, .n = n, .n_segments = 1, .segments = &all, .prior_variance = prior, .rows_max = rows};
  return kwm_full_create(&work->full, &spec);
}

static void drop(struct work *work) {
  subject_close(&work->subject);
  if (work->full != NULL) kwm_full_destroy(&work->full);
}

/* Seconds of one go, from as many as take a few milliseconds. */
static double seconds_of(struct work *work, int64_t *goes) {
  for (;;) {
    const double start = now();
    for (int64_t k = 0; k < *goes; k++) work->once(work);
    const double seconds = now() - start;
    if (seconds > 4e-3 || *goes >= 1 << 20) return seconds / (double)*goes;
    *goes *= 2;
  }
}

static int by_size(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void conclude(double *rounds, bool good, struct kwm_finding *finding) {
  qsort(rounds, ROUNDS, sizeof *rounds, by_size);
  finding->number = good ? rounds[ROUNDS / 2] : NAN;
  finding->spread = (rounds[3 * ROUNDS / 4] - rounds[ROUNDS / 4]) / 2;
}

/* seconds[round] of one size. */
static void time_rounds(struct work *work, double seconds[ROUNDS]) {
  int64_t goes = 1;
  seconds_of(work, &goes);
  for (int round = 0; round < ROUNDS; round++) seconds[round] = work->good ? seconds_of(work, &goes) : NAN;
  if (!work->good) seconds[0] = NAN;
}

/* One exponent a round. */
static void fit_rounds(const double *size, double seconds[FIT_SIZES][ROUNDS], struct kwm_finding *finding) {
  double rounds[ROUNDS];
  bool good = true;
  for (int round = 0; round < ROUNDS; round++) {
    double each[FIT_SIZES];
    for (int k = 0; k < FIT_SIZES; k++) each[k] = seconds[k][round];
    rounds[round] = fit_exponent(FIT_SIZES, size, each);
    good = good && isfinite(rounds[round]);
  }
  conclude(rounds, good, finding);
}

static kwm_status grow(struct theory *t, const struct fit_case *fit, struct kwm_finding *finding) {
  double size[FIT_SIZES], seconds[FIT_SIZES][ROUNDS];
  for (int k = 0; k < FIT_SIZES; k++) {
    const int64_t mark = t->used;
    const struct fit_case at = fit_at(fit, k);
    struct work work = {.good = true};
    size[k] = fit_size(&at);
    const kwm_status status = at.full ? make_full(t, &at, &work) : make_subject(t, &at, &work);
    if (status == KWM_OK) time_rounds(&work, seconds[k]);
    drop(&work);
    t->used = mark;
    KWM_TRY(status);
  }
  fit_rounds(size, seconds, finding);
  return KWM_OK;
}

static void naive(struct theory *t, struct kwm_finding *finding) {
  const int64_t sizes[FIT_SIZES] = {192, 256, 384, 512}, m = 4;
  double size[FIT_SIZES], seconds[FIT_SIZES][ROUNDS];
  for (int k = 0; k < FIT_SIZES; k++) {
    const int64_t n = sizes[k], mark = t->used;
    struct work work = {.n = n, .rows = m, .good = true, .once = once_naive};
    size[k] = (double)n;
    work.A = theory_new(t, n * n), work.B = theory_new(t, n * n), work.C = theory_new(t, n * n);
    work.w = theory_normals(t, n * m), work.e = theory_normals(t, n * m);
    time_rounds(&work, seconds[k]);
    t->used = mark;
  }
  fit_rounds(size, seconds, finding);
}

/* A layer W (256, 256) on 256 samples: x Wᵀ forward; g W and gᵀx backward. */
enum { WIDTH = 256 };

static void once_forward(struct work *work) {
  kwm_gemm_f64(false, true, WIDTH, WIDTH, WIDTH, 1, work->A, WIDTH, work->B, WIDTH, 0, work->C, WIDTH);
}

static void once_both(struct work *work) {
  once_forward(work);
  kwm_gemm_f64(false, false, WIDTH, WIDTH, WIDTH, 1, work->A, WIDTH, work->B, WIDTH, 0, work->C, WIDTH);
  kwm_gemm_f64(true, false, WIDTH, WIDTH, WIDTH, 1, work->A, WIDTH, work->B, WIDTH, 0, work->C, WIDTH);
}

static void backprop(struct theory *t, struct kwm_finding *finding) {
  const int64_t mark = t->used;
  struct work work = {.good = true};
  int64_t goes[2] = {1, 1};
  double rounds[ROUNDS];
  work.A = theory_normals(t, WIDTH * WIDTH), work.B = theory_normals(t, WIDTH * WIDTH);
  work.C = theory_new(t, WIDTH * WIDTH);
  for (int round = 0; round < ROUNDS; round++) {
    work.once = once_forward;
    const double forward = seconds_of(&work, &goes[0]);
    work.once = once_both;
    rounds[round] = seconds_of(&work, &goes[1]) / forward;
  }
  conclude(rounds, true, finding);
  t->used = mark;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  for (int i = 0; i < THEORY_COUNT(cases); i++) {
    struct kwm_finding *const largest = &found[cases[i].claim], one = *largest;
    KWM_TRY(grow(t, &cases[i].fit, &one));
    if (!(one.number <= largest->number)) *largest = one;
  }
  naive(t, &found[NAIVE]);
  backprop(t, &found[BACKPROP]);
  return KWM_OK;
}

const struct theory_group theory_cost = {CLAIMS, claims, compute, false, true};

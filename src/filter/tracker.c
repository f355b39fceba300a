/* The joint filter on z = [θ; x] in square-root form (equations.md part 4, 3(c), 3(g)).

     predict   x <- f(x, u; θ);  rows of x in Y: [F_θ Y_θθ + F_x Y_xθ, LQ of (F_x Y_xx, Q^½)];  rows of θ stay
     update    W = YᵀHᵀ R^-½, S = I + WᵀW, z += Y W S⁻¹ e;  Y by Carlson's recursion, one row of H at a time

   Iterated: z_i = z⁻ + Y a_i, a <- W S⁻¹ (y - h(z_i) + H Y a_i), shortened by halves while ½|y - h|²_R + ½|a|² rises.
   Noises follow their posterior second moments, which are positive by construction: with ŵ = Q HᵀS⁻¹e and v̂ = R S⁻¹e,
     Q <- (1-β) Q + β (ŵŵᵀ + Q - Q HᵀS⁻¹H Q),   R <- (1-β) R + β (v̂v̂ᵀ + R - R S⁻¹ R)   (diagonals). */
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "root.h"

/* Of W; blocks' projections are their own. */
static int64_t projected(const struct kwm_tracker_spec *spec) {
  return blocks_method(spec->method) ? 0 : spec->space->m * (int64_t)(spec->space->n + spec->space->d);
}

int64_t tracker_work_size(const struct kwm_tracker_spec *spec) {
  const int64_t n = spec->space->n, d = spec->space->d, m = spec->space->m, N = n + d;
  const int64_t points = 2 * N + 1,
                wide = spec->method == KWM_TRACKER_UNSCENTED ? (N + m) * (points + N + m) : 2 * d * d;
  return 5 * m + m * N + projected(spec) + m * m + d * d + d * n + m * d + m * n + wide + 4 * (N > m ? N : m);
}

void tracker_work(const struct kwm_tracker *tracker, struct tracker_work *work) {
  const int64_t n = tracker->n, d = tracker->d, m = tracker->m, N = tracker->N;
  double *at = tracker->work;
  work->e = at, at += m, work->s = at, at += m, work->a = at, at += m, work->b = at, at += m, work->y = at, at += m;
  work->H = at, at += m * N, work->W = at, at += projected(&tracker->spec), work->A = at, at += m * m;
  work->Fx = at, at += d * d, work->Ft = at, at += d * n, work->Hx = at, at += m * d, work->Ht = at, at += m * n;
  const int64_t longer = N > m ? N : m;
  work->u = at, at += longer, work->v = at, at += longer, work->w = at, at += longer, work->t = at, at += longer;
  work->wide = at;
}

kwm_status kwm_tracker_create(struct kwm_tracker *tracker, const struct kwm_tracker_spec *spec) {
  const int64_t n = spec->space->n, d = spec->space->d, m = spec->space->m, N = n + d;
  const bool block = blocks_method(spec->method), low = spec->method == KWM_TRACKER_LOWRANK;
  struct tracker_blocks range = {0};
  memset(tracker, 0, sizeof *tracker);
  if (block) blocks_range(spec, &range);
  const int64_t roots = block ? range.numbers + d * d : N * N, slopes = block ? 0 : d * n;
  const int64_t kept = N + roots + d + m + n + 2 * d + slopes;
  const int64_t own = low ? factors_work_size(spec) : block ? blocks_work_size(spec) : 0;
  const int64_t numbers = kept + tracker_work_size(spec) + own;
  double *at;
  KWM_TRY(kwm_alloc((void **)&at, (size_t)numbers * sizeof *at, "tracker"));
  *tracker = (struct kwm_tracker){.spec = *spec,
                                  .n = (int)n,
                                  .d = (int)d,
                                  .m = (int)m,
                                  .N = (int)N,
                                  .kept = kept,
                                  .bytes = (size_t)numbers * sizeof *at};
  tracker->z = at, at += N, tracker->Y = at, at += roots, tracker->D = block ? at - d * d : NULL;
  tracker->q = at, at += d, tracker->r = at, at += m, tracker->prior = at, at += n;
  tracker->start = at, at += d, tracker->spread = at, at += d, tracker->S = at, at += slopes;
  tracker->work = at, tracker->blocks_work = at + tracker_work_size(spec);
  return KWM_OK;
}

void kwm_tracker_destroy(struct kwm_tracker *tracker) {
  kwm_free(tracker->z);
  memset(tracker, 0, sizeof *tracker);
}

static void joint_prior(struct kwm_tracker *tracker) {
  memset(tracker->Y, 0, (size_t)tracker->N * (size_t)tracker->N * sizeof(double));
  for (int i = 0; i < tracker->n; i++) tracker->Y[(int64_t)i * tracker->N + i] = sqrt(tracker->prior[i]);
}

static void joint_begin(struct kwm_tracker *tracker) {
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  for (int j = 0; j < N; j++)
    memset(tracker->Y + (int64_t)j * N + (j > n ? j : n), 0, (size_t)(N - (j > n ? j : n)) * 8);
  for (int i = 0; i < d; i++) {
    tracker->Y[(int64_t)(n + i) * N + n + i] = sqrt(tracker->spread[i]);
    tracker->z[n + i] = tracker->start[i];
  }
  memset(tracker->S, 0, (size_t)d * (size_t)n * sizeof(double));
}

/* ---- predict */

void tracker_walk(struct kwm_tracker *tracker, const struct tracker_work *work) {
  const int n = tracker->n, N = tracker->N;
  const double lambda = tracker->spec.forgetting, walk = tracker->spec.walk;
  if (lambda > 0 && lambda < 1) {
    double *const variance = work->u;
    memset(variance, 0, (size_t)n * sizeof *variance);
    for (int j = 0; j < n; j++)
      for (int i = j; i < n; i++) variance[i] += tracker->Y[(int64_t)j * N + i] * tracker->Y[(int64_t)j * N + i];
    for (int i = 0; i < n; i++) variance[i] = variance[i] < tracker->prior[i] ? 1 / sqrt(lambda) : 1;
    for (int j = 0; j < n; j++)
      for (int i = j; i < n; i++) tracker->Y[(int64_t)j * N + i] *= variance[i];
  }
  for (int k = 0; walk > 0 && k < n; k++) {
    memset(work->u, 0, (size_t)N * sizeof(double));
    work->u[k] = sqrt(walk * tracker->prior[k]);
    root_add(N, tracker->Y, k, work->u);
  }
}

static void joint_inflate(struct kwm_tracker *tracker, double factor) {
  for (int i = 0; i < tracker->n; i++) {
    const double room = tracker->prior[i] / kwm_tracker_variance(tracker, i);
    const double share = sqrt(fmax(1, fmin(factor, room)));
    for (int j = 0; j <= i; j++) tracker->Y[(int64_t)j * tracker->N + i] *= share;
  }
}

/* Rows of x below θ's columns: F_θ Y_θθ + F_x Y_xθ. */
static void carry_cross(struct kwm_tracker *tracker, const struct tracker_work *work) {
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  double *const tail = work->u;
  for (int j = 0; j < n; j++) {
    double *const column = tracker->Y + (int64_t)j * N;
    for (int i = 0; i < d; i++) {
      const double *const Ft = work->Ft + (int64_t)i * n, *const Fx = work->Fx + (int64_t)i * d;
      double sum = 0;
      for (int l = j; l < n; l++) sum += Ft[l] * column[l];
      for (int l = 0; l < d; l++) sum += Fx[l] * column[n + l];
      tail[i] = sum;
    }
    memcpy(column + n, tail, (size_t)d * sizeof *tail);
  }
}

void tracker_carry_state(struct kwm_tracker *tracker, const struct tracker_work *work) {
  const int n = tracker->n, d = tracker->d, N = tracker->N, k = 2 * d;
  double *const A = work->wide;
  for (int i = 0; i < d; i++)
    for (int j = 0; j < d; j++) {
      const double *const column = tracker->Y + (int64_t)(n + j) * N + n, *const Fx = work->Fx + (int64_t)i * d;
      double sum = 0;
      for (int l = j; l < d; l++) sum += Fx[l] * column[l];
      A[(int64_t)i * k + j] = sum;
      const double noise = tracker->Q != NULL ? tracker->Q[(int64_t)i * d + j] : i == j ? sqrt(tracker->q[i]) : 0;
      A[(int64_t)i * k + d + j] = noise;
    }
  root_lower(d, k, A);
  for (int j = 0; j < d; j++)
    for (int i = j; i < d; i++) tracker->Y[(int64_t)(n + j) * N + n + i] = A[(int64_t)i * k + j];
}

static bool all_finite(int n, const double *values) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += fabs(values[i]);
  return isfinite(sum);
}

static bool joint_predict(struct kwm_tracker *tracker, const double *u) {
  const struct kwm_space *const space = tracker->spec.space;
  struct tracker_work work;
  double *const x = tracker->z + tracker->n;
  tracker_work(tracker, &work);
  space->step(space->context, x, u, tracker->z, work.v, work.Fx, work.Ft);
  memcpy(x, work.v, (size_t)tracker->d * sizeof *x);
  carry_cross(tracker, &work);
  tracker_carry_state(tracker, &work);
  tracker_walk(tracker, &work);
  return all_finite(tracker->d, x);
}

/* ---- update */

int tracker_linearise(struct kwm_tracker *tracker, const struct tracker_work *work, const double *y, const double *at,
                      int *rows) {
  const struct kwm_space *const space = tracker->spec.space;
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  int count = 0;
  space->observe(space->context, at + n, at, work->y, work->Hx, work->Ht);
  for (int i = 0; i < tracker->m; i++) {
    work->e[i] = y[i] - work->y[i];
    if (isnan(y[i])) continue;
    const double scale = 1 / sqrt(tracker->r[i]);
    double *const row = work->H + (int64_t)count * N;
    for (int j = 0; j < n; j++) row[j] = scale * work->Ht[(int64_t)i * n + j];
    for (int j = 0; j < d; j++) row[n + j] = scale * work->Hx[(int64_t)i * d + j];
    work->a[count] = scale * work->e[i];
    rows[count++] = i;
  }
  return count;
}

/* First column of H that is not zero in any row. */
static int first_column(const struct tracker_work *work, int n, int N, int count) {
  for (int i = 0; i < count; i++)
    for (int j = 0; j < n; j++)
      if (work->H[(int64_t)i * N + j] != 0) return 0;
  return n;
}

bool tracker_factor(const struct kwm_tracker *tracker, const struct tracker_work *work, int from, int count) {
  const int N = tracker->N;
  for (int i = 0; i < count; i++) root_project(N, tracker->Y, from, work->H + (int64_t)i * N, work->W + (int64_t)i * N);
  for (int i = 0; i < count; i++)
    for (int j = 0; j <= i; j++) {
      double sum = i == j;
      for (int l = 0; l < N; l++) sum += work->W[(int64_t)i * N + l] * work->W[(int64_t)j * N + l];
      work->A[(int64_t)i * count + j] = sum;
    }
  return root_cholesky(count, work->A);
}

void tracker_adapt(struct kwm_tracker *tracker, const struct tracker_work *work, int count, const int *rows) {
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  const double early = 1 / (tracker->steps + 20), beta = tracker->spec.adapt > early ? tracker->spec.adapt : early;
  for (int j = 0; j < d && tracker->Q == NULL; j++) {
    double move = 0, known = 0;
    for (int i = 0; i < count; i++) work->b[i] = work->H[(int64_t)i * N + n + j];
    for (int i = 0; i < count; i++) move += work->b[i] * work->a[i];
    root_forward(count, work->A, work->b);
    for (int i = 0; i < count; i++) known += work->b[i] * work->b[i];
    const double q = tracker->q[j];
    tracker->q[j] = q + beta * (q * q * (move * move - known));
  }
  for (int i = 0; i < count; i++) {
    double inverse = 0;
    for (int l = 0; l < count; l++) work->b[l] = l == i;
    root_forward(count, work->A, work->b);
    for (int l = i; l < count; l++) inverse += work->b[l] * work->b[l];
    tracker->r[rows[i]] *= 1 + beta * (work->a[i] * work->a[i] - inverse);
  }
}

static double half_square(int n, const double *v) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += v[i] * v[i];
  return sum / 2;
}

/* t (N) <- z⁻ + Y c, c (N) = w + share (v - w); the cost there. Leaves e of the observed rows, whitened, in a. */
static double try_step(struct kwm_tracker *tracker, const struct tracker_work *work, const double *y, double share,
                       int *rows) {
  const int N = tracker->N;
  double *const c = work->u;
  for (int i = 0; i < N; i++) c[i] = work->w[i] + share * (work->v[i] - work->w[i]);
  root_apply(N, tracker->Y, c, work->t);
  for (int i = 0; i < N; i++) work->t[i] += tracker->z[i];
  const int count = tracker_linearise(tracker, work, y, work->t, rows);
  return half_square(count, work->a) + half_square(N, c);
}

/* v (N) <- W S⁻¹ (e + W w); a <- S⁻¹ (...). */
static void gain(const struct kwm_tracker *tracker, const struct tracker_work *work, int count, bool again) {
  const int N = tracker->N;
  for (int i = 0; i < count && again; i++)
    for (int l = 0; l < N; l++) work->a[i] += work->W[(int64_t)i * N + l] * work->w[l];
  root_forward(count, work->A, work->a);
  root_backward(count, work->A, work->a);
  memset(work->v, 0, (size_t)N * sizeof(double));
  for (int i = 0; i < count; i++)
    for (int l = 0; l < N; l++) work->v[l] += work->W[(int64_t)i * N + l] * work->a[i];
}

/* Gauss-Newton steps from the first one, v; ends with H, W, A at the last point and z⁺ - z⁻ = Y v. */
static bool iterate(struct kwm_tracker *tracker, const struct tracker_work *work, const double *y, int *rows,
                    double first_cost) {
  const int N = tracker->N;
  double cost = first_cost;
  memset(work->w, 0, (size_t)N * sizeof(double));
  for (int pass = 0; pass < tracker->spec.iterations; pass++) {
    double share = 1, next = try_step(tracker, work, y, share, rows);
    while (!(next <= cost) && share > 1e-3) next = try_step(tracker, work, y, share /= 2, rows);
    if (!(next <= cost)) { /* no step along this one lowers it: stay, linearised there */
      memcpy(work->v, work->w, (size_t)N * sizeof(double));
      next = try_step(tracker, work, y, 0, rows);
    }
    const bool settled = cost - next <= 1e-12 * cost;
    cost = next;
    memcpy(work->w, work->u, (size_t)N * sizeof(double));
    const int count = tracker_linearise(tracker, work, y, work->t, rows);
    if (!tracker_factor(tracker, work, first_column(work, tracker->n, N, count), count)) return false;
    if (settled || pass + 1 == tracker->spec.iterations) break;
    gain(tracker, work, count, true);
  }
  memcpy(work->v, work->w, (size_t)N * sizeof(double));
  return true;
}

struct kwm_track tracker_density(const struct kwm_tracker *tracker, const struct tracker_work *work, int count,
                                 const int *rows) {
  struct kwm_track track = {.e = work->e, .s = work->s};
  const int judged = tracker->spec.judged;
  int last = count; /* the first rows of a Cholesky factor are the factor of the first rows */
  while (judged > 0 && last > 0 && rows[last - 1] >= judged) last--;
  memcpy(work->b, work->a, (size_t)count * sizeof(double));
  root_forward(count, work->A, work->b);
  track.observed = last;
  track.nis = 2 * half_square(last, work->b);
  track.likelihood = -track.nis / 2;
  for (int i = 0; i < last; i++)
    track.likelihood -= log(work->A[(int64_t)i * count + i]) + log(2 * M_PI * tracker->r[rows[i]]) / 2;
  track.verdict = isfinite(track.nis) ? KWM_TRACKED : KWM_TRACKED_NUMERIC;
  if (tracker->spec.gate > 0 && track.nis > tracker->spec.gate * last) track.verdict = KWM_TRACKED_GATED;
  return track;
}

struct kwm_track tracker_report(const struct kwm_tracker *tracker, const struct tracker_work *work, int count,
                                const int *rows) {
  const int N = tracker->N;
  for (int i = 0; i < tracker->m; i++) work->s[i] = NAN;
  for (int i = 0; i < count; i++)
    work->s[rows[i]] = tracker->r[rows[i]] * (1 + 2 * half_square(N, work->W + (int64_t)i * N));
  return tracker_density(tracker, work, count, rows);
}

static struct kwm_track joint_update(struct kwm_tracker *tracker, const double *y) {
  const int N = tracker->N;
  struct tracker_work work;
  int rows[TRACKER_ROWS_MAX];
  KWM_ASSERT(tracker->m <= TRACKER_ROWS_MAX);
  tracker_work(tracker, &work);
  const int count = tracker_linearise(tracker, &work, y, tracker->z, rows);
  int from = first_column(&work, tracker->n, N, count);
  if (count == 0) return (struct kwm_track){.verdict = KWM_TRACKED_NOTHING, .e = work.e, .s = work.s};
  if (!tracker_factor(tracker, &work, from, count)) return (struct kwm_track){.verdict = KWM_TRACKED_NUMERIC};
  struct kwm_track track = tracker_report(tracker, &work, count, rows);
  const double cost = half_square(count, work.a);
  if (track.verdict != KWM_TRACKED) return track;
  gain(tracker, &work, count, false);
  if (tracker->spec.adapt > 0) tracker_adapt(tracker, &work, count, rows);
  if (tracker->spec.iterations > 1) {
    memcpy(work.b, work.e, (size_t)tracker->m * sizeof(double));
    if (!iterate(tracker, &work, y, rows, cost)) track.verdict = KWM_TRACKED_NUMERIC;
    memcpy(work.e, work.b, (size_t)tracker->m * sizeof(double));
    from = first_column(&work, tracker->n, N, count);
    if (track.verdict != KWM_TRACKED) return track;
  }
  root_apply(N, tracker->Y, work.v, work.t);
  for (int i = 0; i < N; i++) tracker->z[i] += work.t[i];
  for (int i = 0; i < count; i++) root_observe(N, tracker->Y, from, work.H + (int64_t)i * N, work.u, work.v);
  tracker->steps++;
  return track;
}

/* ---- methods */

static const struct {
  void (*prior)(struct kwm_tracker *tracker);
  void (*begin)(struct kwm_tracker *tracker);
  void (*inflate)(struct kwm_tracker *tracker, double factor);
  bool (*predict)(struct kwm_tracker *tracker, const double *u);
  struct kwm_track (*update)(struct kwm_tracker *tracker, const double *y);
} methods[] = {
    [KWM_TRACKER_JOINT] = {joint_prior, joint_begin, joint_inflate, joint_predict, joint_update},
    [KWM_TRACKER_UNSCENTED] = {joint_prior, joint_begin, joint_inflate, unscented_predict, unscented_update},
    [KWM_TRACKER_DUAL] = {joint_prior, joint_begin, joint_inflate, dual_predict, dual_update},
    [KWM_TRACKER_BLOCK] = {blocks_prior, blocks_begin, blocks_inflate, blocks_predict, blocks_update},
    [KWM_TRACKER_LOWRANK] = {factors_prior, factors_begin, factors_inflate, factors_predict, factors_update},
};

void kwm_tracker_prior(struct kwm_tracker *tracker) {
  methods[tracker->spec.method].prior(tracker);
}

void kwm_tracker_begin(struct kwm_tracker *tracker) {
  methods[tracker->spec.method].begin(tracker);
}

void kwm_tracker_inflate(struct kwm_tracker *tracker, double factor) {
  methods[tracker->spec.method].inflate(tracker, factor);
}

bool kwm_tracker_predict(struct kwm_tracker *tracker, const double *u) {
  return methods[tracker->spec.method].predict(tracker, u);
}

struct kwm_track kwm_tracker_update(struct kwm_tracker *tracker, const double *y) {
  return methods[tracker->spec.method].update(tracker, y);
}

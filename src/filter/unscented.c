/* The unscented filter in array form: 2N + 1 points with weights that are not negative (κ = max(0, 3 - N)), every
   covariance the LQ factor of deviations beside the root of the noise, so positive semidefinite in any case:

     [√w (Y - ŷ)  R^½]           [S^½  0 ]
     [√w (Z - ẑ)   0 ]  Θ    =   [K̄   Y⁺],   K = K̄ S^-½ */
#include <math.h>
#include <string.h>

#include "root.h"
#include "tracker_state.h"

struct points {
  int N, count;
  double spread, centre, weight; /* z ± spread Y_j; weights of the centre and of every other point */
};

static struct points points_of(int N) {
  const double kappa = N < 3 ? 3 - N : 0;
  return (struct points){.N = N,
                         .count = 2 * N + 1,
                         .spread = sqrt(N + kappa),
                         .centre = kappa / (N + kappa),
                         .weight = 0.5 / (N + kappa)};
}

/* point (N) <- the p-th one */
static void point_at(const struct kwm_tracker *tracker, const struct points *points, int p, double *point) {
  const int N = points->N, j = p <= N ? p - 1 : p - 1 - N;
  memcpy(point, tracker->z, (size_t)N * sizeof *point);
  if (p == 0) return;
  const double scale = p <= N ? points->spread : -points->spread;
  for (int i = j; i < N; i++) point[i] += scale * tracker->Y[(int64_t)j * N + i];
}

static double weight_of(const struct points *points, int p) {
  return p == 0 ? points->centre : points->weight;
}

bool unscented_predict(struct kwm_tracker *tracker, const double *u) {
  const struct kwm_space *const space = tracker->spec.space;
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  const struct points points = points_of(N);
  const int k = points.count + d;
  struct tracker_work work;
  tracker_work(tracker, &work);
  double *const A = work.wide, *const mean = work.v;
  memset(A, 0, (size_t)N * (size_t)k * sizeof *A);
  memset(mean, 0, (size_t)N * sizeof *mean);
  for (int p = 0; p < points.count; p++) {
    point_at(tracker, &points, p, work.u);
    space->step(space->context, work.u + n, u, work.u, work.w, NULL, NULL);
    memcpy(work.u + n, work.w, (size_t)d * sizeof(double));
    for (int i = 0; i < N; i++) {
      A[(int64_t)i * k + p] = work.u[i];
      mean[i] += weight_of(&points, p) * work.u[i];
    }
  }
  for (int i = 0; i < N; i++)
    for (int p = 0; p < points.count; p++)
      A[(int64_t)i * k + p] = sqrt(weight_of(&points, p)) * (A[(int64_t)i * k + p] - mean[i]);
  for (int i = 0; i < d; i++)
    for (int j = 0; j < d; j++)
      A[(int64_t)(n + i) * k + points.count + j] = tracker->Q != NULL ? tracker->Q[(int64_t)i * d + j]
                                                   : i == j           ? sqrt(tracker->q[i])
                                                                      : 0;
  root_lower(N, k, A);
  for (int j = 0; j < N; j++)
    for (int i = j; i < N; i++) tracker->Y[(int64_t)j * N + i] = A[(int64_t)i * k + j];
  memcpy(tracker->z, mean, (size_t)N * sizeof *mean);
  tracker_walk(tracker, &work);
  double sum = 0;
  for (int i = 0; i < N; i++) sum += fabs(mean[i]);
  return isfinite(sum);
}

/* A (count + N, points + count): rows of observed outputs, whitened, then of z. ŷ of these in work->a. */
static void deviations(struct kwm_tracker *tracker, const struct tracker_work *work, const struct points *points,
                       int count, const int *rows) {
  const struct kwm_space *const space = tracker->spec.space;
  const int N = tracker->N, k = points->count + count;
  double *const A = work->wide, *const mean = work->a;
  memset(A, 0, (size_t)(N + count) * (size_t)k * sizeof *A);
  memset(mean, 0, (size_t)count * sizeof *mean);
  for (int p = 0; p < points->count; p++) {
    const double root = sqrt(weight_of(points, p));
    point_at(tracker, points, p, work->u);
    space->observe(space->context, work->u + tracker->n, work->u, work->y, NULL, NULL);
    for (int i = 0; i < count; i++) {
      A[(int64_t)i * k + p] = work->y[rows[i]];
      mean[i] += weight_of(points, p) * work->y[rows[i]];
    }
    for (int i = 0; i < N; i++) A[(int64_t)(count + i) * k + p] = root * (work->u[i] - tracker->z[i]);
  }
  for (int i = 0; i < count; i++) {
    const double scale = 1 / sqrt(tracker->r[rows[i]]);
    for (int p = 0; p < points->count; p++)
      A[(int64_t)i * k + p] = scale * sqrt(weight_of(points, p)) * (A[(int64_t)i * k + p] - mean[i]);
    A[(int64_t)i * k + points->count + i] = 1;
  }
}

struct kwm_track unscented_update(struct kwm_tracker *tracker, const double *y) {
  const int N = tracker->N;
  const struct points points = points_of(N);
  struct tracker_work work;
  int rows[TRACKER_ROWS_MAX], count = 0;
  tracker_work(tracker, &work);
  for (int i = 0; i < tracker->m; i++) {
    work.e[i] = NAN;
    if (!isnan(y[i])) rows[count++] = i;
  }
  if (count == 0) return (struct kwm_track){.verdict = KWM_TRACKED_NOTHING, .e = work.e, .s = work.s};
  const int k = points.count + count;
  double *const A = work.wide;
  deviations(tracker, &work, &points, count, rows);
  for (int i = 0; i < count; i++) {
    work.e[rows[i]] = y[rows[i]] - work.a[i];
    work.a[i] = work.e[rows[i]] / sqrt(tracker->r[rows[i]]);
  }
  root_lower(count + N, k, A);
  for (int i = 0; i < count; i++) { /* tracker_report takes S's variances from rows of W: those of S^½ are as good */
    for (int j = 0; j <= i; j++) work.A[(int64_t)i * count + j] = A[(int64_t)i * k + j];
    memset(work.W + (int64_t)i * N, 0, (size_t)N * sizeof(double));
    double variance = -1;
    for (int j = 0; j <= i; j++) variance += A[(int64_t)i * k + j] * A[(int64_t)i * k + j];
    work.W[(int64_t)i * N] = sqrt(variance > 0 ? variance : 0);
  }
  struct kwm_track track = tracker_report(tracker, &work, count, rows);
  track.verdict = isfinite(track.nis) ? KWM_TRACKED : KWM_TRACKED_NUMERIC;
  if (tracker->spec.gate > 0 && track.nis > tracker->spec.gate * count) track.verdict = KWM_TRACKED_GATED;
  if (track.verdict != KWM_TRACKED) return track;
  root_forward(count, work.A, work.a);
  for (int i = 0; i < N; i++) {
    for (int j = 0; j < count; j++) tracker->z[i] += A[(int64_t)(count + i) * k + j] * work.a[j];
    for (int j = 0; j <= i; j++) tracker->Y[(int64_t)j * N + i] = A[(int64_t)(count + i) * k + count + j];
  }
  tracker->steps++;
  return track;
}

/* The dual filter (equations.md part 4): one filter of x for the θ at hand, one of θ whose observation is the first
   one's innovation, y - h(x⁻) ~ N(H_tot δθ, H_x P_xx H_xᵀ + R). H_tot = H_x dx⁻/dθ + H_θ is the total derivative,
   carried through prediction and correction (the gain's own dependence on θ left out). Y's cross block stays zero. */
#include <math.h>
#include <string.h>

#include "root.h"
#include "tracker_state.h"

bool dual_predict(struct kwm_tracker *tracker, const double *u) {
  const struct kwm_space *const space = tracker->spec.space;
  const int n = tracker->n, d = tracker->d;
  struct tracker_work work;
  double *const x = tracker->z + n;
  double sum = 0;
  tracker_work(tracker, &work);
  space->step(space->context, x, u, tracker->z, work.v, work.Fx, work.Ft);
  memcpy(x, work.v, (size_t)d * sizeof *x);
  for (int j = 0; j < n; j++) {
    for (int i = 0; i < d; i++) {
      double slope = work.Ft[(int64_t)i * n + j];
      for (int l = 0; l < d; l++) slope += work.Fx[(int64_t)i * d + l] * tracker->S[(int64_t)l * n + j];
      work.u[i] = slope;
    }
    for (int i = 0; i < d; i++) tracker->S[(int64_t)i * n + j] = work.u[i];
  }
  tracker_carry_state(tracker, &work);
  tracker_walk(tracker, &work);
  for (int i = 0; i < d; i++) sum += fabs(x[i]);
  return isfinite(sum);
}

/* Rows of θ in H <- H_x S + H_θ in units of the state filter's S^½; rows of x stay. */
static void total(struct kwm_tracker *tracker, const struct tracker_work *work, int count) {
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  for (int j = 0; j < n; j++) {
    for (int i = 0; i < count; i++) {
      double *const row = work->H + (int64_t)i * N;
      work->b[i] = row[j];
      for (int l = 0; l < d; l++) work->b[i] += row[n + l] * tracker->S[(int64_t)l * n + j];
    }
    root_forward(count, work->A, work->b);
    for (int i = 0; i < count; i++) work->H[(int64_t)i * N + j] = work->b[i];
  }
}

/* x += K_x e and dx/dθ -= K_x H_tot, K_x = (Y W) S^-½ a column each; a = S^-½ e, W <- rows of K_xᵀ. */
static void correct_state(struct kwm_tracker *tracker, const struct tracker_work *work, int count) {
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  for (int i = 0; i < count; i++) {
    root_apply(N, tracker->Y, work->W + (int64_t)i * N, work->t);
    memcpy(work->W + (int64_t)i * N, work->t, (size_t)N * sizeof(double));
  }
  for (int l = 0; l < d; l++) { /* K S^½: rows of P_xx H_xᵀ, solved by the root */
    for (int i = 0; i < count; i++) work->b[i] = work->W[(int64_t)i * N + n + l];
    root_forward(count, work->A, work->b);
    for (int i = 0; i < count; i++) {
      tracker->z[n + l] += work->b[i] * work->a[i];
      for (int j = 0; j < n; j++) tracker->S[(int64_t)l * n + j] -= work->b[i] * work->H[(int64_t)i * N + j];
    }
  }
}

/* θ from a = S^-½ e with rows H_tot; x moves with it. */
static void correct_parameters(struct kwm_tracker *tracker, const struct tracker_work *work, int count) {
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  for (int i = 0; i < count; i++) {
    double *const row = work->H + (int64_t)i * N, moved = 0;
    memset(row + n, 0, (size_t)d * sizeof(double));
    for (int j = 0; j < n; j++) moved += row[j] * work->w[j];
    root_project(N, tracker->Y, 0, row, work->u);
    double alpha = 1;
    for (int j = 0; j < N; j++) alpha += work->u[j] * work->u[j];
    root_observe(N, tracker->Y, 0, row, work->u, work->v);
    const double e = (work->a[i] - moved) / alpha;
    for (int j = 0; j < n; j++) work->w[j] += work->v[j] * e;
  }
  for (int j = 0; j < n; j++) tracker->z[j] += work->w[j];
  for (int i = 0; i < d; i++)
    for (int j = 0; j < n; j++) tracker->z[n + i] += tracker->S[(int64_t)i * n + j] * work->w[j];
}

struct kwm_track dual_update(struct kwm_tracker *tracker, const double *y) {
  const int n = tracker->n, N = tracker->N;
  struct tracker_work work;
  int rows[TRACKER_ROWS_MAX];
  tracker_work(tracker, &work);
  const int count = tracker_linearise(tracker, &work, y, tracker->z, rows);
  if (count == 0) return (struct kwm_track){.verdict = KWM_TRACKED_NOTHING, .e = work.e, .s = work.s};
  if (!tracker_factor(tracker, &work, n, count)) return (struct kwm_track){.verdict = KWM_TRACKED_NUMERIC};
  struct kwm_track track = tracker_report(tracker, &work, count, rows);
  if (track.verdict != KWM_TRACKED) return track;
  if (tracker->spec.adapt > 0) {
    memcpy(work.b, work.a, (size_t)count * sizeof(double));
    memcpy(work.t, work.a, (size_t)count * sizeof(double));
    root_forward(count, work.A, work.a);
    root_backward(count, work.A, work.a);
    tracker_adapt(tracker, &work, count, rows);
    memcpy(work.a, work.t, (size_t)count * sizeof(double));
  }
  root_forward(count, work.A, work.a);
  total(tracker, &work, count);
  correct_state(tracker, &work, count);
  for (int i = 0; i < count; i++) { /* the state's own rows, for its root */
    memcpy(work.W + (int64_t)i * N, work.H + (int64_t)i * N, (size_t)N * sizeof(double));
    memset(work.W + (int64_t)i * N, 0, (size_t)n * sizeof(double));
    root_observe(N, tracker->Y, n, work.W + (int64_t)i * N, work.u, work.v);
  }
  memset(work.w, 0, (size_t)N * sizeof(double));
  correct_parameters(tracker, &work, count);
  tracker->steps++;
  return track;
}

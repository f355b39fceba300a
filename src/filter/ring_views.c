/* What a ring says of itself, on all ranks, and to checkpoints. */
#include <math.h>
#include <string.h>

#include "kwm/ring.h"

static void sum(struct kwm_ring *ring, int64_t n, double *values) {
  kwm_par_sum_group(ring->spec.layout, n, values); /* each is one rank's and zero elsewhere: exact */
}

void kwm_ring_outputs(struct kwm_ring *ring, bool noise, double *y, double *variance) {
  const int m = ring->spec.m;
  memset(y, 0, (size_t)m * sizeof *y);
  memset(variance, 0, (size_t)m * sizeof *variance);
  for (int s = 0; s < ring->count; s++) {
    const struct kwm_segment *const cut = &ring->spec.cuts[s];
    kwm_tracker_outputs(&ring->trackers[s], noise, ring->y, ring->variance);
    for (int i = 0; i < cut->own; i++) {
      const int state = kwm_segment_state(cut, cut->outputs[i]);
      y[state] = ring->y[i], variance[state] = ring->variance[i];
    }
  }
  sum(ring, m, y);
  sum(ring, m, variance);
}

/* to (d, params) <- each segment's own rows of from(tracker). */
static void gather_rows(struct kwm_ring *ring, double *to, const double *(*from)(struct kwm_ring *ring, int s)) {
  const int64_t params = ring->spec.params, n = ring->spec.d * params;
  if (to == NULL) return;
  memset(to, 0, (size_t)n * sizeof *to);
  for (int s = 0; s < ring->count; s++) {
    const struct kwm_segment *const cut = &ring->spec.cuts[s];
    memcpy(to + cut->first * params, from(ring, s), (size_t)(cut->count * params) * sizeof *to);
  }
  sum(ring, n, to);
}

static const double *theta_of(struct kwm_ring *ring, int s) {
  return ring->trackers[s].z;
}

static const double *prior_of(struct kwm_ring *ring, int s) {
  return ring->trackers[s].prior;
}

static const double *variances_of(struct kwm_ring *ring, int s) {
  kwm_tracker_variances(&ring->trackers[s], ring->wide);
  return ring->wide;
}

void kwm_ring_gather(struct kwm_ring *ring, const struct kwm_ring_view *view) {
  const int64_t d = ring->spec.d, m = ring->spec.m;
  gather_rows(ring, view->theta, theta_of);
  gather_rows(ring, view->prior, prior_of);
  gather_rows(ring, view->variances, variances_of);
  if (view->x != NULL) memset(view->x, 0, (size_t)d * sizeof(double));
  if (view->q != NULL) memset(view->q, 0, (size_t)d * sizeof(double));
  if (view->r != NULL) memset(view->r, 0, (size_t)m * sizeof(double));
  for (int s = 0; s < ring->count; s++) {
    const struct kwm_segment *const cut = &ring->spec.cuts[s];
    const struct kwm_tracker *const tracker = &ring->trackers[s];
    for (int i = 0; i < cut->count; i++) {
      if (view->x != NULL) view->x[cut->first + i] = tracker->z[tracker->n + cut->reach + i];
      if (view->q != NULL) view->q[cut->first + i] = tracker->q[cut->reach + i];
    }
    for (int i = 0; i < cut->own && view->r != NULL; i++)
      view->r[kwm_segment_state(cut, cut->outputs[i])] = tracker->r[i];
  }
  if (view->x != NULL) sum(ring, d, view->x);
  if (view->q != NULL) sum(ring, d, view->q);
  if (view->r != NULL) sum(ring, m, view->r);
}

size_t kwm_ring_bytes(const struct kwm_ring *ring) {
  size_t bytes =
      (size_t)((int64_t)ring->count * ring->inputs_size + 2 * (ring->count + 2) * (int64_t)ring->edge) * sizeof(double);
  for (int s = 0; s < ring->count; s++) bytes += ring->trackers[s].bytes;
  return bytes;
}

/* ---- checkpoints: steps observed, then what the tracker keeps, then zeros */

int64_t kwm_ring_width(const struct kwm_ring *ring) {
  double width = 0;
  for (int s = 0; s < ring->count; s++) width = fmax(width, (double)(1 + ring->trackers[s].kept));
  kwm_par_max_world(ring->spec.layout, 1, &width);
  return (int64_t)width;
}

void kwm_ring_pack(const struct kwm_ring *ring, int64_t width, double *rows) {
  memset(rows, 0, (size_t)(ring->count * width) * sizeof *rows);
  for (int s = 0; s < ring->count; s++) {
    rows[s * width] = ring->trackers[s].steps;
    memcpy(rows + s * width + 1, ring->trackers[s].z, (size_t)ring->trackers[s].kept * sizeof *rows);
  }
}

void kwm_ring_unpack(struct kwm_ring *ring, int64_t width, const double *rows) {
  for (int s = 0; s < ring->count; s++) {
    ring->trackers[s].steps = rows[s * width];
    memcpy(ring->trackers[s].z, rows + s * width + 1, (size_t)ring->trackers[s].kept * sizeof *rows);
  }
}

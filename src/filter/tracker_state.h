/* Private to filter: a tracker's scratch, and one update's observation. */
#pragma once

#include "kwm/tracker.h"

enum { TRACKER_ROWS_MAX = 4096 };

/* Pieces of tracker->work. */
struct tracker_work {
  double *e, *s;         /* (m) for the caller */
  double *H;             /* (m, N) Jacobian, or its rows that are observed, whitened */
  double *W;             /* (m, N) rows Yᵀh */
  double *A, *a, *b;     /* (m, m) S and its root; (m), (m) */
  double *Fx, *Ft;       /* (d, d), (d, n) */
  double *Hx, *Ht;       /* (m, d), (m, n) */
  double *wide;          /* (d, 2 d), or what sigma points need */
  double *u, *v, *w, *t; /* (N) each */
  double *y;             /* (m) */
};
void tracker_work(const struct kwm_tracker *tracker, struct tracker_work *work);
int64_t tracker_work_size(const struct kwm_tracker_spec *spec);

/* Rows that are observed: e, H whitened by r; their number. at: z (N) that h is linearised at. */
int tracker_linearise(struct kwm_tracker *tracker, const struct tracker_work *work, const double *y, const double *at,
                      int *rows);

/* After the update, from S's root A (observed rows, whitened), a = S⁻¹e: the noises follow. */
void tracker_adapt(struct kwm_tracker *tracker, const struct tracker_work *work, int count, const int *rows);

/* W = HY, A <- root of S = I + WWᵀ, for count rows of H that are zero before column `from`. */
bool tracker_factor(const struct kwm_tracker *tracker, const struct tracker_work *work, int from, int count);

/* NIS, likelihood and verdict from a (whitened) and A. */
struct kwm_track tracker_density(const struct kwm_tracker *tracker, const struct tracker_work *work, int count,
                                 const int *rows);

/* The same, and variances from W. */
struct kwm_track tracker_report(const struct kwm_tracker *tracker, const struct tracker_work *work, int count,
                                const int *rows);

/* Y_xx <- lower root of F_x P_xx F_xᵀ + Q. */
void tracker_carry_state(struct kwm_tracker *tracker, const struct tracker_work *work);

/* Parameters' covariance over a step of time. */
void tracker_walk(struct kwm_tracker *tracker, const struct tracker_work *work);

bool unscented_predict(struct kwm_tracker *tracker, const double *u);
struct kwm_track unscented_update(struct kwm_tracker *tracker, const double *y);
bool dual_predict(struct kwm_tracker *tracker, const double *u);
struct kwm_track dual_update(struct kwm_tracker *tracker, const double *y);

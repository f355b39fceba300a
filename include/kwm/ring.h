/* A ring of states filtered segment by segment: local analysis with domain localisation, as local ensemble filters do
   it (Hunt, Kostelich, Szunyogh, Physica D 230, 2007), with a tracker in place of an ensemble.

   Every segment has a tracker (kwm/tracker.h) of its window, which is its own states with their parameters and, on
   either side, the `reach` states next to them: [θ of its own states; x of the window], corrected by all outputs in the
   window. After each step a segment's own states and parameters are the estimate; at its neighbours' states it takes
   the neighbours' means and variances (kwm_tracker_adopt) and keeps its own correlations. What is left out: covariance
   between states further apart than reach, between parameters of different segments, and between a segment's parameters
   and its neighbours' beyond what the window's states carry. Each window's covariance is positive semidefinite, as its
   tracker's is.

   Work, memory and messages grow with the number of segments: a step costs each its window, and two messages of (reach
   + near) means and variances and reach rows of θ. Ranks share the segments in order, and what is summed over them is
   summed in their order, so any number of ranks gives the same bits. */
#pragma once

#include "kwm/segment.h"
#include "kwm/tracker.h"

struct kwm_ring_spec {
  int d, m, k, params; /* states, outputs (the first states), inputs; parameters of a state */
  int segments;
  const struct kwm_segment *cuts;  /* (count) this rank's (kwm_ring_range); borrowed */
  const struct kwm_space *spaces;  /* (count) their windows; inputs as kwm_statespace_window_space's; borrowed */
  struct kwm_tracker_spec tracker; /* joint or block, alike for all; space, blocks, judged and layout are set here */
  struct kwm_layout *layout;       /* its owners share the segments; borrowed */
  const struct kwm_ring *held;     /* θ is this one's, and the windows' models have none; NULL: its own; borrowed */
};

struct kwm_ring {
  struct kwm_ring_spec spec;
  int begin, count;             /* this rank's segments */
  int inputs_size, edge;        /* numbers of a window's inputs, of what a neighbour gets */
  int *sizes;                   /* of a tracker's blocks: params each */
  struct kwm_tracker *trackers; /* (count): the caller fills means, priors, noises, starts; θ by state, then x */
  double *inputs, *edges;       /* (count, inputs_size); (2, count + 2, edge) */
  double *facts;                /* (segments, facts) of an update */
  double *y, *variance, *wide;  /* scratch: outputs of a window, twice; parameters' variances */
  bool sound;                   /* every prediction since the last update */
};

/* This rank's segments: the first, their number. */
void kwm_ring_range(const struct kwm_layout *layout, int segments, int *begin, int *count);

/* KWM_ERR_USAGE: more owners than segments. Local. */
kwm_status kwm_ring_create(struct kwm_ring *ring, const struct kwm_ring_spec *spec);
void kwm_ring_destroy(struct kwm_ring *ring);

/* As a tracker's. predict is local; update is collective over the owners: its verdict, NIS and likelihood are the
   segments' own outputs' together, as if segments were independent, and squares their innovations'. e, s: NULL. lost:
   the verdict is numeric, and a mean is not finite. */
struct kwm_ring_track {
  struct kwm_track track;
  double squares;
  bool lost;
};
void kwm_ring_prior(struct kwm_ring *ring);
void kwm_ring_begin(struct kwm_ring *ring);
void kwm_ring_inflate(struct kwm_ring *ring, double factor);
bool kwm_ring_predict(struct kwm_ring *ring, const double *u);
struct kwm_ring_track kwm_ring_update(struct kwm_ring *ring, const double *y);

/* What neighbours need of each other goes between them; update does so. adopts: their means and variances count. Before
   a further prediction without an update between. Collective. */
void kwm_ring_share(struct kwm_ring *ring, bool adopts);

/* to <- from, of one spec. Local. */
void kwm_ring_copy(struct kwm_ring *to, const struct kwm_ring *from);

/* ŷ and its variance (m), as kwm_tracker_outputs, everywhere; joint. Collective. */
void kwm_ring_outputs(struct kwm_ring *ring, bool noise, double *y, double *variance);

/* What all ranks have, everywhere; NULL: not wanted. Collective. */
struct kwm_ring_view {
  double *theta, *prior, *variances; /* (d, params) */
  double *x, *q, *r;                 /* (d), (d), (m) */
};
void kwm_ring_gather(struct kwm_ring *ring, const struct kwm_ring_view *view);

/* What this rank's trackers and the ring hold. Local. */
size_t kwm_ring_bytes(const struct kwm_ring *ring);

/* All means of this rank. Local. */
bool kwm_ring_finite(const struct kwm_ring *ring);

/* A checkpoint's row of every segment, all it has to go on: numbers of one (collective); this rank's rows (count,
   width) from and to the trackers. Share without adopting after unpacking. */
int64_t kwm_ring_width(const struct kwm_ring *ring);
void kwm_ring_pack(const struct kwm_ring *ring, int64_t width, double *rows);
void kwm_ring_unpack(struct kwm_ring *ring, int64_t width, const double *rows);

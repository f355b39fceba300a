/* Spherical k-means: centres of directions, by cosine. Private to the data room; local. */
#pragma once

#include "kwm/base.h"

/* n points of d numbers, each of length 1 (or 0: near none). points: (n, d) row-major; borrowed. */
struct kwm_points {
  const float *at;
  int64_t n, d;
};

/* The best of a few attempts from drawn centres, each until nothing moves. n >= k >= 1. centres: (k, d) row-major, each
   of length 1; nearest: (n). Keyed by seed (KWM_RNG_TOPIC, steps from 1). */
kwm_status kwm_kmeans(const struct kwm_points *points, int k, uint64_t seed, float *centres, int32_t *nearest);

/* The centre nearest to a point, the first of equals; *cosine, unless NULL, to it. */
int kwm_kmeans_nearest(const float *point, const float *centres, int k, int64_t d, double *cosine);

/* Private to theory: what a group of claims works with. */
#pragma once

#include "kwm/theory.h"

/* Working memory and random numbers of one group. */
struct theory {
  struct kwm_layout *world;
  uint64_t seed, group, drawn; /* key of the next draw */
  enum kwm_fault fault;
  double *pool; /* memory is taken off its start, and given back by setting `used` to what it was */
  int64_t used, capacity;
};

/* Computes the numbers (and bounds of NAN) of one group's claims. Numerical failures leave NAN; found: one a claim. */
struct theory_group {
  int n;
  const struct kwm_claim *claims;
  kwm_status (*compute)(struct theory *t, struct kwm_finding *found);
  bool collective, timed; /* on all ranks together; on rank 0 while the others wait */
};
extern const struct theory_group theory_gain, theory_gain_limits, theory_steady, theory_radius, theory_convex,
    theory_excitation, theory_lyapunov, theory_rank, theory_rank_threshold, theory_optimal, theory_structures,
    theory_full, theory_cost, theory_bytes;

#define THEORY_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* Zeroed numbers from the pool. */
double *theory_new(struct theory *t, int64_t n);

/* Next draw: normal, or normal rounded to what filters take (float), or to multiples of 1/8 within [-2, 2], of which
   float sums are exact. */
double theory_normal(struct theory *t);
int64_t theory_below(struct theory *t, int64_t bound); /* uniform on 0 .. bound - 1 */
double *theory_normals(struct theory *t, int64_t n);
double *theory_floats(struct theory *t, int64_t n, double scale);
double *theory_coarse(struct theory *t, int64_t n);

/* The table of groups of claims, dealt over the ranks. A finding is non-zero on one rank only until all are summed, so
   the sum is exact and the answer does not depend on who computed it. */
#include "theory.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/rng.h"

static const struct theory_group *const groups[] = {&theory_gain,     &theory_gain_limits, &theory_steady,
                                                    &theory_radius,   &theory_convex,      &theory_excitation,
                                                    &theory_lyapunov, &theory_rank,        &theory_rank_threshold,
                                                    &theory_optimal,  &theory_structures,  &theory_full,
                                                    &theory_bytes,    &theory_cost};

enum { POOL_NUMBERS = 3000000 };

double *theory_new(struct theory *t, int64_t n) {
  double *const numbers = t->pool + t->used;
  t->used += (n + 7) / 8 * 8;
  KWM_ASSERT(t->used <= t->capacity);
  memset(numbers, 0, (size_t)n * sizeof *numbers);
  return numbers;
}

double theory_normal(struct theory *t) {
  return kwm_rng_normal(t->seed, KWM_RNG_THEORY, t->group, t->drawn++);
}

int64_t theory_below(struct theory *t, int64_t bound) {
  return (int64_t)kwm_rng_below(t->seed, KWM_RNG_THEORY, t->group, t->drawn++, (uint64_t)bound);
}

double *theory_normals(struct theory *t, int64_t n) {
  double *const numbers = theory_new(t, n);
  for (int64_t k = 0; k < n; k++) numbers[k] = theory_normal(t);
  return numbers;
}

double *theory_floats(struct theory *t, int64_t n, double scale) {
  double *const numbers = theory_new(t, n);
  for (int64_t k = 0; k < n; k++) numbers[k] = (double)(float)(scale * theory_normal(t));
  return numbers;
}

double *theory_coarse(struct theory *t, int64_t n) {
  double *const numbers = theory_new(t, n);
  for (int64_t k = 0; k < n; k++) numbers[k] = fmin(fmax(round(8 * theory_normal(t)) / 8, -2), 2);
  return numbers;
}

int kwm_theory_count(bool timed) {
  int count = 0;
  for (int g = 0; g < THEORY_COUNT(groups); g++) count += timed || !groups[g]->timed ? groups[g]->n : 0;
  return count;
}

bool kwm_claim_holds(const struct kwm_claim *claim, double number, double bound) {
  switch (claim->relation) {
  case KWM_AT_MOST: return number <= bound;
  case KWM_AT_LEAST: return number >= bound;
  case KWM_WITHIN: break;
  }
  return fabs(number - bound) <= claim->tolerance;
}

static bool computes(const struct theory_group *group, int g, const struct kwm_layout *world) {
  return group->collective || world->rank == (group->timed ? 0 : g % world->size);
}

static void blank(const struct theory_group *group, struct kwm_finding *found) {
  for (int i = 0; i < group->n; i++)
    found[i] = (struct kwm_finding){.claim = &group->claims[i],
                                    .number = NAN,
                                    .bound = group->claims[i].bound,
                                    .spread = NAN,
                                    .timed = group->timed};
}

/* Rank 0 gets its number from the rank that computed it. */
static void gather(struct kwm_layout *world, const struct theory_group *group, bool mine, struct kwm_finding *found) {
  for (int i = 0; i < group->n; i++) {
    double numbers[3] = {0};
    if (mine) numbers[0] = found[i].number, numbers[1] = found[i].bound, numbers[2] = found[i].spread;
    kwm_par_sum_world(world, 3, numbers);
    found[i].number = numbers[0], found[i].bound = numbers[1], found[i].spread = numbers[2];
    found[i].pass = kwm_claim_holds(found[i].claim, found[i].number, found[i].bound);
  }
}

/* Timed groups come last, each alone on the machine. */
static kwm_status run_groups(struct theory *t, const struct kwm_theory_spec *spec, struct kwm_finding *findings) {
  kwm_status status = KWM_OK;
  for (int pass = 0; pass <= (spec->timed ? 1 : 0); pass++) {
    struct kwm_finding *found = findings;
    for (int g = 0; g < THEORY_COUNT(groups); g++) {
      const struct theory_group *const group = groups[g];
      if (group->timed && !spec->timed) continue;
      if (group->timed == (pass == 1)) {
        t->group = (uint64_t)g, t->drawn = 0, t->used = 0;
        blank(group, found);
        if (computes(group, g, t->world) && (status == KWM_OK || group->collective)) {
          const kwm_status own = group->compute(t, found);
          if (status == KWM_OK) status = own;
        }
      }
      found += group->n;
    }
    status = kwm_agree(t->world->world, status);
    if (status != KWM_OK) return status;
  }
  return KWM_OK;
}

kwm_status kwm_theory_verify(struct kwm_layout *world, const struct kwm_theory_spec *spec,
                             struct kwm_finding *findings) {
  struct theory t = {.world = world, .seed = spec->seed, .fault = spec->fault, .capacity = POOL_NUMBERS};
  kwm_status status = kwm_alloc((void **)&t.pool, (size_t)t.capacity * sizeof(double), "verification");
  status = kwm_agree(world->world, status);
  /* Time is counted over all threads, and sums are split among them: numbers depend on their count. */
  const int threads = kwm_backend_threads(1);
  if (status == KWM_OK) status = run_groups(&t, spec, findings);
  kwm_backend_threads(threads);
  for (int g = 0; g < THEORY_COUNT(groups) && status == KWM_OK; g++) {
    const struct theory_group *const group = groups[g];
    if (group->timed && !spec->timed) continue;
    gather(world, group, group->collective ? world->rank == 0 : computes(group, g, world), findings);
    findings += group->n;
  }
  kwm_free(t.pool);
  return status;
}

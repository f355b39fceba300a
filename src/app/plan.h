/* Private to app: what a rank will hold and do, and whether that fits. */
#pragma once

#include "run.h"

struct kwm_plan {
  size_t data, params, learner, pipe; /* exact: kwm_alloc's bytes */
  size_t libraries;                   /* resident before them, plus what libraries grow by */
  size_t device;                      /* of a device's memory: what is taken at the start, and for eigenbases */
  double operations;                  /* estimated floating-point operations a step: the model's and the learner's */
};

/* For the rank that is `group_rank` in its replica of a run that is laid out; run->libraries_bytes: resident now.
   Local. */
struct kwm_plan kwm_plan_rank(const struct kwm_run *run, int group_rank, const struct kwm_probe *probe);
size_t kwm_plan_total(const struct kwm_plan *plan);

/* False for sizes that a structure or its libraries refuse: kwm_plan_rank would count nonsense. Local. */
bool kwm_plan_countable(const struct kwm_run *run);

/* Sets run->libraries_bytes, alike on all ranks. Collective. */
void kwm_plan_measure(struct kwm_run *run);

/* Refuses a run whose largest rank takes more than layout.memory_gb, or its share of what its host has, naming the
   richest structures that would fit: KWM_ERR_USAGE. After kwm_plan_measure. tells: rank 0 prints comment lines with
   the choice and its alternatives. Collective (propose.c). */
kwm_status kwm_plan_check(struct kwm_run *run, const struct kwm_probe *probe, bool tells);

/* What a rank may take: layout.memory_gb, or the smallest share of what a host has; bytes on rank 0 only, source for
   people. Collective. */
struct kwm_budget {
  double bytes;
  const char *source;
};
kwm_status kwm_plan_budget(struct kwm_run *run, struct kwm_budget *budget);

/* What libraries grow by (struct kwm_plan). */
double kwm_plan_growth(void);

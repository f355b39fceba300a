/* Private to app: what a rank will hold and do. */
#pragma once

#include "run.h"

struct kwm_plan {
  size_t data, params, learner, pipe; /* exact: kwm_alloc's bytes */
  size_t libraries;                   /* resident before them, plus what libraries grow by */
  double operations;                  /* estimated floating-point operations a step */
};

/* For the rank that is `group_rank` in its replica; n_train counts the held-out samples too. Local. */
struct kwm_plan kwm_plan_rank(const struct kwm_run *run, int group_rank, int64_t n_train, int64_t n_test,
                              size_t resident);
size_t kwm_plan_total(const struct kwm_plan *plan);

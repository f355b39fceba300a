/* Private to app: kwm eval on a stream of tasks. */
#pragma once

#include "kwm/ckpt.h"
#include "run.h"

/* Accuracy, likelihood and calibration of every task, learned or not, by the mean alone and by the posterior, and how
   well their uncertainty tells tasks that were never seen from those learned; printed on rank 0. The run is laid out,
   no data is read yet. Collective. */
kwm_status kwm_eval_stream(struct kwm_run *run, kwm_ckpt *ckpt, int64_t step);

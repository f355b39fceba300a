/* Has the world changed? A running test over steps for an abrupt rise of the innovations: one-sided CUSUM (Page,
   Continuous inspection schemes, 1954) of a statistic, standardised by its own running mean and spread. Nothing is told
   about where tasks begin. Local, allocates nothing, constant memory.

   Measured on 49 streams of permuted, rotated, split and unchanging MNIST images, mini-batches of 10 to 400: with the
   statistic and the spec below each of 110 abrupt changes was found at the 2nd or 3rd step of the new task, without a
   false alarm in 64 thousand steps, also where images turned slowly by 180 degrees. The NIS found 41 of them: a net
   that meets a new task grows unsure as well, so that the errors it expects rise with those it makes. */
#pragma once

#include "kwm/base.h"

enum { KWM_CHANGE_WARMUP = 10 };

struct kwm_change_spec {
  double threshold; /* alarm level of the CUSUM, in standard deviations; 0: off */
  double slack;     /* deviations a step that are no evidence, >= 0; larger: slow drift passes */
  double memory;    /* steps that the running mean and variance reach back, >= 1 */
};

static const struct kwm_change_spec kwm_change_default = {.threshold = 10, .slack = 1, .memory = 50};

/* Zero at the start ({0}); doubles only: KWM_DOUBLES of it are what a checkpoint stores, bit for bit. */
struct kwm_change {
  double steps;      /* calls so far */
  double alarms;     /* so far */
  double alarm_step; /* of the last alarm, the first call being step 1; 0: none yet */
  double count;      /* statistics learned from since the start or the last alarm */
  double mean;
  double
      variance; /* half the mean square of successive differences, which a trend, as in early learning, leaves small */
  double previous; /* statistic learned from last */
  double sum;      /* CUSUM */
};

/* sqrt(surprisal/samples) of a mini-batch, sums as in struct kwm_innovation over all replicas: the root makes spread
   and level independent. NaN without samples. */
double kwm_change_statistic(double surprisal, double samples);

/* Takes one step's statistic, high meaning worse; true if this step brings the alarm, after which the test starts anew
   on the new level. The first KWM_CHANGE_WARMUP statistics of a level only teach it: a change among them is missed, and
   so is every change for the better.

   One step adds at most half the threshold, so that a lone bad mini-batch is no alarm, and one that would add more is
   not learned from. What is not finite is counted as a step and otherwise ignored: such a step is the health check's
   business, not a new task. */
bool kwm_change_add(struct kwm_change *change, const struct kwm_change_spec *spec, double statistic);

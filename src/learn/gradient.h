/* What the gradient baselines share: summed evidence, the arrays that they keep, Adam's rule, a cosine schedule. */
#pragma once

#include "kwm/learn.h"

/* What is summed over a step's samples. The diagonal of the Fisher information is that of HᵀH; its factors are aᵀa and
   JᵀJ, matrix blocks only: units' information stays a diagonal. */
enum gradient_evidence { GRADIENT_SCORE, GRADIENT_DIAGONAL, GRADIENT_FACTORS };

/* Of whom an array is: a number for every parameter (count, params), the same of units only, or a matrix block's (d_i,
   d_i) or (d_o, d_o). */
enum gradient_shape { GRADIENT_PARAMS, GRADIENT_UNITS, GRADIENT_INPUTS, GRADIENT_OUTPUTS };

enum { GRADIENT_MOMENTS = 2, GRADIENT_ARRAYS = 5 };

struct gradient_array {
  const char *name; /* in checkpoints: /learner/LEARNER/NAME/GROUP */
  enum gradient_shape shape;
};

/* One kind of learner. */
struct gradient_kind {
  size_t state_bytes; /* of its state, which begins with a struct gradient_state */
  enum gradient_evidence evidence;
  int n_arrays;
  struct gradient_array array[GRADIENT_ARRAYS];
};

struct gradient_state {
  const struct gradient_kind *kind; /* static */
  struct kwm_treesum sum[KWM_GROUPS_MAX];
  float *scratch[KWM_GROUPS_MAX]; /* at least a number for every parameter; free after gradient_sum */
  float *score[KWM_GROUPS_MAX];   /* this step's sum over all samples; borrowed from sum */
  float *more[KWM_GROUPS_MAX]; /* behind it: the diagonal in the score's order, or aᵀa and JᵀJ, upper triangles */
  union {
    float *array[GRADIENT_ARRAYS][KWM_GROUPS_MAX];
    float *moment[GRADIENT_MOMENTS][KWM_GROUPS_MAX]; /* the first arrays of learners that have moments */
  };
};

size_t gradient_kind_bytes(const struct gradient_kind *kind, const struct kwm_learn_spec *spec,
                           const struct kwm_params *params, int64_t replicas);
size_t gradient_kind_saved(const struct gradient_kind *kind, const struct kwm_params *params);
kwm_status gradient_kind_create(const struct gradient_kind *kind, kwm_learner *learner);

/* The same for a learner that sums scores and keeps two moments. */
size_t gradient_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas);
size_t gradient_saved(const struct kwm_params *params);
kwm_status gradient_create(kwm_learner *learner);
void gradient_destroy(kwm_learner *learner);

/* Sums the evidence of the step over chunks and replicas; false: what this rank owns of it is not finite. gradient_sum
   also agrees on the verdict. */
bool gradient_collect(kwm_learner *learner, const struct kwm_lin *lin);
void gradient_sum(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step);

/* Parameters of group g in the order of their means: where the score of parameter k stands (so does the diagonal), and
   the gradient of the mean log-likelihood at k. */
int64_t gradient_place(const kwm_learner *learner, int g, int64_t k);
float gradient_at(const kwm_learner *learner, int g, int64_t k, int64_t batch);
int64_t gradient_length(const struct kwm_params *params, int g);

/* Share of the initial rate at the current step: half a cosine from 1 to 0. */
double gradient_schedule(const kwm_learner *learner);

/* Adam's step of group g's means along `gradient`, in their order, overwritten: gradient <- the change of the means. */
void gradient_adam(kwm_learner *learner, int g, float *gradient);

/* A task is over: array `anchor` <- the means, the first moment <- 0. */
void gradient_anchor(kwm_learner *learner, int anchor);

kwm_status gradient_save(const kwm_learner *learner, kwm_ckpt *ckpt, bool writes);
kwm_status gradient_load(kwm_learner *learner, kwm_ckpt *ckpt);

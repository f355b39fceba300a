/* One step of the language model's learners: scores and factors from the pipe, then, tensor by tensor, the correction.
 */
#include "kwm/language_learn.h"

#include <math.h>
#include <string.h>

#include "kwm/fault.h"
#include "language_state.h"

/* The sink of the pipe: the score of a matrix is sᵀa; its factors are observed on the way. */
static void take_matrix(void *context, int t, int64_t n, int64_t d_o, int64_t d_i, const float *s, const float *a) {
  kwm_language_learner *const learner = context;
  kwm_device_gemm(learner->device, true, false, d_o, d_i, n, 1, s, d_o, a, d_i, 1, learner->score[t], d_i);
  language_observe(learner, t, n, s, a);
}

static void take_reading(void *context, int t, int64_t n, const float *y) {
  language_observe(context, t, n, NULL, y);
}

static float *take_vector(void *context, int t) {
  return ((kwm_language_learner *)context)->score[t];
}

/* Rises, then falls (Loshchilov & Hutter 2017). */
static double schedule_of(const struct kwm_language_learn_spec *spec, int64_t steps) {
  const double rise = (double)(steps + 1) / (double)(spec->warmup + 1), rising = rise < 1 ? rise : 1;
  if (spec->total_steps == 0) return rising;
  const double done = (double)steps / (double)spec->total_steps;
  return rising * (spec->floor + (1 - spec->floor) * 0.5 * (1 + cos(M_PI * (done < 1 ? done : 1))));
}

/* Sum of squares of the arrays that this rank owns; waits. */
static double sum_squares(kwm_language_learner *learner, float *const *arrays) {
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(learner->device);
  double sum = 0;
  for (int t = 0; t < learner->model->n_tensors; t++)
    if (learner->owns[t]) ops->norm2(learner->device, language_size(learner->model, t), arrays[t], &learner->norms[t]);
  kwm_device_wait(learner->device);
  for (int t = 0; t < learner->model->n_tensors; t++)
    if (learner->owns[t]) sum += learner->norms[t];
  return sum;
}

/* Of the mean score, over the replica's ranks. */
static double score_norm(kwm_language_learner *learner) {
  double sum = sum_squares(learner, learner->score);
  kwm_par_sum_group(learner->layout, 1, &sum);
  return sqrt(sum) / (double)learner->spec.tokens;
}

bool kwm_language_finite(kwm_language_learner *learner) {
  return !kwm_par_any(learner->layout, !isfinite(sum_squares(learner, learner->mean)));
}

/* Where the score is not finite; norms as score_norm left them. */
static void locate_score(const kwm_language_learner *learner, struct kwm_language_result *result) {
  int bad = -1;
  for (int t = learner->model->n_tensors - 1; t >= 0; t--)
    if (learner->owns[t] && !isfinite(learner->norms[t])) bad = t;
  language_locate(learner, bad >= 0 || isfinite(result->score_norm), bad, result);
}

static enum kwm_verdict judge(const kwm_language_learner *learner, const struct kwm_language_result *result) {
  const double *const last = result->reading.of[learner->model->stages - 1];
  const double surprisal = last[KWM_READ_SURPRISAL] / last[KWM_READ_TOKENS];
  if (!isfinite(result->score_norm) || !isfinite(surprisal)) return KWM_STEP_NOT_FINITE;
  return learner->spec.gate > 0 && surprisal > learner->spec.gate ? KWM_STEP_GATED : KWM_STEP_DONE;
}

/* The root of a step's process noise. */
static double noise_of(const kwm_language_learner *learner, int t, double schedule) {
  const struct kwm_tensor *const tensor = &learner->model->tensors[t];
  const bool early = tensor->stage < learner->model->stages - 1;
  return learner->spec.step[tensor->role] * schedule * (early ? learner->spec.stage_noise : 1);
}

/* The embedding's copies set out as soon as it is what it will be: with owners, others have to get it first. */
static void begin_copies(kwm_language_learner *learner, int t) {
  if (t == KWM_TENSOR_EMBED && learner->layout->owners == 1 &&
      kwm_language_share_due(learner->language, learner->steps + 1))
    kwm_language_share_begin(learner->language, learner->mean);
}

static void move(kwm_language_learner *learner, int t, double noise, double scale, const float *delta) {
  kwm_tensor_of(learner->device)
      ->drift(learner->device, language_size(learner->model, t), (float)(1 - learner->spec.pull * noise), (float)scale,
              delta, learner->mean[t]);
  begin_copies(learner, t);
}

/* Without a trust region a tensor moves as soon as its gain is known; with one, steps wait where the scores were. */
static void correct_kalman(kwm_language_learner *learner, struct kwm_language_result *result) {
  const bool bounded = learner->spec.trust > 0;
  double scale[KWM_TRANSFORMER_STAGES_MAX];
  for (int t = 0; t < learner->model->n_tensors; t++) {
    if (!learner->owns[t]) continue;
    const double noise = noise_of(learner, t, result->schedule);
    float *const score = learner->score[t], *const delta =
                                                kwm_riccati_gain(&learner->cov[t], noise * noise, score, &learner->room,
                                                                 bounded ? &learner->norms[t] : NULL);
    if (!bounded)
      move(learner, t, noise, 1, delta);
    else if (delta != score)
      kwm_device_copy(learner->device, score, delta, (size_t)language_size(learner->model, t) * sizeof *score);
  }
  if (!bounded) return;
  language_trust(learner, result, scale);
  for (int t = 0; t < learner->model->n_tensors; t++)
    if (learner->owns[t])
      move(learner, t, noise_of(learner, t, result->schedule), scale[learner->model->tensors[t].stage],
           learner->score[t]);
}

static void correct_adam(kwm_language_learner *learner, int t, double schedule, double clip) {
  const struct kwm_language_learn_spec *const spec = &learner->spec;
  const double rate = spec->rate * schedule;
  const struct kwm_adam_step step = {.rate = (float)rate,
                                     .beta1 = (float)spec->beta1,
                                     .beta2 = (float)spec->beta2,
                                     .epsilon = (float)spec->epsilon,
                                     .decay = (float)(spec->decay * rate),
                                     .scale = (float)(clip / (double)spec->tokens),
                                     .t = learner->seen + 1};
  kwm_tensor_of(learner->device)
      ->adam(learner->device, language_size(learner->model, t), &step, learner->score[t], learner->first[t],
             learner->second[t], learner->mean[t]);
  begin_copies(learner, t);
}

/* The running mean of the means, a plain one until it is as long as the running one. */
static void add_average(kwm_language_learner *learner) {
  const double plain = 1 / (double)(learner->seen + 1);
  const double rate = plain > learner->spec.average ? plain : learner->spec.average;
  if (!(learner->spec.average > 0)) return;
  for (int t = 0; t < learner->model->n_tensors; t++)
    if (learner->holds[t])
      kwm_tensor_of(learner->device)
          ->drift(learner->device, language_size(learner->model, t), (float)(1 - rate), (float)rate, learner->mean[t],
                  learner->average[t]);
}

static void correct(kwm_language_learner *learner, struct kwm_language_result *result) {
  const double clip = learner->spec.clip, norm = result->score_norm;
  int failed = learner->spec.adam ? -1 : language_refresh(learner);
  if (kwm_fault_ordered("indefinite", "learn", learner->steps, learner->layout->rank)) failed = 0;
  if (!learner->spec.adam && kwm_par_any(learner->layout, failed >= 0)) {
    result->verdict = KWM_STEP_INDEFINITE;
    language_locate(learner, failed >= 0, failed, result);
    return;
  }
  if (!learner->spec.adam) correct_kalman(learner, result);
  for (int t = 0; t < learner->model->n_tensors && learner->spec.adam; t++)
    if (learner->owns[t]) correct_adam(learner, t, result->schedule, clip > 0 && norm > clip ? clip / norm : 1);
  language_spread_means(learner, learner->mean);
  add_average(learner);
  learner->seen++;
}

static void begin(kwm_language_learner *learner) {
  learner->observes = !learner->spec.adam && (learner->steps % learner->spec.factor_every == 0 || learner->steps < 20);
  memset(learner->touched, 0, sizeof learner->touched);
  for (int t = 0; t < learner->model->n_tensors; t++)
    if (learner->holds[t])
      kwm_device_zero(learner->device, learner->score[t], (size_t)language_size(learner->model, t) * sizeof(float));
}

void kwm_language_learn(kwm_language_learner *learner, const struct kwm_language_batch *batch,
                        struct kwm_language_result *result) {
  const struct kwm_sink sink = {
      .context = learner, .matrix = take_matrix, .vector = take_vector, .reading = take_reading};
  *result = (struct kwm_language_result){.schedule = schedule_of(&learner->spec, learner->steps)};
  begin(learner);
  kwm_language_step(learner->language, learner->mean, batch, &sink, &result->reading);
  learner->observed += learner->observes;
  language_sum_scores(learner);
  kwm_par_sum_world(learner->layout, (int64_t)(sizeof result->reading / sizeof(double)), (double *)&result->reading);
  result->score_norm = score_norm(learner);
  result->verdict = judge(learner, result);
  if (result->verdict == KWM_STEP_NOT_FINITE) locate_score(learner, result);
  if (result->verdict == KWM_STEP_DONE) correct(learner, result);
  learner->skipped += result->verdict != KWM_STEP_DONE;
  learner->steps++;
  if (kwm_language_share_due(learner->language, learner->steps)) kwm_language_share(learner->language, learner->mean);
}

float *const *kwm_language_means(const kwm_language_learner *learner, bool averaged) {
  return averaged && learner->spec.average > 0 && learner->seen > 0 ? learner->average : learner->mean;
}

int64_t kwm_language_steps(const kwm_language_learner *learner) {
  return learner->steps;
}

/* kwm eval of a language model with correction, shift, baseline or topics: runs what is asked for and prints it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "language_stream.h"

static double perplexity(const struct kwm_language_sum *sum) {
  return exp(sum->surprisal / (double)sum->tokens);
}

static void print_shift(const struct kwm_language_stream *stream) {
  const struct kwm_config *const config = &stream->run->run->config;
  const struct kwm_shift_counts *const counts = &stream->counts;
  printf("split\t%s\nstreams\t%lld\n", config->correction.split, (long long)stream->text.streams);
  printf("scored_tokens\t%lld\n", (long long)(stream->steps * stream->text.streams * stream->text.context));
  printf("shift\t%s\nshift_schedule\t%s\n", config->shift.kind, config->shift.schedule);
  printf("shift_words_moved\t%d\n", stream->words.moved);
  printf("shift_tokens\t%lld\n", (long long)counts->on);
  printf("shift_inputs_changed\t%lld\nshift_targets_changed\t%lld\n", (long long)counts->inputs,
         (long long)counts->targets);
  printf("shift_inputs_dropped\t%lld\n", (long long)counts->dropped);
  for (int k = 0; k < stream->domains.count; k++)
    printf("domain%d_start\t%lld\n", k + 1, (long long)stream->domains.start[k]);
}

static double calibration_error(const struct kwm_language_sum *sum) {
  double error = 0;
  for (int k = 0; k < KWM_LANGUAGE_BINS; k++) error += fabs(sum->sure[k] - sum->hit[k]);
  return error / (double)sum->tokens;
}

/* curve: method, time, surprisal, entropy of a window. bin: method, tokens, mean largest probability, how often it was
   right. */
static void print_curve(const struct kwm_language_stream *stream, const char *name,
                        const struct kwm_language_sum *sum) {
  const double rows = (double)(stream->text.streams * stream->text.context);
  for (int64_t step = 0; step < stream->steps; step++)
    printf("curve\t%s\t%lld\t%.4f\t%.4f\n", name, (long long)(step * stream->text.context), sum->curve[2 * step] / rows,
           sum->curve[2 * step + 1] / rows);
  for (int k = 0; k < KWM_LANGUAGE_BINS; k++)
    if (sum->count[k] > 0)
      printf("bin\t%s\t%.0f\t%.4f\t%.4f\n", name, sum->count[k], sum->sure[k] / sum->count[k],
             sum->hit[k] / sum->count[k]);
}

/* Prequential perplexity domain by domain, windows by where they begin; perplexity of the first domain's held-out text,
   before all and after each; forgetting: after all over after the first. */
static void print_domains(const struct kwm_language_stream *stream, const char *name,
                          const struct kwm_language_sum *sum, bool probed) {
  const double rows = (double)(stream->text.streams * stream->text.context);
  const int count = stream->domains.count;
  for (int k = 0; k < count; k++) {
    double surprisal = 0, windows = 0;
    for (int64_t step = 0; step < stream->steps; step++) {
      const int64_t at = step * stream->text.context;
      if (at < stream->domains.start[k] || at >= stream->domains.start[k + 1]) continue;
      surprisal += sum->curve[2 * step];
      windows++;
    }
    if (windows > 0) printf("%s_domain%d_perplexity\t%.3f\n", name, k + 1, exp(surprisal / (windows * rows)));
  }
  for (int k = 0; k <= count && probed; k++) printf("%s_first_domain_after%d\t%.3f\n", name, k, exp(sum->first[k]));
  if (probed) printf("%s_forgetting\t%.4f\n", name, exp(sum->first[count] - sum->first[1]));
}

static void print_sum(const struct kwm_language_stream *stream, const char *name, const struct kwm_language_sum *sum,
                      const struct kwm_language_sum *fixed) {
  printf("%s_perplexity\t%.3f\n", name, perplexity(sum));
  if (sum != fixed) printf("%s_over_static\t%.4f\n", name, perplexity(sum) / perplexity(fixed));
  printf("%s_seconds_per_token\t%.3e\n", name, sum->seconds / (double)sum->timed);
  if (sum != fixed) printf("%s_time_over_static\t%.3f\n", name, sum->seconds / fixed->seconds);
  printf("%s_operations_per_token\t%.4e\n", name, sum->operations);
  printf("%s_bytes\t%.4e\n", name, sum->bytes);
  if (sum->entropy > 0) printf("%s_entropy\t%.4f\n", name, sum->entropy / (double)sum->tokens);
  if (sum->count[0] + sum->count[1] > 0) printf("%s_calibration_error\t%.4f\n", name, calibration_error(sum));
  if (stream->run->run->config.correction.curve) print_curve(stream, name, sum);
}

static void print_facts(const char *name, const struct kwm_correct_facts *facts, bool adapts) {
  printf("%s_nis\t%.4f\n", name, facts->squared / facts->expected);
  printf("%s_window_norm\t%.4g\n", name, facts->contraction);
  printf("%s_restarts\t%.0f\n", name, facts->broken);
  if (adapts) printf("%s_noise\t%.4g\n%s_scale\t%.4f\n", name, facts->noise, name, facts->scale);
  if (facts->listed > 0) printf("%s_listed\t%.1f\n", name, facts->listed / facts->tokens);
}

static void print_pass(const struct kwm_language_stream *stream, const char *const names[KWM_METHODS],
                       const struct kwm_language_sum *sums, const struct kwm_language_sum *fixed, bool probed) {
  const bool adapts = stream->run->run->config.correction.adapt > 0;
  for (int k = 0; k < KWM_METHODS; k++) {
    if (sums[k].tokens == 0) continue;
    print_sum(stream, names[k], &sums[k], fixed);
    if (k == KWM_METHOD_CORRECTED) print_facts(names[k], &sums[k].facts, adapts);
    if (k <= KWM_METHOD_CORRECTED) print_domains(stream, names[k], &sums[k], probed);
  }
}

static void close_sums(struct kwm_language_sum *sums) {
  for (int k = 0; k < KWM_METHODS; k++) kwm_language_sum_close(&sums[k]);
}

/* Weights that move, after all that needs them as they were. */
static kwm_status evaluate_moving(struct kwm_language_stream *stream, struct kwm_language_stream *probe,
                                  const struct kwm_language_sum *fixed) {
  const char *const kind = stream->run->run->config.baseline.kind;
  struct kwm_language_moving *moving = NULL;
  struct kwm_language_sum sums[KWM_METHODS] = {0};
  char corrected[64];
  const char *const names[KWM_METHODS] = {kind, corrected, "", ""};
  snprintf(corrected, sizeof corrected, "%s_corrected", kind);
  const struct kwm_layout *const layout = &stream->run->run->layout;
  kwm_status status = kwm_language_moving_create(&moving, stream);
  if (status == KWM_OK) status = kwm_language_methods(stream, moving, probe, sums);
  if (status == KWM_OK && layout->rank == 0) print_pass(stream, names, sums, fixed, probe != NULL);
  close_sums(sums);
  kwm_language_moving_destroy(moving);
  return status;
}

static kwm_status evaluate(struct kwm_language_stream *stream, struct kwm_language_stream *probe) {
  const char *const kind = stream->run->run->config.baseline.kind;
  const char *const names[KWM_METHODS] = {"static", "corrected", "cache", "cache_corrected"};
  const bool moves = strcmp(kind, "none") != 0 && strcmp(kind, "cache") != 0;
  struct kwm_language_sum sums[KWM_METHODS] = {0};
  const int rank = stream->run->run->layout.rank;
  if (rank == 0) print_shift(stream);
  kwm_status status = kwm_language_methods(stream, NULL, probe, sums);
  if (status == KWM_OK && rank == 0) print_pass(stream, names, sums, &sums[KWM_METHOD_PLAIN], probe != NULL);
  if (status == KWM_OK && moves) status = evaluate_moving(stream, probe, &sums[KWM_METHOD_PLAIN]);
  close_sums(sums);
  return status;
}

static enum kwm_split split_of(const char *word) {
  return strcmp(word, "train") == 0 ? KWM_TRAIN : strcmp(word, "valid") == 0 ? KWM_VALID : KWM_TEST;
}

kwm_status kwm_language_stream_eval(struct kwm_language_run *run) {
  const struct kwm_config *const config = &run->run->config;
  const enum kwm_split split = split_of(config->correction.split), other = split == KWM_VALID ? KWM_TEST : KWM_VALID;
  const bool topics = strcmp(config->stream.kind, "topics") == 0;
  struct kwm_language_stream stream = {0}, probe = {0};
  kwm_status status = kwm_language_stream_init(&stream, run, &run->text[split], false);
  if (status == KWM_OK && topics) status = kwm_language_stream_init(&probe, run, &run->text[other], true);
  if (status == KWM_OK) status = evaluate(&stream, topics ? &probe : NULL);
  kwm_language_stream_fini(&stream);
  kwm_language_stream_fini(&probe);
  return status;
}

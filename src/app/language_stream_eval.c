/* kwm eval of a language model with correction, shift or baseline: runs what is asked for and prints it. */
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
  printf("shift\t%s\n", config->shift.kind);
  printf("shift_words_moved\t%d\n", stream->words.moved);
  printf("shift_tokens\t%lld\n", (long long)counts->on);
  printf("shift_inputs_changed\t%lld\nshift_targets_changed\t%lld\n", (long long)counts->inputs,
         (long long)counts->targets);
  printf("shift_inputs_dropped\t%lld\n", (long long)counts->dropped);
}

static void print_sum(const char *name, const struct kwm_language_sum *sum, const struct kwm_language_sum *fixed) {
  printf("%s_perplexity\t%.3f\n", name, perplexity(sum));
  if (sum != fixed) printf("%s_over_static\t%.4f\n", name, perplexity(sum) / perplexity(fixed));
  printf("%s_seconds_per_token\t%.3e\n", name, sum->seconds / (double)sum->tokens);
  if (sum != fixed) printf("%s_time_over_static\t%.2f\n", name, sum->seconds / fixed->seconds);
  printf("%s_operations_per_token\t%.4e\n", name, sum->operations);
}

static void print_facts(const struct kwm_correct_facts *facts) {
  printf("corrected_nis\t%.4f\n", facts->squared / facts->expected);
  printf("corrected_window_norm\t%.4g\n", facts->contraction);
  printf("corrected_restarts\t%.0f\n", facts->broken);
}

static kwm_status evaluate(struct kwm_language_stream *stream) {
  const struct kwm_config *const config = &stream->run->run->config;
  struct kwm_language_sum fixed, sum;
  print_shift(stream);
  KWM_TRY(kwm_language_static(stream, &fixed));
  print_sum("static", &fixed, &fixed);
  if (strcmp(config->correction.kind, "off") != 0) {
    KWM_TRY(kwm_language_corrected(stream, &sum));
    print_sum("corrected", &sum, &fixed);
    print_facts(&sum.facts);
  }
  if (strcmp(config->baseline.kind, "none") == 0) return KWM_OK;
  const bool cache = strcmp(config->baseline.kind, "cache") == 0;
  KWM_TRY(cache ? kwm_language_cache(stream, false, &sum) : kwm_language_dynamic(stream, &sum));
  print_sum(config->baseline.kind, &sum, &fixed);
  if (!cache || strcmp(config->correction.kind, "off") == 0) return KWM_OK;
  KWM_TRY(kwm_language_cache(stream, true, &sum));
  print_sum("cache_corrected", &sum, &fixed);
  return KWM_OK;
}

kwm_status kwm_language_stream_eval(struct kwm_language_run *run) {
  struct kwm_language_stream stream;
  kwm_status status = kwm_language_stream_init(&stream, run);
  if (status == KWM_OK) status = evaluate(&stream);
  kwm_language_stream_fini(&stream);
  return status;
}

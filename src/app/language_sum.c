/* What a method made of the text: each stream's sums by themselves, then those of all ranks' streams in the order of
   the streams. */
#include "language_stream.h"

static double *part_of(const struct kwm_language_sum *sum, int64_t stream) {
  return sum->parts + stream * sum->n;
}

kwm_status kwm_language_sum_open(struct kwm_language_sum *sum, const struct kwm_language_stream *stream, bool wanted) {
  const int64_t streams = stream->text.streams, windows = 2 * stream->steps;
  const int64_t n = windows + 3 * KWM_LANGUAGE_BINS + stream->domains.count + 1;
  const int64_t rows = streams * stream->text.context, all = stream->steps * rows;
  *sum = (struct kwm_language_sum){.tokens = wanted ? all : 0, .timed = all > rows ? all - rows : all, .n = n};
  KWM_TRY(kwm_alloc((void **)&sum->parts, (size_t)(streams * n) * sizeof *sum->parts, "curve"));
  sum->curve = sum->parts;
  sum->count = sum->curve + windows;
  sum->sure = sum->count + KWM_LANGUAGE_BINS;
  sum->hit = sum->sure + KWM_LANGUAGE_BINS;
  sum->first = sum->hit + KWM_LANGUAGE_BINS;
  return KWM_OK;
}

void kwm_language_sum_close(struct kwm_language_sum *sum) {
  kwm_free(sum->parts);
}

void kwm_language_sum_window(struct kwm_language_sum *sum, int64_t stream, int64_t step, double surprisal,
                             double entropy) {
  double *const part = part_of(sum, stream);
  part[2 * step] += surprisal;
  part[2 * step + 1] += entropy;
}

void kwm_language_sum_first(struct kwm_language_sum *sum, int64_t stream, int64_t at, double surprisal) {
  part_of(sum, stream)[sum->first - sum->parts + at] += surprisal;
}

static void add_token(const struct kwm_language_sum *sum, double *part, int64_t step, const float *facts) {
  const double sure = (double)facts[KWM_TOKEN_LARGEST];
  const int at = (int)(sure * KWM_LANGUAGE_BINS), bin = at < KWM_LANGUAGE_BINS ? at : KWM_LANGUAGE_BINS - 1;
  part[2 * step] += (double)facts[KWM_TOKEN_SURPRISAL];
  part[2 * step + 1] += (double)facts[KWM_TOKEN_ENTROPY];
  part[sum->count - sum->parts + bin]++;
  part[sum->sure - sum->parts + bin] += sure;
  part[sum->hit - sum->parts + bin] += (double)facts[KWM_TOKEN_CORRECT];
}

void kwm_language_sum_facts(struct kwm_language_sum *sum, const struct kwm_language_stream *stream, int64_t step,
                            const float *facts) {
  for (int64_t t = 0; t < stream->text.context; t++)
    for (int64_t s = 0; s < stream->own; s++)
      add_token(sum, part_of(sum, stream->first + s), step, facts + (t * stream->own + s) * KWM_TOKEN_FACTS);
}

/* Counts of the ranks' corrections together; the error watched is that of the first stream. */
static void sum_facts(struct kwm_layout *layout, struct kwm_correct_facts *facts) {
  double *const counts[] = {&facts->tokens, &facts->squared,     &facts->expected,
                            &facts->broken, &facts->contraction, &facts->listed};
  enum { COUNTS = sizeof counts / sizeof counts[0] };
  double sums[COUNTS];
  if (layout->owner > 0) facts->contraction = 0;
  for (int k = 0; k < COUNTS; k++) sums[k] = *counts[k];
  kwm_par_sum_mates_f64(layout, COUNTS, sums);
  for (int k = 0; k < COUNTS; k++) *counts[k] = sums[k];
}

void kwm_language_sum_ranks(struct kwm_language_sum *sum, const struct kwm_language_stream *stream) {
  struct kwm_layout *const layout = &stream->run->run->layout;
  const double share = (double)stream->own / (double)stream->text.streams;
  double costs[] = {sum->operations * share, sum->bytes};
  if (sum->tokens == 0) return;
  kwm_par_sum_mates_f64(layout, stream->text.streams * sum->n, sum->parts); /* others' parts are zero: exact */
  for (int64_t s = 1; s < stream->text.streams; s++)
    for (int64_t k = 0; k < sum->n; k++) sum->parts[k] += part_of(sum, s)[k];
  for (int64_t step = 0; step < stream->steps; step++) {
    sum->surprisal += sum->curve[2 * step];
    sum->entropy += sum->curve[2 * step + 1];
  }
  kwm_par_max_world(layout, 1, &sum->seconds);
  kwm_par_sum_mates_f64(layout, 2, costs);
  sum->operations = costs[0], sum->bytes = costs[1];
  sum_facts(layout, &sum->facts);
}

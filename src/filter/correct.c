/* The observer around the update: logits, scores, facts. */
#include <math.h>
#include <string.h>

#include "correct_state.h"
#include "kwm/backend.h"
#include "kwm/inform.h"

static kwm_status check(const struct kwm_correct_spec *spec) {
  KWM_ASSERT(spec->streams > 0 && spec->width > 0 && spec->classes > 1 && spec->window > 0);
  const bool any = correct_in_blocks(spec) || spec->width >= KWM_CORRECT_RANK;
  const int64_t most = any ? KWM_CORRECT_RANK : spec->width;
  KWM_CHECK(spec->kind != KWM_CORRECT_LOWRANK || (spec->rank >= 1 && spec->rank <= most), KWM_ERR_USAGE,
            "correction: wanted a rank from 1 to %lld, found %lld", (long long)most, (long long)spec->rank);
  KWM_CHECK(spec->kind != KWM_CORRECT_LOWRANK || spec->form == KWM_CORRECT_OBSERVED, KWM_ERR_USAGE,
            "correction: wanted the observed form with lowrank, found another");
  KWM_CHECK(!correct_lists(spec) || (spec->top >= 1 && spec->top <= spec->classes), KWM_ERR_USAGE,
            "correction: wanted from 1 to all %lld classes one by one or drawn, found %lld", (long long)spec->classes,
            (long long)spec->top);
  const int64_t rows = spec->kind == KWM_CORRECT_LOWRANK ? spec->rank : CORRECT_BLOCK_ROWS;
  KWM_CHECK(!correct_in_blocks(spec) || (spec->rows >= 1 && spec->rows <= rows), KWM_ERR_USAGE,
            "correction: wanted from 1 to %lld rows of a block, found %lld", (long long)rows, (long long)spec->rows);
  KWM_CHECK(!correct_in_blocks(spec) || spec->kind == KWM_CORRECT_BIAS ||
                (spec->kind != KWM_CORRECT_DIAG && spec->form == KWM_CORRECT_OBSERVED &&
                 kwm_inform_fits(spec->width, CORRECT_BLOCK_ROWS)),
            KWM_ERR_USAGE,
            "correction: wanted blocks of full or lowrank in the observed form, or of the bias, found others");
  KWM_CHECK(
      spec->readout == 0 || (correct_in_blocks(spec) && !spec->outside), KWM_ERR_USAGE,
      "correction: wanted blocks of tokens, every above 1 and no layer, for the rows of the read-out, found others");
  KWM_CHECK(!spec->outside || (spec->kind != KWM_CORRECT_BIAS && spec->bias == 0 && spec->adapt == 0), KWM_ERR_USAGE,
            "correction: wanted full or lowrank without bias or adapt for an offset within the model, found others");
  KWM_CHECK(spec->adapt == 0 || spec->kind == KWM_CORRECT_FULL || spec->kind == KWM_CORRECT_DIAG, KWM_ERR_USAGE,
            "correction: wanted full or diag to adapt, found another kind");
  KWM_CHECK(spec->kind != KWM_CORRECT_BIAS || spec->bias > 0 || spec->readout > 0, KWM_ERR_USAGE,
            "correction: wanted a variance of the bias above 0, found %g", spec->bias);
  return KWM_OK;
}

bool kwm_correct_on_device(const struct kwm_correct_spec *spec) {
  const bool full = spec->kind == KWM_CORRECT_FULL && spec->form != KWM_CORRECT_EXACT &&
                    spec->form != KWM_CORRECT_SAMPLED && kwm_inform_fits(spec->width, correct_form_rows(spec));
  return spec->device != NULL && (full || spec->kind == KWM_CORRECT_BIAS || correct_in_blocks(spec));
}

const struct kwm_correct_spec *kwm_correct_spec_of(const kwm_correct *correct) {
  return &correct->spec;
}

struct piece {
  void **at;
  int64_t count;
  size_t size;
};

static kwm_status allocate(kwm_correct *made) {
  const struct kwm_correct_spec *const spec = &made->spec;
  const int64_t s = spec->streams, d = spec->width, v = spec->classes, r = made->r, rows = made->rows;
  const bool low = spec->kind == KWM_CORRECT_LOWRANK, diag = spec->kind == KWM_CORRECT_DIAG;
  const bool listed = correct_lists(spec);
  const struct piece pieces[] = {
      {(void **)&made->c, s * r, sizeof(double)},
      {(void **)&made->P, low ? 0 : s * (diag ? r : r * r), sizeof(double)},
      {(void **)&made->lean, spec->bias > 0 ? s * v : 0, sizeof(float)},
      {(void **)&made->spread, spec->bias > 0 ? s * v : 0, sizeof(float)},
      {(void **)&made->input, s * d, sizeof(float)},
      {(void **)&made->logits, s * v, sizeof(float)},
      {(void **)&made->score, s * d, sizeof(float)},
      {(void **)&made->facts, s * KWM_TOKEN_FACTS, sizeof(float)},
      {(void **)&made->A, low ? r : rows * r, sizeof(double)},
      {(void **)&made->G, low ? 0 : rows * r, sizeof(double)},
      {(void **)&made->F,
       low    ? 0
       : diag ? r
              : r * r,
       sizeof(double)},
      {(void **)&made->N, listed ? rows * rows : 1, sizeof(double)},
      {(void **)&made->mean, r, sizeof(double)},
      {(void **)&made->along, r, sizeof(double)},
      {(void **)&made->watched, r, sizeof(double)},
      {(void **)&made->top, listed ? spec->top : 1, sizeof(int32_t)},
      {(void **)&made->U, low ? s * spec->rank * r : 0, sizeof(float)},
      {(void **)&made->kept, low ? spec->rank * r : 0, sizeof(float)},
      {(void **)&made->K, low ? s * spec->rank * spec->rank : 0, sizeof(double)},
      {(void **)&made->known, low ? s : 0, sizeof(int64_t)},
      {(void **)&made->usual, low ? r : 0, sizeof(float)},
  };
  for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++)
    if (pieces[k].count > 0)
      KWM_TRY(kwm_alloc(pieces[k].at, (size_t)pieces[k].count * pieces[k].size, "correction of activations"));
  return KWM_OK;
}

/* usual (width) <- the mean row of W by how often each comes. */
static void find_usual(kwm_correct *made) {
  const struct kwm_correct_spec *const spec = &made->spec;
  double all = 0;
  for (int64_t i = 0; i < spec->classes; i++) all += spec->often != NULL ? spec->often[i] : 1;
  for (int64_t k = 0; k < spec->width; k++) {
    double sum = 0;
    for (int64_t i = 0; i < spec->classes; i++)
      sum += (spec->often != NULL ? spec->often[i] : 1) * (double)spec->W[i * spec->width + k];
    made->usual[k] = (float)(sum / all);
  }
}

static kwm_status create_here(kwm_correct *made) {
  const struct kwm_correct_spec *const spec = &made->spec;
  KWM_TRY(allocate(made));
  if (spec->kind == KWM_CORRECT_LOWRANK) find_usual(made);
  for (int64_t s = 0; s < spec->streams && made->r > 0; s++) correct_reset(made, s);
  for (int64_t k = 0; k < spec->streams * spec->classes && spec->bias > 0; k++) made->spread[k] = (float)spec->bias;
  return KWM_OK;
}

kwm_status kwm_correct_create(kwm_correct **correct, const struct kwm_correct_spec *spec) {
  kwm_correct *made;
  *correct = NULL;
  KWM_TRY(check(spec));
  KWM_TRY(kwm_alloc((void **)&made, sizeof *made, "correction of activations"));
  made->spec = *spec;
  made->r = spec->kind == KWM_CORRECT_BIAS ? 0 : spec->width;
  made->noise = spec->noise;
  made->weight = 1;
  made->rows = spec->form == KWM_CORRECT_OBSERVED ? 1 : CORRECT_ROWS;
  if (correct_lists(spec) && spec->top + 1 > made->rows) made->rows = spec->top + 1;
  kwm_status status = correct_in_blocks(spec)       ? correct_blocks_create(made)
                      : kwm_correct_on_device(spec) ? correct_device_create(made)
                                                    : create_here(made);
  if (status == KWM_OK) status = correct_adapt_open(made);
  if (status != KWM_OK) {
    kwm_correct_destroy(made);
    return status;
  }
  for (int64_t k = 0; k < made->r && made->watched != NULL; k++) made->watched[k] = 1 / sqrt((double)made->r);
  *correct = made;
  return KWM_OK;
}

void kwm_correct_destroy(kwm_correct *correct) {
  if (correct == NULL) return;
  if (correct_in_blocks(&correct->spec) || kwm_correct_on_device(&correct->spec)) correct_device_destroy(correct);
  void *const owned[] = {correct->c,      correct->P,     correct->lean,  correct->spread, correct->input,
                         correct->logits, correct->score, correct->facts, correct->A,      correct->G,
                         correct->F,      correct->N,     correct->mean,  correct->along,  correct->watched,
                         correct->top,    correct->U,     correct->K,     correct->known,  correct->usual,
                         correct->kept,   correct->trend};
  for (size_t k = 0; k < sizeof owned / sizeof owned[0]; k++) kwm_free(owned[k]);
  kwm_free(correct);
}

void kwm_correct_logits(kwm_correct *correct, const float *y, float *logits) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const int64_t n = spec->streams, d = spec->width, v = spec->classes;
  KWM_ASSERT(!kwm_correct_on_device(spec) && !correct_in_blocks(spec));
  for (int64_t k = 0; k < n * d; k++) correct->input[k] = y[k] + (correct->r > 0 ? (float)correct->c[k] : 0);
  kwm_gemm(false, true, n, v, d, 1, correct->input, d, spec->W, d, 0, logits, v);
  for (int64_t k = 0; k < n * v && spec->bias > 0; k++) logits[k] += correct->lean[k];
}

/* Scores by the classes above the cut; then, for the bias, innovations in place of logits. */
static void cut_scores(kwm_correct *correct, const int32_t *targets) {
  const int64_t v = correct->spec.classes;
  for (int64_t s = 0; s < correct->spec.streams; s++) {
    float *const row = correct->logits + s * v;
    const double surprisal = (double)correct->facts[s * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
    const double log_sum = surprisal + (double)row[targets[s]];
    correct_low_score(correct, s, row, log_sum, targets[s]);
    if (!(correct->spec.bias > 0)) continue;
    for (int64_t i = 0; i < v; i++) row[i] = (float)(i == targets[s]) - expf(row[i] - (float)log_sum);
  }
}

/* The offset and the bias take their tokens in. */
static void take(kwm_correct *correct, const int32_t *targets) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const int64_t n = spec->streams, v = spec->classes;
  for (int64_t s = 0; s < n && correct->r > 0; s++) {
    if (spec->kind == KWM_CORRECT_LOWRANK) {
      correct_low_update(correct, s);
      continue;
    }
    correct_update(correct, s, correct->logits + s * v, targets[s]);
    correct_predict(correct, s);
  }
  if (!(spec->bias > 0)) return;
  const struct kwm_lean lean = {.n = n,
                                .classes = v,
                                .e = correct->logits,
                                .targets = targets,
                                .decay = (float)spec->bias_decay,
                                .prior = (float)spec->bias,
                                .c = correct->lean,
                                .v = correct->spread};
  kwm_tensor_host.lean(NULL, &lean);
}

static void count(kwm_correct *correct, int64_t n, const float *facts) {
  for (int64_t s = 0; s < n; s++) {
    const float *const of = facts + s * KWM_TOKEN_FACTS;
    const double squares = (double)of[KWM_TOKEN_SQUARES];
    correct->sums.tokens++;
    correct->sums.squared += 1 - 2 * exp(-(double)of[KWM_TOKEN_SURPRISAL]) + squares;
    correct->sums.expected += 1 - squares;
  }
}

static void step_here(kwm_correct *correct, const float *y, const int32_t *targets, float *facts) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const int64_t n = spec->streams, d = spec->width, v = spec->classes;
  const bool cut = spec->kind == KWM_CORRECT_LOWRANK && spec->cut > 0;
  kwm_correct_logits(correct, y, correct->logits);
  kwm_tensor_host.categorical(NULL, n, v, v, targets, !cut, correct->logits, correct->facts);
  if (cut)
    cut_scores(correct, targets);
  else if (correct->r > 0)
    kwm_gemm(false, false, n, d, v, 1, correct->logits, v, spec->W, d, 0, correct->score, d);
  take(correct, targets);
  correct->seen++;
  memcpy(facts, correct->facts, (size_t)(n * KWM_TOKEN_FACTS) * sizeof *facts);
}

void kwm_correct_run(kwm_correct *correct, int64_t steps, const float *y, const int32_t *targets, float *facts) {
  const int64_t n = correct->spec.streams, d = correct->spec.width;
  if (correct_in_blocks(&correct->spec))
    correct_blocks_run(correct, steps, y, targets, facts);
  else if (kwm_correct_on_device(&correct->spec))
    correct_device_run(correct, steps, y, targets, facts);
  else
    for (int64_t t = 0; t < steps; t++)
      step_here(correct, y + t * n * d, targets + t * n, facts + t * n * KWM_TOKEN_FACTS);
  const struct kwm_correct_facts before = correct->sums;
  count(correct, steps * n, facts);
  if (correct->spec.adapt > 0)
    correct_adapt(correct, correct->sums.squared - before.squared, correct->sums.expected - before.expected);
}

void kwm_correct_moved(kwm_correct *correct) {
  correct->copied = false;
}

const float *kwm_correct_offsets(const kwm_correct *correct) {
  KWM_ASSERT(correct->spec.outside);
  return correct->dev.c;
}

float *kwm_correct_rows(const kwm_correct *correct, int64_t steps, int64_t *rows) {
  KWM_ASSERT(correct->spec.outside && steps <= (correct->spec.every > 1 ? correct->spec.every : 1));
  *rows = correct->rows < steps ? correct->rows : steps;
  return correct->dev.A;
}

void kwm_correct_take(kwm_correct *correct, int64_t steps, const float *facts) {
  int64_t rows;
  (void)kwm_correct_rows(correct, steps, &rows);
  correct_blocks_take(correct, steps, rows);
  kwm_device_rejoin(correct->spec.device);
  correct_device_watch(correct, steps);
  correct_device_count_broken(correct);
  count(correct, steps * correct->spec.streams, facts);
}

void kwm_correct_idle(kwm_correct *correct) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const double a = spec->decay, keep = spec->bias_decay;
  KWM_ASSERT(!kwm_correct_on_device(spec) && !correct_in_blocks(spec));
  for (int64_t s = 0; s < spec->streams && correct->r > 0; s++) {
    if (spec->kind != KWM_CORRECT_LOWRANK) correct_predict(correct, s);
    for (int64_t k = 0; k < correct->r && spec->kind == KWM_CORRECT_LOWRANK; k++) correct->c[s * correct->r + k] *= a;
  }
  for (int64_t k = 0; k < spec->streams * spec->classes && spec->bias > 0; k++) {
    correct->lean[k] *= (float)keep;
    correct->spread[k] = (float)(keep * keep * (double)correct->spread[k] + (1 - keep * keep) * spec->bias);
  }
}

struct kwm_correct_facts kwm_correct_facts(const kwm_correct *correct) {
  struct kwm_correct_facts facts = correct->sums;
  facts.noise = correct->noise;
  facts.scale = 1 / correct->weight;
  return facts;
}

void kwm_correct_state(const kwm_correct *correct, int64_t s, double *offset, double *P, double *bias) {
  const int64_t d = correct->spec.width, v = correct->spec.classes;
  const bool diag = correct->spec.kind == KWM_CORRECT_DIAG;
  KWM_ASSERT(correct->r > 0 || (offset == NULL && P == NULL));
  if (correct_in_blocks(&correct->spec)) {
    correct_blocks_state(correct, s, offset, P, bias);
    return;
  }
  if (kwm_correct_on_device(&correct->spec)) {
    correct_device_state(correct, s, offset, P, bias);
    return;
  }
  for (int64_t i = 0; i < v && bias != NULL; i++) bias[i] = (double)correct->lean[s * v + i];
  for (int64_t i = 0; i < d && offset != NULL; i++) offset[i] = correct->c[s * d + i];
  if (P == NULL) return;
  if (correct->spec.kind == KWM_CORRECT_LOWRANK) {
    correct_low_state(correct, s, P);
    return;
  }
  for (int64_t k = 0; k < d * d; k++)
    P[k] = !diag ? correct->P[s * d * d + k] : k % (d + 1) == 0 ? correct->P[s * d + k / d] : 0;
}

/* The observer around the update: subspace, logits, scores, facts. */
#include <math.h>
#include <string.h>

#include "correct_state.h"
#include "kwm/backend.h"
#include "kwm/tensor.h"

static kwm_status check(const struct kwm_correct_spec *spec) {
  KWM_ASSERT(spec->streams > 0 && spec->width > 0 && spec->classes > 1 && spec->window > 0);
  KWM_CHECK(spec->kind != KWM_CORRECT_LOWRANK || (spec->rank >= 1 && spec->rank <= spec->width), KWM_ERR_USAGE,
            "correction: wanted a rank from 1 to the width %lld, found %lld", (long long)spec->width,
            (long long)spec->rank);
  KWM_CHECK(spec->form != KWM_CORRECT_TOPK || (spec->top >= 1 && spec->top <= spec->classes), KWM_ERR_USAGE,
            "correction: wanted from 1 to all %lld classes one by one, found %lld", (long long)spec->classes,
            (long long)spec->top);
  return KWM_OK;
}

struct piece {
  void **at;
  int64_t count;
  size_t size;
};

static kwm_status allocate(kwm_correct *made) {
  const struct kwm_correct_spec *const spec = &made->spec;
  const int64_t s = spec->streams, d = spec->width, v = spec->classes, r = made->r, rows = made->rows;
  const bool low = spec->kind == KWM_CORRECT_LOWRANK, dense = spec->kind != KWM_CORRECT_DIAG;
  const bool listed = spec->form == KWM_CORRECT_TOPK;
  const struct piece pieces[] = {
      {(void **)&made->B, low ? d * r : 0, sizeof(float)},
      {(void **)&made->made_M, low ? v * r : 0, sizeof(float)},
      {(void **)&made->c, s * r, sizeof(double)},
      {(void **)&made->P, s * (dense ? r * r : r), sizeof(double)},
      {(void **)&made->input, s * d, sizeof(float)},
      {(void **)&made->small, s * r, sizeof(float)},
      {(void **)&made->logits, s * v, sizeof(float)},
      {(void **)&made->score, s * r, sizeof(float)},
      {(void **)&made->facts, s * KWM_TOKEN_FACTS, sizeof(float)},
      {(void **)&made->A, rows * r, sizeof(double)},
      {(void **)&made->G, rows * r, sizeof(double)},
      {(void **)&made->F, dense ? r * r : r, sizeof(double)},
      {(void **)&made->N, listed ? rows * rows : 1, sizeof(double)},
      {(void **)&made->mean, r, sizeof(double)},
      {(void **)&made->along, r, sizeof(double)},
      {(void **)&made->watched, r, sizeof(double)},
      {(void **)&made->top, listed ? spec->top : 1, sizeof(int32_t)},
  };
  for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++)
    if (pieces[k].count > 0)
      KWM_TRY(kwm_alloc(pieces[k].at, (size_t)pieces[k].count * pieces[k].size, "correction of activations"));
  return KWM_OK;
}

/* mean (width) <- Σ often W. */
static void mean_row(const struct kwm_correct_spec *spec, double *mean) {
  double all = 0;
  for (int64_t i = 0; i < spec->classes; i++) {
    const double often = spec->often != NULL ? spec->often[i] : 1;
    all += often;
    for (int64_t k = 0; k < spec->width; k++) mean[k] += often * (double)spec->W[i * spec->width + k];
  }
  for (int64_t k = 0; k < spec->width; k++) mean[k] /= all;
}

/* B and M = W B: the leading eigenvectors of the rows' covariance. */
static kwm_status find_subspace(kwm_correct *made) {
  const struct kwm_correct_spec *const spec = &made->spec;
  const int64_t d = spec->width, r = made->r;
  double *room; /* C (d, d), values, mean (d), rows */
  KWM_TRY(kwm_alloc((void **)&room, (size_t)(d * (d + 2 + CORRECT_ROWS)) * sizeof *room, "subspace"));
  double *const values = room + d * d, *const mean = values + d, *const rows = mean + d;
  mean_row(spec, mean);
  for (int64_t first = 0; first < spec->classes; first += CORRECT_ROWS) {
    const int64_t n = spec->classes - first < CORRECT_ROWS ? spec->classes - first : CORRECT_ROWS;
    for (int64_t j = 0; j < n; j++) {
      const double root = spec->often != NULL ? sqrt(spec->often[first + j]) : 1;
      for (int64_t k = 0; k < d; k++) rows[j * d + k] = root * ((double)spec->W[(first + j) * d + k] - mean[k]);
    }
    kwm_gram_f64(d, n, 1, rows, d, 1, room, d);
  }
  kwm_mirror_f64(d, room, d);
  const bool good = kwm_eigen_f64(d, room, values);
  for (int64_t i = 0; i < d && good; i++)
    for (int64_t k = 0; k < r; k++) made->B[i * r + k] = (float)room[i * d + d - 1 - k];
  kwm_free(room);
  KWM_CHECK(good, KWM_ERR_NUMERIC, "correction: wanted eigenvectors of the read-out's covariance, found none");
  kwm_gemm(false, false, spec->classes, r, d, 1, spec->W, d, made->B, r, 0, made->made_M, r);
  return KWM_OK;
}

kwm_status kwm_correct_create(kwm_correct **correct, const struct kwm_correct_spec *spec) {
  kwm_correct *made;
  *correct = NULL;
  KWM_TRY(check(spec));
  KWM_TRY(kwm_alloc((void **)&made, sizeof *made, "correction of activations"));
  made->spec = *spec;
  made->r = spec->kind == KWM_CORRECT_LOWRANK ? spec->rank : spec->width;
  made->rows = spec->form == KWM_CORRECT_OBSERVED ? 1 : CORRECT_ROWS;
  if (spec->form == KWM_CORRECT_TOPK && spec->top + 1 > made->rows) made->rows = spec->top + 1;
  kwm_status status = allocate(made);
  if (status == KWM_OK && spec->kind == KWM_CORRECT_LOWRANK) status = find_subspace(made);
  if (status != KWM_OK) {
    kwm_correct_destroy(made);
    return status;
  }
  made->M = spec->kind == KWM_CORRECT_LOWRANK ? made->made_M : spec->W;
  for (int64_t s = 0; s < spec->streams; s++) correct_reset(made, s);
  for (int64_t k = 0; k < made->r; k++) made->watched[k] = 1 / sqrt((double)made->r);
  *correct = made;
  return KWM_OK;
}

void kwm_correct_destroy(kwm_correct *correct) {
  if (correct == NULL) return;
  void *const owned[] = {correct->B,      correct->c,     correct->P,     correct->input, correct->small,
                         correct->logits, correct->score, correct->facts, correct->A,     correct->G,
                         correct->F,      correct->N,     correct->mean,  correct->along, correct->watched,
                         correct->top,    correct->made_M};
  for (size_t k = 0; k < sizeof owned / sizeof owned[0]; k++) kwm_free(owned[k]);
  kwm_free(correct);
}

void kwm_correct_logits(kwm_correct *correct, const struct kwm_correct_input *input, float *logits) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const int64_t n = spec->streams, d = spec->width, v = spec->classes, r = correct->r;
  const bool low = spec->kind == KWM_CORRECT_LOWRANK;
  if (!low) {
    for (int64_t s = 0; s < n; s++)
      for (int64_t k = 0; k < d; k++)
        correct->input[s * d + k] = input->y[s * input->ld + k] + (float)correct->c[s * r + k];
    kwm_gemm(false, true, n, v, d, 1, correct->input, d, spec->W, d, 0, logits, v);
    return;
  }
  for (int64_t k = 0; k < n * r; k++) correct->small[k] = (float)correct->c[k];
  if (input->fixed != NULL)
    memcpy(logits, input->fixed, (size_t)(n * v) * sizeof *logits);
  else
    kwm_gemm(false, true, n, v, d, 1, input->y, input->ld, spec->W, d, 0, logits, v);
  kwm_gemm(false, true, n, v, r, 1, correct->small, r, correct->M, r, 1, logits, v);
}

void kwm_correct_step(kwm_correct *correct, const struct kwm_correct_input *input, const int32_t *targets,
                      double *surprisal) {
  const int64_t n = correct->spec.streams, v = correct->spec.classes, r = correct->r;
  kwm_correct_logits(correct, input, correct->logits);
  kwm_tensor_host.categorical(NULL, n, v, v, targets, true, correct->logits, correct->facts);
  kwm_gemm(false, false, n, r, v, 1, correct->logits, v, correct->M, r, 0, correct->score, r);
  for (int64_t s = 0; s < n; s++) {
    const float *const facts = correct->facts + s * KWM_TOKEN_FACTS;
    const double squares = facts[KWM_TOKEN_SQUARES];
    surprisal[s] = facts[KWM_TOKEN_SURPRISAL];
    correct->sums.tokens++;
    correct->sums.squared += 1 - 2 * exp(-surprisal[s]) + squares;
    correct->sums.expected += 1 - squares;
    correct_update(correct, s, correct->logits + s * v, targets[s]);
    correct_predict(correct, s);
  }
}

void kwm_correct_idle(kwm_correct *correct) {
  for (int64_t s = 0; s < correct->spec.streams; s++) correct_predict(correct, s);
}

struct kwm_correct_facts kwm_correct_facts(const kwm_correct *correct) {
  return correct->sums;
}

/* P (d, d) <- B S Bᵀ */
static void lift(const kwm_correct *correct, const double *S, double *P) {
  const int64_t d = correct->spec.width, r = correct->r;
  for (int64_t i = 0; i < d; i++)
    for (int64_t j = 0; j < d; j++) {
      double sum = 0;
      for (int64_t k = 0; k < r; k++)
        for (int64_t l = 0; l < r; l++)
          sum += (double)correct->B[i * r + k] * S[k * r + l] * (double)correct->B[j * r + l];
      P[i * d + j] = sum;
    }
}

void kwm_correct_state(const kwm_correct *correct, int64_t s, double *offset, double *P) {
  const int64_t d = correct->spec.width, r = correct->r;
  const bool low = correct->spec.kind == KWM_CORRECT_LOWRANK, dense = correct->spec.kind != KWM_CORRECT_DIAG;
  const double *const c = correct->c + s * r, *const S = correct->P + s * (dense ? r * r : r);
  for (int64_t i = 0; i < d && offset != NULL; i++) {
    offset[i] = low ? 0 : c[i];
    for (int64_t k = 0; k < r && low; k++) offset[i] += (double)correct->B[i * r + k] * c[k];
  }
  if (P == NULL) return;
  if (low) {
    lift(correct, S, P);
    return;
  }
  for (int64_t i = 0; i < d; i++)
    for (int64_t j = 0; j < d; j++) P[i * d + j] = dense ? S[i * d + j] : i == j ? S[i] : 0;
}

double kwm_correct_operations(const struct kwm_correct_spec *spec) {
  const bool low = spec->kind == KWM_CORRECT_LOWRANK;
  const double d = (double)spec->width, v = (double)spec->classes, r = low ? (double)spec->rank : d;
  const double m = spec->form == KWM_CORRECT_OBSERVED ? 1 : spec->form == KWM_CORRECT_TOPK ? (double)spec->top + 1 : v;
  const double read = 2 * v * d + (low ? 2 * v * r : 0) + 2 * v * r;
  if (spec->kind == KWM_CORRECT_DIAG) return read + 4 * m * r;
  if (m == 1) return read + 6 * r * r;
  if (m >= r) return read + m * r * r + 2 * r * r * r + 2 * r * r;
  return read + 3 * m * r * r + 2 * m * m * r + m * m * m / 3 + 2 * r * r;
}

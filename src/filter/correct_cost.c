/* What the observer costs. */
#include "correct_state.h"

int64_t correct_form_rows(const struct kwm_correct_spec *spec) {
  switch (spec->form) {
  case KWM_CORRECT_OBSERVED: return 1;
  case KWM_CORRECT_TOPK: return spec->top + 1;
  case KWM_CORRECT_SAMPLED: return spec->top;
  case KWM_CORRECT_EXACT: break;
  }
  return spec->classes;
}

bool correct_lists(const struct kwm_correct_spec *spec) {
  return spec->form == KWM_CORRECT_TOPK || spec->form == KWM_CORRECT_SAMPLED;
}

double kwm_correct_operations(const kwm_correct *correct) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const double d = (double)spec->width, v = (double)spec->classes, m = (double)correct_form_rows(spec);
  const double read = 2 * v * d + (spec->bias > 0 ? 10 * v : 0), all = read + 2 * v * d, q = (double)spec->rank;
  if (correct_in_blocks(spec)) {
    const double blocks = 1 / (double)(spec->every > 1 ? spec->every : 1), rows = (double)correct->rows;
    const double small = 8 * q * d * rows + 12 * q * d, dense = 3 * rows * d * d + 2 * d * d;
    const double steers = spec->readout > 0 ? 2 * v * d + 6 * v * d * blocks / (double)spec->streams : 0;
    const double told =
        spec->outside ? 0 : steers + read + 4 * v + (spec->kind == KWM_CORRECT_BIAS ? 0 : 2 * v * d * rows * blocks);
    return told + blocks * (spec->kind == KWM_CORRECT_LOWRANK ? small : spec->kind == KWM_CORRECT_FULL ? dense : 0);
  }
  const double listed = correct->sums.tokens > 0 ? correct->sums.listed / correct->sums.tokens : 0;
  switch (spec->kind) {
  case KWM_CORRECT_BIAS: return read;
  case KWM_CORRECT_DIAG: return all + 4 * m * d;
  case KWM_CORRECT_LOWRANK: return (spec->cut > 0 ? read + v + 2 * listed * d : all) + 7 * q * d + q * q * q;
  case KWM_CORRECT_FULL: break;
  }
  if (m == 1) return all + 6 * d * d;
  if (m >= d) return all + m * d * d + 2 * d * d * d + 2 * d * d;
  return all + 3 * m * d * d + 2 * m * m * d + m * m * m / 3 + 2 * d * d;
}

double kwm_correct_bytes(const struct kwm_correct_spec *spec) {
  const double d = (double)spec->width, v = (double)spec->classes, q = (double)spec->rank;
  const double number = correct_in_blocks(spec) || kwm_correct_on_device(spec) ? sizeof(float) : sizeof(double);
  const double bias = spec->bias > 0 ? 2 * v * sizeof(float) : 0;
  const double moved = spec->readout > 0 ? (d + 1) * v * sizeof(float) : 0;
  switch (spec->kind) {
  case KWM_CORRECT_BIAS: return moved + (double)spec->streams * bias;
  case KWM_CORRECT_DIAG: return (double)spec->streams * (bias + 2 * d * number);
  case KWM_CORRECT_LOWRANK:
    return moved + (double)spec->streams * (bias + d * number + q * d * sizeof(float) + q * q * number);
  case KWM_CORRECT_FULL: break;
  }
  return moved + (double)spec->streams * (bias + (d + d * d) * number);
}

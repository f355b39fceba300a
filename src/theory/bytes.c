/* Memory, Sec. 9 and 12: bytes that a covariance takes when it is made, their growth with n, r, N and m. */
#include <math.h>

#include "fit.h"
#include "kwm/full.h"
#include "matrix.h"

enum { FULL, BLOCK, KRON, DIAG, LOWRANK, RANK, OUTPUTS, SAMPLES, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [FULL] = {"bytes-full-n", "(102)", KWM_CLAIM_TRUE, KWM_WITHIN, 2, 0.05, "full: n^2", "exponent of n"},
    [BLOCK] = {"bytes-block-n", "(138)", KWM_CLAIM_TRUE, KWM_WITHIN, 2, 0.05, "block: n_l^2", "exponent of n_l"},
    [KRON] = {"bytes-kron-n", "(150)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.05, "kron: d_o^2 + d_i^2 + d_o d_i, so n",
              "exponent of n, d_o = d_i"},
    [DIAG] = {"bytes-diag-n", "(109)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.05, "diag: n", "exponent of n"},
    [LOWRANK] = {"bytes-lowrank-n", "(143)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.05, "lowrank: n", "exponent of n"},
    [RANK] = {"bytes-lowrank-r", "(143)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 0.05, "lowrank: r", "exponent of r"},
    [OUTPUTS] = {"bytes-m", "(104)", KWM_CLAIM_TRUE, KWM_AT_MOST, 2, 0, "S and its root: at most m^2",
                 "largest exponent of m, block, diag, lowrank"},
    [SAMPLES] = {"bytes-N", "(102)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1, 0, "information form: at most N",
                 "largest exponent of N, block, diag, kron"},
};

static const struct {
  int claim;
  struct fit_case fit;
} cases[] = {
    {FULL, {"block", KWM_FORM_INNOVATION, FIT_PARAMETERS, 0, 1, 1, 4, 1, {4096, 8192, 16384, 32768}, true}},
    {BLOCK, {"block", KWM_FORM_INNOVATION, FIT_PARAMETERS, 0, 1, 1, 4, 1, {256, 512, 1024, 2048}, false}},
    {KRON, {"kron", KWM_FORM_INFORMATION, FIT_PARAMETERS, 0, 0, 8, 4, 1, {64, 128, 192, 256}, false}},
    {DIAG, {"diag", KWM_FORM_INFORMATION, FIT_PARAMETERS, 0, 64, 8, 4, 1, {64, 128, 256, 512}, false}},
    {LOWRANK, {"lowrank", KWM_FORM_INNOVATION, FIT_PARAMETERS, 0, 16, 1, 4, 16, {512, 1024, 2048, 4096}, false}},
    {RANK, {"lowrank", KWM_FORM_INNOVATION, FIT_RANK, 2048, 16, 1, 1, 1, {32, 48, 64, 96}, false}},
    {OUTPUTS, {"block", KWM_FORM_INNOVATION, FIT_OUTPUTS, 256, 1, 1, 1, 1, {8, 16, 32, 64}, false}},
    {OUTPUTS, {"diag", KWM_FORM_INNOVATION, FIT_OUTPUTS, 256, 1, 1, 1, 1, {8, 16, 32, 64}, false}},
    {OUTPUTS, {"lowrank", KWM_FORM_INNOVATION, FIT_OUTPUTS, 256, 16, 1, 1, 8, {8, 16, 32, 64}, false}},
    {SAMPLES, {"block", KWM_FORM_INFORMATION, FIT_SAMPLES, 64, 1, 1, 4, 1, {64, 128, 256, 512}, false}},
    {SAMPLES, {"diag", KWM_FORM_INFORMATION, FIT_SAMPLES, 64, 16, 1, 4, 1, {64, 128, 256, 512}, false}},
    {SAMPLES, {"kron", KWM_FORM_INFORMATION, FIT_SAMPLES, 64, 16, 1, 4, 1, {64, 128, 256, 512}, false}},
};

static double full_bytes(const struct fit_case *at) {
  const struct kwm_full_spec spec = {.n = at->d_o, .rows_max = at->m};
  return (double)kwm_full_bytes(&spec, 1, 0, at->d_o);
}

/* What making it takes, counted by the allocator. */
static kwm_status take(struct theory *t, const struct fit_case *at, double *bytes) {
  struct subject s = {0};
  const struct subject_spec spec = fit_spec(at);
  const int64_t mark = t->used;
  const size_t before = kwm_mem_bytes();
  const kwm_status status = subject_open(&s, t, &spec);
  *bytes = (double)(kwm_mem_bytes() - before);
  subject_close(&s);
  t->used = mark;
  return status;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  for (int i = 0; i < THEORY_COUNT(cases); i++) {
    double size[FIT_SIZES], bytes[FIT_SIZES];
    for (int k = 0; k < FIT_SIZES; k++) {
      const struct fit_case at = fit_at(&cases[i].fit, k);
      size[k] = fit_size(&at);
      if (at.full)
        bytes[k] = full_bytes(&at);
      else
        KWM_TRY(take(t, &at, &bytes[k]));
    }
    struct kwm_finding *const finding = &found[cases[i].claim];
    const double first = fit_exponent(FIT_SIZES / 2, size, bytes);
    const double last = fit_exponent(FIT_SIZES / 2, size + FIT_SIZES / 2, bytes + FIT_SIZES / 2);
    const double exponent = fit_exponent(FIT_SIZES, size, bytes);
    if (exponent <= finding->number) continue;
    finding->number = exponent;
    finding->spread = fabs(last - first) / 2;
  }
  return KWM_OK;
}

const struct theory_group theory_bytes = {CLAIMS, claims, compute, false, false};

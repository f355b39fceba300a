/* The host's information of blocks of tokens (kwm/inform.h says what): with K = UUᵀ, P g = (g - Uᵀ(λI + K)⁻¹U g) / λ, λ
   = 1 / prior. */
#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "tensor_host.h"

/* One stream: U's rows are the `q` first, the new ones the last of them. */
struct low {
  const struct kwm_inform_low *of;
  int64_t q;
  float *U;
  double K[KWM_INFORM_RANK * KWM_INFORM_RANK], w[KWM_INFORM_RANK];
};

static void multiply(struct low *low) {
  const int64_t r = low->of->r, q = low->q;
  for (int64_t i = 0; i < q; i++)
    for (int64_t j = 0; j <= i; j++) {
      double sum = 0;
      for (int64_t k = 0; k < r; k++) sum += (double)low->U[i * r + k] * (double)low->U[j * r + k];
      low->K[i * q + j] = low->K[j * q + i] = sum;
    }
}

/* step (r) <- P x of x = Σ share_j row j over the new rows. */
static bool apply(struct low *low, const double *share, double *step) {
  const struct kwm_inform_low *const of = low->of;
  const int64_t r = of->r, q = low->q, old = q - of->rows;
  double L[KWM_INFORM_RANK * KWM_INFORM_RANK];
  for (int64_t i = 0; i < q * q; i++) L[i] = low->K[i] + (i % (q + 1) == 0 ? 1 / (double)of->prior : 0);
  for (int64_t i = 0; i < q; i++) {
    low->w[i] = 0;
    for (int64_t j = 0; j < of->rows; j++) low->w[i] += share[j] * low->K[i * q + old + j];
  }
  if (!kwm_solve_f64(q, 1, L, low->w)) return false;
  for (int64_t k = 0; k < r; k++) {
    double sum = 0;
    for (int64_t i = 0; i < q; i++) sum += ((i >= old ? share[i - old] : 0) - low->w[i]) * (double)low->U[i * r + k];
    step[k] = (double)of->prior * sum;
  }
  return true;
}

/* The mean moves by the sum of the rows; of stream 0 the error watched, too. */
static bool move(struct low *low, int64_t s) {
  const struct kwm_inform_low *const of = low->of;
  const int64_t r = of->r;
  const double keep = pow((double)of->decay, (double)of->tokens), bound = (double)of->bound;
  const float *const A = of->A + s * of->rows * r;
  float *const c = of->c + s * r;
  double step[KWM_INFORM_COORDINATES], share[KWM_INFORM_RANK], promised = 0;
  for (int64_t j = 0; j < of->rows; j++) share[j] = 1;
  if (!apply(low, share, step)) return false;
  for (int64_t j = 0; j < of->rows; j++)
    for (int64_t k = 0; k < r; k++) promised += step[k] * (double)A[j * r + k];
  if (!isfinite(promised)) return false;
  const double part = bound > 0 && promised > bound ? bound / promised : 1;
  for (int64_t k = 0; k < r; k++) c[k] = (float)(keep * ((double)c[k] + part * step[k]));
  if (s > 0) return true;
  for (int64_t j = 0; j < of->rows; j++) {
    share[j] = 0;
    for (int64_t k = 0; k < r; k++) share[j] += (double)A[j * r + k] * (double)of->watched[k];
  }
  if (!apply(low, share, step)) return false;
  for (int64_t k = 0; k < r; k++) of->watched[k] = (float)(keep * ((double)of->watched[k] - step[k]));
  return true;
}

static bool compress(struct low *low, int64_t s) {
  const struct kwm_inform_low *const of = low->of;
  const int64_t r = of->r, q = low->q, keep = kwm_inform_keep(of->rank, of->rows);
  const double lambda = 1 / (double)of->prior, t = (double)of->since[s], a2 = pow((double)of->decay, 2 * t);
  double Q[KWM_INFORM_RANK * KWM_INFORM_RANK], values[KWM_INFORM_RANK], old[KWM_INFORM_RANK];
  memcpy(Q, low->K, (size_t)(q * q) * sizeof *Q);
  if (!kwm_eigen_f64(q, Q, values)) return false;
  for (int64_t j = 0; j < keep; j++) {
    const double had = values[q - 1 - j], has = 1 / (a2 / (lambda + had) + t * (double)of->noise) - lambda;
    const double scale = had > 0 && has > 0 ? sqrt(has / had) : 0;
    for (int64_t i = 0; i < q; i++) Q[i * q + q - 1 - j] *= scale;
  }
  for (int64_t k = 0; k < r; k++) {
    for (int64_t i = 0; i < q; i++) old[i] = (double)low->U[i * r + k];
    for (int64_t j = 0; j < keep; j++) {
      double sum = 0;
      for (int64_t i = 0; i < q; i++) sum += Q[i * q + q - 1 - j] * old[i];
      low->U[j * r + k] = (float)sum;
    }
  }
  of->known[s] = (int32_t)keep;
  of->since[s] = 0;
  return true;
}

static struct low open_low(const struct kwm_inform_low *of, int64_t s, int64_t q) {
  KWM_ASSERT(q <= of->rank && of->rank <= KWM_INFORM_RANK && of->r <= KWM_INFORM_COORDINATES);
  struct low low = {.of = of, .q = q, .U = of->U + s * of->rank * of->r};
  return low;
}

static void begin_anew(const struct kwm_inform_low *of, int64_t s) {
  of->broken[s]++;
  of->known[s] = of->since[s] = 0;
  memset(of->c + s * of->r, 0, (size_t)of->r * sizeof *of->c);
}

void tensor_inform_low(kwm_device *d, const struct kwm_inform_low *of) {
  const int64_t r = of->r;
  (void)d;
  for (int64_t s = 0; s < of->n; s++) {
    struct low low = open_low(of, s, of->known[s] + of->rows);
    memcpy(low.U + of->known[s] * r, of->A + s * of->rows * r, (size_t)(of->rows * r) * sizeof *low.U);
    of->known[s] = (int32_t)low.q;
    of->since[s] += (int32_t)of->tokens;
    multiply(&low);
    if (!move(&low, s)) begin_anew(of, s);
  }
}

void tensor_shrink_low(kwm_device *d, const struct kwm_inform_low *of) {
  (void)d;
  for (int64_t s = 0; s < of->n; s++) {
    if (of->known[s] + of->rows <= of->rank) continue;
    struct low low = open_low(of, s, of->known[s]);
    multiply(&low);
    if (!compress(&low, s)) begin_anew(of, s);
  }
}

void tensor_tally(kwm_device *d, const struct kwm_tally *of) {
  (void)d;
  for (int64_t s = 0; s < of->n; s++)
    for (int64_t t = 0; t < of->steps; t++) {
      const int64_t row = t * of->n + s, before = (t - 1) * of->groups / of->steps, j = t * of->groups / of->steps;
      const float *const logits = of->logits + row * of->ld;
      float *const sums = of->sums + (s * of->groups + j) * of->ld, *const told =
                                                                        of->told + (s * of->groups + j) * of->ld;
      const float aim = logits[of->targets[row]],
                  log_sum = of->facts[row * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL] + aim;
      const bool first = t == 0 || j != before;
      for (int64_t i = 0; i < of->classes; i++) {
        const float p = expf(logits[i] - log_sum);
        sums[i] = (first ? 0 : sums[i]) + (i == of->targets[row]) - p;
        if (of->told != NULL) told[i] = (first ? 0 : told[i]) + p * (1 - p);
      }
    }
}

void tensor_steer(kwm_device *d, const struct kwm_steer *of) {
  (void)d;
  for (int64_t i = 0; i < of->rows; i++) {
    float told = 0;
    for (int64_t g = 0; g < of->groups; g++) told += of->told[g * of->rows + i];
    of->variance[i] /= 1 + of->variance[i] * of->scale * told;
    for (int64_t k = 0; k < of->width; k++) {
      const float step = of->variance[i] * of->score[i * of->width + k];
      of->change[i * of->width + k] += step;
      of->W[i * of->width + k] += step;
    }
  }
}

void tensor_shift(kwm_device *d, int64_t n, int64_t width, const float *c, float *x) {
  (void)d;
  for (int64_t k = 0; k < n * width; k++) x[k] += c[k % width];
}

/* One token of one stream: its information rows A, F = AᵀA in the coordinates of the filter, then P⁺ and the mean.
   Row of class i: sqrt(p_i) (M_i - Mᵀp); of merged ones the same with their common probability and their mean row. */
#include "correct_state.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/inform.h"
#include "kwm/rng.h"

/* The token that comes, and what is known of it. */
struct token {
  const float *e; /* (classes) */
  const float *g; /* (r) its score Mᵀe */
  int32_t target;
  int64_t listed; /* classes in `top`; 0: the token's own score alone; -1: all classes one by one */
  bool drawn;     /* they were, from p: each stands for as much as the others, and there is no rest */
  bool watched;   /* the error of this stream is */
};

static double chance(const struct token *token, int64_t i) {
  const double p = i == token->target ? 1 - (double)token->e[i] : -(double)token->e[i];
  return p > 0 ? p : 0;
}

/* The likeliest classes, in no order. */
static void find_top(kwm_correct *correct, const struct token *token) {
  const int64_t k = correct->spec.top;
  int64_t least = 0;
  for (int64_t i = 0; i < k; i++) correct->top[i] = (int32_t)i;
  for (int64_t i = 1; i < k; i++)
    if (chance(token, i) < chance(token, correct->top[least])) least = i;
  double bound = chance(token, correct->top[least]);
  for (int64_t i = k; i < correct->spec.classes; i++) {
    if (chance(token, i) <= bound) continue;
    correct->top[least] = (int32_t)i;
    for (int64_t j = 0; j < k; j++)
      if (chance(token, correct->top[j]) < chance(token, correct->top[least])) least = j;
    bound = chance(token, correct->top[least]);
  }
}

/* Classes drawn from p. */
static void draw(kwm_correct *correct, const struct token *token, int64_t s) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  for (int64_t j = 0; j < spec->top; j++) {
    const uint64_t index = (uint64_t)((spec->first + s) * spec->top + j);
    double left = kwm_rng_uniform(spec->seed, KWM_RNG_CORRECT, (uint64_t)correct->seen, index);
    int64_t i = 0;
    while (i + 1 < spec->classes && (left -= chance(token, i)) > 0) i++;
    correct->top[j] = (int32_t)i;
  }
}

static void fill_class(const kwm_correct *correct, const struct token *token, int64_t i, double *row) {
  const double share = token->drawn ? 1 / (double)token->listed : chance(token, i);
  const double root = sqrt(correct->weight * share);
  const float *const from = correct->spec.W + i * correct->r;
  for (int64_t k = 0; k < correct->r; k++) row[k] = root * ((double)from[k] - correct->mean[k]);
}

/* All classes that are not listed, as one. */
static void fill_rest(const kwm_correct *correct, const struct token *token, double *row) {
  const int64_t r = correct->r;
  double rest = 1;
  memcpy(row, correct->mean, (size_t)r * sizeof *row);
  for (int64_t j = 0; j < token->listed; j++) {
    const double p = chance(token, correct->top[j]);
    const float *const from = correct->spec.W + correct->top[j] * r;
    rest -= p;
    for (int64_t k = 0; k < r; k++) row[k] -= p * (double)from[k];
  }
  const double negligible = 1e-6, root = rest > negligible ? sqrt(correct->weight * rest) : 0;
  for (int64_t k = 0; k < r; k++) row[k] = root > 0 ? root * (row[k] / rest - correct->mean[k]) : 0;
}

static int64_t count_rows(const kwm_correct *correct, const struct token *token) {
  return token->listed < 0 ? correct->spec.classes : token->listed + (token->drawn ? 0 : 1);
}

/* A <- rows [first, first + n). */
static void fill_rows(kwm_correct *correct, const struct token *token, int64_t first, int64_t n) {
  for (int64_t j = 0; j < n; j++) {
    double *const row = correct->A + j * correct->r;
    const int64_t at = first + j;
    if (token->listed < 0)
      fill_class(correct, token, at, row);
    else if (at < token->listed)
      fill_class(correct, token, correct->top[at], row);
    else
      fill_rest(correct, token, row);
  }
}

/* along += AᵀA v, what the information does to the direction watched. */
static void add_along(kwm_correct *correct, const struct token *token, int64_t n) {
  const int64_t r = correct->r;
  if (!token->watched) return;
  for (int64_t j = 0; j < n; j++) {
    const double *const row = correct->A + j * r;
    double dot = 0;
    for (int64_t k = 0; k < r; k++) dot += row[k] * correct->watched[k];
    for (int64_t k = 0; k < r; k++) correct->along[k] += dot * row[k];
  }
}

static int64_t least_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* P⁺ = (P⁻¹ + F)⁻¹, for as many rows as coordinates or more. */
static bool inform(kwm_correct *correct, const struct token *token, double *P) {
  const int64_t r = correct->r, rows = count_rows(correct, token);
  memset(correct->F, 0, (size_t)(r * r) * sizeof(double));
  for (int64_t first = 0; first < rows; first += correct->rows) {
    const int64_t n = least_of(correct->rows, rows - first);
    fill_rows(correct, token, first, n);
    kwm_gram_f64(r, n, 1, correct->A, r, 1, correct->F, r);
    add_along(correct, token, n);
  }
  kwm_mirror_f64(r, correct->F, r);
  if (!kwm_cholesky_f64(r, P, r) || !kwm_cholesky_invert_f64(r, P, r)) return false;
  for (int64_t k = 0; k < r * r; k++) P[k] += correct->F[k];
  return kwm_cholesky_f64(r, P, r) && kwm_cholesky_invert_f64(r, P, r);
}

/* P⁺ = P - ZᵀZ, Z = L⁻¹AP with LLᵀ = I + APAᵀ, for few rows. */
static bool push_through(kwm_correct *correct, const struct token *token, double *P) {
  const int64_t r = correct->r, m = count_rows(correct, token);
  fill_rows(correct, token, 0, m);
  add_along(correct, token, m);
  kwm_gemm_f64(false, false, m, r, r, 1, correct->A, r, P, r, 0, correct->G, r);
  kwm_gemm_f64(false, true, m, m, r, 1, correct->G, r, correct->A, r, 0, correct->N, m);
  for (int64_t j = 0; j < m; j++) correct->N[j * m + j] += 1;
  if (!kwm_cholesky_f64(m, correct->N, m)) return false;
  kwm_triangular_solve_f64(m, r, correct->N, m, correct->G, r);
  kwm_gram_f64(r, m, -1, correct->G, r, 1, P, r);
  kwm_mirror_f64(r, P, r);
  return true;
}

/* The one row g. */
static bool one_row(kwm_correct *correct, const struct token *token, double *P) {
  const int64_t r = correct->r;
  double *const u = correct->G, scale = 1;
  for (int64_t k = 0; k < r; k++) correct->A[k] = sqrt(correct->weight) * (double)token->g[k];
  add_along(correct, token, 1);
  for (int64_t i = 0; i < r; i++) {
    double sum = 0;
    for (int64_t k = 0; k < r; k++) sum += P[i * r + k] * correct->A[k];
    u[i] = sum;
    scale += sum * correct->A[i];
  }
  if (!(scale >= 1 - 1e-9) || !isfinite(scale)) return false;
  for (int64_t i = 0; i < r; i++) {
    const double of = u[i] / scale;
    for (int64_t k = 0; k < r; k++) P[i * r + k] -= of * u[k];
  }
  return true;
}

/* The diagonal of the information in every coordinate by itself. */
static bool diagonal(kwm_correct *correct, const struct token *token, double *P) {
  const int64_t r = correct->r, rows = token->listed == 0 ? 1 : count_rows(correct, token);
  double *const f = correct->F;
  memset(f, 0, (size_t)r * sizeof *f);
  for (int64_t first = 0; first < rows; first += correct->rows) {
    const int64_t n = least_of(correct->rows, rows - first);
    if (token->listed == 0)
      for (int64_t k = 0; k < r; k++) correct->A[k] = sqrt(correct->weight) * (double)token->g[k];
    else
      fill_rows(correct, token, first, n);
    for (int64_t j = 0; j < n; j++)
      for (int64_t k = 0; k < r; k++) f[k] += correct->A[j * r + k] * correct->A[j * r + k];
  }
  bool good = true;
  for (int64_t k = 0; k < r; k++) {
    P[k] /= 1 + P[k] * f[k];
    correct->along[k] = f[k] * correct->watched[k];
    good = good && P[k] >= 0 && isfinite(P[k]);
  }
  return good;
}

/* x <- P v */
static void apply(const kwm_correct *correct, const double *P, const double *v, double *x) {
  const int64_t r = correct->r;
  const bool dense = correct->spec.kind != KWM_CORRECT_DIAG;
  for (int64_t i = 0; i < r; i++) {
    double sum = 0;
    for (int64_t k = 0; dense && k < r; k++) sum += P[i * r + k] * v[k];
    x[i] = dense ? sum : P[i] * v[i];
  }
}

/* The score beside the steps before it; then the step just made is one of them. */
static void follow(kwm_correct *correct, double *trend, double scale) {
  double x = 0;
  for (int64_t k = 0; k < correct->r; k++) {
    x += correct->mean[k] * trend[k];
    trend[k] = (double)KWM_INFORM_TREND * trend[k] + scale * correct->A[k];
  }
  correct->pull[0] += x;
  correct->pull[1] += x * x;
}

/* c += P⁺g, shortened to where the surprisal is to fall by gᵀP⁺g = bound: a prediction that is certain and wrong has no
   information in it (F -> 0) and a large score. The observed form's own step promises less than 1. */
static bool move_mean(kwm_correct *correct, const struct token *token, const double *P, double *c) {
  const double bound = correct->spec.bound;
  double promised = 0;
  bool good = true;
  for (int64_t k = 0; k < correct->r; k++) correct->mean[k] = correct->weight * (double)token->g[k];
  apply(correct, P, correct->mean, correct->A);
  for (int64_t k = 0; k < correct->r; k++) promised += correct->A[k] * correct->mean[k];
  const double scale = bound > 0 && promised > bound ? bound / promised : 1;
  for (int64_t k = 0; k < correct->r; k++) {
    c[k] += scale * correct->A[k];
    good = good && isfinite(c[k]);
  }
  if (correct->trend != NULL && good) follow(correct, correct->trend + (c - correct->c), scale);
  return good;
}

/* v <- a (I - KH) v = a (v - P⁺Fv). */
void correct_watch(kwm_correct *correct, const double *moved) {
  double *const v = correct->watched;
  double norm = 0;
  for (int64_t k = 0; k < correct->r; k++) {
    v[k] = correct->spec.decay * (v[k] - moved[k]);
    norm += v[k] * v[k];
  }
  if (++correct->watched_for < correct->spec.window) return;
  norm = sqrt(norm);
  correct->watched_for = 0;
  if (norm > correct->sums.contraction) correct->sums.contraction = norm;
  for (int64_t k = 0; k < correct->r; k++) v[k] = norm > 0 ? v[k] / norm : 1 / sqrt((double)correct->r);
}

void correct_reset(kwm_correct *correct, int64_t s) {
  const int64_t r = correct->r, size = correct->spec.kind == KWM_CORRECT_DIAG ? r : r * r;
  const int64_t stride = correct->spec.kind == KWM_CORRECT_DIAG ? 1 : r + 1;
  memset(correct->c + s * r, 0, (size_t)r * sizeof(double));
  if (correct->spec.kind == KWM_CORRECT_LOWRANK) {
    correct->known[s] = 0;
    return;
  }
  memset(correct->P + s * size, 0, (size_t)size * sizeof(double));
  for (int64_t k = 0; k < r; k++) correct->P[s * size + k * stride] = correct->spec.prior;
}

void correct_update(kwm_correct *correct, int64_t s, const float *e, int32_t target) {
  const int64_t r = correct->r;
  const bool dense = correct->spec.kind != KWM_CORRECT_DIAG;
  double *const c = correct->c + s * r, *const P = correct->P + s * (dense ? r * r : r);
  struct token token = {.e = e, .g = correct->score + s * r, .target = target, .listed = 0, .watched = s == 0};
  if (correct->spec.form == KWM_CORRECT_EXACT) token.listed = -1;
  if (correct_lists(&correct->spec)) token.listed = correct->spec.top;
  token.drawn = correct->spec.form == KWM_CORRECT_SAMPLED;
  if (token.drawn)
    draw(correct, &token, s);
  else if (token.listed > 0)
    find_top(correct, &token);
  for (int64_t k = 0; k < r; k++) {
    correct->mean[k] = (double)correct->spec.W[target * r + k] - (double)token.g[k];
    correct->along[k] = 0;
  }
  bool good;
  if (!dense)
    good = diagonal(correct, &token, P);
  else if (token.listed == 0)
    good = one_row(correct, &token, P);
  else if (count_rows(correct, &token) >= r)
    good = inform(correct, &token, P);
  else
    good = push_through(correct, &token, P);
  if (!good || !move_mean(correct, &token, P, c)) {
    correct->sums.broken++;
    correct_reset(correct, s);
  } else if (token.watched) {
    apply(correct, P, correct->along, correct->A);
    correct_watch(correct, correct->A);
  }
}

void correct_predict(kwm_correct *correct, int64_t s) {
  const int64_t r = correct->r, size = correct->spec.kind == KWM_CORRECT_DIAG ? r : r * r;
  const int64_t stride = correct->spec.kind == KWM_CORRECT_DIAG ? 1 : r + 1;
  const double a = correct->spec.decay, most = (double)r * correct->spec.prior;
  double *const c = correct->c + s * r, *const P = correct->P + s * size, trace = 0;
  for (int64_t k = 0; k < r; k++) c[k] *= a;
  for (int64_t k = 0; k < r; k++) trace += a * a * P[k * stride] + correct->noise;
  const double scale = trace > most ? most / trace : 1;
  if (a < 1 || scale < 1)
    for (int64_t k = 0; k < size; k++) P[k] *= a * a * scale;
  for (int64_t k = 0; k < r; k++) P[k * stride] += correct->noise * scale;
}

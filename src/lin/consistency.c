/* Tests of a filter's consistency from running sums (equations.md 3(f)). What is kept are sums, never means, so that
   accumulators add; the sample mean enters only when a result is asked for. */
#include "kwm/consistency.h"

#include <math.h>

/* Φ(z), accurate in the lower tail. */
static double normal_probability(double z) {
  return 0.5 * erfc(-z * M_SQRT1_2);
}

/* log Φ is concave and Φ(-t) <= exp(-t²/2)/2, so Newton's steps for log Φ(z) = log p from the start below rise to the
   root and never pass it. */
static double lower_normal_quantile(double p) {
  double z = -sqrt(-2 * log(2 * p));
  for (int i = 0; i < 100; i++) {
    const double probability = normal_probability(z);
    const double density = exp(-0.5 * z * z) / sqrt(2 * M_PI);
    const double step = log(p / probability) * probability / density;
    z += step;
    if (!(fabs(step) > 1e-16 * fabs(z))) break;
  }
  return z;
}

double kwm_normal_quantile(double probability) {
  KWM_ASSERT(probability >= 0 && probability <= 1);
  if (probability == 0) return -INFINITY;
  if (probability == 1) return INFINITY;
  return probability <= 0.5 ? lower_normal_quantile(probability) : -lower_normal_quantile(1 - probability);
}

double kwm_chi2_quantile(double k, double probability) {
  KWM_ASSERT(k > 0);
  const double spread = 2 / (9 * k);
  const double root = fmax(1 - spread + kwm_normal_quantile(probability) * sqrt(spread), 0);
  return k * root * root * root;
}

/* xᵃ e⁻ˣ / Γ(a+1). For large a Stirling's series, since the three logarithms would cancel. */
static double poisson_term(double a, double x) {
  if (a < 30) return exp(a * log(x) - x - lgamma(a + 1));
  const double away = (x - a) / a, square = a * a;
  const double stirling = (1.0 / 12 - (1.0 / 360 - 1.0 / 1260 / square) / square) / a;
  return exp(-a * (away - log1p(away)) - stirling) / sqrt(2 * M_PI * a);
}

static int term_limit(double a) {
  return (int)fmin(1000 + 20 * sqrt(a), 1e8);
}

/* P(a, x) for x < a + 1: xᵃe⁻ˣ/Γ(a+1) · Σ xⁱ/((a+1)...(a+i)) */
static double lower_gamma(double a, double x) {
  double sum = 1, term = 1;
  for (int i = 1; i < term_limit(a) && term > 1e-17 * sum; i++) {
    term *= x / (a + i);
    sum += term;
  }
  return fmin(poisson_term(a, x) * sum, 1);
}

/* Q(a, x) for x >= a + 1: Legendre's continued fraction, evaluated from the front (Lentz). By induction the i-th
   denominator is at least i + 1, so nothing is divided by zero. */
static double upper_gamma(double a, double x) {
  double b = x + 1 - a, reciprocal = 1 / b, numerator = INFINITY, fraction = reciprocal, factor = 0;
  for (int i = 1; i < term_limit(a) && fabs(factor - 1) > 1e-15; i++) {
    const double coefficient = -i * (i - a);
    b += 2;
    reciprocal = 1 / (b + coefficient * reciprocal);
    numerator = b + coefficient / numerator;
    factor = reciprocal * numerator;
    fraction *= factor;
  }
  return a * poisson_term(a, x) * fraction;
}

double kwm_chi2_survival(double k, double x) {
  KWM_ASSERT(k > 0);
  if (x <= 0) return 1;
  if (isinf(x)) return 0;
  return x < k + 2 ? 1 - lower_gamma(k / 2, x / 2) : upper_gamma(k / 2, x / 2);
}

void kwm_nis_add(struct kwm_nis *nis, double value, double dof) {
  nis->sum += value;
  nis->dof += dof;
  nis->steps++;
}

double kwm_nis_mean(const struct kwm_nis *nis) {
  return nis->dof > 0 ? nis->sum / nis->dof : NAN;
}

struct kwm_band kwm_nis_band(const struct kwm_nis *nis, double level) {
  KWM_ASSERT(level > 0 && level < 1);
  if (!(nis->dof > 0)) return (struct kwm_band){NAN, NAN};
  const double tail = (1 - level) / 2;
  return (struct kwm_band){.lower = kwm_chi2_quantile(nis->dof, tail) / nis->dof,
                           .upper = kwm_chi2_quantile(nis->dof, 1 - tail) / nis->dof};
}

enum kwm_confidence kwm_nis_verdict(const struct kwm_nis *nis, double level) {
  const double mean = kwm_nis_mean(nis);
  if (!isfinite(mean)) return KWM_CONFIDENCE_UNDECIDED;
  const struct kwm_band band = kwm_nis_band(nis, level);
  if (mean > band.upper) return KWM_CONFIDENCE_TOO_HIGH;
  return mean < band.lower ? KWM_CONFIDENCE_TOO_LOW : KWM_CONFIDENCE_RIGHT;
}

void kwm_ljung_box_add(struct kwm_ljung_box *box, double value) {
  if (box->count == 0) box->origin = value;
  const double x = value - box->origin;
  const int known = (int)fmin(box->count, KWM_LAGS);
  box->sum += x;
  box->product[0] += x * x;
  for (int j = 1; j <= known; j++) box->product[j] += x * box->last[j - 1];
  for (int j = KWM_LAGS - 1; j > 0; j--) box->last[j] = box->last[j - 1];
  box->last[0] = x;
  if (known < KWM_LAGS) box->first[known] = x;
  box->count++;
}

/* Σ_{t>j} (x_t - mean)(x_{t-j} - mean): both factors' sums are the whole sum less j values at one end. */
static double autocovariance(const struct kwm_ljung_box *box, int j) {
  const double mean = box->sum / box->count;
  double ends = 0;
  for (int i = 0; i < j; i++) ends += box->first[i] + box->last[i];
  return box->product[j] - mean * (2 * box->sum - ends) + (box->count - j) * mean * mean;
}

double kwm_ljung_box_correlation(const struct kwm_ljung_box *box, int j) {
  KWM_ASSERT(j >= 0 && j <= KWM_LAGS);
  if (box->count <= j) return 0;
  const double variance = autocovariance(box, 0);
  return variance <= 0 ? 0 : autocovariance(box, j) / variance;
}

double kwm_ljung_box_statistic(const struct kwm_ljung_box *box) {
  const double N = box->count;
  if (N <= KWM_LAGS + 1) return 0;
  double sum = 0;
  for (int j = 1; j <= KWM_LAGS; j++) {
    const double correlation = kwm_ljung_box_correlation(box, j);
    sum += correlation * correlation / (N - j);
  }
  return N * (N + 2) * sum;
}

double kwm_ljung_box_p(const struct kwm_ljung_box *box) {
  return kwm_chi2_survival(KWM_LAGS, kwm_ljung_box_statistic(box));
}

void kwm_score_test_add(struct kwm_score_test *test, double product) {
  test->count++;
  test->sum += product;
  test->squares += product * product;
}

double kwm_score_test_z(const struct kwm_score_test *test) {
  if (test->count < 2) return 0;
  const double mean = test->sum / test->count;
  const double variance = (test->squares - test->sum * mean) / (test->count - 1);
  return variance <= 0 ? 0 : mean / sqrt(variance / test->count);
}

void kwm_calibration_add(struct kwm_calibration *table, double confidence, bool correct) {
  const int bin = (int)fmin(fmax(confidence * KWM_CALIBRATION_BINS, 0), KWM_CALIBRATION_BINS - 1);
  table->count[bin]++;
  table->confidence[bin] += confidence;
  table->correct[bin] += correct;
}

double kwm_calibration_error(const struct kwm_calibration *table) {
  double count = 0, gap = 0;
  for (int i = 0; i < KWM_CALIBRATION_BINS; i++) {
    count += table->count[i];
    gap += fabs(table->confidence[i] - table->correct[i]);
  }
  return count > 0 ? gap / count : 0;
}

/* (1-β)·now + β·seen within the bounds; `now` if what was seen is no estimate of a variance. */
static double follow(const struct kwm_adaptation *how, double now, double seen) {
  KWM_ASSERT(how->rate >= 0 && how->rate <= 1 && how->lower > 0 && how->lower <= how->upper);
  const double next = isfinite(seen) && seen >= 0 ? (1 - how->rate) * now + how->rate * seen : now;
  return fmin(fmax(next, how->lower), how->upper);
}

double kwm_adapt_noise(const struct kwm_adaptation *how, double rho, double ratio) {
  return follow(how, rho, rho * ratio);
}

double kwm_adapt_process(const struct kwm_adaptation *how, double q, double moved, double n) {
  KWM_ASSERT(n > 0);
  return follow(how, q, moved / n);
}

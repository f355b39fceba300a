/* Is the filter as sure of itself as it may be? Statistics of its innovations over many steps, and the adaptation of
   the noises that they suggest (equations.md 3(f); invariants 46-48). All functions are local and allocate nothing.

   An accumulator is a struct of doubles only, zero at the start ({0}): KWM_DOUBLES of it are what a checkpoint stores,
   bit for bit. Those marked "adds" may be summed field by field over ranks, chunks or runs. Push finite numbers, of
   steps that were done: what is not finite stays visible as a NaN result and never counts as consistent.

   Caution: the chi-square bounds hold for Gaussian outputs. For categorical ones the NIS has a tail so heavy that they
   say nothing (kwm/filter.h has a score for these); use the calibration below. */
#pragma once

#include "kwm/base.h"

#define KWM_DOUBLES(accumulator) ((int64_t)(sizeof(accumulator) / sizeof(double)))

/* z with Φ(z) = probability, in [0, 1]: Newton, to 4e-15 relative for probabilities in 1e-300..1-1e-15. */
double kwm_normal_quantile(double probability);

/* x with Pr(χ²_k <= x) = probability, by Wilson-Hilferty, k > 0. Relative error, measured for probabilities in
   0.025..0.975: 0.8 % at k = 10 (9e-4 above the median), 8e-5 at 100, 2e-6 at 1000. At k <= 2 a small quantile may
   come out as 0. */
double kwm_chi2_quantile(double k, double probability);

/* Pr(χ²_k > x), k > 0, by the regularised incomplete gamma function. Relative error at most 2e-12, measured up to
   k = 1e4 for results down to 1e-290, and up to k = 1e8 within 8 standard deviations. Time grows as √k. */
double kwm_chi2_survival(double k, double x);

/* NIS eᵀS⁻¹e with m degrees of freedom a step, or NEES εᵀP⁻¹ε with n. Adds, if the summands are independent: NEES of
   successive steps are not, so sum it over an ensemble of runs. */
struct kwm_nis {
  double sum, dof, steps;
};

enum kwm_confidence {
  KWM_CONFIDENCE_RIGHT,     /* inside the band */
  KWM_CONFIDENCE_TOO_HIGH,  /* mean above it: R or Q too small */
  KWM_CONFIDENCE_TOO_LOW,   /* mean below it: R or Q too large */
  KWM_CONFIDENCE_UNDECIDED, /* no steps, or a mean that is not finite */
};

struct kwm_band {
  double lower, upper;
};

void kwm_nis_add(struct kwm_nis *nis, double value, double dof);

/* Mean per degree of freedom: 1 expected; NaN without steps. */
double kwm_nis_mean(const struct kwm_nis *nis);

/* Where the mean of a consistent filter lies with probability `level`, in (0, 1): [χ²_{D,α/2}, χ²_{D,1-α/2}]/D, D = Σ
 * dof. */
struct kwm_band kwm_nis_band(const struct kwm_nis *nis, double level);
enum kwm_confidence kwm_nis_verdict(const struct kwm_nis *nis, double level);

/* Ljung-Box of one scalar series, such as a component of chol(S)⁻¹e. It has power only where H is constant or slow:
   with inputs drawn anew each step innovations look white even if Q is 100 times off; there, use the score test.
   Doesn't add; but statistics of independent series do, with KWM_LAGS degrees of freedom each. */
enum { KWM_LAGS = 10 };

struct kwm_ljung_box {
  double count;
  double origin; /* the first value; the sums are over values less this, so that a large mean costs no digits */
  double sum;    /* Σ x_t */
  double product[KWM_LAGS + 1]; /* Σ x_t x_{t-j} */
  double first[KWM_LAGS];       /* x_1, x_2, ... */
  double last[KWM_LAGS];        /* x_N, x_{N-1}, ... */
};

void kwm_ljung_box_add(struct kwm_ljung_box *box, double value);

/* Sample autocorrelation ρ̂_j around the sample mean, 0 <= j <= KWM_LAGS; 0 for a series without spread. */
double kwm_ljung_box_correlation(const struct kwm_ljung_box *box, int j);

/* N(N+2) Σ_j ρ̂_j²/(N-j), and the probability of more than that in a white series. 0 and 1 for N <= KWM_LAGS + 1. */
double kwm_ljung_box_statistic(const struct kwm_ljung_box *box);
double kwm_ljung_box_p(const struct kwm_ljung_box *box);

/* Successive-score test: the numbers s_tᵀs_{t-1}, s = HᵀR⁻¹e, have mean zero for the right filter, positive if Q is too
   small, negative if it is too large, with any inputs. Adds. */
struct kwm_score_test {
  double count, sum, squares;
};

void kwm_score_test_add(struct kwm_score_test *test, double product);

/* mean/(std/√T): standard normal for the right filter and large T; 0 if T < 2 or without spread. */
double kwm_score_test_z(const struct kwm_score_test *test);

/* Reliability of categorical predictions in equal bins of confidence, the probability of the predicted class. Adds. */
enum { KWM_CALIBRATION_BINS = 15 };

struct kwm_calibration {
  double count[KWM_CALIBRATION_BINS];
  double confidence[KWM_CALIBRATION_BINS]; /* Σ of confidences */
  double correct[KWM_CALIBRATION_BINS];    /* number of right predictions */
};

/* Confidence in [0, 1]; what lies beyond, by rounding, counts in the first or last bin. */
void kwm_calibration_add(struct kwm_calibration *table, double confidence, bool correct);

/* Expected calibration error: Σ_bins |Σ confidence - Σ correct| / Σ count; 0 for an empty table. */
double kwm_calibration_error(const struct kwm_calibration *table);

/* How fast a noise follows the innovations and the bounds it keeps, 0 < lower <= upper. */
struct kwm_adaptation {
  double rate; /* β in [0, 1] */
  double lower, upper;
};

/* R = ρ R₀: ρ <- (1-β)ρ + βρ·ratio, where ratio is the mean over rows of r⁺² + (HP⁺Hᵀ)_ii, both whitened by the current
   R. E[r⁺r⁺ᵀ] = R - HP⁺Hᵀ if the filter is right, so 1 is expected. Positive by construction, unlike eeᵀ - HP⁻Hᵀ. */
double kwm_adapt_noise(const struct kwm_adaptation *how, double rho, double ratio);

/* Q = q P₀: q <- (1-β)q + β·moved/n, moved = δᵀP₀⁻¹δ with δ = Ke, n > 0 parameters. E[δδᵀ] = P⁻ - P⁺ = Q in the steady
   state of a filter without forgetting (λ = 1); where forgetting inflates P, q takes its part up as well.

   Both: a ratio or movement that is negative or not finite changes nothing; the result lies within the bounds. */
double kwm_adapt_process(const struct kwm_adaptation *how, double q, double moved, double n);

/* Private to theory: exponents, slopes of logarithms. */
#pragma once

#include "subject.h"

enum { FIT_SIZES = 4 };

/* Slope of log y against log x by least squares. */
double fit_exponent(int n, const double *x, const double *y);

/* What a measurement lets grow; all else stays. */
enum fit_axis { FIT_PARAMETERS, FIT_OUTPUTS, FIT_SAMPLES, FIT_RANK };

/* One structure with sizes: d_o x d_i parameters, samples of m outputs. A matrix of equal sides grows on both. */
struct fit_case {
  const char *structure;
  enum kwm_form form;
  enum fit_axis axis;
  int64_t d_o, d_i, samples, m, rank;
  int64_t sizes[FIT_SIZES]; /* of d_o (d_i too if both are 0), m, samples or rank */
  bool full;                /* cov.joint=full on this rank alone instead of a structure */
};

/* The case with its axis at sizes[k]; the number that the exponent is of. */
struct fit_case fit_at(const struct fit_case *fit, int k);
double fit_size(const struct fit_case *at);
struct subject_spec fit_spec(const struct fit_case *at);

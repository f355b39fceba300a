/* What kernels say and what they are given in one piece (kwm/device_ops.h). */
#pragma once

#include "kwm/device.h"

/* Facts of one sample's innovation (kwm/lin.h): surprisal, entropy, its variance, 0 or 1, |y - p|², its expectation,
   the largest probability (Gaussian: 0). */
enum {
  KWM_FACT_SURPRISAL,
  KWM_FACT_ENTROPY,
  KWM_FACT_VARIANCE,
  KWM_FACT_CORRECT,
  KWM_FACT_SQUARED,
  KWM_FACT_EXPECTED,
  KWM_FACT_TOP,
  KWM_FACTS
};

/* Facts of one block's step: δᵀFδ, δᵀP0⁻¹δ (kron: δᵀδ), sᵀδ, tr(FP⁺FP⁺). Not finite: not positive definite. */
enum { KWM_GAIN_CHANGE, KWM_GAIN_MOVED, KWM_GAIN_SLOPE, KWM_GAIN_EXPECTED, KWM_GAINS };

/* The observation: logits (n, classes), labels (n). noise: 0 categorical, else Gaussian with R = noise I. */
struct kwm_device_observation {
  int64_t n, classes;
  double noise;
  const float *logits;
  const uint8_t *labels;
  double *facts; /* (n, KWM_FACTS) */
};

/* An eigenproblem. */
struct kwm_device_eigen {
  int64_t n;
  const float *A; /* (n, n) symmetric, upper triangle read */
  float *V;       /* (n, n) <- eigenvectors in columns, ascending */
};

/* Rows H (n·m, o·i) = J (n, m, o) ⊗ a (n, i) of a matrix's Jacobian: row r of sample s is J_sr ⊗ a_s. scratch:
   (n·m, o·i + k), for them and their products with k other rows. */
enum { KWM_OUTER_FEW = 16 };
struct kwm_device_outer {
  int64_t n, m, o, i;
  const float *J, *a;
  double *scratch;
};

/* Jacobian rows of units: J (n, m, 2, count), S (n, 2, params, count), e (n, m). */
struct kwm_device_units {
  int64_t n, m, count, params;
  const float *J, *S, *e;
};

#include "kwm/monomials.h"

#include <string.h>

int64_t kwm_monomials_count(int d, int low, int high) {
  int64_t total = 0, of_degree = 1;
  for (int degree = 0; degree <= high; degree++) {
    if (degree > 0) of_degree = of_degree * (d + degree - 1) / degree;
    if (degree >= low) total += of_degree;
    if (total > 1000000 || of_degree > 1000000) return -1;
  }
  return total;
}

/* The next exponents of the same degree: one unit moves on to the next variable. */
static void advance(int d, uint8_t *power) {
  const uint8_t tail = power[d - 1];
  int last = d - 2;
  power[d - 1] = 0;
  while (power[last] == 0) last--;
  power[last]--;
  power[last + 1] = (uint8_t)(tail + 1);
}

static bool is_last(int d, const uint8_t *power) {
  for (int i = 0; i < d - 1; i++)
    if (power[i] > 0) return false;
  return true;
}

void kwm_monomials_list(int d, int low, int high, uint8_t *powers) {
  for (int degree = low; degree <= high; degree++, powers += d) {
    memset(powers, 0, (size_t)d);
    powers[0] = (uint8_t)degree;
    for (; !is_last(d, powers); powers += d) {
      memcpy(powers + d, powers, (size_t)d);
      advance(d, powers + d);
    }
  }
}

static double power_of(double x, int exponent) {
  double value = 1;
  for (int e = 0; e < exponent; e++) value *= x;
  return value;
}

void kwm_monomials_value(int d, int64_t count, const uint8_t *powers, const double *x, double *values,
                         double *gradients) {
  for (int64_t f = 0; f < count; f++) {
    const uint8_t *const power = powers + f * d;
    double value = 1;
    for (int i = 0; i < d; i++)
      if (power[i] > 0) value *= power_of(x[i], power[i]);
    values[f] = value;
    for (int i = 0; i < d && gradients != NULL; i++) {
      double slope = power[i];
      if (power[i] > 0) {
        slope *= power_of(x[i], power[i] - 1);
        for (int j = 0; j < d; j++)
          if (j != i && power[j] > 0) slope *= power_of(x[j], power[j]);
      }
      gradients[f * d + i] = slope;
    }
  }
}

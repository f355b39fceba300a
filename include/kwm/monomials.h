/* Monomials of a vector up to a degree, with their gradients: features of models that are linear in their parameters.
   Local and pure. */
#pragma once

#include "kwm/base.h"

/* Number of monomials of d variables of degree low .. high; -1 beyond a million. */
int64_t kwm_monomials_count(int d, int low, int high);

/* powers (count, d) <- their exponents, by degree, within a degree in lexical order. */
void kwm_monomials_list(int d, int low, int high, uint8_t *powers);

/* values (count); gradients (count, d), NULL: not wanted. degree: the largest there is, at most 15; d at most 1024. */
void kwm_monomials_value(int d, int64_t count, const uint8_t *powers, const double *x, double *values,
                         double *gradients);

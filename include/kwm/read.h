/* The read-out of a model of tokens as one operation of kwm/tensor.h. */
#pragma once

#include "kwm/base.h"

/* Reading out: logits y Eᵀ, their innovations e against the targets, and the scores of both sides. */
struct kwm_read {
  int64_t n, classes, width;
  const float *y, *E;     /* (n, width), (classes, width) */
  const int32_t *targets; /* (n) in [0, classes) */
  float *facts;           /* (n, KWM_TOKEN_FACTS) <- */
  float *sy, *sE; /* (n, width) <- e E, (classes, width) += eᵀ y; sE NULL: not wanted; both: the facts alone */
  bool half;      /* cuda: products of y, E and e rounded to 8 bits of mantissa (bfloat16), sums in float */
  bool padded;    /* E has kwm_tensor_read_rows(classes) rows, zeros after the classes: a device reads it where it is */
  float *room;    /* kwm_tensor_read_room floats */
};

/* Floats of its room; rows that a device wants of E. */
int64_t kwm_tensor_read_room(int64_t n, int64_t classes, int64_t width, bool half);
int64_t kwm_tensor_read_rows(int64_t classes);

/* Rotation of square images about their centre; private to the data room. */
#pragma once

#include <stdint.h>

/* One pixel of the turned image: a weighted mean of four pixels of the original. */
struct kwm_tap {
  int32_t at[4];
  uint32_t weight[4]; /* 1 is 2^24; 0 outside the image */
};

/* Taps that turn an image of side x side pixels counter-clockwise (rows count downwards). taps: (side * side). */
void kwm_rotate_taps(int64_t side, double degrees, struct kwm_tap *taps);

/* in, out: (length), apart. */
void kwm_rotate_image(const struct kwm_tap *taps, int64_t length, const uint8_t *in, uint8_t *out);

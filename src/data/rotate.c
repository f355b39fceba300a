/* Bilinear rotation. The pixel at (x, y) from the centre, y upwards, takes the value that the original has at
   (x cos a + y sin a, y cos a - x sin a). Positions are rounded to 1/4096 of a pixel and the rest is integers: a
   quarter turn then moves pixels exactly, in spite of the rounding in sine and cosine. */
#include "rotate.h"

#include <math.h>

enum { FINE = 4096 };

static struct kwm_tap tap_at(int64_t side, double row, double column) {
  const int64_t fine_row = llround(row * FINE), fine_column = llround(column * FINE);
  const int64_t top = (int64_t)floor((double)fine_row / FINE), left = (int64_t)floor((double)fine_column / FINE);
  const int64_t down = fine_row - top * FINE, right = fine_column - left * FINE;
  struct kwm_tap tap = {0};
  for (int k = 0; k < 4; k++) {
    const int64_t r = top + k / 2, c = left + k % 2;
    if (r < 0 || r >= side || c < 0 || c >= side) continue;
    tap.at[k] = (int32_t)(r * side + c);
    tap.weight[k] = (uint32_t)((k / 2 == 1 ? down : FINE - down) * (k % 2 == 1 ? right : FINE - right));
  }
  return tap;
}

void kwm_rotate_taps(int64_t side, double degrees, struct kwm_tap *taps) {
  const double angle = degrees * (M_PI / 180.0), cosine = cos(angle), sine = sin(angle);
  const double centre = 0.5 * (double)(side - 1);
  for (int64_t row = 0; row < side; row++)
    for (int64_t column = 0; column < side; column++) {
      const double x = (double)column - centre, y = centre - (double)row;
      taps[row * side + column] = tap_at(side, centre - (y * cosine - x * sine), centre + (x * cosine + y * sine));
    }
}

void kwm_rotate_image(const struct kwm_tap *taps, int64_t length, const uint8_t *in, uint8_t *out) {
  for (int64_t j = 0; j < length; j++) {
    const struct kwm_tap *const tap = &taps[j];
    uint32_t sum = (uint32_t)FINE * FINE / 2; /* with 255 times weights that add up to 2^24: still below 2^32 */
    for (int k = 0; k < 4; k++) sum += tap->weight[k] * in[tap->at[k]];
    out[j] = (uint8_t)(sum / ((uint32_t)FINE * FINE));
  }
}

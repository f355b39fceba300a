/* The room that a device's tables of the gated recurrence take: for each unit and symbol (256 pixel values, runs of 2
   to 48 background pixels) ten numbers for the state's traces and ten for the input's, and two constants a unit. */
#include "kwm/device_ops.h"

enum { SYMBOLS = 304, ROW = 20, CONSTANTS = 2 };

int64_t kwm_device_gated_floats(int64_t count) {
  return (SYMBOLS * ROW + CONSTANTS) * count;
}

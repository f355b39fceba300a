/* Images moved at random: what a mini-batch sees of them differs from pass to pass. */
#include <math.h>
#include <string.h>

#include "kwm/data.h"
#include "kwm/rng.h"

static int64_t side_of(int64_t length) {
  return llround(sqrt((double)length));
}

bool kwm_images_square(int64_t length) {
  return side_of(length) * side_of(length) == length;
}

/* to <- from, moved `down` rows and `right` columns. */
static void move_image(int64_t side, int64_t down, int64_t right, const uint8_t *from, uint8_t *to) {
  const int64_t columns = side - (right < 0 ? -right : right);
  memset(to, 0, (size_t)(side * side));
  for (int64_t row = 0; row < side; row++) {
    const int64_t source = row - down;
    if (source < 0 || source >= side || columns <= 0) continue;
    memcpy(to + row * side + (right > 0 ? right : 0), from + source * side + (right < 0 ? -right : 0), (size_t)columns);
  }
}

void kwm_images_move(const struct kwm_batch *batch, int64_t most, uint64_t seed, struct kwm_images *to) {
  const int64_t length = batch->images->length, side = side_of(length), wide = 2 * most + 1;
  to->n = batch->n;
  to->length = length;
  to->classes = batch->images->classes;
  for (int64_t i = 0; i < batch->n; i++) {
    const int64_t of = batch->order[i];
    const int64_t where = (int64_t)kwm_rng_below(seed, KWM_RNG_MOVE, batch->step, (uint64_t)i, (uint64_t)(wide * wide));
    move_image(side, where / wide - most, where % wide - most, batch->images->pixels + of * length,
               to->pixels + i * length);
    to->labels[i] = batch->images->labels[of];
  }
}

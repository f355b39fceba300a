/* What the tests of the par room share: who and where this rank is, and a walk over all grids. */
#pragma once

#include "../kwm_test.h"

#include "kwm/par.h"

static inline int world_rank(void) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

static inline int world_size(void) {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

static inline int group_rank(const struct kwm_layout *layout) {
  return layout->stage * layout->owners + layout->owner;
}

static inline int group_size(const struct kwm_layout *layout) {
  return layout->stages * layout->owners;
}

/* Calls visit with every grid that fills the world. */
static inline void for_each_layout(void (*visit)(struct kwm_layout *layout)) {
  const int size = world_size();
  for (int replicas = 1; replicas <= size; replicas *= 2) {
    if (size % replicas != 0) continue;
    for (int stages = 1; stages <= size / replicas; stages++) {
      if (size / replicas % stages != 0) continue;
      struct kwm_layout layout;
      const kwm_status status = kwm_layout_init(&layout, replicas, stages, size / replicas / stages);
      assert_all(status == KWM_OK);
      assert_all(layout.comm_seconds == 0);
      visit(&layout);
      kwm_layout_fini(&layout);
      kwm_layout_fini(&layout);
    }
  }
}

/* Checkpoints, what writing and reading share. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckpt_state.h"

enum { WINDOW_BYTES = 16 << 20 }; /* per rank and call: MPI-IO may copy what one call moves */

kwm_ckpt *ckpt_make(MPI_Comm comm, bool writing) {
  kwm_ckpt *ckpt = calloc(1, sizeof *ckpt);
  KWM_ASSERT(ckpt != NULL);
  ckpt->comm = comm;
  ckpt->writing = writing;
  ckpt->room = -1;
  MPI_Comm_rank(comm, &ckpt->rank);
  return ckpt;
}

void ckpt_destroy(kwm_ckpt **ckpt) {
  if ((*ckpt)->room >= 0) close((*ckpt)->room);
  free((*ckpt)->held);
  free(*ckpt);
  *ckpt = NULL;
}

void ckpt_check_slab(const struct kwm_slab *slab) {
  KWM_ASSERT(slab->n_dims >= 1 && slab->n_dims <= KWM_SLAB_DIMS && slab->dims[0] >= 0);
  for (int d = 1; d < slab->n_dims; d++) KWM_ASSERT(slab->dims[d] >= 1);
  KWM_ASSERT(slab->first >= 0 && slab->count >= 0 && slab->first + slab->count <= slab->dims[0]);
}

kwm_status ckpt_open_as(const kwm_ckpt *ckpt, const struct kwm_slab *slab, struct kwm_h5_array *array) {
  char wanted[KWM_SLAB_WORDS], found[KWM_SLAB_WORDS];
  KWM_TRY(kwm_h5_array_open(ckpt->h5, slab->name, array));
  kwm_slab_words(wanted, slab->type, slab->n_dims, slab->dims);
  kwm_slab_words(found, array->type, array->n_dims, array->dims);
  KWM_CHECK(strcmp(wanted, found) == 0, KWM_ERR_DATA, "checkpoint %s: %s: wanted %s, found %s", ckpt->path, slab->name,
            wanted, found);
  return KWM_OK;
}

struct ckpt_window ckpt_window_of(const struct kwm_h5_array *array, const struct kwm_slab *slab) {
  const int64_t chunk = array->chunk_rows, fit = WINDOW_BYTES / (chunk * kwm_slab_row_bytes(slab));
  struct ckpt_window window = {.rows = chunk * (fit > 1 ? fit : 1)};
  const int64_t last = slab->first + slab->count;
  window.begin = slab->first / window.rows;
  if (slab->count > 0) window.rounds = (last + window.rows - 1) / window.rows - window.begin;
  return window;
}

kwm_status ckpt_move_window(const struct kwm_h5_array *array, const struct kwm_slab *slab,
                            const struct ckpt_window *window, int64_t round, bool writing, char *data) {
  const int64_t low = (window->begin + round) * window->rows, high = low + window->rows;
  const int64_t last = slab->first + slab->count;
  int64_t start[KWM_SLAB_DIMS] = {low > slab->first ? low : slab->first}, extent[KWM_SLAB_DIMS];
  memcpy(extent, slab->dims, (size_t)slab->n_dims * sizeof *extent);
  extent[0] = (high < last ? high : last) - start[0];
  if (extent[0] <= 0) start[0] = extent[0] = 0;
  char *rows = extent[0] > 0 ? data + (start[0] - slab->first) * kwm_slab_row_bytes(slab) : NULL;
  return kwm_h5_move(array, start, extent, writing, rows);
}

/* Private to io/ckpt*.c: a checkpoint that is open. */
#pragma once

#include "file.h"
#include "h5.h"

#define CKPT_FORMAT "kwm-checkpoint"
enum { CKPT_VERSION = 2 }; /* 1: arrays in chunks with Fletcher-32; read as well */

struct kwm_ckpt {
  MPI_Comm comm;
  int rank;
  bool writing;
  kwm_ckpt_writer *writer; /* borrowed; what is put is kept for it, NULL: written at once */
  kwm_h5 *h5;
  kwm_status status;          /* of the writing so far, as agreed on */
  kwm_status local;           /* of what this rank has done since */
  int room;                   /* rank 0: descriptor through which room is reserved */
  int64_t reserved;           /* bytes from the file's start */
  int64_t needed;             /* what HDF5 has used of them, or more */
  uint64_t sum;               /* of this rank's rows of the arrays */
  int64_t n_held, (*held)[2]; /* rank 0: {first byte, bytes} of the arrays, for the sum of all else; malloc'ed */
  int64_t step;
  int64_t keep_every; /* 0, or commit keeps the steps that are its multiples */
  char dir[KWM_FILE_PATH], path[KWM_FILE_PATH], part[KWM_FILE_PATH];
};

kwm_ckpt *ckpt_make(MPI_Comm comm, bool writing);
void ckpt_destroy(kwm_ckpt **ckpt);

/* False while another thread writes a checkpoint. Local. */
bool ckpt_may_call_hdf5(void);

void ckpt_check_slab(const struct kwm_slab *slab);

/* The array that is there if it is as the slab says. Local. */
kwm_status ckpt_open_as(const kwm_ckpt *ckpt, const struct kwm_slab *slab, struct kwm_h5_array *array);

/* This rank's rows window by window (whole rows of chunks, if there are any). */
struct ckpt_window {
  int64_t begin, rows, rounds; /* rounds: windows that this rank's rows touch */
};
struct ckpt_window ckpt_window_of(const struct kwm_h5_array *array, const struct kwm_slab *slab);
kwm_status ckpt_move_window(const struct kwm_h5_array *array, const struct kwm_slab *slab,
                            const struct ckpt_window *window, int64_t round, bool writing, char *data);

/* The data sets that a stream of tasks draws from; private to the data room. */
#pragma once

#include "kwm/stream.h"

struct kwm_set {
  const char *folder; /* in `names` */
  struct kwm_images train, test;
  int64_t n_train; /* what the held-out end leaves of train.n */
};

struct kwm_sets {
  int64_t count;
  int64_t length; /* pixels, the same in all sets */
  char *names;
  struct kwm_set *at; /* (count) */
};

/* Reads the spec's data sets, or (whole false) their sizes only. `sets` comes zeroed; the caller closes, also on
   failure. */
kwm_status kwm_sets_open(struct kwm_sets *sets, const struct kwm_stream_spec *spec, bool whole);
void kwm_sets_close(struct kwm_sets *sets);

/* Bytes that a whole kwm_sets_open leaves held, from the sizes. */
size_t kwm_sets_bytes(const struct kwm_sets *sets, const struct kwm_stream_spec *spec);

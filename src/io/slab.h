/* Private to io: rows of a global array. Local and pure. */
#pragma once

#include "kwm/ckpt.h"

enum { KWM_SLAB_DIMS = 8 };

/* Rows [first, first + count) of a global array. */
struct kwm_slab {
  const char *name;
  enum kwm_type type;
  int n_dims;
  const int64_t *dims; /* (n_dims) */
  int64_t first, count;
};

int64_t kwm_slab_row_bytes(const struct kwm_slab *slab);

/* At most so many bytes of the file hold the whole array with its headers. */
int64_t kwm_slab_file_bytes(const struct kwm_slab *slab);

/* "f32 (3, 4)" for messages; text holds KWM_SLAB_WORDS bytes. */
enum { KWM_SLAB_WORDS = 192 };
const char *kwm_slab_words(char *text, enum kwm_type type, int n_dims, const int64_t *dims);

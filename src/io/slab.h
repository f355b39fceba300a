/* Private to io: rows of a global array, and how such an array is cut into chunks and summed. Local and pure. */
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

int64_t kwm_slab_element_bytes(enum kwm_type type);
int64_t kwm_slab_row_bytes(const struct kwm_slab *slab);

/* chunk: (n_dims), at most 1 MiB and for larger arrays at least half of it: a function of the global shape only. */
void kwm_slab_chunk(const struct kwm_slab *slab, int64_t *chunk);

/* Chunks in an array of these dimensions. */
int64_t kwm_slab_chunks(int n_dims, const int64_t *dims, const int64_t *chunk);

/* At most so many bytes of the file hold the whole array with its index. */
int64_t kwm_slab_file_bytes(const struct kwm_slab *slab);

/* The bits of n elements as unsigned integers, added modulo 2^64: the same for every order and split. */
uint64_t kwm_slab_sum(enum kwm_type type, int64_t n, const void *data);

/* "f32 (3, 4)" for messages; text holds KWM_SLAB_WORDS bytes. */
enum { KWM_SLAB_WORDS = 192 };
const char *kwm_slab_words(char *text, enum kwm_type type, int n_dims, const int64_t *dims);

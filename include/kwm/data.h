/* Image data in the IDX format, read as pixel sequences, and the order of samples. Local: every rank holds the pixels
   of the split it works on; nothing here communicates. */
#pragma once

#include "kwm/base.h"

enum kwm_split { KWM_TRAIN, KWM_VALID, KWM_TEST };

struct kwm_images {
  int64_t n, length;              /* samples; pixels per sample (28*28 = 784) */
  int classes;                    /* 10 */
  uint8_t *pixels;                /* (n, length) row-major, 0 background, 255 ink; owned (kwm_alloc) */
  uint8_t *labels;                /* (n), each < classes; owned (kwm_alloc) */
  struct kwm_file_facts files[2]; /* images, labels */
};

/* A mini-batch: samples order[0..n) of images, and the step it belongs to, which keys what is drawn for it. */
struct kwm_batch {
  const struct kwm_images *images; /* borrowed */
  const int32_t *order;            /* (n) borrowed */
  int64_t n;
  uint64_t step;
};

/* Reads SPLIT's image and label files from `folder`: {train,t10k}-images-idx3-ubyte[.gz], {train,t10k}-labels-idx1-
   ubyte[.gz]; plain files are preferred over .gz. Raises KWM_ERR_DATA for a missing, unreadable, truncated or corrupt
   file, a wrong magic, counts that disagree, trailing bytes, or a label >= 10 (with its index).
   KWM_VALID reads the training files (the caller takes the held-out end with kwm_images_slice). */
kwm_status kwm_images_read(struct kwm_images *images, const char *folder, enum kwm_split split);
void kwm_images_fini(struct kwm_images *images);

/* Keeps samples [first, first + count) and releases the rest of the memory; while it copies, both are held.
   KWM_ERR_USAGE if there are no such samples, or none are asked for. */
kwm_status kwm_images_slice(struct kwm_images *images, int64_t first, int64_t count);

/* Rearranges every image's pixels by one fixed permutation keyed by `seed` (purpose KWM_RNG_PIXELS). */
kwm_status kwm_images_permute(struct kwm_images *images, uint64_t seed);

/* to (n, length; owned by the caller) <- the mini-batch's images and labels in order, each moved by up to `most` pixels
   down or up and right or left, background coming in: keyed by (seed, step, place in the mini-batch). The images are
   square. */
void kwm_images_move(const struct kwm_batch *batch, int64_t most, uint64_t seed, struct kwm_images *to);
bool kwm_images_square(int64_t length);

/* Bytes that kwm_images_read leaves held (kwm_alloc) for n samples of `length` pixels. */
size_t kwm_images_bytes(int64_t n, int64_t length);

/* Sample count and image size of a split from the file headers only (for `kwm plan`); same errors. */
kwm_status kwm_images_probe(const char *folder, enum kwm_split split, int64_t *n, int64_t *length);

/* The order of the n training samples in `epoch` (0-based): a permutation keyed by (seed, epoch), the same for every
   layout. order: (n). */
void kwm_order(uint64_t seed, int64_t epoch, int64_t n, int32_t *order);

/* The same a part at a time: settles places from - 1 down to `to`; the first part begins with from = n. */
void kwm_order_part(uint64_t seed, int64_t epoch, int64_t n, int64_t from, int64_t to, int32_t *order);

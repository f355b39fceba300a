/* Sums of chunk contributions in a fixed binary tree: ((c0+c1)+(c2+c3))+... The order depends on the number of chunks
   only, so a sum over chunks on one rank has the bits of the same sum spread over replicas (kwm_par_sum_replicas goes
   on with the same tree). Local.

   On a device all buffers are the device's. */
#pragma once

#include "kwm/device.h"

enum { KWM_TREESUM_LEVELS = 8 };

struct kwm_treesum {
  kwm_device *device;               /* borrowed; NULL: host */
  int64_t n;                        /* length of a contribution */
  int levels;                       /* buffers allocated beside the leaf */
  unsigned filled;                  /* bit i: level[i] holds the sum of 2^i chunks */
  float *leaf;                      /* (n) the chunk to be added next; owned */
  float *level[KWM_TREESUM_LEVELS]; /* (n) each; owned */
};

/* Ready for up to `chunks` contributions (a power of two up to 64) of length n. */
kwm_status kwm_treesum_init(struct kwm_treesum *sum, kwm_device *device, int64_t n, int64_t chunks);
void kwm_treesum_fini(struct kwm_treesum *sum);
size_t kwm_treesum_bytes(int64_t n, int64_t chunks);

/* The zeroed buffer that the next chunk is to be written into; borrowed until the push. */
float *kwm_treesum_leaf(struct kwm_treesum *sum);
void kwm_treesum_push(struct kwm_treesum *sum);

/* The sum of all pushed chunks (n); borrowed until the next leaf. Starts a new sum. At least one push before. */
float *kwm_treesum_finish(struct kwm_treesum *sum);

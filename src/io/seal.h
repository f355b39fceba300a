/* Private to io: the first bytes of a checkpoint file, HDF5's user block, as plain text: what the file is, its length
   and the sum of all other bytes. HDF5's own checksums stay silent about texts, and about a chunk of zeros where data
   should be; and HDF5 can crash or loop on a damaged file. So it opens only what carries an unbroken seal. Local. */
#pragma once

#include "kwm/base.h"

enum { KWM_SEAL_BYTES = 512 };

/* How bytes are summed, modulo 2^64 (seal.c): ODD in files of before, MIXED in what is written. */
enum kwm_seal_rule { KWM_SEAL_ODD, KWM_SEAL_MIXED };
struct kwm_seal {
  enum kwm_seal_rule rule;
  uint64_t sum;
};

/* Reads one of `parts` equal parts of the file: its length, and what the part adds to the sum by seal->rule.
   KWM_ERR_DATA if it can't be read. */
kwm_status kwm_seal_sum(const char *path, int part, int parts, int64_t *bytes, struct kwm_seal *seal);

/* What n bytes at `offset` of the file add to the MIXED sum. Pure. */
uint64_t kwm_seal_add(int64_t offset, const void *data, int64_t n);

/* Reads the file but for the n ranges {first byte, bytes}, which rise: its length, and what is read adds to the sum. */
kwm_status kwm_seal_sum_around(const char *path, int64_t n, const int64_t (*held)[2], int64_t *bytes,
                               struct kwm_seal *seal);

/* Writes the seal into the file and forces it to the disk. */
kwm_status kwm_seal_write(const char *path, int64_t bytes, const struct kwm_seal *seal);

/* The rule and the sum that the seal tells. KWM_ERR_DATA if the file is missing, has no unbroken seal, or not the
   length that the seal tells. */
kwm_status kwm_seal_read(const char *path, struct kwm_seal *seal);

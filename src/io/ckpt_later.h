/* Private to io/ckpt*.c: puts that are written later, by another thread. */
#pragma once

#include "ckpt_state.h"

enum ckpt_put { CKPT_ARRAY, CKPT_MORE, CKPT_I64, CKPT_F64, CKPT_TEXT };

/* Keep a copy of what a put says, in its order; a copy that finds no room is told at the start. Local. */
void ckpt_keep_slab(kwm_ckpt_writer *writer, enum ckpt_put put, const struct kwm_slab *slab, const void *data);
void ckpt_keep_value(kwm_ckpt_writer *writer, enum ckpt_put put, const char *group, const char *name, const void *value,
                     int64_t bytes);

/* The thread begins to write what was kept. Collective over the checkpoint's comm, and frees it. */
kwm_status ckpt_start(kwm_ckpt **ckpt, int64_t keep);

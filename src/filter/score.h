/* Private to filter: the score of a step and its product with the one before. */
#pragma once

#include "kwm/filter.h"

/* chunks: of a step on this rank. */
kwm_status score_init(struct kwm_score *score, const struct kwm_filter_part *part, int64_t chunks);
void score_fini(struct kwm_score *score);
size_t score_bytes(const struct kwm_filter_part *part, int64_t chunks);

/* score->now <- Hᵀe summed over chunks and replicas, in the order of the tree. Collective over the peers. */
void score_take(struct kwm_score *score, struct kwm_layout *layout, const struct kwm_jac *jac,
                const struct kwm_lin *lin);

/* product[b] (count) <- s_tᵀP0 s_{t-1} of block b. */
void score_product(const struct kwm_score *score, const struct kwm_filter_part *part, double *product);

/* The step is over: its score is the one before, if `keep`, or there is none. */
void score_next(struct kwm_score *score, const struct kwm_filter_part *part, bool keep);

/* /filter/score/GROUP (total, params): the last score, if one is known. Collective over the checkpoint's ranks. */
kwm_status score_save(const struct kwm_score *score, const struct kwm_filter_part *part, kwm_ckpt *ckpt, bool writes);
kwm_status score_load(struct kwm_score *score, const struct kwm_filter_part *part, bool known, kwm_ckpt *ckpt);

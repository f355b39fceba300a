/* A small language model with everything in it, and made-up tokens: for tests of its pipe and its learners. */
#pragma once

#include "kwm/language_learn.h"
#include "kwm/rng.h"
#include "kwm_test.h"

enum { CASE_TYPES = 13, CASE_BATCH = 4, CASE_CONTEXT = 6, CASE_TOKENS = CASE_BATCH * CASE_CONTEXT };

struct language_case {
  struct kwm_layout layout;
  struct kwm_transformer model;
  struct kwm_language_spec spec;
  kwm_language *language;
  int32_t ids[CASE_TOKENS], targets[CASE_TOKENS];
  struct kwm_language_batch batch;
};

static inline uint64_t case_draw(uint64_t index, uint64_t below) {
  return kwm_rng_below(7, KWM_RNG_TEST, 1, index, below);
}

struct case_layout {
  int stages, owners, replicas;
};
static const struct case_layout CASE_ALONE = {1, 1, 1};

/* Where a case is computed, and how its messages go. */
struct language_way {
  kwm_device *device;
  bool direct;
};

/* Collective. readings: stages with a prediction of their own; 1: the reverse sweep. */
static inline void language_case_open(struct language_case *c, struct language_way way, int readings,
                                      struct case_layout layout, int64_t micro) {
  memset(c, 0, sizeof *c);
  assert_ok(kwm_layout_init(&c->layout, layout.replicas, layout.stages, layout.owners));
  c->model = (struct kwm_transformer){.types = CASE_TYPES,
                                      .context = CASE_CONTEXT,
                                      .width = 8,
                                      .heads = 2,
                                      .ratio = 2,
                                      .layers = 4,
                                      .stages = readings,
                                      .dropout = 0.2,
                                      .dropout_embedding = 0.1,
                                      .dropout_readout = 0.15};
  assert_ok(kwm_transformer_lay_out(&c->model));
  c->spec = (struct kwm_language_spec){
      .batch = CASE_BATCH, .micro = micro, .seed = 3, .copy_every = 1, .direct = way.direct, .device = way.device};
  assert_ok(kwm_language_create(&c->language, &c->layout, &c->model, &c->spec));
  for (uint64_t k = 0; k < CASE_TOKENS; k++) {
    c->ids[k] = (int32_t)case_draw(2 * k, CASE_TYPES);
    c->targets[k] = (int32_t)case_draw(2 * k + 1, CASE_TYPES);
  }
  c->batch = (struct kwm_language_batch){.ids = c->ids, .targets = c->targets, .step = 5};
}

static inline void language_case_close(struct language_case *c) {
  kwm_language_destroy(c->language);
  kwm_layout_fini(&c->layout);
}

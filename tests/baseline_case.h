/* The baselines of continual learning around linearised steps made of random numbers, on one process alone. Two models:
   gated (units and matrices, exact rows) and dense (matrices, sampled rows). */
#pragma once

#include "small_model.h"

enum { UNITS = 16, BATCH = 8, CHUNKS = 4, TOTAL = 40, ROWS = 3, GROUPS = 3 };

static const char *const NAMES[] = {"kfac", "ewc", "si"};
enum { KFAC, EWC, SI, LEARNERS };

struct program {
  struct kwm_model model;
  struct kwm_layout layout;
  struct kwm_stages stages;
  struct kwm_params params;
  kwm_learner learner;
  bool sampled;
};

static inline struct kwm_learn_spec spec_of(int64_t chunks) {
  return (struct kwm_learn_spec){.filter = {.gain_factor = 1, .batch = BATCH, .chunks = chunks, .gate = 5},
                                 .rate = 0.02,
                                 .beta1 = 0.9,
                                 .beta2 = 0.99,
                                 .epsilon = 1e-6,
                                 .damping = 0.05,
                                 .decay = 0.8,
                                 .strength = 3,
                                 .refresh = 4,
                                 .total_steps = TOTAL};
}

static inline void model_init(struct program *program, bool sampled, bool owns) {
  memset(program, 0, sizeof *program);
  program->sampled = sampled;
  program->layout = small_alone();
  program->model = small_model(UNITS);
  if (sampled) {
    program->model =
        (struct kwm_model){.kind = KWM_MODEL_DENSE, .classes = 3, .length = 12, .n_layers = 2, .widths = {7, 5}};
    kwm_model_lay_out(&program->model);
  }
  assert_int_equal(program->model.n_groups, GROUPS);
  for (int g = 0; g < GROUPS; g++) program->stages.share[g][0].count = owns ? program->model.groups[g].total : 0;
  assert_ok(kwm_params_create(&program->params, &program->model, &program->stages, 0, 3));
}

/* What it holds is what `plan` says. */
static inline void program_init(struct program *program, int learner, bool sampled, int64_t chunks, bool owns) {
  const struct kwm_learn_spec spec = spec_of(chunks);
  const struct kwm_learner_ops *const ops = kwm_learner_find(NAMES[learner]);
  assert_non_null(ops);
  model_init(program, sampled, owns);
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_learner_create(&program->learner, ops, &program->layout, &program->params, &spec));
  assert_int_equal(kwm_mem_bytes() - before, kwm_learner_bytes(ops, &spec, &program->params, 1));
}

static inline void program_fini(struct program *program) {
  kwm_learner_destroy(&program->learner);
  kwm_params_destroy(&program->params);
}

static inline int64_t length_of(const struct program *program, int g) {
  return program->model.groups[g].total * program->model.groups[g].params;
}

/* ---- linearised steps */

/* A step that owns its arrays; g: the scores of the labels that were seen. */
struct made {
  struct kwm_lin lin;
  struct jac_case part[GROUPS];
  float *g[GROUPS];
};

static inline void make_short(const struct program *program, int64_t t, int64_t n, struct made *made) {
  memset(made, 0, sizeof *made);
  const int64_t chunks = program->learner.spec.filter.chunks;
  for (int k = 0; k < GROUPS; k++) {
    const struct kwm_group *const group = &program->model.groups[k];
    const uint64_t stream = 1000 + (uint64_t)(GROUPS * t + k);
    made->part[k] = group->d_o > 0 ? jac_outer(BATCH, program->sampled ? 1 : ROWS, group->d_o, group->d_i, stream)
                                   : jac_units(BATCH, ROWS, UNITS, group->params, stream);
    if (program->sampled) {
      made->g[k] = normal_floats(BATCH * group->d_o, 4 * stream + 3);
      made->part[k].jac.g = made->g[k];
      made->part[k].jac.e = NULL;
    }
    made->lin.jac[k] = made->part[k].jac;
  }
  made->lin.n_parts = GROUPS;
  made->lin.batch = n;
  made->lin.chunks = chunks;
  for (int64_t c = 0; c <= chunks; c++) made->lin.bounds[c] = c * n / chunks;
  made->lin.innovation = (struct kwm_innovation){.samples = BATCH, .surprisal = BATCH, .squared = 1, .expected = 1};
}

static inline void make(const struct program *program, int64_t t, struct made *made) {
  make_short(program, t, BATCH, made);
}

static inline void drop(struct made *made) {
  for (int k = 0; k < GROUPS; k++) jac_drop(&made->part[k]), free(made->g[k]);
}

static inline enum kwm_verdict step_on(struct program *program, const struct made *made) {
  struct kwm_step step;
  kwm_learner_step(&program->learner, &made->lin, &step);
  return step.verdict;
}

static inline void step(struct program *program, int64_t t) {
  struct made made;
  make(program, t, &made);
  assert_int_equal(step_on(program, &made), KWM_STEP_DONE);
  drop(&made);
}

/* No evidence: zero rows. */
static inline void silence(struct made *made) {
  for (int k = 0; k < GROUPS; k++) {
    struct jac_case *const part = &made->part[k];
    const struct kwm_jac *const jac = &part->jac;
    const int64_t width = jac->shape == KWM_JAC_UNITS ? jac->channels * jac->count : jac->d_o;
    memset(part->J, 0, (size_t)(jac->n * jac->m * width) * sizeof *part->J);
    if (made->g[k] != NULL) memset(made->g[k], 0, (size_t)(jac->n * jac->d_o) * sizeof(float));
  }
}

static inline bool same_means(const struct program *a, const struct program *b) {
  bool same = true;
  for (int g = 0; g < GROUPS; g++)
    same = same && memcmp(a->params.mean[g], b->params.mean[g], (size_t)length_of(a, g) * sizeof(float)) == 0;
  return same;
}

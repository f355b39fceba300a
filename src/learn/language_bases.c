/* When the eigenbases are refreshed: all of them in the first steps, exactly; later each tensor every `refresh` steps.
   With `spread` the tensors of a stage take turns over these steps, so that no step pays for all, and the ranks of a
   pipe, whose stages are alike, pay in the same steps. Steps alone decide: every layout and every resumed run does the
   same. */
#include "language_state.h"

/* Steps with exact bases for all: the first factors are of few tokens. */
static const int64_t EARLY[] = {1, 5, 20};

static bool has_basis(const kwm_language_learner *learner, int t) {
  const struct kwm_riccati_spec *const spec = &learner->cov[t].spec;
  return spec->left || spec->right;
}

/* Steps by which tensor t is ahead of the others of its stage. */
static int64_t lead_of(const kwm_language_learner *learner, int t) {
  const struct kwm_transformer *const model = learner->model;
  int64_t place = 0, all = 0;
  for (int other = 0; other < model->n_tensors; other++) {
    if (!has_basis(learner, other) || model->tensors[other].stage != model->tensors[t].stage) continue;
    place += other < t;
    all++;
  }
  return learner->spec.spread ? place * learner->spec.refresh / all : 0;
}

static bool refresh_tensor(kwm_language_learner *learner, int t, bool anew) {
  language_sum_factors(learner, t);
  const bool good = kwm_riccati_refresh(&learner->cov[t], anew, learner->spec.tokens, &learner->room);
  language_drop_shares(learner, t);
  return good;
}

int language_refresh(kwm_language_learner *learner) {
  const struct kwm_language_learn_spec *const spec = &learner->spec;
  const int64_t step = learner->seen + 1;
  bool early = false;
  int failed = -1;
  for (size_t k = 0; k < sizeof EARLY / sizeof EARLY[0]; k++) early = early || step == EARLY[k];
  for (int t = 0; t < learner->model->n_tensors && failed < 0; t++) {
    if (!learner->owns[t] || !has_basis(learner, t)) continue;
    const int64_t turn = step + lead_of(learner, t);
    const bool due = turn % spec->refresh == 0;
    const bool anew = early || (due && spec->anew > 0 && turn / spec->refresh % spec->anew == 0);
    if ((due || anew) && !refresh_tensor(learner, t, anew)) failed = t;
  }
  return failed;
}

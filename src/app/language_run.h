/* Private to app: a language model's run assembled from its configuration. */
#pragma once

#include "kwm/language_learn.h"
#include "kwm/tokens.h"
#include "run.h"

struct kwm_language_run {
  struct kwm_run *run; /* borrowed: configuration, layout, device */
  struct kwm_transformer model;
  kwm_vocabulary *vocabulary;
  struct kwm_tokens text[3]; /* by enum kwm_split; n 0: not there */
  kwm_language *language;
  kwm_language_learner *learner;
  int64_t pass_steps, steps; /* of one pass; of the whole run */
  int64_t own, micro; /* a text read as streams: sequences of a step here, of a micro-batch; 0: alike on all ranks */
};

/* True for the configurations that this is about. */
bool kwm_language_is(const struct kwm_config *config);

/* Layout, data, model, device, learner; what the keys must agree on. Collective. fini accepts a zeroed one. */
kwm_status kwm_language_run_layout(struct kwm_language_run *run);
kwm_status kwm_language_run_read(struct kwm_language_run *run);
kwm_status kwm_language_run_build(struct kwm_language_run *run);
/* The model alone, for so many words. Local. */
kwm_status kwm_language_run_model(struct kwm_language_run *run, int64_t types);
void kwm_language_run_fini(struct kwm_language_run *run);

/* Before the layout: keeps the configuration's if it fits the ranks at hand, else as many replicas as may be, the other
   ranks as owners: any number of ranks. Local. */
void kwm_language_run_fit(struct kwm_config *config);

/* True if a device is to hold the model; it need not be open yet. */
bool kwm_language_run_on_device(const struct kwm_language_run *run);

/* Refuses a run whose largest rank takes more memory than there is for it: KWM_ERR_USAGE, naming what would fit. tells:
   rank 0 prints how much there is. After read. Collective (language_plan.c). */
kwm_status kwm_language_plan_check(struct kwm_language_run *run, bool tells);

struct kwm_language_spec kwm_language_run_spec(const struct kwm_language_run *run);
struct kwm_language_learn_spec kwm_language_run_learn_spec(const struct kwm_language_run *run);

/* Perplexities of a text: by each stage's reading, and by all stages together, a mixture whose weights (stages) are
   fitted to the text if `fits`, else given. */
struct kwm_language_score {
  int64_t tokens; /* that were predicted; 0: there is no such text */
  double stage[KWM_TRANSFORMER_STAGES_MAX], fused;
};
/* From surprisals (stages, n) of n tokens. Local. */
void kwm_language_score_text(int stages, int64_t n, const double *surprisal, const double *weights,
                             struct kwm_language_score *score);
/* Collective. At the running mean of the means if there is one. */
kwm_status kwm_language_score(struct kwm_language_run *run, enum kwm_split split, bool fits, double *weights,
                              struct kwm_language_score *score);
/* The same from the mean of the probabilities at config.predictive.draws draws from the posterior around it; each's
   surprisal on the way goes to the log (language_predictive.c). */
kwm_status kwm_language_score_draws(struct kwm_language_run *run, enum kwm_split split, const double *weights,
                                    struct kwm_language_score *score);

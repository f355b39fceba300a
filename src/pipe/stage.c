/* Which blocks live on which rank. Units are dealt in bundles of KWM_GATED_LANES, the recurrence's vector width. */
#include <math.h>
#include <string.h>

#include "kwm/layer.h"
#include "kwm/pipe.h"

double kwm_stage_operations(const struct kwm_model *model, int group, int64_t batch) {
  const struct kwm_group *const g = &model->groups[group];
  const double m = (double)model->classes, p = KWM_GATED_PARAMS;
  if (g->role == KWM_ROLE_RECURRENCE) {
    const double runs = 0.25; /* symbols per pixel; images are mostly background */
    return runs * (double)model->length * 84 + m * 10 + p * p * 3 + p * p * p / (double)batch;
  }
  const double o = (double)g->d_o, i = (double)g->d_i;
  const double sample = 2 * o * i * (2 + m) + m * o * o + i * i + 2 * o * o + 2 * i * i;
  return sample + 2 * (o * i * (o + i) + o * o * o) / (double)batch;
}

/* Deals the units to `owners` ranks so that each rank's units and fixed cost together come near an equal share. */
static void deal_units(struct kwm_stages *stages, const struct kwm_model *model, int64_t owners, const double *fixed) {
  const int64_t bundles = model->width / KWM_GATED_LANES;
  const double bundle = KWM_GATED_LANES * kwm_stage_operations(model, KWM_GROUP_RECURRENCE, 100);
  int64_t dealt[KWM_GROUP_RANKS_MAX] = {0};
  for (int64_t b = 0; b < bundles; b++) {
    int64_t least = 0;
    for (int64_t o = 1; o < owners; o++)
      if (fixed[o] + bundle * (double)dealt[o] < fixed[least] + bundle * (double)dealt[least]) least = o;
    dealt[least]++;
  }
  int64_t first = 0;
  for (int64_t o = 0; o < owners; o++) {
    stages->share[KWM_GROUP_RECURRENCE][o] =
        (struct kwm_share){.first = first * KWM_GATED_LANES, .count = dealt[o] * KWM_GATED_LANES};
    first += dealt[o];
  }
}

static kwm_status assign_gated(struct kwm_stages *stages, const struct kwm_model *model, int64_t n_stages,
                               int64_t n_owners) {
  KWM_CHECK(n_stages <= 2, KWM_ERR_USAGE, "layout: wanted at most 2 stages with model.kind gated, found %lld",
            (long long)n_stages);
  const int64_t bundles = model->width / KWM_GATED_LANES, ranks = n_stages * n_owners;
  KWM_CHECK(n_owners <= bundles && ranks <= KWM_GROUP_RANKS_MAX, KWM_ERR_USAGE,
            "layout: wanted at most %lld owners (bundles of %d of the model's %lld units), found layout.owners %lld",
            (long long)(bundles < KWM_GROUP_RANKS_MAX / n_stages ? bundles : KWM_GROUP_RANKS_MAX / n_stages),
            KWM_GATED_LANES, (long long)model->width, (long long)n_owners);
  KWM_CHECK(n_stages == 1 || n_owners <= 2, KWM_ERR_USAGE,
            "layout: wanted at most 2 owners with 2 stages (the read-out stage has 2 blocks), found layout.owners %lld",
            (long long)n_owners);
  double fixed[KWM_GROUP_RANKS_MAX] = {0};
  stages->ranks = (int)ranks;
  stages->owner[KWM_GROUP_HIDDEN] = (int)((n_stages - 1) * n_owners);
  stages->owner[KWM_GROUP_OUTPUT] = stages->owner[KWM_GROUP_HIDDEN] + (n_owners > 1 ? 1 : 0);
  stages->share[KWM_GROUP_HIDDEN][stages->owner[KWM_GROUP_HIDDEN]].count = 1;
  stages->share[KWM_GROUP_OUTPUT][stages->owner[KWM_GROUP_OUTPUT]].count = 1;
  if (n_stages == 1) {
    fixed[stages->owner[KWM_GROUP_HIDDEN]] += kwm_stage_operations(model, KWM_GROUP_HIDDEN, 100);
    fixed[stages->owner[KWM_GROUP_OUTPUT]] += kwm_stage_operations(model, KWM_GROUP_OUTPUT, 100);
  }
  deal_units(stages, model, n_owners, fixed);
  return KWM_OK;
}

/* Layers [0, n_layers], the last one the output's, and what they cost. */
static double layer_cost(const struct kwm_model *model, int l) {
  double cost = kwm_stage_operations(model, kwm_model_layer(model, l), 100);
  if (model->readouts && l + 1 < model->n_layers) cost += kwm_stage_operations(model, kwm_model_readout(model, l), 100);
  return cost;
}

/* Ranks that hold the layers in order without any of them costing more than `most`. */
static int64_t ranks_within(const struct kwm_model *model, double most) {
  double sum = 0;
  int64_t ranks = 1;
  for (int l = 0; l <= model->n_layers; l++) {
    const double cost = layer_cost(model, l);
    if (sum > 0 && sum + cost > most) {
      ranks++;
      sum = 0;
    }
    sum += cost;
  }
  return ranks;
}

/* The smallest possible largest cost of a rank: some run of consecutive layers costs just that. */
static double fair_share(const struct kwm_model *model, int64_t ranks) {
  double best = INFINITY;
  for (int first = 0; first <= model->n_layers; first++) {
    double sum = 0;
    for (int l = first; l <= model->n_layers; l++) {
      sum += layer_cost(model, l);
      if (sum < best && ranks_within(model, sum) <= ranks) best = sum;
    }
  }
  return best;
}

static void give(struct kwm_stages *stages, int group, int rank) {
  stages->owner[group] = rank;
  stages->share[group][rank].count = 1;
}

/* Every rank owns a layer at least. */
static kwm_status assign_dense(struct kwm_stages *stages, const struct kwm_model *model) {
  const int layers = model->n_layers + 1;
  KWM_CHECK(stages->ranks <= layers, KWM_ERR_USAGE,
            "layout: wanted at most %d ranks in a replica (the model's layers), found layout.stages x layout.owners %d",
            layers, stages->ranks);
  const double most = fair_share(model, stages->ranks);
  double sum = 0;
  for (int l = 0, rank = 0; l < layers; l++) {
    const double cost = layer_cost(model, l);
    const bool needed = layers - l <= stages->ranks - 1 - rank; /* by the ranks behind */
    if (sum > 0 && (needed || sum + cost > most)) {
      rank++;
      sum = 0;
    }
    sum += cost;
    give(stages, kwm_model_layer(model, l), rank);
    if (model->readouts && l + 1 < model->n_layers) give(stages, kwm_model_readout(model, l), rank);
  }
  return KWM_OK;
}

kwm_status kwm_stage_assign(struct kwm_stages *stages, const struct kwm_model *model, int64_t n_stages,
                            int64_t n_owners) {
  memset(stages, 0, sizeof *stages);
  stages->ranks = (int)(n_stages * n_owners);
  KWM_CHECK(n_stages * n_owners <= KWM_GROUP_RANKS_MAX, KWM_ERR_USAGE,
            "layout: wanted at most %d ranks in a replica, found layout.stages %lld x layout.owners %lld",
            KWM_GROUP_RANKS_MAX, (long long)n_stages, (long long)n_owners);
  return model->kind == KWM_MODEL_DENSE ? assign_dense(stages, model) : assign_gated(stages, model, n_stages, n_owners);
}

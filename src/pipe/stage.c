/* Which blocks live on which rank. Units are dealt in bundles of KWM_GATED_LANES, the recurrence's vector width. */
#include <math.h>
#include <string.h>

#include "kwm/layer.h"
#include "kwm/pipe.h"

double kwm_stage_operations(const struct kwm_model *model, enum kwm_group_id group, int64_t batch) {
  const struct kwm_group *const g = &model->groups[group];
  const double m = (double)model->classes, p = KWM_GATED_PARAMS;
  if (group == KWM_GROUP_RECURRENCE) {
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

kwm_status kwm_stage_assign(struct kwm_stages *stages, const struct kwm_model *model, int64_t n_stages,
                            int64_t n_owners) {
  memset(stages, 0, sizeof *stages);
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
  stages->hidden_rank = (int)((n_stages - 1) * n_owners);
  stages->output_rank = stages->hidden_rank + (n_owners > 1 ? 1 : 0);
  stages->share[KWM_GROUP_HIDDEN][stages->hidden_rank].count = 1;
  stages->share[KWM_GROUP_OUTPUT][stages->output_rank].count = 1;
  if (n_stages == 1) {
    fixed[stages->hidden_rank] += kwm_stage_operations(model, KWM_GROUP_HIDDEN, 100);
    fixed[stages->output_rank] += kwm_stage_operations(model, KWM_GROUP_OUTPUT, 100);
  }
  deal_units(stages, model, n_owners, fixed);
  return KWM_OK;
}

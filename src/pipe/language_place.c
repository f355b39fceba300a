/* Which rank holds which layers and stages. */
#include <math.h>
#include <string.h>

#include "kwm/language.h"

enum { PIECES_MAX = KWM_TRANSFORMER_LAYERS_MAX };

static int pieces_of(const struct kwm_transformer *model) {
  return model->stages > 1 ? model->stages : model->layers;
}

/* Operations of a token, forward and back, in one piece: a stage, or with the reverse sweep a layer, the last with the
   reading. A reading is two products more (its score, and the embedding's, which only the last one takes), each of its
   operations worth `reading` of a layer's. */
static double cost_of(const struct kwm_transformer *model, double reading, int piece) {
  const bool last = piece == pieces_of(model) - 1;
  const double reads = 2 * (double)(model->width * model->types), products = (last ? 3 : 2) * reading;
  if (model->stages > 1) return 3 * (kwm_transformer_operations(model, piece) - reads) + products * reads;
  const double layer = (kwm_transformer_operations(model, 0) - reads) / model->layers;
  return 3 * layer + (last ? products * reads : 0);
}

/* first (ranks + 1) <- runs of consecutive pieces, none empty, of the least sum of squared costs: rank by rank, best[p]
   is the least for the first p pieces. */
static void divide(const struct kwm_transformer *model, double reading, int ranks, int *first) {
  const int pieces = pieces_of(model);
  int from[PIECES_MAX + 1][PIECES_MAX + 1]; /* (rank, end): where its run begins */
  double best[PIECES_MAX + 1], next[PIECES_MAX + 1];
  for (int p = 0; p <= pieces; p++) best[p] = p == 0 ? 0 : INFINITY;
  for (int r = 0; r < ranks; r++) {
    for (int end = 0; end <= pieces; end++) {
      double run = 0;
      next[end] = INFINITY;
      from[r][end] = 0;
      for (int p = end - 1; p >= 0; p--) {
        run += cost_of(model, reading, p);
        if (best[p] + run * run < next[end]) next[end] = best[p] + run * run, from[r][end] = p;
      }
    }
    memcpy(best, next, sizeof best);
  }
  first[ranks] = pieces;
  for (int r = ranks - 1; r >= 0; r--) first[r] = from[r][first[r + 1]];
}

kwm_status kwm_language_spread(struct kwm_language_place *place, const struct kwm_transformer *model, double reading,
                               int ranks) {
  const int pieces = pieces_of(model);
  int first[PIECES_MAX + 1];
  KWM_CHECK(ranks >= 1 && ranks <= pieces, KWM_ERR_USAGE,
            "layout.stages: wanted at most %d (one rank for each %s), found %d", pieces,
            model->stages > 1 ? "reading stage, model.readouts" : "layer", ranks);
  place->ranks = ranks;
  divide(model, reading, ranks, first);
  for (int r = 0; r <= ranks; r++) {
    place->first_stage[r] = model->stages > 1 ? first[r] : r < ranks ? 0 : 1;
    place->first_layer[r] = model->stages > 1 ? kwm_transformer_first(model, first[r]) : first[r];
  }
  return KWM_OK;
}

int kwm_language_holder(const struct kwm_language_place *place, const struct kwm_transformer *model, int t) {
  if (t == KWM_TENSOR_EMBED) return place->ranks - 1;
  if (t == KWM_TENSOR_POSITION) return 0;
  const int layer = (t - KWM_TENSOR_FIRST_LAYER) / KWM_LAYER_TENSORS;
  const int stage = model->tensors[t].stage;
  for (int r = 0; r < place->ranks; r++) {
    if (layer < model->layers && layer < place->first_layer[r + 1]) return r;
    if (layer >= model->layers && stage < place->first_stage[r + 1]) return r;
  }
  return place->ranks - 1;
}

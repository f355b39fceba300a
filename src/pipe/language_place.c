/* Which rank holds which layers and stages. */
#include "kwm/language.h"

kwm_status kwm_language_spread(struct kwm_language_place *place, const struct kwm_transformer *model, int ranks) {
  const int pieces = model->stages > 1 ? model->stages : model->layers;
  KWM_CHECK(ranks >= 1 && ranks <= pieces, KWM_ERR_USAGE,
            "layout.stages: wanted at most %d (one rank for each %s), found %d", pieces,
            model->stages > 1 ? "reading stage, model.readouts" : "layer", ranks);
  place->ranks = ranks;
  for (int r = 0; r <= ranks; r++) {
    const int piece = r * pieces / ranks;
    place->first_stage[r] = model->stages > 1 ? piece : r < ranks - 1 ? 0 : r - ranks + 1;
    place->first_layer[r] = model->stages > 1 ? kwm_transformer_first(model, piece) : piece;
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

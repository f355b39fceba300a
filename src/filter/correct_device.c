/* The observer on a device: tokens go there in blocks, and between the tokens of a block nothing waits. */
#include <math.h>
#include <string.h>

#include "correct_state.h"
#include "kwm/inform.h"

static kwm_status allocate(kwm_correct *made) {
  struct correct_device *const dev = &made->dev;
  const struct kwm_correct_spec *const spec = &made->spec;
  const int64_t n = spec->streams, d = spec->width, v = spec->classes, r = made->r,
                rows = correct_form_rows(&made->spec);
  const bool bias = spec->bias > 0, listed = spec->form == KWM_CORRECT_TOPK;
  const struct correct_piece pieces[] = {{&dev->y, CORRECT_STEPS * n * d},
                                         {&dev->input, n * d},
                                         {&dev->logits, n * v},
                                         {&dev->score, n * d},
                                         {&dev->facts, CORRECT_STEPS * n * KWM_TOKEN_FACTS},
                                         {&dev->c, n * r},
                                         {&dev->P, n * r * r},
                                         {&dev->A, listed ? n * rows * r : 0},
                                         {&dev->watched, r},
                                         {&dev->room, rows * r},
                                         {&dev->targets, CORRECT_STEPS * n},
                                         {&dev->listed, listed ? n * spec->top : 0},
                                         {&dev->broken, n},
                                         {&made->lean, bias ? n * v : 0},
                                         {&made->spread, bias ? n * v : 0}};
  return correct_open(made, v, sizeof pieces / sizeof pieces[0], pieces);
}

kwm_status correct_device_create(kwm_correct *correct) {
  return allocate(correct);
}

void correct_device_destroy(kwm_correct *correct) {
  struct correct_device *const dev = &correct->dev;
  void *const owned[] = {dev->y,      dev->input,  dev->logits,   dev->score,     dev->facts,  dev->c,
                         dev->P,      dev->A,      dev->watched,  dev->room,      dev->sums,   dev->told,
                         dev->U,      dev->known,  dev->trend,    dev->pull,      dev->W,      dev->change,
                         dev->turned, dev->vary,   dev->since,    dev->half,      dev->half_W, dev->targets,
                         dev->listed, dev->broken, correct->lean, correct->spread};
  for (size_t k = 0; k < sizeof owned / sizeof owned[0]; k++) kwm_device_free(correct->spec.device, owned[k]);
  correct->lean = correct->spread = NULL;
}

/* The offset takes the token in. */
static void take(kwm_correct *correct, const int32_t *targets) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  struct correct_device *const dev = &correct->dev;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(spec->device);
  const int64_t n = spec->streams, d = spec->width, v = spec->classes;
  kwm_device_gemm(spec->device, false, false, n, d, v, 1, dev->logits, v, spec->device_W, d, 0, dev->score, d);
  const struct kwm_likely likely = {.n = n,
                                    .classes = v,
                                    .r = d,
                                    .top = spec->top,
                                    .e = dev->logits,
                                    .targets = targets,
                                    .M = spec->device_W,
                                    .g = dev->score,
                                    .A = dev->A,
                                    .listed = dev->listed};
  if (spec->form == KWM_CORRECT_TOPK) ops->likely(spec->device, &likely);
  const struct kwm_inform inform = {.n = n,
                                    .r = d,
                                    .rows = correct_form_rows(&correct->spec),
                                    .A = spec->form == KWM_CORRECT_TOPK ? dev->A : dev->score,
                                    .g = dev->score,
                                    .decay = (float)spec->decay,
                                    .weight = (float)correct->weight,
                                    .noise = (float)correct->noise,
                                    .prior = (float)spec->prior,
                                    .bound = (float)spec->bound,
                                    .c = dev->c,
                                    .P = dev->P,
                                    .watched = dev->watched,
                                    .broken = dev->broken,
                                    .room = dev->room,
                                    .trend = dev->trend,
                                    .pull = dev->pull};
  ops->inform(spec->device, &inform);
}

void correct_device_watch(kwm_correct *correct, int64_t tokens) {
  float *const v = correct->dev.watched;
  float here[KWM_INFORM_COORDINATES];
  const size_t bytes = (size_t)correct->r * sizeof *here;
  double norm = 0;
  if (correct->r == 0 || (correct->watched_for += tokens) < correct->spec.window) return;
  correct->watched_for = 0;
  kwm_device_get(correct->spec.device, here, v, bytes);
  for (int64_t k = 0; k < correct->r; k++) norm += (double)here[k] * (double)here[k];
  norm = sqrt(norm);
  if (norm > correct->sums.contraction) correct->sums.contraction = norm;
  for (int64_t k = 0; k < correct->r; k++)
    here[k] = norm > 0 ? (float)((double)here[k] / norm) : (float)(1 / sqrt((double)correct->r));
  kwm_device_put(correct->spec.device, v, here, bytes);
}

static void step(kwm_correct *correct, int64_t t) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  struct correct_device *const dev = &correct->dev;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(spec->device);
  const int64_t n = spec->streams, d = spec->width, v = spec->classes;
  const int32_t *const targets = dev->targets + t * n;
  kwm_device_copy(spec->device, dev->input, dev->y + t * n * d, (size_t)(n * d) * sizeof(float));
  if (correct->r > 0) kwm_device_add(spec->device, n * d, dev->c, dev->input);
  kwm_device_gemm(spec->device, false, true, n, v, d, 1, dev->input, d, spec->device_W, d, 0, dev->logits, v);
  if (spec->bias > 0) kwm_device_add(spec->device, n * v, correct->lean, dev->logits);
  ops->categorical(spec->device, n, v, v, targets, true, dev->logits, dev->facts + t * n * KWM_TOKEN_FACTS);
  if (correct->r > 0) take(correct, targets);
  const struct kwm_lean lean = {.n = n,
                                .classes = v,
                                .e = dev->logits,
                                .targets = targets,
                                .decay = (float)spec->bias_decay,
                                .prior = (float)spec->bias,
                                .c = correct->lean,
                                .v = correct->spread};
  if (spec->bias > 0) ops->lean(spec->device, &lean);
  correct_device_watch(correct, 1);
}

/* Streams that began anew since the last time. */
void correct_device_count_broken(kwm_correct *correct) {
  const int64_t n = correct->spec.streams;
  for (int64_t first = 0; first < n; first += CORRECT_STEPS) {
    int32_t broken[CORRECT_STEPS];
    const int64_t some = n - first < CORRECT_STEPS ? n - first : CORRECT_STEPS;
    kwm_device_get(correct->spec.device, broken, correct->dev.broken + first, (size_t)some * sizeof *broken);
    for (int64_t s = 0; s < some; s++) correct->sums.broken += broken[s];
  }
  kwm_device_zero(correct->spec.device, correct->dev.broken, (size_t)n * sizeof(int32_t));
}

void correct_device_run(kwm_correct *correct, int64_t steps, const float *y, const int32_t *targets, float *facts) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  struct correct_device *const dev = &correct->dev;
  const int64_t n = spec->streams, d = spec->width;
  for (int64_t first = 0; first < steps; first += CORRECT_STEPS) {
    const int64_t some = steps - first < CORRECT_STEPS ? steps - first : CORRECT_STEPS;
    kwm_device_put(spec->device, dev->y, y + first * n * d, (size_t)(some * n * d) * sizeof(float));
    kwm_device_put(spec->device, dev->targets, targets + first * n, (size_t)(some * n) * sizeof(int32_t));
    for (int64_t t = 0; t < some; t++) step(correct, t);
    kwm_device_get(spec->device, facts + first * n * KWM_TOKEN_FACTS, dev->facts,
                   (size_t)(some * n * KWM_TOKEN_FACTS) * sizeof(float));
    correct_device_count_broken(correct);
  }
}

/* In pieces. */
void correct_device_get(const kwm_correct *correct, int64_t n, const float *from, double *to) {
  float some[KWM_INFORM_COORDINATES];
  for (int64_t first = 0; first < n && to != NULL; first += KWM_INFORM_COORDINATES) {
    const int64_t count = n - first < KWM_INFORM_COORDINATES ? n - first : KWM_INFORM_COORDINATES;
    kwm_device_get(correct->spec.device, some, from + first, (size_t)count * sizeof *some);
    for (int64_t k = 0; k < count; k++) to[first + k] = (double)some[k];
  }
}

void correct_device_state(const kwm_correct *correct, int64_t s, double *offset, double *P, double *bias) {
  const int64_t d = correct->spec.width, v = correct->spec.classes;
  correct_device_get(correct, d, correct->dev.c + s * d, offset);
  correct_device_get(correct, d * d, correct->dev.P + s * d * d, P);
  correct_device_get(correct, v, correct->lean + s * v, bias);
}

/* The observer in blocks of tokens, on the host as on a device: between two updates everything is a product of
   matrices. */
#include <math.h>
#include <string.h>

#include "correct_state.h"
#include "kwm/backend.h"
#include "kwm/inform.h"

enum {
  ALIGNED = 64 /* numbers at whose multiples rows of classes begin */,
  SENT = 128 /* tokens sent at once, or so */
};

/* Rows of W that move would have to be rounded anew with every block. */
static bool in_halves(const struct kwm_correct_spec *spec) {
  return spec->half && spec->kind != KWM_CORRECT_BIAS && spec->readout == 0 && !spec->outside &&
         kwm_tensor_of(spec->device)->half_gemm != NULL;
}

static kwm_status allocate(kwm_correct *made) {
  struct correct_device *const dev = &made->dev;
  const struct kwm_correct_spec *const spec = &made->spec;
  const int64_t n = spec->streams, d = spec->width, r = made->r, m = spec->every, rows = made->rows,
                ld = spec->outside ? 0 : dev->ld, all = spec->outside ? 0 : dev->sent;
  const bool low = spec->kind == KWM_CORRECT_LOWRANK, bias = spec->bias > 0, moves = spec->readout > 0;
  const bool half = in_halves(spec), whole = !half || bias;
  const struct correct_piece pieces[] = {{&dev->y, all * n * d},
                                         {&dev->W, ld * d},
                                         {&dev->logits, m * n * ld},
                                         {&dev->facts, all * n * KWM_TOKEN_FACTS},
                                         {&dev->targets, all * n},
                                         {&dev->sums, whole ? n * rows * ld : 0},
                                         {&dev->half, half ? n * rows * ld / 2 : 0},
                                         {&dev->half_W, half ? ld * d / 2 : 0},
                                         {&dev->told, bias || moves ? n * rows * ld : 0},
                                         {&dev->change, moves ? ld * d : 0},
                                         {&dev->turned, moves ? ld * d : 0},
                                         {&dev->vary, moves ? ld : 0},
                                         {&dev->A, n * rows * r},
                                         {&dev->c, n * r},
                                         {&dev->P, low ? 0 : n * r * r},
                                         {&dev->U, low ? n * spec->rank * r : 0},
                                         {&dev->known, low ? n : 0},
                                         {&dev->since, low ? n : 0},
                                         {&dev->watched, r},
                                         {&dev->room, rows * r},
                                         {&dev->broken, n},
                                         {&made->lean, bias ? n * ld : 0},
                                         {&made->spread, bias ? n * ld : 0}};
  return correct_open(made, dev->ld, sizeof pieces / sizeof pieces[0], pieces);
}

kwm_status correct_blocks_create(kwm_correct *correct) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const int64_t every = spec->every > 1 ? spec->every : 1;
  correct->rows = spec->kind == KWM_CORRECT_BIAS ? 1 : spec->rows < every ? spec->rows : every;
  correct->dev.ld = (spec->classes + ALIGNED - 1) / ALIGNED * ALIGNED;
  correct->dev.sent = every > SENT ? every : SENT / every * every;
  return allocate(correct);
}

/* The offsets take `steps` tokens in, whose rows are in A. What is left of low rank's rows then is not needed before
   the next block's, and is worked out beside what comes until then. */
void correct_blocks_take(kwm_correct *correct, int64_t steps, int64_t rows) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const struct correct_device *const dev = &correct->dev;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(spec->device);
  const float a = (float)spec->decay, bound = (float)(spec->bound * (double)steps);
  const struct kwm_inform full = {.n = spec->streams,
                                  .r = correct->r,
                                  .rows = rows,
                                  .A = dev->A,
                                  .decay = powf(a, (float)steps),
                                  .weight = (float)correct->weight,
                                  .noise = (float)(correct->noise * (double)steps),
                                  .prior = (float)spec->prior,
                                  .bound = bound,
                                  .c = dev->c,
                                  .P = dev->P,
                                  .watched = dev->watched,
                                  .broken = dev->broken,
                                  .room = dev->room,
                                  .trend = dev->trend,
                                  .pull = dev->pull};
  const struct kwm_inform_low low = {.n = spec->streams,
                                     .r = correct->r,
                                     .rows = rows,
                                     .rank = spec->rank,
                                     .tokens = steps,
                                     .A = dev->A,
                                     .decay = a,
                                     .noise = (float)spec->noise,
                                     .prior = (float)spec->prior,
                                     .bound = bound,
                                     .c = dev->c,
                                     .U = dev->U,
                                     .watched = dev->watched,
                                     .known = dev->known,
                                     .since = dev->since,
                                     .broken = dev->broken};
  if (spec->kind != KWM_CORRECT_LOWRANK) {
    ops->inform(spec->device, &full);
    return;
  }
  kwm_device_rejoin(spec->device);
  ops->inform_low(spec->device, &low);
  kwm_device_aside(spec->device, true);
  ops->shrink_low(spec->device, &low);
  kwm_device_aside(spec->device, false);
}

/* Innovations of `steps` tokens of each stream, from the first on, summed, then products of them. */
static void inform(kwm_correct *correct, int64_t first, int64_t steps) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const struct correct_device *const dev = &correct->dev;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(spec->device);
  const int64_t n = spec->streams, d = spec->width, rows = correct->rows < steps ? correct->rows : steps;
  const bool half = in_halves(spec);
  const struct kwm_tally tally = {.n = n,
                                  .steps = steps,
                                  .groups = rows,
                                  .classes = spec->classes,
                                  .ld = dev->ld,
                                  .logits = dev->logits,
                                  .facts = dev->facts + first * n * KWM_TOKEN_FACTS,
                                  .targets = dev->targets + first * n,
                                  .sums = half && spec->bias == 0 ? NULL : dev->sums,
                                  .half = half ? dev->half : NULL,
                                  .told = spec->bias > 0 || spec->readout > 0 ? dev->told : NULL};
  const struct kwm_lean lean = {.n = n,
                                .classes = dev->ld,
                                .groups = rows,
                                .e = dev->sums,
                                .told = dev->told,
                                .decay = powf((float)spec->bias_decay, (float)steps),
                                .prior = (float)spec->bias,
                                .c = correct->lean,
                                .v = correct->spread};
  ops->tally(spec->device, &tally);
  if (correct->r > 0) {
    if (half)
      ops->half_gemm(spec->device, n * rows, d, dev->ld, dev->half, dev->half_W, dev->A);
    else
      kwm_device_gemm(spec->device, false, false, n * rows, d, dev->ld, 1, dev->sums, dev->ld, dev->W, d, 0, dev->A, d);
    correct_blocks_take(correct, steps, rows);
  }
  if (spec->bias > 0) ops->lean(spec->device, &lean);
}

/* The rows of W follow what they read in y; logits are there, and told. */
static void steer(kwm_correct *correct, int64_t first, int64_t steps, double square) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const struct correct_device *const dev = &correct->dev;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(spec->device);
  const int64_t n = spec->streams, d = spec->width, ld = dev->ld, rows = correct->rows < steps ? correct->rows : steps;
  const struct kwm_steer of = {.rows = ld,
                               .width = d,
                               .groups = spec->shared != NULL ? 1 : n * rows,
                               .score = dev->turned,
                               .told = dev->told,
                               .scale = (float)square,
                               .variance = dev->vary,
                               .change = dev->change,
                               .W = dev->W};
  ops->categorical(spec->device, steps * n, spec->classes, ld, dev->targets + first * n, true, dev->logits,
                   dev->facts + first * n * KWM_TOKEN_FACTS);
  kwm_device_gemm(spec->device, true, false, ld, d, steps * n, 1, dev->logits, ld, dev->y + first * n * d, d, 0,
                  dev->turned, d);
  correct_share_rows(correct, n * rows);
  ops->steer(spec->device, &of);
}

static void block(kwm_correct *correct, int64_t first, int64_t steps, double square) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const struct correct_device *const dev = &correct->dev;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(spec->device);
  const int64_t n = spec->streams, d = spec->width, ld = dev->ld;
  float *const y = dev->y + first * n * d;
  if (correct->r > 0) ops->shift(spec->device, steps, n * d, dev->c, y);
  kwm_device_gemm(spec->device, false, true, steps * n, ld, d, 1, y, d, dev->W, d, 0, dev->logits, ld);
  if (spec->bias > 0) ops->shift(spec->device, steps, n * ld, correct->lean, dev->logits);
  ops->categorical(spec->device, steps * n, spec->classes, ld, dev->targets + first * n, false, dev->logits,
                   dev->facts + first * n * KWM_TOKEN_FACTS);
  inform(correct, first, steps);
  if (spec->readout > 0) steer(correct, first, steps, square);
}

/* W as it is, with what its rows were moved by. */
static void copy_weights(kwm_correct *correct) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const struct correct_device *const dev = &correct->dev;
  kwm_device_copy(spec->device, dev->W, spec->device != NULL ? spec->device_W : spec->W,
                  (size_t)(spec->classes * spec->width) * sizeof(float));
  if (spec->readout > 0) kwm_device_add(spec->device, dev->ld * spec->width, dev->change, dev->W);
  if (in_halves(spec)) kwm_tensor_of(spec->device)->narrow(spec->device, dev->ld * spec->width, dev->W, dev->half_W);
  correct->copied = true;
}

void correct_blocks_run(kwm_correct *correct, int64_t steps, const float *y, const int32_t *targets, float *facts) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const struct correct_device *const dev = &correct->dev;
  const int64_t n = spec->streams, d = spec->width, every = spec->every;
  if (!correct->copied) copy_weights(correct);
  const double square = spec->readout > 0 ? correct_mean_square(correct, steps * n * d, y) : 0;
  for (int64_t from = 0; from < steps; from += dev->sent) {
    const int64_t some = steps - from < dev->sent ? steps - from : dev->sent;
    kwm_device_put(spec->device, dev->targets, targets + from * n, (size_t)(some * n) * sizeof *targets);
    for (int64_t first = 0; first < some; first += every) {
      const int64_t now = some - first < every ? some - first : every;
      kwm_device_put(spec->device, dev->y + first * n * d, y + (from + first) * n * d,
                     (size_t)(now * n * d) * sizeof *y);
      block(correct, first, now, square);
    }
    kwm_device_get(spec->device, facts + from * n * KWM_TOKEN_FACTS, dev->facts,
                   (size_t)(some * n * KWM_TOKEN_FACTS) * sizeof *facts);
  }
  kwm_device_rejoin(spec->device);
  correct_device_watch(correct, steps);
  correct_device_count_broken(correct);
}

/* P (d, d) <- (I / prior + UᵀU)⁻¹ */
static void invert(int64_t d, int64_t known, double prior, const float *U, double *P) {
  memset(P, 0, (size_t)(d * d) * sizeof *P);
  for (int64_t k = 0; k < d * d; k++) {
    P[k] = k % (d + 1) == 0 ? 1 / prior : 0;
    for (int64_t j = 0; j < known; j++) P[k] += (double)U[j * d + k / d] * (double)U[j * d + k % d];
  }
  const bool good = kwm_cholesky_f64(d, P, d) && kwm_cholesky_invert_f64(d, P, d);
  KWM_ASSERT(good);
  kwm_mirror_f64(d, P, d);
}

void correct_blocks_state(const kwm_correct *correct, int64_t s, double *offset, double *P, double *bias) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const int64_t d = spec->width;
  correct_device_get(correct, d, correct->dev.c + s * d, offset);
  correct_device_get(correct, spec->classes, correct->lean + s * correct->dev.ld, bias);
  if (P == NULL || spec->kind == KWM_CORRECT_FULL) {
    correct_device_get(correct, d * d, correct->dev.P + s * d * d, P);
    return;
  }
  int32_t known;
  float *U;
  kwm_device_get(spec->device, &known, correct->dev.known + s, sizeof known);
  if (kwm_alloc((void **)&U, (size_t)(spec->rank * d) * sizeof *U, "rows of information") != KWM_OK) return;
  kwm_device_get(spec->device, U, correct->dev.U + s * spec->rank * d, (size_t)(known * d) * sizeof *U);
  invert(d, known, spec->prior, U, P);
  kwm_free(U);
}

/* The shadow device's transformer operations: the host's (tensor_host.h), on what its arrays stand for. */
#include "kwm/inform.h"
#include "kwm/tensor.h"

#include "shadow.h"

#define FLOATS(d, at, n) ((float *)shadow_array((d), (at), (n), sizeof(float)))
#define INDICES(d, at, n) ((const int32_t *)shadow_array((d), (at), (n), sizeof(int32_t)))
#define IF_GIVEN(d, at, n) ((at) == NULL ? NULL : FLOATS((d), (at), (n)))

/* Indices (n), each in [0, count). */
static const int32_t *indices_below(kwm_device *d, const int32_t *at, int64_t n, int64_t count) {
  const int32_t *const indices = INDICES(d, at, n);
  for (int64_t k = 0; k < n; k++) KWM_ASSERT(indices[k] >= 0 && indices[k] < count && "an index of the range");
  return indices;
}

/* E holds at least as many rows as the largest of the ids asks for. */
static void embed(kwm_device *d, int64_t n, int64_t width, int64_t context, const int32_t *ids, const float *E,
                  const float *pos, const struct kwm_dropout *drop, float *x) {
  const int32_t *const tokens = indices_below(d, ids, n, INT32_MAX);
  int32_t largest = 0;
  for (int64_t k = 0; k < n; k++) largest = tokens[k] > largest ? tokens[k] : largest;
  kwm_tensor_host.embed(NULL, n, width, context, tokens, FLOATS(d, E, (largest + 1) * width),
                        FLOATS(d, pos, (n < context ? n : context) * width), drop, FLOATS(d, x, n * width));
}

static void gather(kwm_device *d, int64_t width, const struct kwm_gather *gather, const float *x, float *table) {
  const int64_t count = gather->count, n = gather->n;
  const struct kwm_gather open = {.count = count,
                                  .n = n,
                                  .kinds = indices_below(d, gather->kinds, count, INT32_MAX),
                                  .begin = indices_below(d, gather->begin, count + 1, n + 1),
                                  .places = indices_below(d, gather->places, n, n)};
  int32_t largest = 0;
  for (int64_t k = 0; k < count; k++) {
    largest = open.kinds[k] > largest ? open.kinds[k] : largest;
    KWM_ASSERT(open.begin[k] <= open.begin[k + 1] && "places of a kind");
  }
  kwm_tensor_host.gather(NULL, width, &open, FLOATS(d, x, n * width), FLOATS(d, table, (largest + 1) * width));
}

static void fold(kwm_device *d, int64_t n, int64_t width, int64_t context, const float *x, float *sums) {
  kwm_tensor_host.fold(NULL, n, width, context, FLOATS(d, x, n * width), FLOATS(d, sums, context * width));
}

static void norm(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, float *y, float *inv) {
  kwm_tensor_host.norm(NULL, n, width, FLOATS(d, x, n * width), FLOATS(d, g, width), FLOATS(d, y, n * width),
                       FLOATS(d, inv, n));
}

static void norm_adjoint(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, const float *inv,
                         const float *sy, const float *more, float *sx, float *sg, float *scratch) {
  kwm_tensor_host.norm_adjoint(NULL, n, width, FLOATS(d, x, n * width), FLOATS(d, g, width), FLOATS(d, inv, n),
                               FLOATS(d, sy, n * width), IF_GIVEN(d, more, n * width), FLOATS(d, sx, n * width),
                               FLOATS(d, sg, width), FLOATS(d, scratch, kwm_tensor_norm_scratch(n, width)));
}

/* Elements of the output and of the weights. */
static int64_t outputs(const struct kwm_attention *a) {
  return a->sequences * a->context * a->heads * a->size;
}

static int64_t weights_of(const struct kwm_attention *a) {
  return a->sequences * a->heads * a->context * a->context;
}

static void attention(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights, float *out) {
  kwm_tensor_host.attention(NULL, a, FLOATS(d, qkv, 3 * outputs(a)), FLOATS(d, weights, weights_of(a)),
                            FLOATS(d, out, outputs(a)));
}

static void attention_adjoint(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights,
                              const float *sout, float *sqkv) {
  kwm_tensor_host.attention_adjoint(NULL, a, FLOATS(d, qkv, 3 * outputs(a)), FLOATS(d, weights, weights_of(a)),
                                    FLOATS(d, sout, outputs(a)), FLOATS(d, sqkv, 3 * outputs(a)));
}

static void gelu(kwm_device *d, int64_t n, const float *u, float *y) {
  kwm_tensor_host.gelu(NULL, n, FLOATS(d, u, n), FLOATS(d, y, n));
}

static void gelu_adjoint(kwm_device *d, int64_t n, const float *u, const float *sy, float *su) {
  kwm_tensor_host.gelu_adjoint(NULL, n, FLOATS(d, u, n), FLOATS(d, sy, n), FLOATS(d, su, n));
}

static void residual(kwm_device *d, int64_t n, int64_t width, const struct kwm_dropout *drop, const float *x,
                     const float *f, float *y) {
  kwm_tensor_host.residual(NULL, n, width, drop, IF_GIVEN(d, x, n * width), FLOATS(d, f, n * width),
                           FLOATS(d, y, n * width));
}

static void categorical(kwm_device *d, int64_t n, int64_t classes, int64_t ld, const int32_t *targets, bool innovate,
                        float *logits, float *facts) {
  kwm_tensor_host.categorical(NULL, n, classes, ld, indices_below(d, targets, n, classes), innovate,
                              SHADOW_MATRIX(d, logits, n, classes, ld), FLOATS(d, facts, n * KWM_TOKEN_FACTS));
}

static void riccati(kwm_device *d, int64_t n, const struct kwm_riccati_step *step, const float *y, float *f, float *m,
                    float *p, float *x) {
  kwm_tensor_host.riccati(NULL, n, step, FLOATS(d, y, n), FLOATS(d, f, n), FLOATS(d, m, n), FLOATS(d, p, n),
                          FLOATS(d, x, n));
}

static void adam(kwm_device *d, int64_t n, const struct kwm_adam_step *step, const float *score, float *m, float *v,
                 float *mean) {
  kwm_tensor_host.adam(NULL, n, step, FLOATS(d, score, n), FLOATS(d, m, n), FLOATS(d, v, n), FLOATS(d, mean, n));
}

static void drift(kwm_device *d, int64_t n, float keep, float scale, const float *x, float *mean) {
  kwm_tensor_host.drift(NULL, n, keep, scale, IF_GIVEN(d, x, n), FLOATS(d, mean, n));
}

static void norm2(kwm_device *d, int64_t n, const float *x, double *sums) {
  kwm_tensor_host.norm2(NULL, n, FLOATS(d, x, n), shadow_facts(d, sums, 1));
}

static void quadratic(kwm_device *d, int64_t n, const float *w, const float *x, double *sums) {
  kwm_tensor_host.quadratic(NULL, n, FLOATS(d, w, n), FLOATS(d, x, n), shadow_facts(d, sums, 1));
}

static bool basis(kwm_device *d, int64_t n, bool anew, const float *A, float *U, float *scratch) {
  const bool good =
      kwm_tensor_host.basis(NULL, n, anew, FLOATS(d, A, n * n), FLOATS(d, U, n * n), FLOATS(d, scratch, 4 * n * n));
  if (anew) shadow_wait(d);
  return good;
}

static void read_out(kwm_device *d, const struct kwm_read *read) {
  const int64_t n = read->n, classes = read->classes, width = read->width;
  KWM_ASSERT((read->sy != NULL || read->sE == NULL) && "no score of E without that of y");
  struct kwm_read open = *read;
  open.y = FLOATS(d, read->y, n * width);
  open.E = FLOATS(d, read->E, classes * width);
  open.targets = indices_below(d, read->targets, n, classes);
  open.facts = FLOATS(d, read->facts, n * KWM_TOKEN_FACTS);
  open.sy = IF_GIVEN(d, read->sy, n * width);
  open.sE = IF_GIVEN(d, read->sE, classes * width);
  open.room = FLOATS(d, read->room, kwm_tensor_read_room(n, classes, width, read->half));
  kwm_tensor_host.read(NULL, &open);
}

static void likely(kwm_device *d, const struct kwm_likely *of) {
  const int64_t n = of->n, r = of->r, classes = of->classes;
  struct kwm_likely open = *of;
  open.e = FLOATS(d, of->e, n * classes);
  open.targets = indices_below(d, of->targets, n, classes);
  open.M = FLOATS(d, of->M, classes * r);
  open.g = FLOATS(d, of->g, n * r);
  open.A = FLOATS(d, of->A, n * (of->top + 1) * r);
  open.listed = shadow_array(d, of->listed, n * of->top, sizeof *of->listed);
  kwm_tensor_host.likely(NULL, &open);
}

static void inform(kwm_device *d, const struct kwm_inform *of) {
  const int64_t n = of->n, r = of->r;
  struct kwm_inform open = *of;
  open.A = FLOATS(d, of->A, n * of->rows * r);
  open.g = IF_GIVEN(d, of->g, n * r);
  open.c = FLOATS(d, of->c, n * r);
  open.P = FLOATS(d, of->P, n * r * r);
  open.watched = FLOATS(d, of->watched, r);
  open.broken = shadow_array(d, of->broken, n, sizeof *of->broken);
  open.room = FLOATS(d, of->room, of->rows * r);
  open.trend = IF_GIVEN(d, of->trend, n * r);
  open.pull = IF_GIVEN(d, of->pull, 2 * n);
  kwm_tensor_host.inform(NULL, &open);
}

static struct kwm_inform_low open_low(kwm_device *d, const struct kwm_inform_low *of) {
  const int64_t n = of->n, r = of->r;
  struct kwm_inform_low open = *of;
  open.A = FLOATS(d, of->A, n * of->rows * r);
  open.c = FLOATS(d, of->c, n * r);
  open.U = FLOATS(d, of->U, n * of->rank * r);
  open.watched = FLOATS(d, of->watched, r);
  open.known = shadow_array(d, of->known, n, sizeof *of->known);
  open.since = shadow_array(d, of->since, n, sizeof *of->since);
  open.broken = shadow_array(d, of->broken, n, sizeof *of->broken);
  return open;
}

static void inform_low(kwm_device *d, const struct kwm_inform_low *of) {
  const struct kwm_inform_low open = open_low(d, of);
  kwm_tensor_host.inform_low(NULL, &open);
}

static void shrink_low(kwm_device *d, const struct kwm_inform_low *of) {
  const struct kwm_inform_low open = open_low(d, of);
  kwm_tensor_host.shrink_low(NULL, &open);
}

static void tally(kwm_device *d, const struct kwm_tally *of) {
  const int64_t n = of->n, rows = of->steps * n;
  struct kwm_tally open = *of;
  open.logits = SHADOW_MATRIX(d, of->logits, rows, of->classes, of->ld);
  open.facts = FLOATS(d, of->facts, rows * KWM_TOKEN_FACTS);
  open.targets = indices_below(d, of->targets, rows, of->classes);
  open.sums = SHADOW_MATRIX(d, of->sums, n * of->groups, of->classes, of->ld);
  if (of->told != NULL) open.told = SHADOW_MATRIX(d, of->told, n * of->groups, of->classes, of->ld);
  kwm_tensor_host.tally(NULL, &open);
}

static void steer(kwm_device *d, const struct kwm_steer *of) {
  const int64_t all = of->rows * of->width;
  struct kwm_steer open = *of;
  open.score = FLOATS(d, of->score, all);
  open.told = FLOATS(d, of->told, of->groups * of->rows);
  open.variance = FLOATS(d, of->variance, of->rows);
  open.change = FLOATS(d, of->change, all);
  open.W = FLOATS(d, of->W, all);
  kwm_tensor_host.steer(NULL, &open);
}

static void shift(kwm_device *d, int64_t n, int64_t width, const float *c, float *x) {
  kwm_tensor_host.shift(NULL, n, width, FLOATS(d, c, width), FLOATS(d, x, n * width));
}

static void lean(kwm_device *d, const struct kwm_lean *of) {
  const int64_t all = of->n * of->classes;
  struct kwm_lean open = *of;
  open.e = FLOATS(d, of->e, of->told == NULL ? all : all * of->groups);
  open.told = IF_GIVEN(d, of->told, all * of->groups);
  if (of->told == NULL) open.targets = indices_below(d, of->targets, of->n, of->classes);
  open.c = FLOATS(d, of->c, all);
  open.v = FLOATS(d, of->v, all);
  kwm_tensor_host.lean(NULL, &open);
}

const struct kwm_tensor_ops shadow_tensor = {
    .embed = embed,
    .gather = gather,
    .fold = fold,
    .norm = norm,
    .norm_adjoint = norm_adjoint,
    .attention = attention,
    .attention_adjoint = attention_adjoint,
    .gelu = gelu,
    .gelu_adjoint = gelu_adjoint,
    .residual = residual,
    .categorical = categorical,
    .riccati = riccati,
    .adam = adam,
    .drift = drift,
    .norm2 = norm2,
    .quadratic = quadratic,
    .basis = basis,
    .read = read_out,
    .likely = likely,
    .inform = inform,
    .inform_low = inform_low,
    .shrink_low = shrink_low,
    .tally = tally,
    .lean = lean,
    .steer = steer,
    .shift = shift,
};

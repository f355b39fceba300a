/* kwm generate: text drawn from a language model, with or without an offset that the prompt has corrected. The prompt's
   words are observed and correct it; sampled ones tell nothing (equations.md, Sec. 6) and only let time go on. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/log.h"
#include "kwm/rng.h"
#include "kwm/tensor.h"
#include "language_checkpoint.h"
#include "language_commands.h"
#include "language_stream.h"
#include "language_words.h"

struct generator {
  struct kwm_language_run *run;
  float *const *means;
  float *W, *y, *logits; /* (types, width); rows of states; (types); owned */
  int32_t *ids;          /* prompt, then what is drawn; owned */
  int64_t known, n;      /* words of the prompt; all so far */
  double *often;         /* owned */
  kwm_correct *correct;  /* owned; NULL: off */
};

static kwm_status allocate(struct generator *g, const struct kwm_tokens *prompt) {
  const struct kwm_transformer *const model = &g->run->model;
  const int64_t room = prompt->n + 1 + g->run->run->config.generate.tokens;
  const int64_t rows = prompt->n > model->context ? prompt->n : model->context;
  const size_t matrix = (size_t)(model->types * model->width) * sizeof(float);
  KWM_TRY(kwm_alloc((void **)&g->ids, (size_t)room * sizeof *g->ids, "words"));
  KWM_TRY(kwm_alloc((void **)&g->y, (size_t)(rows * model->width) * sizeof *g->y, "states"));
  KWM_TRY(kwm_alloc((void **)&g->logits, (size_t)model->types * sizeof *g->logits, "logits"));
  KWM_TRY(kwm_alloc((void **)&g->W, matrix, "read-out"));
  kwm_device_get(g->run->run->device, g->W, g->means[KWM_TENSOR_EMBED], matrix);
  if (prompt->n > 0) memcpy(g->ids, prompt->ids, (size_t)prompt->n * sizeof *g->ids);
  g->n = prompt->n;
  if (g->n == 0) g->ids[g->n++] = kwm_vocabulary_facts(g->run->vocabulary).eos;
  g->known = g->n;
  return KWM_OK;
}

/* The offset after the prompt. */
static kwm_status observe_prompt(struct generator *g) {
  const int64_t d = g->run->model.width;
  if (strcmp(g->run->run->config.correction.kind, "off") == 0) return KWM_OK;
  KWM_TRY(kwm_language_often(g->run, &g->often));
  struct kwm_correct_spec spec = kwm_language_correct_spec(g->run, 1, g->W, g->often);
  spec.every = 1, spec.readout = 0;
  KWM_TRY(kwm_correct_create(&g->correct, &spec));
  kwm_language_states(g->run->language, g->means, g->known, g->ids, g->y);
  for (int64_t i = 0; i + 1 < g->known; i++) {
    float facts[KWM_TOKEN_FACTS];
    kwm_correct_run(g->correct, 1, g->y + i * d, g->ids + i + 1, facts);
  }
  return KWM_OK;
}

static int32_t draw(struct generator *g) {
  const struct kwm_config *const config = &g->run->run->config;
  const double heat = config->generate.temperature;
  const int64_t types = g->run->model.types;
  int32_t best = 0;
  double all = 0;
  for (int32_t i = 1; i < types; i++)
    if (g->logits[i] > g->logits[best]) best = i;
  if (heat <= 0) return best;
  const double top = (double)g->logits[best];
  for (int32_t i = 0; i < types; i++) all += exp(((double)g->logits[i] - top) / heat);
  double left = all * kwm_rng_uniform((uint64_t)config->generate.seed, KWM_RNG_SAMPLE, 0, (uint64_t)(g->n - g->known));
  for (int32_t i = 0; i < types; i++)
    if ((left -= exp(((double)g->logits[i] - top) / heat)) <= 0) return i;
  return best;
}

/* The next word from the words since `start`. */
static void extend(struct generator *g, int64_t start) {
  const int64_t d = g->run->model.width, v = g->run->model.types, rows = g->n - start;
  kwm_language_states(g->run->language, g->means, rows, g->ids + start, g->y);
  const float *const y = g->y + (rows - 1) * d;
  if (g->correct != NULL)
    kwm_correct_logits(g->correct, y, g->logits);
  else
    kwm_gemm(false, true, 1, v, d, 1, y, d, g->W, d, 0, g->logits, v);
  g->ids[g->n] = draw(g);
  g->n++;
  if (g->correct != NULL) kwm_correct_idle(g->correct);
}

static void say_unknown(const struct generator *g, const struct kwm_tokens *prompt) {
  int64_t unknown = 0;
  for (int64_t i = 0; i < prompt->n; i++) unknown += prompt->ids[i] == kwm_vocabulary_facts(g->run->vocabulary).unk;
  if (unknown > 0)
    kwm_log(KWM_LOG_WARNING,
            "%lld of the prompt's %lld words are not in the vocabulary; punctuation stands apart there",
            (long long)unknown, (long long)prompt->n);
}

/* A window that is full goes on with its second half. */
static void write_text(struct generator *g) {
  const int64_t context = g->run->model.context, most = g->known + g->run->run->config.generate.tokens;
  struct kwm_language_words words = {.to = stdout};
  int64_t start = g->n > context ? g->n - context : 0;
  for (int64_t i = 0; i < g->known; i++)
    if (i > 0 || g->ids[0] != kwm_vocabulary_facts(g->run->vocabulary).eos)
      kwm_language_words_put(&words, kwm_vocabulary_word(g->run->vocabulary, g->ids[i]));
  while (g->n < most) {
    if (g->n - start > context) start = g->n - (context + 1) / 2;
    extend(g, start);
    kwm_language_words_put(&words, kwm_vocabulary_word(g->run->vocabulary, g->ids[g->n - 1]));
    fflush(stdout);
  }
  if (words.space) fputc('\n', stdout);
}

static kwm_status generate(struct generator *g, const char *text, size_t bytes) {
  struct kwm_tokens prompt = {0};
  KWM_TRY(kwm_tokens_encode(&prompt, g->run->vocabulary, text, bytes));
  g->means = kwm_language_means(g->run->learner, true);
  kwm_language_share(g->run->language, g->means);
  say_unknown(g, &prompt);
  kwm_status status = allocate(g, &prompt);
  if (status == KWM_OK) status = observe_prompt(g);
  if (status == KWM_OK) write_text(g);
  kwm_tokens_fini(&prompt);
  return status;
}

static kwm_status open_and_generate(struct kwm_language_run *language, kwm_ckpt *ckpt, const char *text, size_t bytes) {
  struct kwm_run *const run = language->run;
  KWM_TRY(kwm_language_run_layout(language));
  KWM_TRY(kwm_language_run_read(language));
  KWM_TRY(kwm_run_open_device(run));
  KWM_TRY(kwm_language_run_build(language));
  KWM_TRY(kwm_language_checkpoint_matches(language, ckpt));
  KWM_TRY(kwm_language_learner_load_means(language->learner, ckpt));
  struct generator g = {.run = language};
  const kwm_status status = generate(&g, text, bytes);
  kwm_correct_destroy(g.correct);
  void *const owned[] = {g.W, g.y, g.logits, g.ids, g.often};
  for (size_t k = 0; k < sizeof owned / sizeof owned[0]; k++) kwm_free(owned[k]);
  return status;
}

kwm_status kwm_language_generate(struct kwm_run *run, kwm_ckpt *ckpt, const char *text, size_t bytes) {
  struct kwm_language_run language = {.run = run};
  struct kwm_layout world;
  kwm_par_world(&world);
  KWM_CHECK(world.size == 1, KWM_ERR_USAGE, "ranks: wanted 1 with generate (a text is one stream), found %d",
            world.size);
  KWM_TRY(kwm_language_stream_fit(&run->config, 1));
  const kwm_status status = open_and_generate(&language, ckpt, text, bytes);
  kwm_language_run_fini(&language);
  return status;
}

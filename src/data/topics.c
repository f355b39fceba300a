/* A document is a direction: each word that another document has too adds (1 + log count) * log(documents / documents
   with it) to one of FEATURES numbers, which and with what sign a keyed hash says. Rare words share numbers, and the
   signs make what they add to a cosine zero in the mean (Weinberger et al. 2009). */
#include "kwm/shift.h"

#include <math.h>
#include <string.h>

#include "kwm/rng.h"

#include "documents.h"
#include "kmeans.h"

enum { FEATURES = 1024, DOMAINS_MAX = 256 };

struct kwm_topics {
  int domains;
  int64_t lines;
  int32_t size, eos, equals;
  uint64_t seed;
  float *weight;  /* (size) log(documents / documents with the word), signed by the hash; 0: not used */
  int32_t *place; /* (size) of the word's number */
  float *centres; /* (domains, FEATURES) row-major */
};

/* A text cut into documents, and scratch for one of them. */
struct corpus {
  int64_t *first; /* (n + 1) */
  int64_t n;
  int32_t *count; /* (size of the vocabulary) 0 between documents */
};

static void corpus_fini(struct corpus *corpus) {
  kwm_free(corpus->first);
  kwm_free(corpus->count);
}

/* Also on failure the caller calls corpus_fini. `corpus` comes zeroed. */
static kwm_status corpus_init(struct corpus *corpus, const kwm_topics *topics, const struct kwm_tokens *tokens) {
  void *memory = NULL;
  KWM_TRY(kwm_documents_find(&corpus->first, &corpus->n, tokens, topics->eos, topics->equals, topics->lines));
  KWM_TRY(kwm_alloc(&memory, (size_t)topics->size * sizeof *corpus->count, "counts of words"));
  corpus->count = memory;
  return KWM_OK;
}

/* Which documents a word is in, counted by a second array that holds the last one seen. */
static kwm_status weigh(kwm_topics *topics, const struct corpus *corpus, const int32_t *ids) {
  void *memory = NULL;
  KWM_TRY(kwm_alloc(&memory, (size_t)topics->size * sizeof(int64_t), "last documents of words"));
  int64_t *const last = memory;
  for (int64_t k = 0; k < corpus->n; k++)
    for (int64_t i = corpus->first[k]; i < corpus->first[k + 1]; i++) {
      if (last[ids[i]] == k + 1) continue;
      last[ids[i]] = k + 1;
      corpus->count[ids[i]]++;
    }
  for (int32_t id = 0; id < topics->size; id++) {
    const uint64_t hash = kwm_rng_below(topics->seed, KWM_RNG_TOPIC, 0, (uint64_t)id, 2 * FEATURES);
    const double idf = corpus->count[id] > 1 ? log((double)corpus->n / (double)corpus->count[id]) : 0.0;
    topics->place[id] = (int32_t)(hash / 2);
    topics->weight[id] = (float)(hash % 2 == 0 ? idf : -idf);
    corpus->count[id] = 0;
  }
  kwm_free(memory);
  return KWM_OK;
}

/* The direction of document k. point: (FEATURES). */
static void describe(const kwm_topics *topics, const struct corpus *corpus, const int32_t *ids, int64_t k,
                     float *point) {
  double sums[FEATURES] = {0.0}, square = 0.0;
  const int64_t begin = corpus->first[k], end = corpus->first[k + 1];
  for (int64_t i = begin; i < end; i++) corpus->count[ids[i]]++;
  for (int64_t i = begin; i < end; i++) {
    int32_t *const count = &corpus->count[ids[i]];
    if (*count > 0) sums[topics->place[ids[i]]] += (double)topics->weight[ids[i]] * (1.0 + log((double)*count));
    *count = 0;
  }
  for (int c = 0; c < FEATURES; c++) square += sums[c] * sums[c];
  const double scale = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
  for (int c = 0; c < FEATURES; c++) point[c] = (float)(sums[c] * scale);
}

/* Rearranges the centres by their first documents; one without a document stays behind. */
static kwm_status sort_centres(kwm_topics *topics, const int32_t *nearest, int64_t n) {
  const size_t bytes = (size_t)topics->domains * FEATURES * sizeof *topics->centres;
  void *memory = NULL;
  KWM_TRY(kwm_alloc(&memory, bytes, "centres of topics"));
  float *const sorted = memory;
  bool taken[DOMAINS_MAX] = {false};
  int rank = 0;
  for (int64_t i = 0; i < n + topics->domains; i++) {
    const int64_t j = i < n ? nearest[i] : i - n;
    if (taken[j]) continue;
    taken[j] = true;
    memcpy(sorted + FEATURES * rank++, topics->centres + FEATURES * j, FEATURES * sizeof *sorted);
  }
  kwm_free(topics->centres);
  topics->centres = sorted;
  return KWM_OK;
}

static kwm_status learn(kwm_topics *topics, const struct corpus *corpus, const int32_t *ids) {
  void *points_memory = NULL, *nearest_memory = NULL;
  const size_t n = (size_t)corpus->n;
  kwm_status status = weigh(topics, corpus, ids);
  if (status == KWM_OK) status = kwm_alloc(&points_memory, n * FEATURES * sizeof(float), "directions of documents");
  if (status == KWM_OK) status = kwm_alloc(&nearest_memory, n * sizeof(int32_t), "topics of documents");
  if (status == KWM_OK) {
    float *const points = points_memory;
    for (int64_t k = 0; k < corpus->n; k++) describe(topics, corpus, ids, k, points + k * FEATURES);
    const struct kwm_points all = {points, corpus->n, FEATURES};
    status = kwm_kmeans(&all, topics->domains, topics->seed, topics->centres, nearest_memory);
  }
  if (status == KWM_OK) status = sort_centres(topics, nearest_memory, corpus->n);
  kwm_free(points_memory);
  kwm_free(nearest_memory);
  return status;
}

static kwm_status set_topics(kwm_topics *topics, const struct kwm_topics_spec *spec, const kwm_vocabulary *vocabulary) {
  const struct kwm_vocabulary_facts facts = kwm_vocabulary_facts(vocabulary);
  const int32_t equals = kwm_vocabulary_id(vocabulary, "=", 1);
  void *memory = NULL;
  topics->domains = spec->domains;
  topics->lines = spec->lines;
  topics->seed = spec->seed;
  topics->size = facts.size;
  topics->eos = facts.eos;
  topics->equals = equals != facts.unk ? equals : -1;
  KWM_TRY(kwm_alloc(&memory, (size_t)facts.size * sizeof(float), "weights of words"));
  topics->weight = memory;
  KWM_TRY(kwm_alloc(&memory, (size_t)facts.size * sizeof(int32_t), "hashes of words"));
  topics->place = memory;
  KWM_TRY(kwm_alloc(&memory, (size_t)spec->domains * FEATURES * sizeof(float), "centres of topics"));
  topics->centres = memory;
  return KWM_OK;
}

kwm_status kwm_topics_create(kwm_topics **topics, const struct kwm_topics_spec *spec, const struct kwm_tokens *tokens,
                             const kwm_vocabulary *vocabulary) {
  *topics = NULL;
  KWM_CHECK(spec->domains >= 1 && spec->domains <= DOMAINS_MAX, KWM_ERR_USAGE,
            "topics: wanted 1 to %d domains, found %d", DOMAINS_MAX, spec->domains);
  KWM_CHECK(spec->lines >= 0, KWM_ERR_USAGE, "topics: wanted documents of 0 lines (by titles) or more, found %lld",
            (long long)spec->lines);
  void *memory = NULL;
  KWM_TRY(kwm_alloc(&memory, sizeof **topics, "topics"));
  kwm_topics *const self = memory;
  struct corpus corpus = {0};
  kwm_status status = set_topics(self, spec, vocabulary);
  if (status == KWM_OK) status = corpus_init(&corpus, self, tokens);
  if (status == KWM_OK && corpus.n < spec->domains)
    status = KWM_RAISE(KWM_ERR_DATA, "topics %s: wanted at least %d documents (%s), found %lld", tokens->file.name,
                       spec->domains, spec->lines > 0 ? "of some lines each" : "a line \" = Title = \" begins one",
                       (long long)corpus.n);
  if (status == KWM_OK) status = learn(self, &corpus, tokens->ids);
  corpus_fini(&corpus);
  if (status == KWM_OK)
    *topics = self;
  else
    kwm_topics_destroy(self);
  return status;
}

void kwm_topics_destroy(kwm_topics *topics) {
  if (topics == NULL) return;
  kwm_free(topics->weight);
  kwm_free(topics->place);
  kwm_free(topics->centres);
  kwm_free(topics);
}

/* Appends the tokens of domain d to `to`; returns how many they are. */
static int64_t gather(const struct kwm_domains *domains, const struct corpus *corpus, const int32_t *ids, int d,
                      int32_t *to) {
  int64_t n = 0;
  for (int64_t k = 0; k < corpus->n; k++) {
    if (domains->domain[k] != d) continue;
    const int64_t length = corpus->first[k + 1] - corpus->first[k];
    memcpy(to + n, ids + corpus->first[k], (size_t)length * sizeof *to);
    n += length;
  }
  return n;
}

/* Deals what `gathered` can hold, one domain after the other, to the streams. */
static void deal(struct kwm_domains *domains, const struct corpus *corpus, const int32_t *ids, int64_t streams,
                 int32_t *gathered) {
  for (int d = 0; d < domains->count; d++) {
    (void)gather(domains, corpus, ids, d, gathered);
    const int64_t part = domains->start[d + 1] - domains->start[d];
    for (int64_t s = 0; s < streams; s++)
      memcpy(domains->ids + s * domains->length + domains->start[d], gathered + s * part,
             (size_t)part * sizeof *gathered);
  }
}

static kwm_status arrange(const kwm_topics *topics, struct kwm_domains *domains, const struct corpus *corpus,
                          const struct kwm_tokens *tokens, int64_t streams) {
  void *memory = NULL;
  float point[FEATURES];
  domains->count = topics->domains;
  domains->documents = corpus->n;
  KWM_TRY(kwm_alloc(&memory, (size_t)corpus->n * sizeof *domains->domain, "domains of documents"));
  domains->domain = memory;
  KWM_TRY(kwm_alloc(&memory, (size_t)(topics->domains + 1) * sizeof *domains->start, "starts of domains"));
  domains->start = memory;
  for (int64_t k = 0; k < corpus->n; k++) {
    describe(topics, corpus, tokens->ids, k, point);
    domains->domain[k] = kwm_kmeans_nearest(point, topics->centres, topics->domains, FEATURES, NULL);
    domains->start[domains->domain[k] + 1] += corpus->first[k + 1] - corpus->first[k];
  }
  for (int d = 0; d < domains->count; d++) domains->start[d + 1] = domains->start[d] + domains->start[d + 1] / streams;
  domains->length = domains->start[domains->count];
  domains->n = domains->length * streams;
  KWM_TRY(kwm_alloc(&memory, (size_t)domains->n * sizeof *domains->ids, "tokens by domains"));
  domains->ids = memory;
  KWM_TRY(kwm_alloc(&memory, (size_t)tokens->n * sizeof *domains->ids, "tokens of a domain"));
  deal(domains, corpus, tokens->ids, streams, memory);
  kwm_free(memory);
  return KWM_OK;
}

kwm_status kwm_topics_arrange(const kwm_topics *topics, struct kwm_domains *domains, const struct kwm_tokens *tokens,
                              int64_t streams) {
  KWM_ASSERT(streams >= 1);
  struct corpus corpus = {0};
  *domains = (struct kwm_domains){0};
  kwm_status status = corpus_init(&corpus, topics, tokens);
  if (status == KWM_OK) status = arrange(topics, domains, &corpus, tokens, streams);
  corpus_fini(&corpus);
  if (status != KWM_OK) kwm_domains_fini(domains);
  return status;
}

void kwm_domains_fini(struct kwm_domains *domains) {
  kwm_free(domains->domain);
  kwm_free(domains->start);
  kwm_free(domains->ids);
  *domains = (struct kwm_domains){0};
}

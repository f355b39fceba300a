/* From text to numbers in one pass, at constant memory besides the numbers. */
#include "kwm/tokens.h"

#include <string.h>

#include "text.h"
#include "vocabulary.h"
#include "words.h"

struct sink {
  kwm_vocabulary *growing;       /* training split: takes new words; NULL otherwise */
  const kwm_vocabulary *settled; /* the other splits */
  bool keep;                     /* the ids */
  int64_t n;
  int32_t *ids;
  size_t room; /* bytes */
};

enum { PIECE = 1 << 16 };

/* What reading takes besides, held while it lasts. */
struct work {
  struct kwm_words words;
  struct kwm_text text;
  char piece[PIECE];
};

static kwm_status put(void *context, const char *word, size_t length) {
  struct sink *const sink = context;
  int32_t id = 0;
  if (sink->growing != NULL)
    KWM_TRY(kwm_vocabulary_add(sink->growing, word, length, &id));
  else
    id = kwm_vocabulary_id(sink->settled, word, length);
  const size_t used = (size_t)sink->n * sizeof id;
  sink->n++;
  if (!sink->keep) return KWM_OK;
  if (used == sink->room) {
    void *memory = sink->ids;
    const kwm_status status = kwm_grow(&memory, &sink->room, used, used + 4096, "tokens");
    sink->ids = memory;
    if (status != KWM_OK) return status;
  }
  sink->ids[sink->n - 1] = id;
  return KWM_OK;
}

/* Hands the ids over in memory of exactly their size. */
static kwm_status take(struct kwm_tokens *tokens, const struct sink *sink) {
  const size_t bytes = (size_t)sink->n * sizeof *sink->ids;
  void *memory = NULL;
  tokens->n = sink->n;
  if (bytes == 0) return KWM_OK;
  KWM_TRY(kwm_alloc(&memory, bytes, "tokens"));
  memcpy(memory, sink->ids, bytes);
  tokens->ids = memory;
  return KWM_OK;
}

static kwm_status create_work(struct work **work, struct sink *sink, const char *name) {
  void *memory = NULL;
  KWM_TRY(kwm_alloc(&memory, sizeof **work, "reading text"));
  *work = memory;
  (*work)->words.name = name;
  (*work)->words.put = put;
  (*work)->words.sink = sink;
  return KWM_OK;
}

/* A byte-order mark is no part of the first word. */
static size_t mark_length(const char *piece, size_t count) {
  return count >= 3 && memcmp(piece, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

static kwm_status feed_file(struct work *work, const char *path) {
  struct kwm_text *const text = &work->text;
  KWM_TRY(kwm_text_open(text, path));
  size_t got = PIECE;
  while (got == PIECE) {
    KWM_TRY(kwm_text_read(text, (uint8_t *)work->piece, PIECE, &got));
    const size_t skip = work->words.bytes == 0 ? mark_length(work->piece, got) : 0;
    work->words.bytes += (int64_t)skip;
    KWM_TRY(kwm_words_feed(&work->words, work->piece + skip, got - skip));
  }
  KWM_TRY(kwm_words_end(&work->words, true));
  KWM_CHECK(work->words.lines > 0, KWM_ERR_DATA, "data %s: wanted text, found none (%lld bytes)", path,
            (long long)text->bytes);
  return KWM_OK;
}

static kwm_status read_file(struct sink *sink, const char *path, struct kwm_file_facts *file) {
  struct work *work = NULL;
  KWM_TRY(create_work(&work, sink, path));
  const kwm_status status = feed_file(work, path);
  *file = (struct kwm_file_facts){.bytes = work->text.bytes, .crc32 = work->text.crc32};
  if (status == KWM_OK) snprintf(file->name, sizeof file->name, "%.*s", (int)sizeof file->name - 1, work->text.name);
  kwm_text_close(&work->text);
  kwm_free(work);
  return status;
}

kwm_status kwm_tokens_read(struct kwm_tokens *tokens, const kwm_vocabulary *vocabulary,
                           const struct kwm_text_source *source, enum kwm_split split, bool may_lack) {
  char path[KWM_TEXT_PATH];
  struct sink sink = {.settled = vocabulary, .keep = true};
  *tokens = (struct kwm_tokens){0};
  KWM_TRY(kwm_text_find(path, source, split, may_lack));
  if (path[0] == '\0') return KWM_OK;
  kwm_status status = read_file(&sink, path, &tokens->file);
  if (status == KWM_OK) status = take(tokens, &sink);
  kwm_free(sink.ids);
  if (status != KWM_OK) kwm_tokens_fini(tokens);
  return status;
}

kwm_status kwm_vocabulary_read(kwm_vocabulary **vocabulary, struct kwm_tokens *training,
                               const struct kwm_text_source *source) {
  char path[KWM_TEXT_PATH];
  struct kwm_tokens tokens = {0};
  struct sink sink = {.keep = training != NULL};
  if (training != NULL) *training = tokens;
  *vocabulary = NULL;
  KWM_TRY(kwm_text_find(path, source, KWM_TRAIN, false));
  KWM_TRY(kwm_vocabulary_create(&sink.growing));
  kwm_status status = read_file(&sink, path, &tokens.file);
  if (status == KWM_OK) status = kwm_vocabulary_finish(sink.growing);
  if (status == KWM_OK && sink.keep) status = take(&tokens, &sink);
  kwm_free(sink.ids);
  if (status != KWM_OK) {
    kwm_tokens_fini(&tokens);
    kwm_vocabulary_destroy(sink.growing);
    return status;
  }
  *vocabulary = sink.growing;
  if (training != NULL) *training = tokens;
  return KWM_OK;
}

static kwm_status feed_memory(struct work *work, const char *text, size_t bytes) {
  KWM_TRY(kwm_words_feed(&work->words, text, bytes));
  return kwm_words_end(&work->words, false);
}

kwm_status kwm_tokens_encode(struct kwm_tokens *tokens, const kwm_vocabulary *vocabulary, const char *text,
                             size_t bytes) {
  struct sink sink = {.settled = vocabulary, .keep = true};
  struct work *work = NULL;
  *tokens = (struct kwm_tokens){0};
  KWM_TRY(create_work(&work, &sink, "in memory"));
  kwm_status status = feed_memory(work, text, bytes);
  if (status == KWM_OK) status = take(tokens, &sink);
  kwm_free(sink.ids);
  kwm_free(work);
  if (status != KWM_OK) kwm_tokens_fini(tokens);
  return status;
}

void kwm_tokens_fini(struct kwm_tokens *tokens) {
  kwm_free(tokens->ids);
  *tokens = (struct kwm_tokens){0};
}

/* Words one after the other in one piece of memory, each with a NUL after it, and an open-addressing table of ids keyed
   by FNV-1a, at most half full. */
#include "vocabulary.h"

#include <string.h>
#include <zlib.h>

struct word {
  size_t start; /* in `text` */
  uint32_t length, hash;
};

struct kwm_vocabulary {
  int32_t size, unk, eos;
  bool unk_added;
  char *text;
  size_t text_used, text_room;
  struct word *words; /* (size) */
  size_t words_room;  /* bytes */
  int32_t *slots;     /* (n_slots, a power of two) id + 1, 0: empty */
  size_t n_slots;
};

enum { FIRST_SLOTS = 1 << 10 };

kwm_status kwm_grow(void **memory, size_t *room, size_t used, size_t wanted, const char *what) {
  if (wanted <= *room) return KWM_OK;
  const size_t bytes = wanted > 2 * *room ? wanted : 2 * *room;
  void *larger = NULL;
  KWM_TRY(kwm_alloc(&larger, bytes, what));
  if (used > 0) memcpy(larger, *memory, used);
  kwm_free(*memory);
  *memory = larger;
  *room = bytes;
  return KWM_OK;
}

static uint32_t hash_of(const char *word, size_t length) {
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)word[i]) * 16777619u;
  return hash;
}

/* The slot that holds the word, or the empty one where it belongs. */
static size_t slot_of(const kwm_vocabulary *v, const char *word, size_t length, uint32_t hash) {
  size_t slot = hash & (v->n_slots - 1);
  while (v->slots[slot] != 0) {
    const struct word *const at = &v->words[v->slots[slot] - 1];
    if (at->hash == hash && at->length == length && memcmp(v->text + at->start, word, length) == 0) break;
    slot = (slot + 1) & (v->n_slots - 1);
  }
  return slot;
}

static kwm_status set_slots(kwm_vocabulary *v, size_t n_slots) {
  void *memory = NULL;
  KWM_TRY(kwm_alloc(&memory, n_slots * sizeof *v->slots, "table of words"));
  kwm_free(v->slots);
  v->slots = memory;
  v->n_slots = n_slots;
  for (int32_t id = 0; id < v->size; id++) {
    size_t slot = v->words[id].hash & (n_slots - 1);
    while (v->slots[slot] != 0) slot = (slot + 1) & (n_slots - 1);
    v->slots[slot] = id + 1;
  }
  return KWM_OK;
}

kwm_status kwm_vocabulary_create(kwm_vocabulary **vocabulary) {
  void *memory = NULL;
  *vocabulary = NULL;
  KWM_TRY(kwm_alloc(&memory, sizeof **vocabulary, "vocabulary"));
  *vocabulary = memory;
  const kwm_status status = set_slots(*vocabulary, FIRST_SLOTS);
  if (status == KWM_OK) return KWM_OK;
  kwm_vocabulary_destroy(*vocabulary);
  *vocabulary = NULL;
  return status;
}

void kwm_vocabulary_destroy(kwm_vocabulary *vocabulary) {
  if (vocabulary == NULL) return;
  kwm_free(vocabulary->text);
  kwm_free(vocabulary->words);
  kwm_free(vocabulary->slots);
  kwm_free(vocabulary);
}

static kwm_status append(kwm_vocabulary *v, const char *word, size_t length, uint32_t hash) {
  KWM_CHECK(v->size < INT32_MAX - 1, KWM_ERR_DATA, "data: wanted at most %d different words, found more",
            INT32_MAX - 1);
  void *memory = v->text;
  kwm_status status = kwm_grow(&memory, &v->text_room, v->text_used, v->text_used + length + 1, "words");
  v->text = memory;
  if (status != KWM_OK) return status;
  const size_t used = (size_t)v->size * sizeof *v->words;
  memory = v->words;
  status = kwm_grow(&memory, &v->words_room, used, used + sizeof *v->words, "index of words");
  v->words = memory;
  if (status != KWM_OK) return status;
  v->words[v->size++] = (struct word){v->text_used, (uint32_t)length, hash};
  memcpy(v->text + v->text_used, word, length);
  v->text[v->text_used + length] = '\0';
  v->text_used += length + 1;
  return KWM_OK;
}

kwm_status kwm_vocabulary_add(kwm_vocabulary *vocabulary, const char *word, size_t length, int32_t *id) {
  const uint32_t hash = hash_of(word, length);
  size_t slot = slot_of(vocabulary, word, length, hash);
  if (vocabulary->slots[slot] == 0) {
    if (2 * ((size_t)vocabulary->size + 1) > vocabulary->n_slots) {
      KWM_TRY(set_slots(vocabulary, 2 * vocabulary->n_slots));
      slot = slot_of(vocabulary, word, length, hash);
    }
    KWM_TRY(append(vocabulary, word, length, hash));
    vocabulary->slots[slot] = vocabulary->size;
  }
  *id = vocabulary->slots[slot] - 1;
  return KWM_OK;
}

/* Replaces *memory by a copy of its first `used` bytes. */
static kwm_status trim(void **memory, size_t *room, size_t used, const char *what) {
  size_t none = 0;
  void *exact = NULL;
  KWM_TRY(kwm_grow(&exact, &none, 0, used, what));
  memcpy(exact, *memory, used);
  kwm_free(*memory);
  *memory = exact;
  *room = used;
  return KWM_OK;
}

kwm_status kwm_vocabulary_finish(kwm_vocabulary *vocabulary) {
  const int32_t found = vocabulary->size;
  KWM_TRY(kwm_vocabulary_add(vocabulary, "<eos>", 5, &vocabulary->eos));
  KWM_TRY(kwm_vocabulary_add(vocabulary, "<unk>", 5, &vocabulary->unk));
  vocabulary->unk_added = vocabulary->unk >= found;
  void *memory = vocabulary->text;
  kwm_status status = trim(&memory, &vocabulary->text_room, vocabulary->text_used, "words");
  vocabulary->text = memory;
  if (status != KWM_OK) return status;
  memory = vocabulary->words;
  status = trim(&memory, &vocabulary->words_room, (size_t)vocabulary->size * sizeof(struct word), "index of words");
  vocabulary->words = memory;
  return status;
}

struct kwm_vocabulary_facts kwm_vocabulary_facts(const kwm_vocabulary *vocabulary) {
  uLong crc = crc32(0, NULL, 0);
  for (int32_t id = 0; id < vocabulary->size; id++) {
    const struct word *const at = &vocabulary->words[id];
    crc = crc32(crc, (const Bytef *)vocabulary->text + at->start, at->length);
    crc = crc32(crc, (const Bytef *)"\n", 1);
  }
  return (struct kwm_vocabulary_facts){
      .size = vocabulary->size,
      .unk = vocabulary->unk,
      .eos = vocabulary->eos,
      .unk_added = vocabulary->unk_added,
      .crc32 = (uint32_t)crc,
      .bytes = kwm_mem_rounded(sizeof *vocabulary) + kwm_mem_rounded(vocabulary->text_room) +
               kwm_mem_rounded(vocabulary->words_room) + kwm_mem_rounded(vocabulary->n_slots * sizeof(int32_t))};
}

int32_t kwm_vocabulary_id(const kwm_vocabulary *vocabulary, const char *word, size_t length) {
  const int32_t found = vocabulary->slots[slot_of(vocabulary, word, length, hash_of(word, length))];
  return found != 0 ? found - 1 : vocabulary->unk;
}

const char *kwm_vocabulary_word(const kwm_vocabulary *vocabulary, int32_t id) {
  KWM_ASSERT(id >= 0 && id < vocabulary->size);
  return vocabulary->text + vocabulary->words[id].start;
}

/* A word is put from where it lies in the piece, without a copy, unless the piece ended within it. */
#include "words.h"

#include <string.h>

static bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

static kwm_status check_word(const struct kwm_words *words, const char *text, size_t first, size_t length) {
  KWM_CHECK(words->n_carried + length <= KWM_WORD_MAX, KWM_ERR_DATA,
            "data %s: wanted words of at most %d bytes, found a longer one in line %lld", words->name, KWM_WORD_MAX,
            (long long)words->lines + 1);
  const char *const nul = memchr(text + first, '\0', length);
  KWM_CHECK(nul == NULL, KWM_ERR_DATA, "data %s: wanted text, found a NUL byte (byte %lld)", words->name,
            (long long)words->bytes + (nul - text));
  return KWM_OK;
}

static kwm_status put_carried(struct kwm_words *words) {
  const size_t length = words->n_carried;
  words->n_carried = 0;
  return length > 0 ? words->put(words->sink, words->carried, length) : KWM_OK;
}

static kwm_status put_eos(struct kwm_words *words) {
  words->lines++;
  words->line_begun = false;
  return words->put(words->sink, "<eos>", 5);
}

static void carry(struct kwm_words *words, const char *part, size_t length) {
  memcpy(words->carried + words->n_carried, part, length);
  words->n_carried += length;
}

kwm_status kwm_words_feed(struct kwm_words *words, const char *text, size_t count) {
  for (size_t at = 0; at < count; at++) {
    const size_t first = at;
    while (at < count && !is_space(text[at])) at++;
    const size_t length = at - first;
    if (length > 0) KWM_TRY(check_word(words, text, first, length));
    if (at == count || words->n_carried > 0) {
      carry(words, text + first, length);
    } else if (length > 0) {
      KWM_TRY(words->put(words->sink, text + first, length));
    }
    words->line_begun = true;
    if (at == count) break;
    KWM_TRY(put_carried(words));
    if (text[at] == '\n') KWM_TRY(put_eos(words));
  }
  words->bytes += (int64_t)count;
  return KWM_OK;
}

kwm_status kwm_words_end(struct kwm_words *words, bool close_line) {
  KWM_TRY(put_carried(words));
  return words->line_begun && close_line ? put_eos(words) : KWM_OK;
}

/* Any bytes as a training text, plain, gzip or xz by the first byte: refused as data, or words that lead back to
 * themselves. */
#include "fuzz.h"

#include "kwm/tokens.h"

static void check(const kwm_vocabulary *vocabulary, const struct kwm_tokens *tokens) {
  const int32_t size = kwm_vocabulary_facts(vocabulary).size;
  for (int64_t k = 0; k < tokens->n; k++)
    must(tokens->ids[k] >= 0 && tokens->ids[k] < size, "a number of the vocabulary");
  for (int32_t id = 0; id < size; id++) {
    const char *const word = kwm_vocabulary_word(vocabulary, id);
    must(kwm_vocabulary_id(vocabulary, word, strlen(word)) == id, "the word's own number");
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static const char *const names[] = {"train.txt", "train.txt.gz", "train.txt.xz"};
  char path[512];
  kwm_vocabulary *vocabulary = NULL;
  struct kwm_tokens tokens = {0}, prompt = {0};
  if (n == 0) return 0;
  for (int k = 0; k < 3; k++) {
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), names[k]);
    unlink(path);
  }
  fuzz_file(names[data[0] % 3], data + 1, n - 1);
  const struct kwm_text_source source = {.folder = fuzz_folder()};
  const kwm_status status = kwm_vocabulary_read(&vocabulary, &tokens, &source);
  must(status == KWM_OK || status == KWM_ERR_DATA || status == KWM_ERR_SYSTEM, "read or refused");
  if (status != KWM_OK) return 0;
  check(vocabulary, &tokens);
  const kwm_status encoded = kwm_tokens_encode(&prompt, vocabulary, (const char *)data, n);
  must(encoded == KWM_OK || encoded == KWM_ERR_DATA, "encoded or refused");
  if (encoded == KWM_OK) check(vocabulary, &prompt);
  if (encoded == KWM_OK) kwm_tokens_fini(&prompt);
  kwm_tokens_fini(&tokens);
  kwm_vocabulary_destroy(vocabulary);
  return 0;
}

/* Any text as a configuration: it is refused in one line, or its resolved text reads back to the same text. */
#include "fuzz.h"

#include "kwm/config.h"

static void read_back(const struct kwm_config *config) {
  char *text = NULL, *again = NULL;
  struct kwm_config second;
  must(kwm_config_text(config, &text) == KWM_OK, "resolved text");
  must(kwm_config_load(&second, "resolved", text, 0, NULL) == KWM_OK, "resolved text that loads");
  must(kwm_config_text(&second, &again) == KWM_OK, "resolved text once more");
  must(strcmp(text, again) == 0, "the same values");
  kwm_config_fini(&second);
  free(text);
  free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  char *const text = calloc(n + 1, 1);
  struct kwm_config config;
  memcpy(text, data, n);
  /* The first line once more as a word of the command line. */
  char word[64], *words[1] = {word};
  snprintf(word, sizeof word, "%.*s", (int)strcspn(text, "\n"), text);
  for (int n_words = 0; n_words < 2; n_words++) {
    const kwm_status status = kwm_config_load(&config, "fuzz.yaml", text, n_words, words);
    must(status == KWM_OK || status == KWM_ERR_USAGE, "accepted or refused");
    must(strchr(kwm_error_message(), '\n') == NULL, "one line");
    if (status == KWM_OK) read_back(&config);
    if (status == KWM_OK) kwm_config_fini(&config);
  }
  free(text);
  return 0;
}

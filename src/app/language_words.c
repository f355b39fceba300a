/* Words as a reader wants them. */
#include "language_words.h"

#include <string.h>

static bool one_of(const char *word, const char *const *list) {
  for (; *list != NULL; list++)
    if (strcmp(word, *list) == 0) return true;
  return false;
}

/* A mark between two words that it joins, as WikiText writes them; NULL: none. */
static const char *joint(const char *word) {
  if (strcmp(word, "@-@") == 0) return "-";
  if (strcmp(word, "@,@") == 0) return ",";
  return strcmp(word, "@.@") == 0 ? "." : NULL;
}

void kwm_language_words_put(struct kwm_language_words *words, const char *word) {
  static const char *const closing[] = {",", ".", ";", ":", "!", "?", ")", "]", "}", "%", "n't", NULL};
  static const char *const opening[] = {"(", "[", "{", "$", "£", NULL};
  const bool mark = strcmp(word, "\"") == 0, closes = mark && words->quote;
  const char *const between = joint(word);
  if (strcmp(word, "<eos>") == 0) {
    fputc('\n', words->to);
    words->space = words->quote = false;
    return;
  }
  if (between != NULL) {
    fputs(between, words->to);
    words->space = false;
    return;
  }
  const bool tight = closes || one_of(word, closing) || (word[0] == '\'' && word[1] != '\0');
  if (words->space && !tight) fputc(' ', words->to);
  fputs(word, words->to);
  words->space = !one_of(word, opening) && !(mark && !words->quote);
  if (mark) words->quote = !words->quote;
}

/* Private to app: words of a text put together for a reader: no space before punctuation or after an opening bracket,
   @-@ as the hyphen that it was, quotation marks in pairs, <eos> as the line's end. Local. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct kwm_language_words {
  FILE *to;          /* borrowed */
  bool space, quote; /* a space is due before the next word; a quotation mark is open */
};

void kwm_language_words_put(struct kwm_language_words *words, const char *word);

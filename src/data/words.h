/* Splits text that comes in pieces into words and ends of lines. Private to the data room; local. */
#pragma once

#include "kwm/tokens.h"

struct kwm_words {
  const char *name;                                               /* of the text, for messages */
  kwm_status (*put)(void *sink, const char *word, size_t length); /* takes each word; an end of line is <eos> */
  void *sink;
  int64_t bytes, lines; /* before the piece at hand; complete lines */
  bool line_begun;
  size_t n_carried; /* of a word that the last piece broke off */
  char carried[KWM_WORD_MAX];
};

kwm_status kwm_words_feed(struct kwm_words *words, const char *text, size_t count);

/* The text is over: its last word is put, and with `close_line` the end of a line that has begun. */
kwm_status kwm_words_end(struct kwm_words *words, bool close_line);

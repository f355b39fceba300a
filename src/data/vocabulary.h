/* A vocabulary while it grows. Private to the data room; local. */
#pragma once

#include "kwm/tokens.h"

/* Makes room for `wanted` bytes in memory of *room bytes of which `used` matter, at least doubling it. */
kwm_status kwm_grow(void **memory, size_t *room, size_t used, size_t wanted, const char *what);

/* An empty one. */
kwm_status kwm_vocabulary_create(kwm_vocabulary **vocabulary);

/* The id of a word, added if it is new. */
kwm_status kwm_vocabulary_add(kwm_vocabulary *vocabulary, const char *word, size_t length, int32_t *id);

/* Adds what every vocabulary has and frees what only growth needs. No word is added after this. */
kwm_status kwm_vocabulary_finish(kwm_vocabulary *vocabulary);

/* Where the documents of a text begin. Private to the data room; local. */
#pragma once

#include "kwm/tokens.h"

/* first: (count + 1) the first token of each document, 0 for the first one, and n; to be freed with kwm_free. Documents
   begin at titles, or with `lines` > 0 every so many lines. `eos` and `equals` are the words' ids (equals -1: no
   titles); an empty text has none. */
kwm_status kwm_documents_find(int64_t **first, int64_t *count, const struct kwm_tokens *tokens, int32_t eos,
                              int32_t equals, int64_t lines);

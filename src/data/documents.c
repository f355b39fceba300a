/* A title is a line ` = Title = ` between blank lines. With more signs on each side it heads a section; without blank
   lines around it is part of a formula (WikiText-2's test split has two of these). */
#include "documents.h"

struct mark {
  int32_t eos, equals;
  int64_t lines;
};

/* Whether a title begins at `at`, which is the first token of a line that ends at `end` (its <eos>, or n). */
static bool is_title(const struct kwm_tokens *tokens, const struct mark *mark, int64_t at, int64_t end) {
  const int32_t *const ids = tokens->ids;
  if (mark->equals < 0 || end - at < 3) return false;
  if (ids[at] != mark->equals || ids[at + 1] == mark->equals) return false;
  if (ids[end - 1] != mark->equals || ids[end - 2] == mark->equals) return false;
  const bool blank_before = at == 0 || (at == 1 ? ids[0] : ids[at - 2]) == mark->eos;
  const bool blank_after = end + 1 >= tokens->n || ids[end + 1] == mark->eos;
  return blank_before && blank_after;
}

/* Counts the documents and, with `first`, notes where they begin. */
static int64_t scan(const struct kwm_tokens *tokens, const struct mark *mark, int64_t *first) {
  int64_t count = 0, line = 0;
  bool titled = false;
  for (int64_t at = 0; at < tokens->n; line++) {
    int64_t end = at;
    while (end < tokens->n && tokens->ids[end] != mark->eos) end++;
    const bool title = mark->lines == 0 && is_title(tokens, mark, at, end);
    const bool begins = at == 0 || (mark->lines > 0 ? line % mark->lines == 0 : title && titled);
    if (begins && first != NULL) first[count] = at;
    count += begins;
    titled = titled || title;
    at = end + 1;
  }
  if (first != NULL) first[count] = tokens->n;
  return count;
}

kwm_status kwm_documents_find(int64_t **first, int64_t *count, const struct kwm_tokens *tokens, int32_t eos,
                              int32_t equals, int64_t lines) {
  const struct mark mark = {eos, equals, lines};
  void *memory = NULL;
  *count = scan(tokens, &mark, NULL);
  *first = NULL;
  KWM_TRY(kwm_alloc(&memory, (size_t)(*count + 1) * sizeof **first, "documents"));
  *first = memory;
  (void)scan(tokens, &mark, *first);
  return KWM_OK;
}

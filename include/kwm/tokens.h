/* Text as a sequence of words: files are read, split into words and numbered by a vocabulary, and the numbers are cut
   into batches for training and for evaluation. A word is what ASCII white space separates, whatever its bytes; every
   line, also a blank one, ends with the word <eos> (the last line too if its line end is missing). Local: every rank
   holds the text it works on; nothing here communicates. */
#pragma once

#include "kwm/data.h"

enum { KWM_WORD_MAX = 65535 }; /* bytes of the longest word that is read */

/* Where the text is. A split's file is found by its name: one whose name has the split's word in it (train, training;
   valid, validation, val, dev; test, testing; no letter beside it) and ends in .tokens, .txt or .text, or that with .xz
   or .gz after it; of such three the plain one is taken, then .xz. */
struct kwm_text_source {
  const char *folder;   /* NULL or "": the working folder */
  const char *files[3]; /* by enum kwm_split; NULL or "": found by name; else this file, in `folder` unless absolute */
};

/* One split's words by their numbers. */
struct kwm_tokens {
  int64_t n;
  int32_t *ids; /* (n) each in [0, size of the vocabulary); owned (kwm_alloc); NULL if n is 0 */
  struct kwm_file_facts file;
};

/* The words of the training split in the order of their first occurrence. A word that is not one of them counts as
   <unk>, which is the last of them if the training split has none. */
typedef struct kwm_vocabulary kwm_vocabulary;

/* Reads the training split: its vocabulary and, unless `training` is NULL, its tokens. Raises KWM_ERR_DATA for a file
   that is missing, not the only one of its kind, empty, unreadable, truncated or corrupt, has a NUL byte (so is no
   text) or a word of more than KWM_WORD_MAX bytes; while it reads, at most three times the tokens' memory is held. */
kwm_status kwm_vocabulary_read(kwm_vocabulary **vocabulary, struct kwm_tokens *training,
                               const struct kwm_text_source *source);
void kwm_vocabulary_destroy(kwm_vocabulary *vocabulary); /* accepts NULL */

/* Reads any split by a vocabulary; errors as above. With `may_lack` a split that is found by name and has no file
   leaves n = 0 instead. */
kwm_status kwm_tokens_read(struct kwm_tokens *tokens, const kwm_vocabulary *vocabulary,
                           const struct kwm_text_source *source, enum kwm_split split, bool may_lack);

/* The same from `bytes` bytes of text in memory (a prompt); its last line gets an <eos> only if it has a line end, and
   there may be no token at all. Errors as above but for those of files. */
kwm_status kwm_tokens_encode(struct kwm_tokens *tokens, const kwm_vocabulary *vocabulary, const char *text,
                             size_t bytes);
void kwm_tokens_fini(struct kwm_tokens *tokens);

struct kwm_vocabulary_facts {
  int32_t size, unk, eos; /* number of words; ids of <unk> and <eos> */
  bool unk_added;         /* the training split has no <unk>: no target of training is one */
  uint32_t crc32;         /* of the words in their order, each followed by a line end: for checkpoints */
  size_t bytes;           /* held (kwm_alloc) */
};
struct kwm_vocabulary_facts kwm_vocabulary_facts(const kwm_vocabulary *vocabulary);

/* The id of a word of `length` bytes, that of <unk> if it is not in the vocabulary. */
int32_t kwm_vocabulary_id(const kwm_vocabulary *vocabulary, const char *word, size_t length);

/* The word of an id in [0, size); it lives as long as the vocabulary. */
const char *kwm_vocabulary_word(const kwm_vocabulary *vocabulary, int32_t id);

/* Training: the tokens as `streams` contiguous streams of floor(n / streams) tokens each (the rest is left out), walked
   in parallel, `context` tokens a step. Row s of step k: inputs are tokens [k * context, (k + 1) * context) of stream
   s, targets the same shifted by one. The order is the same for every layout: a rank asks for the rows that it works
   on. To vary where steps begin, pass the tokens without some of the first. */
struct kwm_text_streams {
  const int32_t *ids; /* (n) borrowed */
  int64_t n, streams, context;
  const int32_t *targets; /* (n) borrowed: the tokens as targets, where these are others (kwm/shift.h); NULL: ids */
};

/* Steps of one pass: floor((floor(n / streams) - 1) / context), 0 if the text is too short. */
int64_t kwm_streams_steps(int64_t n, int64_t streams, int64_t context);

/* Rows [first, first + rows) of step `step` in [0, steps). inputs, targets: (rows, context) row-major. */
void kwm_streams_batch(const struct kwm_text_streams *text, int64_t step, int64_t first, int64_t rows, int32_t *inputs,
                       int32_t *targets);

/* Evaluation: the tokens as one sequence of windows that don't overlap, so that every token but the very first is a
   target exactly once. Window w: inputs are tokens [w * context, (w + 1) * context), targets the same shifted by one;
   after the end of the text inputs are 0 and targets KWM_NO_TARGET, which no loss counts. */
enum { KWM_NO_TARGET = -1 };

/* Windows of n tokens: ceil((n - 1) / context). */
int64_t kwm_windows_count(int64_t n, int64_t context);

/* Row r is window first + r * stride; a window that does not exist has no targets. Returns the number of targets. With
   stride 1 for first = 0, rows, 2 rows, ..., or with stride = ceil(count / rows) for first = 0, ..., stride - 1 (each
   row a contiguous stream), every window comes once. inputs, targets: (rows, context) row-major. */
int64_t kwm_windows_batch(const struct kwm_text_streams *text, int64_t first, int64_t stride, int64_t rows,
                          int32_t *inputs, int32_t *targets);

/* Text that is not what the model was trained on: shifts of a token stream, switched on and off over time, and
   documents put in an order by which one topic follows the other. Local: every rank makes the same ones. */
#pragma once

#include "kwm/tokens.h"

enum kwm_shift_kind {
  KWM_SHIFT_NONE,
  KWM_SHIFT_TOKEN_DROPOUT, /* token-dropout: an input is replaced by <unk> with a chance of `dropout`, no target is */
  KWM_SHIFT_VOCAB_PERMUTE, /* vocab-permute: a share of the words change their places in the vocabulary, in inputs and
                              targets: round(share * size) words are drawn, then a permutation of these. Any word may be
                              drawn, also <unk> and <eos>, and one of them may come to its own place */
  KWM_SHIFT_BOTH,          /* both: vocab-permute, then token-dropout; what is dropped is <unk> by its usual number */
  KWM_SHIFT_RANDOM         /* random: vocab-permute of all words */
};

/* From its name above, or "none"; KWM_ERR_USAGE for another. */
kwm_status kwm_shift_kind_of(enum kwm_shift_kind *kind, const char *name);

struct kwm_shift_spec {
  enum kwm_shift_kind kind;
  double dropout, share; /* 0 to 1, for the kinds that use them; usual: 0.15, 0.1 */
  uint64_t seed;         /* which words and which tokens (KWM_RNG_SHIFT) */
  const char *schedule; /* when it is on: "FROM-TO FROM-TO ..." or commas between, in tokens, TO excluded and larger, or
                           missing in the last one; ascending. NULL or "": always. Borrowed during the call only */
};

typedef struct kwm_shift kwm_shift;

/* KWM_ERR_USAGE for a share out of range or a schedule that can't be read. */
kwm_status kwm_shift_create(kwm_shift **shift, const struct kwm_shift_spec *spec,
                            const struct kwm_vocabulary_facts *vocabulary);
void kwm_shift_destroy(kwm_shift *shift); /* accepts NULL */

struct kwm_shift_facts {
  int32_t drawn, moved; /* words that are permuted; of these, not to their own place */
  size_t bytes;         /* held (kwm_alloc) */
};
struct kwm_shift_facts kwm_shift_facts(const kwm_shift *shift);

/* Whether the shift is on at a time, in tokens. */
bool kwm_shift_on(const kwm_shift *shift, int64_t time);

struct kwm_shift_counts {
  int64_t tokens, on;      /* all; while the shift was on */
  int64_t dropped;         /* inputs chosen by token-dropout, <unk> before or not */
  int64_t inputs, targets; /* that are not what they were */
};

/* What becomes of a text: each token as an input and as a target, for kwm_text_streams. The n tokens are streams of
   `length` tokens each that are read in parallel (n: one stream), so the time of token i is i mod length; what is drawn
   for token i depends on the seed and i. inputs, targets: (n), neither may be `ids`. */
struct kwm_shift_counts kwm_shift_apply(const kwm_shift *shift, const int32_t *ids, int64_t n, int64_t length,
                                        int32_t *inputs, int32_t *targets);

/* Topics, learned from documents by k-means on their words' hashed tf-idf. A document begins with a line ` = Title = `,
   one = on each side, blank lines around it; what comes before the first one belongs to it. */
struct kwm_topics_spec {
  int domains;   /* topics, 1 to 256; usual: 4 */
  int64_t lines; /* of a document, for texts without such titles; 0: by titles */
  uint64_t seed; /* of the hash and of the first centres (KWM_RNG_TOPIC) */
};

typedef struct kwm_topics kwm_topics;

/* From a text, usually the training split. KWM_ERR_USAGE for a spec out of range, KWM_ERR_DATA if there are fewer
   documents than domains. Domains are numbered by their first documents. */
kwm_status kwm_topics_create(kwm_topics **topics, const struct kwm_topics_spec *spec, const struct kwm_tokens *tokens,
                             const kwm_vocabulary *vocabulary);
void kwm_topics_destroy(kwm_topics *topics); /* accepts NULL */

/* A text by domains: first all documents of domain 0 in their order, then those of domain 1, and so on, for `streams`
   streams that are read in parallel and go from domain to domain together: of each domain every stream has the same
   number of consecutive tokens (floor(tokens / streams); the rest of the domain is left out, none with one stream). */
struct kwm_domains {
  int count;
  int64_t documents;
  int32_t *domain; /* (documents) that each belongs to, in the order of the text; owned */
  int64_t n, length;
  int32_t *ids; /* (n) streams of length = n / streams tokens one after the other, as kwm_text_streams; owned */
  int64_t
      *start; /* (count + 1) where each domain starts in every stream, the last: length; a domain may be empty; owned */
};

/* Any text of the same vocabulary: each document is put to the nearest centre. */
kwm_status kwm_topics_arrange(const kwm_topics *topics, struct kwm_domains *domains, const struct kwm_tokens *tokens,
                              int64_t streams);
void kwm_domains_fini(struct kwm_domains *domains);

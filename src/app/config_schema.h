/* Private to app/config*.c: one row per configuration key, and how a value is read from and written to text. */
#pragma once

#include "kwm/config.h"

enum { KWM_MAX_KEYS = 256, KWM_COMPLAINT_BYTES = 512, KWM_VALUE_BYTES = 32 };

enum kwm_kind { KWM_KIND_TEXT, KWM_KIND_SEED, KWM_KIND_INTEGER, KWM_KIND_NUMBER, KWM_KIND_SWITCH };

/* The values a key accepts. `text` is what messages and help say; for words it is also the list that is matched. */
struct kwm_range {
  const char *text;
  enum { KWM_RANGE_FREE, KWM_RANGE_WORDS, KWM_RANGE_CLOSED, KWM_RANGE_ABOVE, KWM_RANGE_BELOW, KWM_RANGE_INSIDE } rule;
  double min, max;
  int64_t multiple;  /* integers: of this, unless 0 */
  bool power_of_two; /* integers */
};

struct kwm_key {
  const char *path; /* a.b or a.b.c, the same as the member of struct kwm_config */
  enum kwm_kind kind;
  size_t offset;       /* in struct kwm_config */
  const char *initial; /* the default, as text */
  struct kwm_range range;
  const char *help;
};

/* The schema: kwm_n_keys rows; keys of one group stand together. */
extern const struct kwm_key kwm_keys[];
extern const size_t kwm_n_keys;

/* The row whose path is path[0..length), NULL if there is none. */
const struct kwm_key *kwm_key_find(const char *path, size_t length);

/* The row that a mistyped path most likely meant. */
const struct kwm_key *kwm_key_nearest(const char *path);

/* What kind of value the key wants: "an integer". */
const char *kwm_key_wants(const struct kwm_key *key);

/* Reads text into the key's member of config (a string is copied, the one before freed). KWM_ERR_USAGE without raising:
   complaint (KWM_COMPLAINT_BYTES) says what was wanted and found, the caller knows where. KWM_ERR_SYSTEM: no memory. */
kwm_status kwm_key_read(const struct kwm_key *key, const char *text, struct kwm_config *config, char *complaint);

/* The key's value as text that kwm_key_read reads back to the same value; in buffer (KWM_VALUE_BYTES) or borrowed. */
const char *kwm_key_text(const struct kwm_key *key, const struct kwm_config *config, char *buffer);

/* The string member of a KWM_KIND_TEXT key. */
char **kwm_key_string(const struct kwm_key *key, struct kwm_config *config);

/* Copies text into clipped[0..bytes) for a one-line message: control characters become '?', a long end "...". */
void kwm_clip(char *clipped, size_t bytes, const char *text);

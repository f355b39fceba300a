/* How the schema's rows are found, read from text and written to it (the rows: config_keys.c). */
#include "config_schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES_MAX = 1000, PATH_BYTES_MAX = 64 };

const struct kwm_key *kwm_key_find(const char *path, size_t length) {
  for (size_t i = 0; i < kwm_n_keys; i++)
    if (strncmp(kwm_keys[i].path, path, length) == 0 && kwm_keys[i].path[length] == '\0') return &kwm_keys[i];
  return NULL;
}

/* Levenshtein distance, one row of the table at a time. */
static size_t edits(const char *wrong, const char *known) {
  const size_t length = strlen(known);
  KWM_ASSERT(length < PATH_BYTES_MAX);
  size_t row[PATH_BYTES_MAX];
  for (size_t j = 0; j <= length; j++) row[j] = j;
  for (size_t i = 0; wrong[i] != '\0'; i++) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < length; j++) {
      size_t best = diagonal + (wrong[i] == known[j] ? 0 : 1);
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
      diagonal = row[j + 1];
      row[j + 1] = best;
    }
  }
  return row[length];
}

static const char *last_part(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot == NULL ? path : dot + 1;
}

/* An unfinished path is nearest to its continuation; a right name in the wrong group counts as three typing errors. */
static size_t distance(const char *wrong, const char *known) {
  if (strncmp(wrong, known, strlen(wrong)) == 0) return 0;
  const size_t typing = edits(wrong, known);
  return typing > 3 && strcmp(last_part(wrong), last_part(known)) == 0 ? 3 : typing;
}

const struct kwm_key *kwm_key_nearest(const char *path) {
  const struct kwm_key *nearest = &kwm_keys[0];
  for (size_t i = 1; i < kwm_n_keys; i++)
    if (distance(path, kwm_keys[i].path) < distance(path, nearest->path)) nearest = &kwm_keys[i];
  return nearest;
}

const char *kwm_key_wants(const struct kwm_key *key) {
  switch (key->kind) {
  case KWM_KIND_TEXT: return "text";
  case KWM_KIND_SEED:
  case KWM_KIND_INTEGER: return "an integer";
  case KWM_KIND_NUMBER: return "a number";
  case KWM_KIND_SWITCH: return "true or false";
  }
  return "a value";
}

void kwm_clip(char *clipped, size_t bytes, const char *text) {
  size_t i = 0;
  for (; text[i] != '\0' && i + 4 < bytes; i++) {
    const unsigned char letter = (unsigned char)text[i];
    clipped[i] = letter < 0x20 || letter == 0x7f ? '?' : text[i];
  }
  snprintf(clipped + i, bytes - i, "%s", text[i] == '\0' ? "" : "...");
}

/* Malformed text is quoted, a value outside its range is not. */
static kwm_status complain(char *complaint, const char *wanted, const char *text, bool quoted) {
  char found[80];
  kwm_clip(found, sizeof found, text);
  if (text[0] == '\0')
    snprintf(complaint, KWM_COMPLAINT_BYTES, "wanted %s, found nothing", wanted);
  else
    snprintf(complaint, KWM_COMPLAINT_BYTES, quoted ? "wanted %s, found `%s`" : "wanted %s, found %s", wanted, found);
  return KWM_ERR_USAGE;
}

static bool is_word(const char *words, const char *text) {
  const size_t length = strlen(text);
  for (const char *word = words;; word += 2) {
    const size_t word_length = strcspn(word, ",");
    if (word_length == length && strncmp(word, text, length) == 0) return true;
    word += word_length;
    if (*word == '\0') return false;
  }
}

/* Reads one code point of strict UTF-8 (no overlong forms, no surrogates); returns its bytes, 0 if malformed. */
static size_t decode(const char *text, uint32_t *point) {
  static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char lead = (unsigned char)text[0];
  const size_t n = lead < 0x80 ? 1 : lead >> 5 == 0x6 ? 2 : lead >> 4 == 0xe ? 3 : lead >> 3 == 0x1e ? 4 : 0;
  if (n == 0) return 0;
  *point = n == 1 ? lead : lead & (0xffU >> (n + 1));
  for (size_t i = 1; i < n; i++) {
    if (((unsigned char)text[i] & 0xc0) != 0x80) return 0;
    *point = *point << 6 | ((unsigned char)text[i] & 0x3f);
  }
  const bool surrogate = *point >= 0xd800 && *point < 0xe000;
  return *point < smallest[n] || *point > 0x10ffff || surrogate ? 0 : n;
}

static bool printable(const char *text) {
  while (*text != '\0') {
    uint32_t point = 0;
    const size_t n = decode(text, &point);
    if (n == 0 || point < 0x20 || (point >= 0x7f && point < 0xa0)) return false;
    text += n;
  }
  return true;
}

static kwm_status read_text(const struct kwm_key *key, const char *text, struct kwm_config *config, char *complaint) {
  if (key->range.rule == KWM_RANGE_WORDS && !is_word(key->range.text, text)) {
    char found[80];
    kwm_clip(found, sizeof found, text);
    snprintf(complaint, KWM_COMPLAINT_BYTES, "wanted one of %s; found `%s`", key->range.text, found);
    return KWM_ERR_USAGE;
  }
  if (strlen(text) > TEXT_BYTES_MAX || !printable(text))
    return complain(complaint, "UTF-8 text of at most 1000 bytes without control characters", text, true);
  char *copy = strdup(text);
  KWM_CHECK(copy != NULL, KWM_ERR_SYSTEM, "config key `%s`: wanted memory, found none", key->path);
  char **member = kwm_key_string(key, config);
  free(*member);
  *member = copy;
  return KWM_OK;
}

static bool digits_only(const char *text) {
  return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

static bool in_range(const struct kwm_range *range, double value) {
  const bool low_excluded = range->rule == KWM_RANGE_ABOVE || range->rule == KWM_RANGE_INSIDE;
  const bool high_excluded = range->rule == KWM_RANGE_BELOW || range->rule == KWM_RANGE_INSIDE;
  return (low_excluded ? value > range->min : value >= range->min) &&
         (high_excluded ? value < range->max : value <= range->max);
}

static kwm_status read_seed(const struct kwm_key *key, const char *text, uint64_t *member, char *complaint) {
  if (!digits_only(text + (text[0] == '-' || text[0] == '+')))
    return complain(complaint, kwm_key_wants(key), text, true);
  errno = 0;
  const uint64_t value = strtoull(text, NULL, 10);
  if (errno == ERANGE || text[0] == '-') return complain(complaint, key->range.text, text, false);
  *member = value;
  return KWM_OK;
}

static kwm_status read_integer(const struct kwm_key *key, const char *text, int64_t *member, char *complaint) {
  if (!digits_only(text + (text[0] == '-' || text[0] == '+')))
    return complain(complaint, kwm_key_wants(key), text, true);
  const struct kwm_range *range = &key->range;
  const int64_t value = strtoll(text, NULL, 10); /* saturates, far outside every range */
  const bool fits = in_range(range, (double)value) && (range->multiple == 0 || value % range->multiple == 0) &&
                    (!range->power_of_two || (value & (value - 1)) == 0);
  if (!fits) return complain(complaint, range->text, text, false);
  *member = value;
  return KWM_OK;
}

static kwm_status read_number(const struct kwm_key *key, const char *text, double *member, char *complaint) {
  char *end = NULL;
  const double value = strtod(text, &end);
  const bool decimal = text[strspn(text, "0123456789+-.eE")] == '\0'; /* no blanks, hexadecimals, inf, nan */
  if (!decimal || end == text || *end != '\0') return complain(complaint, kwm_key_wants(key), text, true);
  if (!in_range(&key->range, value)) return complain(complaint, key->range.text, text, false);
  *member = value;
  return KWM_OK;
}

static kwm_status read_switch(const struct kwm_key *key, const char *text, bool *member, char *complaint) {
  const bool on = strcmp(text, "true") == 0;
  if (!on && strcmp(text, "false") != 0) return complain(complaint, kwm_key_wants(key), text, true);
  *member = on;
  return KWM_OK;
}

kwm_status kwm_key_read(const struct kwm_key *key, const char *text, struct kwm_config *config, char *complaint) {
  void *member = (char *)config + key->offset;
  switch (key->kind) {
  case KWM_KIND_TEXT: return read_text(key, text, config, complaint);
  case KWM_KIND_SEED: return read_seed(key, text, member, complaint);
  case KWM_KIND_INTEGER: return read_integer(key, text, member, complaint);
  case KWM_KIND_NUMBER: return read_number(key, text, member, complaint);
  case KWM_KIND_SWITCH: return read_switch(key, text, member, complaint);
  }
  return KWM_RAISE(KWM_ERR_SYSTEM, "config key `%s`: wanted a known kind, found %d", key->path, (int)key->kind);
}

char **kwm_key_string(const struct kwm_key *key, struct kwm_config *config) {
  KWM_ASSERT(key->kind == KWM_KIND_TEXT);
  return (char **)(void *)((char *)config + key->offset);
}

/* The fewest digits (15 or more) that read back to the same double, 1.0e-08 rather than 1e-08: without a point many
   YAML readers take it for a string. */
static void write_number(double value, char *buffer) {
  char plain[KWM_VALUE_BYTES - 2];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(plain, sizeof plain, "%.*g", digits, value);
    if (strtod(plain, NULL) == value) break;
  }
  const size_t mantissa = strcspn(plain, "e");
  const bool point_missing = plain[mantissa] == 'e' && strchr(plain, '.') == NULL;
  snprintf(buffer, KWM_VALUE_BYTES, "%.*s%s%s", (int)mantissa, plain, point_missing ? ".0" : "", plain + mantissa);
}

const char *kwm_key_text(const struct kwm_key *key, const struct kwm_config *config, char *buffer) {
  const void *member = (const char *)config + key->offset;
  switch (key->kind) {
  case KWM_KIND_TEXT: return *(char *const *)member;
  case KWM_KIND_SEED: snprintf(buffer, KWM_VALUE_BYTES, "%" PRIu64, *(const uint64_t *)member); break;
  case KWM_KIND_INTEGER: snprintf(buffer, KWM_VALUE_BYTES, "%" PRId64, *(const int64_t *)member); break;
  case KWM_KIND_NUMBER: write_number(*(const double *)member, buffer); break;
  case KWM_KIND_SWITCH: return *(const bool *)member ? "true" : "false";
  }
  return buffer;
}

void kwm_config_help(void) {
  static const char *const kinds[] = {"text", "seed", "integer", "number", "switch"};
  for (size_t i = 0; i < kwm_n_keys; i++) {
    const struct kwm_key *key = &kwm_keys[i];
    const char *initial = key->initial[0] == '\0' ? "\"\"" : key->initial;
    printf("%-25s %-8s %-19s %-31s %s\n", key->path, kinds[key->kind], initial, key->range.text, key->help);
  }
}

/* Which file of a folder is a split's. */
#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SYNONYMS = 4 };

static const char *const words[][SYNONYMS] = {[KWM_TRAIN] = {"train", "training"},
                                              [KWM_VALID] = {"valid", "validation", "val", "dev"},
                                              [KWM_TEST] = {"test", "testing"}};
static const char *const endings[] = {".tokens", ".txt", ".text"};
static const char *const packings[] = {"", ".xz", ".gz"}; /* as preferred */

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Whether `word` stands in the first `length` bytes of `name` with no letter beside it. */
static bool has_word(const char *name, size_t length, const char *word) {
  const size_t n = strlen(word);
  for (size_t i = 0; i + n <= length; i++) {
    if (strncmp(name + i, word, n) != 0) continue;
    if ((i == 0 || !is_letter(name[i - 1])) && (i + n == length || !is_letter(name[i + n]))) return true;
  }
  return false;
}

/* Cuts `ending` off the first *length bytes of `name`. */
static bool cut(const char *name, size_t *length, const char *ending) {
  const size_t n = strlen(ending);
  if (*length <= n || strncmp(name + *length - n, ending, n) != 0) return false;
  *length -= n;
  return true;
}

/* Whether a file of this name can be the split's: how it is packed, and the length of the name without that. */
static bool fits(const char *name, enum kwm_split split, int *packing, size_t *plain) {
  size_t length = strlen(name);
  if (name[0] == '.') return false;
  *packing = cut(name, &length, packings[1]) ? 1 : cut(name, &length, packings[2]) ? 2 : 0;
  *plain = length;
  if (!cut(name, &length, endings[0]) && !cut(name, &length, endings[1]) && !cut(name, &length, endings[2]))
    return false;
  for (int i = 0; i < SYNONYMS && words[split][i] != NULL; i++)
    if (has_word(name, length, words[split][i])) return true;
  return false;
}

struct choice {
  const char *name, *other; /* NULL: none; other: another text for the same split */
  int packing;
  size_t plain;
};

static struct choice choose(struct dirent *const *entries, int n, enum kwm_split split) {
  struct choice choice = {0};
  for (int i = 0; i < n; i++) {
    const char *const name = entries[i]->d_name;
    int packing = 0;
    size_t plain = 0;
    if (!fits(name, split, &packing, &plain)) continue;
    const bool same = choice.name != NULL && plain == choice.plain && strncmp(name, choice.name, plain) == 0;
    if (choice.name != NULL && !same) {
      if (choice.other == NULL) choice.other = name;
    } else if (choice.name == NULL || packing < choice.packing) {
      choice.name = name;
      choice.packing = packing;
      choice.plain = plain;
    }
  }
  return choice;
}

static kwm_status set_path(char path[KWM_TEXT_PATH], const char *folder, const char *name) {
  const bool alone = name[0] == '/' || folder == NULL || folder[0] == '\0';
  const int length = snprintf(path, KWM_TEXT_PATH, "%s%s%s", alone ? "" : folder, alone ? "" : "/", name);
  KWM_CHECK(length > 0 && length < KWM_TEXT_PATH, KWM_ERR_DATA,
            "data: wanted a path shorter than %d bytes for %.64s, found %d", KWM_TEXT_PATH, name, length);
  return KWM_OK;
}

static kwm_status decide(char path[KWM_TEXT_PATH], const char *folder, enum kwm_split split,
                         const struct choice *choice, bool may_lack) {
  const char *const word = words[split][0];
  KWM_CHECK(choice->other == NULL, KWM_ERR_DATA,
            "data %s: wanted one text with \"%s\" in its name, found %s and %s; name the file in data.%s", folder, word,
            choice->name, choice->other, word);
  if (choice->name != NULL) return set_path(path, folder, choice->name);
  KWM_CHECK(
      may_lack, KWM_ERR_DATA,
      "data %s: wanted a text with \"%s\" in its name (.tokens, .txt or .text, or that with .xz or .gz), found none",
      folder, word);
  path[0] = '\0';
  return KWM_OK;
}

kwm_status kwm_text_find(char path[KWM_TEXT_PATH], const struct kwm_text_source *source, enum kwm_split split,
                         bool may_lack) {
  const char *const named = source->files[split];
  if (named != NULL && named[0] != '\0') return set_path(path, source->folder, named);
  const char *const folder = source->folder != NULL && source->folder[0] != '\0' ? source->folder : ".";
  struct dirent **entries = NULL;
  const int n = scandir(folder, &entries, NULL, alphasort);
  KWM_CHECK(n >= 0, KWM_ERR_DATA, "data %s: wanted a folder, found: %s", folder, strerror(errno));
  const struct choice choice = choose(entries, n, split);
  const kwm_status status = decide(path, folder, split, &choice, may_lack);
  for (int i = 0; i < n; i++) free(entries[i]);
  free(entries);
  return status;
}

/* Which files of a folder are checkpoints: exactly those whose name is the one that their step gives. */
#include "steps.h"

#include "kwm/ckpt.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "kwm/log.h"

enum { NAME = 64 };

static void step_name(char *name, int64_t step, const char *suffix) {
  snprintf(name, NAME, "step-%010" PRId64 ".h5%s", step, suffix);
}

kwm_status kwm_steps_path(char *path, const char *dir, int64_t step, const char *suffix) {
  char name[NAME];
  step_name(name, step, suffix);
  return kwm_file_path(path, dir, name, "");
}

static bool parse_name(const char *name, const char *suffix, int64_t *step) {
  char wanted[NAME];
  if (sscanf(name, "step-%" SCNd64, step) != 1 || *step < 0) return false;
  step_name(wanted, *step, suffix);
  return strcmp(name, wanted) == 0;
}

static int newest_first(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

/* *steps is malloc'ed; NULL and 0 if there is none. */
static kwm_status find(const char *dir, const char *suffix, int64_t **steps, int64_t *n) {
  DIR *folder = opendir(dir);
  int64_t step, room = 0;
  *steps = NULL;
  *n = 0;
  KWM_CHECK(folder != NULL, KWM_ERR_DATA, "checkpoint folder %s: wanted to read it, found: %s", dir, strerror(errno));
  for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
    if (!parse_name(entry->d_name, suffix, &step)) continue;
    if (*n == room) {
      room = 2 * room + 16;
      *steps = realloc(*steps, (size_t)room * sizeof **steps);
      KWM_ASSERT(*steps != NULL);
    }
    (*steps)[(*n)++] = step;
  }
  closedir(folder);
  if (*n > 0) qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
  return KWM_OK;
}

kwm_status kwm_steps_list(const char *dir, int64_t **steps, int64_t *n) {
  KWM_TRY(find(dir, "", steps, n));
  KWM_CHECK(*n > 0, KWM_ERR_DATA, "checkpoint folder %s: wanted at least one step-*.h5, found none", dir);
  return KWM_OK;
}

/* Passes over the newest `keep` of those up to `step`, and over the multiples of `every` (0: none). */
static void remove_old(const char *dir, const char *suffix, int64_t step, int64_t keep, int64_t every) {
  int64_t *steps = NULL, n = 0;
  char path[KWM_FILE_PATH];
  if (find(dir, suffix, &steps, &n) != KWM_OK) kwm_log(KWM_LOG_WARNING, "%s", kwm_error_message());
  for (int64_t i = 0; i < n; i++) {
    if (steps[i] > step || (every > 0 && steps[i] % every == 0) || keep-- > 0 ||
        kwm_steps_path(path, dir, steps[i], suffix) != KWM_OK)
      continue;
    if (unlink(path) != 0) kwm_log(KWM_LOG_WARNING, "checkpoint %s: can't remove it: %s", path, strerror(errno));
  }
  free(steps);
}

void kwm_steps_prune(const char *dir, int64_t step, int64_t keep, int64_t every) {
  remove_old(dir, "", step, keep, every);
  kwm_steps_clean(dir);
}

void kwm_steps_clean(const char *dir) {
  struct stat about;
  if (stat(dir, &about) == 0) remove_old(dir, ".part", INT64_MAX, 0, 0);
}

int64_t kwm_steps_newest_bytes(const char *dir) {
  int64_t *steps = NULL, n = 0;
  char path[KWM_FILE_PATH];
  struct stat about = {0};
  if (find(dir, "", &steps, &n) == KWM_OK && n > 0 && kwm_steps_path(path, dir, steps[0], "") == KWM_OK)
    (void)!stat(path, &about);
  free(steps);
  return about.st_size;
}

bool kwm_ckpt_exists(const char *dir) {
  int64_t *steps = NULL, n = 0;
  const bool found = kwm_steps_list(dir, &steps, &n) == KWM_OK && n > 0;
  free(steps);
  return found;
}

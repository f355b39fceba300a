/* One data set, or one for each folder of a list. A list shorter than the stream is gone through again; of a longer one
   only as many folders are read as there are tasks. */
#include "sets.h"

#include <string.h>

static const char separators[] = ", ";

static const char *text_of(const struct kwm_stream_spec *spec) {
  return spec->kind == KWM_STREAM_LIST ? spec->paths : spec->path;
}

static int64_t count_folders(const struct kwm_stream_spec *spec) {
  int64_t count = 0;
  if (spec->kind != KWM_STREAM_LIST) return 1;
  for (const char *at = spec->paths + strspn(spec->paths, separators); *at != '\0'; count++) {
    at += strcspn(at, separators);
    at += strspn(at, separators);
  }
  return count < spec->tasks ? count : spec->tasks;
}

static kwm_status name_folders(struct kwm_sets *sets, const struct kwm_stream_spec *spec) {
  const char *const text = text_of(spec);
  const bool list = spec->kind == KWM_STREAM_LIST;
  KWM_CHECK(text != NULL && text[0] != '\0', KWM_ERR_USAGE, "stream: wanted %s, found none",
            list ? "folders separated by commas or spaces" : "a folder");
  const int64_t count = count_folders(spec);
  KWM_CHECK(count >= 1, KWM_ERR_USAGE, "stream: wanted folders separated by commas or spaces, found \"%s\"", text);
  void *memory = NULL;
  KWM_TRY(kwm_alloc(&memory, strlen(text) + 1, "names of folders"));
  sets->names = memory;
  memcpy(sets->names, text, strlen(text) + 1);
  KWM_TRY(kwm_alloc(&memory, (size_t)count * sizeof *sets->at, "data sets"));
  sets->at = memory;
  sets->count = count;
  char *at = sets->names;
  for (int64_t i = 0; i < count; i++) {
    sets->at[i].folder = list ? strtok_r(at, separators, &at) : at;
  }
  return KWM_OK;
}

static kwm_status open_set(struct kwm_set *set, bool whole) {
  if (whole) {
    KWM_TRY(kwm_images_read(&set->train, set->folder, KWM_TRAIN));
    return kwm_images_read(&set->test, set->folder, KWM_TEST);
  }
  KWM_TRY(kwm_images_probe(set->folder, KWM_TRAIN, &set->train.n, &set->train.length));
  return kwm_images_probe(set->folder, KWM_TEST, &set->test.n, &set->test.length);
}

static kwm_status check_set(const struct kwm_set *set, const struct kwm_stream_spec *spec, int64_t length) {
  KWM_CHECK(set->train.length == length && set->test.length == length, KWM_ERR_DATA,
            "stream %s: wanted images of %lld pixels, found %lld for training and %lld for testing", set->folder,
            (long long)length, (long long)set->train.length, (long long)set->test.length);
  KWM_CHECK(set->n_train >= 1, KWM_ERR_USAGE,
            "stream %s: wanted more training samples than the %lld held out, found %lld", set->folder,
            (long long)spec->validation, (long long)set->train.n);
  KWM_CHECK(spec->samples <= set->n_train, KWM_ERR_USAGE, "stream %s: wanted %lld training samples, found %lld",
            set->folder, (long long)spec->samples, (long long)set->n_train);
  return KWM_OK;
}

kwm_status kwm_sets_open(struct kwm_sets *sets, const struct kwm_stream_spec *spec, bool whole) {
  KWM_TRY(name_folders(sets, spec));
  for (int64_t i = 0; i < sets->count; i++) {
    struct kwm_set *const set = &sets->at[i];
    KWM_TRY(open_set(set, whole));
    if (i == 0) sets->length = set->train.length;
    set->n_train = set->train.n - spec->validation;
    KWM_TRY(check_set(set, spec, sets->length));
  }
  return KWM_OK;
}

void kwm_sets_close(struct kwm_sets *sets) {
  for (int64_t i = 0; i < sets->count; i++) {
    kwm_images_fini(&sets->at[i].train);
    kwm_images_fini(&sets->at[i].test);
  }
  kwm_free(sets->at);
  kwm_free(sets->names);
  *sets = (struct kwm_sets){0};
}

size_t kwm_sets_bytes(const struct kwm_sets *sets, const struct kwm_stream_spec *spec) {
  size_t bytes = kwm_mem_rounded(strlen(text_of(spec)) + 1) + kwm_mem_rounded((size_t)sets->count * sizeof *sets->at);
  for (int64_t i = 0; i < sets->count; i++)
    bytes += kwm_images_bytes(sets->at[i].train.n, sets->length) + kwm_images_bytes(sets->at[i].test.n, sets->length);
  return bytes;
}

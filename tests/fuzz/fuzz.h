/* What the fuzz targets share (scripts/fuzz.sh): libFuzzer's entry, claims, a file of any bytes in a folder of its own.
 */
#pragma once

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kwm/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static inline void must(bool claim, const char *words) {
  if (claim) return;
  fprintf(stderr, "wanted %s, found: %s\n", words, kwm_error_message());
  abort();
}

/* The same for the whole process, removed by scripts/fuzz.sh with all of its folder. */
static inline const char *fuzz_folder(void) {
  static char folder[256];
  if (folder[0] == '\0') {
    const char *const base = getenv("KWM_FUZZ_TMP");
    snprintf(folder, sizeof folder, "%s/XXXXXX", base == NULL ? "/tmp" : base);
    if (mkdtemp(folder) == NULL) abort();
  }
  return folder;
}

static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t n) {
  static char path[512];
  snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
  const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || write(file, data, n) != (ssize_t)n) abort();
  close(file);
  return path;
}

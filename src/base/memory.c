/* Accounted memory: a 64-byte header before each piece carries its size, so that the sum is exact at any time. */
#include "kwm/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { ALIGNMENT = 64 };

static size_t bytes_held;

size_t kwm_mem_rounded(size_t bytes) {
  return ALIGNMENT + (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

kwm_status kwm_alloc(void **memory, size_t bytes, const char *what) {
  const size_t total = kwm_mem_rounded(bytes);
  char *base = aligned_alloc(ALIGNMENT, total);
  *memory = NULL;
  KWM_CHECK(base != NULL, KWM_ERR_SYSTEM, "memory: wanted %zu bytes for %s, the machine gave none", bytes, what);
  memset(base, 0, total);
  memcpy(base, &total, sizeof total);
  bytes_held += total;
  *memory = base + ALIGNMENT;
  return KWM_OK;
}

void kwm_free(void *memory) {
  if (memory == NULL) return;
  char *base = (char *)memory - ALIGNMENT;
  size_t total;
  memcpy(&total, base, sizeof total);
  bytes_held -= total;
  free(base);
}

size_t kwm_mem_bytes(void) {
  return bytes_held;
}

size_t kwm_mem_peak_resident(void) {
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return (size_t)usage.ru_maxrss * 1024;
}

size_t kwm_mem_resident(void) {
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL) return 0;
  unsigned long total = 0, resident = 0;
  const int fields = fscanf(file, "%lu %lu", &total, &resident);
  fclose(file);
  return fields == 2 ? resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

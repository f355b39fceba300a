/* Any bytes as a checkpoint, and a good one changed as the bytes say: refused, unless it is the good one bit for bit.
   Then every array of it is read. */
#include "fuzz.h"

#include <mpi.h>

#include "kwm/ckpt.h"

enum { ROWS = 40, COLUMNS = 5 };
static uint8_t *good;
static size_t good_bytes;

static void write_good(const char *dir) {
  const int64_t dims[2] = {ROWS, COLUMNS};
  kwm_ckpt *ckpt;
  float data[ROWS * COLUMNS];
  for (int k = 0; k < ROWS * COLUMNS; k++) data[k] = (float)k;
  must(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 1) == KWM_OK, "a file to write");
  must(kwm_ckpt_put_i64(ckpt, "/meta", "step", 1) == KWM_OK, "a number");
  must(kwm_ckpt_put_text(ckpt, "/meta", "config", "seed: 1\n") == KWM_OK, "a text");
  must(kwm_ckpt_put(ckpt, "/params/a", KWM_F32, 2, dims, 0, ROWS, data) == KWM_OK, "an array");
  must(kwm_ckpt_commit(&ckpt, 1) == KWM_OK, "a checkpoint");
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  char path[512];
  MPI_Init(argc, argv);
  write_good(fuzz_folder());
  snprintf(path, sizeof path, "%s/step-0000000001.h5", fuzz_folder());
  FILE *const file = fopen(path, "rb");
  must(file != NULL, "the good file");
  good = malloc(1 << 20);
  good_bytes = fread(good, 1, 1 << 20, file);
  fclose(file);
  return 0;
}

static void visit(void *context, const char *name, enum kwm_type type, int n_dims, const int64_t *dims) {
  float data[ROWS * COLUMNS];
  must(n_dims == 2 && type == KWM_F32, "the array that was written");
  must(kwm_ckpt_get(context, name, type, n_dims, dims, 0, ROWS, data) == KWM_OK, "its rows");
}

static void try(const uint8_t *data, size_t n) {
  kwm_ckpt *ckpt = NULL;
  const kwm_status status = kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, fuzz_file("tried.h5", data, n));
  const bool same = n == good_bytes && memcmp(data, good, n) == 0;
  must(status == (same ? KWM_OK : KWM_ERR_DATA), same ? "the good one accepted" : "a changed one refused");
  if (status == KWM_OK) must(kwm_ckpt_list(ckpt, visit, ckpt) == KWM_OK, "its arrays");
  kwm_ckpt_close(&ckpt);
}

/* Four bytes an edit: a place, a change; then the length, if there is a byte for it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  try(data, n);
  uint8_t *const changed = malloc(good_bytes);
  memcpy(changed, good, good_bytes);
  size_t at = 0;
  for (; at + 4 <= n; at += 4) {
    const size_t place = ((size_t)data[at] << 16 | (size_t)data[at + 1] << 8 | data[at + 2]) % good_bytes;
    changed[place] ^= data[at + 3];
  }
  try(changed, at < n ? good_bytes * data[at] / 255 : good_bytes);
  free(changed);
  return 0;
}

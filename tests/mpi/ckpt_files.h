/* Folders, files and small checkpoints for the tests of checkpoints. Everything is collective over MPI_COMM_WORLD. */
#pragma once

#include "kwm_test.h"

#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kwm/ckpt.h"

enum { PATH = 512, N_DIMS = 2 };

static inline int rank(void) {
  int mine = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &mine);
  return mine;
}

/* ---- folders and files */

static inline int remove_entry(const char *path, const struct stat *about, int flag, struct FTW *walk) {
  (void)about, (void)flag, (void)walk;
  return remove(path);
}

/* A fresh folder that all ranks know. */
static inline char *make_dir(void) {
  char *dir = calloc(PATH, 1);
  const char *base = getenv("TMPDIR");
  snprintf(dir, PATH, "%s/kwm-ckpt-XXXXXX", base != NULL ? base : P_tmpdir);
  const bool made = rank() != 0 || mkdtemp(dir) != NULL;
  assert_all(made);
  MPI_Bcast(dir, PATH, MPI_CHAR, 0, MPI_COMM_WORLD);
  return dir;
}

static inline void drop_dir(char *dir) {
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank() == 0) nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  MPI_Barrier(MPI_COMM_WORLD);
  free(dir);
}

static inline const char *in_dir(const char *dir, const char *name) {
  static char path[2 * PATH];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return path;
}

static inline const char *step_path(const char *dir, int64_t step) {
  char name[64];
  snprintf(name, sizeof name, "step-%010lld.h5", (long long)step);
  return in_dir(dir, name);
}

/* Names in the folder, all in one line in alphabetical order. */
static inline const char *listing(const char *dir) {
  static char text[1024];
  struct dirent **entries;
  text[0] = '\0';
  MPI_Barrier(MPI_COMM_WORLD);
  const int n = scandir(dir, &entries, NULL, alphasort);
  for (int i = 0; i < n; i++) {
    if (entries[i]->d_name[0] != '.')
      snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", entries[i]->d_name);
    free(entries[i]);
  }
  if (n >= 0) free(entries);
  return text;
}

static inline void assert_listing(const char *dir, const char *wanted) {
  const char *found = listing(dir);
  if (rank() == 0 && strcmp(found, wanted) != 0) print_message("wanted [%s], found [%s]\n", wanted, found);
  assert_all(strcmp(found, wanted) == 0);
}

static inline char *read_file(const char *path, size_t *n) {
  FILE *file = fopen(path, "rb");
  struct stat about;
  *n = 0;
  if (file == NULL || fstat(fileno(file), &about) != 0) return NULL;
  char *bytes = malloc((size_t)about.st_size + 1);
  *n = fread(bytes, 1, (size_t)about.st_size, file);
  bytes[*n] = '\0';
  fclose(file);
  return bytes;
}

/* Rank 0 writes once all are here, then all go on. */
static inline void write_file(const char *path, const void *bytes, size_t n) {
  MPI_Barrier(MPI_COMM_WORLD);
  FILE *file = rank() == 0 ? fopen(path, "wb") : NULL;
  const bool written = rank() != 0 || (file != NULL && fwrite(bytes, 1, n, file) == n);
  if (file != NULL) fclose(file);
  assert_all(written);
}

/* ---- the checkpoint that most tests use */

/* Rows of rank r in one of several splits of n rows, all uneven, most with a rank that has none. */
static inline void split(int64_t n, int way, int64_t *first, int64_t *count) {
  const int me = rank();
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  int64_t begin = n * me / size, end = n * (me + 1) / size;
  if (way == 1) begin = me == 0 ? 0 : n, end = n;        /* all on the first */
  if (way == 2) begin = 0, end = me == size - 1 ? n : 0; /* all on the last */
  if (way == 3) begin = n * me * me / (size * size), end = n * (me + 1) * (me + 1) / (size * size);
  if (way == 4) { /* the first has none, ranks in reverse order */
    const int back = size - 1 - me, others = size > 1 ? size - 1 : 1;
    begin = back < others ? n * back / others : n;
    end = back < others ? n * (back + 1) / others : n;
  }
  *first = begin;
  *count = end - begin;
}

static inline void fill(enum kwm_type type, int64_t first, int64_t n, uint64_t salt, void *data) {
  for (int64_t i = 0; i < n; i++) {
    uint64_t bits = ((uint64_t)(first + i) + salt) * 0x9e3779b97f4a7c15u;
    bits ^= bits >> 29;
    const double value = (double)(int64_t)bits * 0x1p-40;
    if (type == KWM_F32) ((float *)data)[i] = (float)value;
    if (type == KWM_F64) ((double *)data)[i] = value;
    if (type == KWM_I64) ((int64_t *)data)[i] = (int64_t)bits;
  }
}

static inline size_t element(enum kwm_type type) {
  return type == KWM_F32 ? 4 : 8;
}

static inline kwm_status put(kwm_ckpt *ckpt, const char *name, enum kwm_type type, const int64_t *dims, int way,
                             uint64_t salt) {
  int64_t first, count;
  split(dims[0], way, &first, &count);
  void *data = count > 0 ? malloc((size_t)(count * dims[1]) * element(type)) : NULL;
  fill(type, first * dims[1], count * dims[1], salt, data);
  const kwm_status status = kwm_ckpt_put(ckpt, name, type, N_DIMS, dims, first, count, data);
  free(data);
  return status;
}

/* True on all ranks if the array reads back bit for bit. */
static inline bool comes_back(kwm_ckpt *ckpt, const char *name, enum kwm_type type, const int64_t *dims, int way,
                              uint64_t salt) {
  int64_t first, count;
  split(dims[0], way, &first, &count);
  const size_t bytes = (size_t)(count * dims[1]) * element(type);
  void *wanted = malloc(bytes + 1), *found = malloc(bytes + 1);
  fill(type, first * dims[1], count * dims[1], salt, wanted);
  const kwm_status status = kwm_ckpt_get(ckpt, name, type, N_DIMS, dims, first, count, count > 0 ? found : NULL);
  int same = status == KWM_OK && memcmp(wanted, found, bytes) == 0;
  MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  free(wanted);
  free(found);
  return same;
}

static const int64_t small[N_DIMS] = {60, 50};

/* A checkpoint of 12 kB, with a text. */
static inline void write_small(const char *dir, int64_t step, int64_t keep) {
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, step));
  assert_ok(put(ckpt, "/params/a", KWM_F32, small, 0, (uint64_t)step));
  assert_ok(kwm_ckpt_put_i64(ckpt, "/meta", "step", step));
  assert_ok(kwm_ckpt_put_text(ckpt, "/meta", "config", "seed: 1\nnote: a text that no checksum of HDF5 covers\n"));
  assert_ok(kwm_ckpt_commit(&ckpt, keep));
  assert_null(ckpt);
}

static inline bool is_small(kwm_ckpt *ckpt, int64_t step) {
  int64_t found = -1;
  return kwm_ckpt_get_i64(ckpt, "/meta", "step", &found) == KWM_OK && found == step &&
         comes_back(ckpt, "/params/a", KWM_F32, small, 3, (uint64_t)step);
}

/* The status, and a message of one line that holds `words`, on every rank. */
static inline void assert_refused(kwm_status found, kwm_status wanted, const char *words) {
  const char *message = kwm_error_message();
  const bool right = found == wanted && strstr(message, words) != NULL && strchr(message, '\n') == NULL;
  if (!right && rank() == 0) print_message("status %d, message: %s\n", found, message);
  assert_all(right);
}

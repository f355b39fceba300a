/* Checkpoints: what is put comes back bit for bit on any split, whatever is damaged is found by all ranks and named,
   and a disk that is full costs nothing but the checkpoint that did not fit. */
#include "kwm_test.h"

#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hdf5.h>

#include "kwm/ckpt.h"
#include "kwm/log.h"

enum { PATH = 512, N_DIMS = 2 };

static int rank, size;

/* ---- folders and files */

static int remove_entry(const char *path, const struct stat *about, int flag, struct FTW *walk) {
  (void)about, (void)flag, (void)walk;
  return remove(path);
}

/* A fresh folder that all ranks know. */
static char *make_dir(void) {
  char *dir = calloc(PATH, 1);
  const char *base = getenv("TMPDIR");
  snprintf(dir, PATH, "%s/kwm-ckpt-XXXXXX", base != NULL ? base : "/tmp");
  const bool made = rank != 0 || mkdtemp(dir) != NULL;
  assert_all(made);
  MPI_Bcast(dir, PATH, MPI_CHAR, 0, MPI_COMM_WORLD);
  return dir;
}

static void drop_dir(char *dir) {
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank == 0) nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  MPI_Barrier(MPI_COMM_WORLD);
  free(dir);
}

static const char *in_dir(const char *dir, const char *name) {
  static char path[2 * PATH];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return path;
}

static const char *step_path(const char *dir, int64_t step) {
  char name[64];
  snprintf(name, sizeof name, "step-%010lld.h5", (long long)step);
  return in_dir(dir, name);
}

/* Names in the folder, all in one line in alphabetical order. */
static const char *listing(const char *dir) {
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

static void assert_listing(const char *dir, const char *wanted) {
  const char *found = listing(dir);
  if (rank == 0 && strcmp(found, wanted) != 0) print_message("wanted [%s], found [%s]\n", wanted, found);
  assert_all(strcmp(found, wanted) == 0);
}

static char *read_file(const char *path, size_t *n) {
  FILE *file = fopen(path, "rb");
  struct stat about;
  if (file == NULL || fstat(fileno(file), &about) != 0) return NULL;
  char *bytes = malloc((size_t)about.st_size + 1);
  *n = fread(bytes, 1, (size_t)about.st_size, file);
  bytes[*n] = '\0';
  fclose(file);
  return bytes;
}

/* Rank 0 writes, then all go on. */
static void write_file(const char *path, const void *bytes, size_t n) {
  FILE *file = rank == 0 ? fopen(path, "wb") : NULL;
  const bool written = rank != 0 || (file != NULL && fwrite(bytes, 1, n, file) == n);
  if (file != NULL) fclose(file);
  assert_all(written);
}

/* ---- the checkpoint that most tests use */

/* Rows of rank r in one of several splits of n rows, all uneven, most with a rank that has none. */
static void split(int64_t n, int way, int64_t *first, int64_t *count) {
  int64_t begin = n * rank / size, end = n * (rank + 1) / size;
  if (way == 1) begin = rank == 0 ? 0 : n, end = n;        /* all on the first */
  if (way == 2) begin = 0, end = rank == size - 1 ? n : 0; /* all on the last */
  if (way == 3) begin = n * rank * rank / (size * size), end = n * (rank + 1) * (rank + 1) / (size * size);
  if (way == 4) { /* the first has none, ranks in reverse order */
    const int back = size - 1 - rank, others = size > 1 ? size - 1 : 1;
    begin = back < others ? n * back / others : n;
    end = back < others ? n * (back + 1) / others : n;
  }
  *first = begin;
  *count = end - begin;
}

static void fill(enum kwm_type type, int64_t first, int64_t n, uint64_t salt, void *data) {
  for (int64_t i = 0; i < n; i++) {
    uint64_t bits = ((uint64_t)(first + i) + salt) * 0x9e3779b97f4a7c15u;
    bits ^= bits >> 29;
    const double value = (double)(int64_t)bits * 0x1p-40;
    if (type == KWM_F32) ((float *)data)[i] = (float)value;
    if (type == KWM_F64) ((double *)data)[i] = value;
    if (type == KWM_I64) ((int64_t *)data)[i] = (int64_t)bits;
  }
}

static size_t element(enum kwm_type type) {
  return type == KWM_F32 ? 4 : 8;
}

static kwm_status put(kwm_ckpt *ckpt, const char *name, enum kwm_type type, const int64_t *dims, int way,
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
static bool comes_back(kwm_ckpt *ckpt, const char *name, enum kwm_type type, const int64_t *dims, int way,
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
static void write_small(const char *dir, int64_t step, int64_t keep) {
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, step));
  assert_ok(put(ckpt, "/params/a", KWM_F32, small, 0, (uint64_t)step));
  assert_ok(kwm_ckpt_put_i64(ckpt, "/meta", "step", step));
  assert_ok(kwm_ckpt_put_text(ckpt, "/meta", "config", "seed: 1\nnote: a text that no checksum of HDF5 covers\n"));
  assert_ok(kwm_ckpt_commit(&ckpt, keep));
  assert_null(ckpt);
}

static bool is_small(kwm_ckpt *ckpt, int64_t step) {
  int64_t found = -1;
  return kwm_ckpt_get_i64(ckpt, "/meta", "step", &found) == KWM_OK && found == step &&
         comes_back(ckpt, "/params/a", KWM_F32, small, 3, (uint64_t)step);
}

/* The status and one line that names `path`, on every rank; no checkpoint. */
static void assert_refused(kwm_status found, kwm_status wanted, const kwm_ckpt *ckpt, const char *path) {
  const char *message = kwm_error_message();
  const bool right = found == wanted && ckpt == NULL && strstr(message, path) != NULL && strchr(message, '\n') == NULL;
  if (!right && rank == 0) print_message("status %d, message: %s\n", found, message);
  assert_all(right);
}

static void assert_bad(const char *path) {
  kwm_ckpt *ckpt;
  const kwm_status status = kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, path);
  assert_refused(status, KWM_ERR_DATA, ckpt, path);
}

/* ---- round trips */

struct array {
  const char *name;
  enum kwm_type type;
  int64_t dims[N_DIMS];
};

static void test_round_trip(void **state) {
  (void)state;
  static const struct array arrays[] = {
      {"/params/one", KWM_F64, {1, 1}},
      {"/params/thin", KWM_F32, {7, 3}},
      {"/cov/w/p", KWM_F64, {700, 1000}},
      {"/cov/w/wide", KWM_F32, {3, 400000}},
      {"/history/none", KWM_I64, {0, 4}},
      {"/filter/counts", KWM_I64, {300000, 1}},
      {"/filter/deep/er/x", KWM_F32, {5300000, 1}}, /* more than one window for one rank */
  };
  enum { N = sizeof arrays / sizeof arrays[0] };
  char *dir = make_dir();
  for (int way = 0; way < 5; way++) {
    kwm_ckpt *ckpt;
    assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, way));
    for (int i = 0; i < N; i++) assert_ok(put(ckpt, arrays[i].name, arrays[i].type, arrays[i].dims, (way + i) % 5, 9));
    assert_ok(kwm_ckpt_commit(&ckpt, 1));
    assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, way)));
    assert_string_equal(kwm_ckpt_path(ckpt), step_path(dir, way));
    for (int i = 0; i < N; i++)
      assert_all(comes_back(ckpt, arrays[i].name, arrays[i].type, arrays[i].dims, (way + 2 * i + 1) % 5, 9));
    assert_all(!comes_back(ckpt, "/params/one", KWM_F64, arrays[0].dims, 0, 10));
    kwm_ckpt_close(&ckpt);
    assert_null(ckpt);
  }
  drop_dir(dir);
}

static void test_same_bytes_on_any_split(void **state) {
  (void)state;
  const int64_t dims[N_DIMS] = {900, 400};
  char *dir = make_dir();
  size_t n[2] = {0};
  char *bytes[2];
  for (int i = 0; i < 2; i++) {
    kwm_ckpt *ckpt;
    assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, i));
    assert_ok(put(ckpt, "/a", KWM_F64, dims, i == 0 ? 0 : 4, 1));
    assert_ok(kwm_ckpt_commit(&ckpt, 2));
    bytes[i] = read_file(step_path(dir, i), &n[i]);
  }
  assert_all(n[0] == n[1]);
  size_t differing = 0;
  for (size_t i = 0; i < n[0]; i++) differing += bytes[0][i] != bytes[1][i];
  assert_all(differing <= 32); /* time stamps and their checksum */
  free(bytes[0]);
  free(bytes[1]);
  drop_dir(dir);
}

static char *make_long_text(size_t n) {
  char *text = malloc(n + 1);
  for (size_t i = 0; i < n; i++) text[i] = (char)(i % 61 == 60 ? '\n' : 'a' + i % 23);
  text[n] = '\0';
  return text;
}

static void test_attributes(void **state) {
  (void)state;
  char *dir = make_dir(), *large = make_long_text(3000000), *text;
  const char *const texts[] = {"", "one line", "s\xc3\xa4mtlich \xe2\x88\x91\n", large};
  const int64_t whole[] = {0, -1, INT64_MIN, INT64_MAX};
  const double numbers[] = {-0.0, 1e-310, INFINITY, NAN, 0.1};
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 3));
  for (int i = 0; i < 4; i++) assert_ok(kwm_ckpt_put_text(ckpt, "/meta", (char[]){'t', (char)('0' + i), 0}, texts[i]));
  for (int i = 0; i < 4; i++)
    assert_ok(kwm_ckpt_put_i64(ckpt, "/meta/rng/keys", (char[]){'i', (char)('0' + i), 0}, whole[i]));
  for (int i = 0; i < 5; i++) assert_ok(kwm_ckpt_put_f64(ckpt, "/", (char[]){'f', (char)('0' + i), 0}, numbers[i]));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir));
  for (int i = 0; i < 4; i++) {
    assert_ok(kwm_ckpt_get_text(ckpt, "/meta", (char[]){'t', (char)('0' + i), 0}, &text));
    assert_all(strcmp(text, texts[i]) == 0);
    free(text);
  }
  for (int i = 0; i < 4; i++) {
    int64_t value = 5;
    assert_ok(kwm_ckpt_get_i64(ckpt, "/meta/rng/keys", (char[]){'i', (char)('0' + i), 0}, &value));
    assert_all(value == whole[i]);
  }
  for (int i = 0; i < 5; i++) {
    double value = 5;
    assert_ok(kwm_ckpt_get_f64(ckpt, "/", (char[]){'f', (char)('0' + i), 0}, &value));
    assert_all(memcmp(&value, &numbers[i], sizeof value) == 0);
  }
  kwm_ckpt_close(&ckpt);
  free(large);
  drop_dir(dir);
}

struct names {
  char text[512];
};

static void add_name(void *context, const char *name, enum kwm_type type, int n_dims, const int64_t *dims) {
  struct names *names = context;
  char *end = names->text + strlen(names->text);
  snprintf(end, sizeof names->text - strlen(names->text), "%s:%d:%d:%lld ", name, (int)type, n_dims,
           (long long)dims[0]);
}

static void test_list(void **state) {
  (void)state;
  static const char *const given[] = {"/params/b", "/cov/z/p", "/params/a", "/cov/a/p", "/x"};
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  struct names names = {""};
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 0));
  for (int i = 0; i < 5; i++) assert_ok(put(ckpt, given[i], i % 2 == 0 ? KWM_F32 : KWM_I64, small, i % 5, 1));
  assert_ok(kwm_ckpt_put_text(ckpt, "/params", "note", "not an array"));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 0)));
  assert_ok(kwm_ckpt_list(ckpt, add_name, &names));
  assert_all(strcmp(names.text, "/cov/a/p:2:2:60 /cov/z/p:2:2:60 /params/a:0:2:60 /params/b:0:2:60 /x:0:2:60 ") == 0);
  kwm_ckpt_close(&ckpt);
  drop_dir(dir);
}

/* ---- what is asked for is not there */

static void test_wanted_something_else(void **state) {
  (void)state;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  float data[3000];
  int64_t dims[8], whole;
  double number;
  char *text = dir;
  int n_dims = 8;
  write_small(dir, 1, 1);
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 1)));
  assert_ok(kwm_ckpt_shape(ckpt, "/params/a", &n_dims, dims));
  assert_all(n_dims == 2 && dims[0] == 60 && dims[1] == 50);
  n_dims = 1;
  assert_refused(kwm_ckpt_shape(ckpt, "/params/a", &n_dims, dims), KWM_ERR_DATA, NULL, "/params/a");
  assert_refused(kwm_ckpt_shape(ckpt, "/params/b", &n_dims, dims), KWM_ERR_DATA, NULL, "/params/b");
  assert_refused(kwm_ckpt_shape(ckpt, "/params", &n_dims, dims), KWM_ERR_DATA, NULL, "/params");
  const int64_t other[2] = {50, 60}, flat[1] = {3000};
  const int64_t count = rank == 0 ? 1 : 0;
  assert_refused(kwm_ckpt_get(ckpt, "/params/a", KWM_F32, 2, other, 0, count, data), KWM_ERR_DATA, NULL,
                 "wanted f32 (50, 60), found f32 (60, 50)");
  assert_refused(kwm_ckpt_get(ckpt, "/params/a", KWM_F32, 1, flat, 0, count, data), KWM_ERR_DATA, NULL,
                 "wanted f32 (3000), found f32 (60, 50)");
  assert_refused(kwm_ckpt_get(ckpt, "/params/a", KWM_F64, 2, small, 0, count, data), KWM_ERR_DATA, NULL,
                 "wanted f64 (60, 50), found f32 (60, 50)");
  assert_refused(kwm_ckpt_get(ckpt, "/params/c", KWM_F32, 2, small, 0, count, data), KWM_ERR_DATA, NULL, "/params/c");
  assert_refused(kwm_ckpt_get_i64(ckpt, "/meta", "config", &whole), KWM_ERR_DATA, NULL, "config of /meta");
  assert_refused(kwm_ckpt_get_f64(ckpt, "/meta", "step", &number), KWM_ERR_DATA, NULL, "step of /meta");
  assert_refused(kwm_ckpt_get_text(ckpt, "/meta", "step", &text), KWM_ERR_DATA, NULL, "step of /meta");
  assert_null(text);
  assert_refused(kwm_ckpt_get_i64(ckpt, "/meta", "none", &whole), KWM_ERR_DATA, NULL, "none of /meta");
  assert_refused(kwm_ckpt_get_i64(ckpt, "/nowhere", "step", &whole), KWM_ERR_DATA, NULL, "step of /nowhere");
  assert_all(is_small(ckpt, 1));
  kwm_ckpt_close(&ckpt);
  drop_dir(dir);
}

/* ---- damage */

/* Flips one bit in the middle of the array's data. */
static void damage_data(const char *path) {
  float wanted[40];
  size_t n;
  char *bytes = read_file(path, &n), *at;
  fill(KWM_F32, 1500, 40, 2, wanted);
  at = bytes == NULL ? NULL : memmem(bytes, n, wanted, sizeof wanted);
  assert_all(at != NULL);
  MPI_Barrier(MPI_COMM_WORLD);
  at[33] ^= 4;
  write_file(path, bytes, n);
  free(bytes);
}

static void test_damage_falls_back(void **state) {
  (void)state;
  char *dir = make_dir();
  char log_path[2 * PATH];
  kwm_ckpt *ckpt;
  size_t n = 0;
  write_small(dir, 1, 5);
  write_small(dir, 2, 5);
  damage_data(step_path(dir, 2));
  write_file(in_dir(dir, "step-0000000003.h5"), "", 0);
  write_file(in_dir(dir, "step-0000000004.h5.part"), "half a file", 11);
  write_file(in_dir(dir, "step-5.h5"), "not a name of ours", 18);
  assert_bad(step_path(dir, 2));
  assert_bad(step_path(dir, 3));
  snprintf(log_path, sizeof log_path, "%s/log", dir);
  kwm_log_speaks(rank == 0);
  if (rank == 0) assert_ok(kwm_log_open(log_path));
  const kwm_status status = kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir);
  kwm_log_close();
  kwm_log_speaks(false);
  assert_all(status == KWM_OK);
  assert_string_equal(kwm_ckpt_path(ckpt), step_path(dir, 1));
  assert_all(is_small(ckpt, 1));
  kwm_ckpt_close(&ckpt);
  char *log = read_file(log_path, &n);
  const char *third = strstr(log, "step-0000000003.h5"), *second = strstr(log, "step-0000000002.h5");
  assert_all(third != NULL && second > third && strstr(log, "warning") != NULL && strstr(second, "Fletcher32") != NULL);
  assert_all(strstr(log, "step-0000000001") == NULL && strstr(log, "step-0000000004") == NULL);
  free(log);
  drop_dir(dir);
}

static void test_truncated(void **state) {
  (void)state;
  char *dir = make_dir();
  size_t n;
  write_small(dir, 2, 5);
  char *bytes = read_file(step_path(dir, 2), &n);
  const size_t lengths[] = {0, 1, 8, 47, 48, 100, n / 4, n / 2, n - 4096, n - 100, n - 1};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    write_file(step_path(dir, 2), bytes, lengths[i]);
    assert_bad(step_path(dir, 2));
  }
  kwm_ckpt *ckpt;
  assert_refused(kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir), KWM_ERR_DATA, ckpt, dir);
  free(bytes);
  drop_dir(dir);
}

/* Every eleventh byte of a whole file: found, or without meaning. */
static void test_any_byte(void **state) {
  (void)state;
  char *dir = make_dir();
  size_t n;
  int found = 0, harmless = 0;
  write_small(dir, 2, 5);
  char *bytes = read_file(step_path(dir, 2), &n);
  for (size_t i = 0; i < n; i += 11) {
    bytes[i] ^= 0x40;
    write_file(step_path(dir, 2), bytes, n);
    bytes[i] ^= 0x40;
    kwm_ckpt *ckpt;
    const kwm_status status = kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 2));
    if (status == KWM_OK) {
      char *text = NULL;
      assert_all(is_small(ckpt, 2) && kwm_ckpt_get_text(ckpt, "/meta", "config", &text) == KWM_OK);
      assert_all(strcmp(text, "seed: 1\nnote: a text that no checksum of HDF5 covers\n") == 0);
      free(text);
      harmless++;
    } else {
      assert_refused(status, KWM_ERR_DATA, ckpt, step_path(dir, 2));
      found++;
    }
    kwm_ckpt_close(&ckpt);
  }
  print_message("%d flips found, %d harmless\n", found, harmless);
  assert_all(found > 12000 / 11);
  free(bytes);
  drop_dir(dir);
}

/* A chunk that never reached the disk is all zeros, and so is the Fletcher-32 of zeros. */
static void test_lost_chunk(void **state) {
  (void)state;
  char *dir = make_dir();
  float wanted[3000];
  size_t n;
  write_small(dir, 2, 5);
  char *bytes = read_file(step_path(dir, 2), &n);
  fill(KWM_F32, 0, 3000, 2, wanted);
  char *at = memmem(bytes, n, wanted, sizeof wanted);
  assert_all(at != NULL);
  memset(at, 0, sizeof wanted + 4);
  write_file(step_path(dir, 2), bytes, n);
  assert_bad(step_path(dir, 2));
  assert_all(strstr(kwm_error_message(), "sum") != NULL);
  free(bytes);
  drop_dir(dir);
}

/* An HDF5 file with these root attributes. */
static void write_foreign(const char *path, const char *format, int64_t version) {
  if (rank == 0) {
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    const hid_t name = format == NULL ? -1 : H5Acreate2(file, "format", text, space, H5P_DEFAULT, H5P_DEFAULT);
    if (format != NULL) H5Awrite(name, text, &format);
    if (format != NULL) H5Aclose(name);
    const hid_t number = H5Acreate2(file, "format_version", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(number, H5T_NATIVE_INT64, &version);
    H5Aclose(number);
    H5Tclose(text);
    H5Sclose(space);
    H5Fclose(file);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

static void test_foreign_files(void **state) {
  (void)state;
  char *dir = make_dir();
  const char *path = in_dir(dir, "f.h5");
  char noise[9000];
  assert_bad(path);
  assert_bad(dir);
  memset(noise, 'x', sizeof noise);
  write_file(path, noise, sizeof noise);
  assert_bad(path);
  write_foreign(path, NULL, 1);
  assert_bad(path);
  write_foreign(path, "another", 1);
  assert_bad(path);
  assert_all(strstr(kwm_error_message(), "kwm-checkpoint") != NULL);
  write_foreign(path, "kwm-checkpoint", 2);
  assert_bad(path);
  assert_all(strstr(kwm_error_message(), "version 1, found 2") != NULL);
  write_foreign(path, "kwm-checkpoint", 1);
  assert_bad(path);
  assert_all(strstr(kwm_error_message(), "sum") != NULL);
  drop_dir(dir);
}

static void test_no_checkpoint(void **state) {
  (void)state;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  write_file(in_dir(dir, "step-0000000004.h5.part"), "half a file", 11);
  assert_refused(kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir), KWM_ERR_DATA, ckpt, "found none");
  assert_refused(kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, in_dir(dir, "no")), KWM_ERR_DATA, ckpt, in_dir(dir, "no"));
  drop_dir(dir);
}

/* ---- the folder */

static void test_keep(void **state) {
  (void)state;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  for (int64_t step = 10; step <= 40; step += 10) write_small(dir, step, 2);
  assert_listing(dir, "step-0000000030.h5 step-0000000040.h5 ");
  write_file(in_dir(dir, "step-0000000077.h5.part"), "killed", 6);
  write_file(in_dir(dir, "notes.h5"), "mine", 4);
  write_small(dir, 40, 2);
  assert_listing(dir, "notes.h5 step-0000000030.h5 step-0000000040.h5 ");
  damage_data((write_small(dir, 2, 9), step_path(dir, 2)));
  assert_ok(kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir));
  assert_all(is_small(ckpt, 40));
  kwm_ckpt_close(&ckpt);
  write_small(dir, 35, 1); /* later ones are not counted, nor removed */
  assert_listing(dir, "notes.h5 step-0000000035.h5 step-0000000040.h5 ");
  drop_dir(dir);
}

static void test_abort(void **state) {
  (void)state;
  char *dir = make_dir();
  kwm_ckpt *ckpt = NULL;
  kwm_ckpt_abort(&ckpt);
  write_small(dir, 1, 2);
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 2));
  assert_ok(put(ckpt, "/a", KWM_I64, small, 0, 1));
  assert_listing(dir, "step-0000000001.h5 step-0000000002.h5.part ");
  kwm_ckpt_abort(&ckpt);
  assert_null(ckpt);
  assert_listing(dir, "step-0000000001.h5 ");
  drop_dir(dir);
}

static void test_twice_the_same_name(void **state) {
  (void)state;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 2));
  assert_ok(put(ckpt, "/a", KWM_I64, small, 0, 1));
  assert_refused(put(ckpt, "/a", KWM_I64, small, 0, 1), KWM_ERR_SYSTEM, NULL, "/a");
  assert_refused(kwm_ckpt_put_i64(ckpt, "/meta", "step", 1), KWM_ERR_SYSTEM, NULL, "earlier write");
  const kwm_status status = kwm_ckpt_commit(&ckpt, 1);
  assert_refused(status, KWM_ERR_SYSTEM, ckpt, dir);
  assert_listing(dir, "");
  drop_dir(dir);
}

static void test_not_writable(void **state) {
  (void)state;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  write_file(in_dir(dir, "file"), "x", 1);
  const char *path = in_dir(dir, "file");
  kwm_status status = kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, path, 1);
  assert_refused(status, KWM_ERR_SYSTEM, ckpt, path);
  path = in_dir(dir, "file/below");
  status = kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, path, 1);
  assert_refused(status, KWM_ERR_SYSTEM, ckpt, path);
  path = in_dir(dir, "missing");
  write_small(path, 1, 1);
  assert_listing(in_dir(dir, "missing"), "step-0000000001.h5 ");
  drop_dir(dir);
}

/* ---- no room */

/* An array too large fails, the checkpoint before stays and nothing else is left; a smaller one fits again. */
static void check_full(const char *dir, int64_t rows) {
  const int64_t large[N_DIMS] = {rows, 1000};
  kwm_ckpt *ckpt;
  write_small(dir, 1, 3);
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 2));
  assert_ok(put(ckpt, "/params/a", KWM_F32, small, 0, 1));
  const kwm_status status = put(ckpt, "/params/large", KWM_F64, large, 3, 1);
  assert_refused(status, KWM_ERR_SYSTEM, NULL, "step-0000000002.h5");
  if (getenv("DBG")) fprintf(stderr, "%d: %s\n", rank, kwm_error_message());
  const kwm_status committed = kwm_ckpt_commit(&ckpt, 1);
  assert_refused(committed, KWM_ERR_SYSTEM, ckpt, "step-0000000002.h5");
  assert_listing(dir, "step-0000000001.h5 ");
  assert_ok(kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir));
  assert_all(is_small(ckpt, 1));
  kwm_ckpt_close(&ckpt);
  write_small(dir, 3, 1);
  assert_listing(dir, "step-0000000003.h5 ");
}

/* KWM_TEST_SMALL_DISK names a folder on a file system of a few MB; else one is mounted, where that is allowed. */
static void test_full_disk(void **state) {
  (void)state;
  char *dir = make_dir();
  const char *given = getenv("KWM_TEST_SMALL_DISK");
  int mounted = given == NULL && rank == 0 && mount("none", dir, "tmpfs", 0, "size=3m") == 0;
  MPI_Bcast(&mounted, 1, MPI_INT, 0, MPI_COMM_WORLD);
  if (given != NULL || mounted)
    check_full(given != NULL ? given : dir, 2000);
  else
    print_message("full disk: not tested: can't mount a small file system; KWM_TEST_SMALL_DISK=FOLDER names one\n");
  MPI_Barrier(MPI_COMM_WORLD);
  if (mounted && rank == 0) assert_int_equal(umount(dir), 0);
  drop_dir(dir);
}

/* Only the last rank meets a limit, in the middle of HDF5's work (with one rank: when room is reserved). */
static void test_one_rank_fails(void **state) {
  (void)state;
  char *dir = make_dir();
  struct rlimit before, limit;
  signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &before);
  limit = before;
  limit.rlim_cur = 1 << 20;
  if (rank == size - 1) setrlimit(RLIMIT_FSIZE, &limit);
  check_full(dir, 2000);
  setrlimit(RLIMIT_FSIZE, &before);
  drop_dir(dir);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (rank != 0 && freopen("/dev/null", "w", stdout) == NULL) return 1;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_same_bytes_on_any_split),
      cmocka_unit_test(test_attributes),
      cmocka_unit_test(test_list),
      cmocka_unit_test(test_wanted_something_else),
      cmocka_unit_test(test_damage_falls_back),
      cmocka_unit_test(test_truncated),
      cmocka_unit_test(test_any_byte),
      cmocka_unit_test(test_lost_chunk),
      cmocka_unit_test(test_foreign_files),
      cmocka_unit_test(test_no_checkpoint),
      cmocka_unit_test(test_keep),
      cmocka_unit_test(test_abort),
      cmocka_unit_test(test_twice_the_same_name),
      cmocka_unit_test(test_not_writable),
      cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_one_rank_fails),
  };
  int mine = cmocka_run_group_tests(tests, NULL, NULL), all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return all;
}

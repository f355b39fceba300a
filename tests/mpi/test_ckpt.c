/* Checkpoints: what is put comes back bit for bit on any split, and a disk that is full or closed costs nothing but the
   checkpoint that did not fit. */
#include "ckpt_files.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

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
  assert_refused(kwm_ckpt_shape(ckpt, "/params/a", &n_dims, dims), KWM_ERR_DATA, "/params/a");
  assert_refused(kwm_ckpt_shape(ckpt, "/params/b", &n_dims, dims), KWM_ERR_DATA, "/params/b");
  assert_refused(kwm_ckpt_shape(ckpt, "/params", &n_dims, dims), KWM_ERR_DATA, "/params");
  const int64_t other[2] = {50, 60}, flat[1] = {3000};
  const int64_t count = rank() == 0 ? 1 : 0;
  assert_refused(kwm_ckpt_get(ckpt, "/params/a", KWM_F32, 2, other, 0, count, data), KWM_ERR_DATA,
                 "wanted f32 (50, 60), found f32 (60, 50)");
  assert_refused(kwm_ckpt_get(ckpt, "/params/a", KWM_F32, 1, flat, 0, count, data), KWM_ERR_DATA,
                 "wanted f32 (3000), found f32 (60, 50)");
  assert_refused(kwm_ckpt_get(ckpt, "/params/a", KWM_F64, 2, small, 0, count, data), KWM_ERR_DATA,
                 "wanted f64 (60, 50), found f32 (60, 50)");
  assert_refused(kwm_ckpt_get(ckpt, "/params/c", KWM_F32, 2, small, 0, count, data), KWM_ERR_DATA, "/params/c");
  assert_refused(kwm_ckpt_get_i64(ckpt, "/meta", "config", &whole), KWM_ERR_DATA, "config of /meta");
  assert_refused(kwm_ckpt_get_f64(ckpt, "/meta", "step", &number), KWM_ERR_DATA, "step of /meta");
  assert_refused(kwm_ckpt_get_text(ckpt, "/meta", "step", &text), KWM_ERR_DATA, "step of /meta");
  assert_null(text);
  assert_refused(kwm_ckpt_get_i64(ckpt, "/meta", "none", &whole), KWM_ERR_DATA, "none of /meta");
  assert_refused(kwm_ckpt_get_i64(ckpt, "/nowhere", "step", &whole), KWM_ERR_DATA, "step of /nowhere");
  assert_all(is_small(ckpt, 1));
  kwm_ckpt_close(&ckpt);
  drop_dir(dir);
}

/* ---- the folder */

static void test_keep(void **state) {
  (void)state;
  char *dir = make_dir();
  for (int64_t step = 10; step <= 40; step += 10) write_small(dir, step, 2);
  assert_listing(dir, "step-0000000030.h5 step-0000000040.h5 ");
  write_file(in_dir(dir, "step-0000000077.h5.part"), "killed", 6);
  write_file(in_dir(dir, "notes.h5"), "mine", 4);
  write_small(dir, 40, 2);
  assert_listing(dir, "notes.h5 step-0000000030.h5 step-0000000040.h5 ");
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
  assert_refused(put(ckpt, "/a", KWM_I64, small, 0, 1), KWM_ERR_SYSTEM, "/a");
  assert_refused(kwm_ckpt_put_i64(ckpt, "/meta", "step", 1), KWM_ERR_SYSTEM, "earlier write");
  const kwm_status status = kwm_ckpt_commit(&ckpt, 1);
  assert_refused(status, KWM_ERR_SYSTEM, dir);
  assert_all(ckpt == NULL);
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
  assert_refused(status, KWM_ERR_SYSTEM, path);
  assert_all(ckpt == NULL);
  path = in_dir(dir, "file/below");
  status = kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, path, 1);
  assert_refused(status, KWM_ERR_SYSTEM, path);
  assert_all(ckpt == NULL);
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
  assert_refused(status, KWM_ERR_SYSTEM, "step-0000000002.h5");
  const kwm_status committed = kwm_ckpt_commit(&ckpt, 1);
  assert_refused(committed, KWM_ERR_SYSTEM, "step-0000000002.h5");
  assert_all(ckpt == NULL);
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
  int mounted = given == NULL && rank() == 0 && mount("none", dir, "tmpfs", 0, "size=3m") == 0;
  MPI_Bcast(&mounted, 1, MPI_INT, 0, MPI_COMM_WORLD);
  if (given != NULL || mounted)
    check_full(given != NULL ? given : dir, 2000);
  else
    print_message("full disk: not tested: can't mount a small file system; KWM_TEST_SMALL_DISK=FOLDER names one\n");
  MPI_Barrier(MPI_COMM_WORLD);
  if (mounted && rank() == 0) assert_int_equal(umount(dir), 0);
  drop_dir(dir);
}

/* A limit on the length of files, met when room is reserved. */
static void test_file_too_long(void **state) {
  (void)state;
  char *dir = make_dir();
  struct rlimit before, limit;
  signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &before);
  limit = before;
  limit.rlim_cur = 1 << 20;
  if (rank() == 0) setrlimit(RLIMIT_FSIZE, &limit);
  check_full(dir, 2000);
  setrlimit(RLIMIT_FSIZE, &before);
  drop_dir(dir);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_round_trip),
    cmocka_unit_test(test_same_bytes_on_any_split),
    cmocka_unit_test(test_attributes),
    cmocka_unit_test(test_list),
    cmocka_unit_test(test_wanted_something_else),
    cmocka_unit_test(test_keep),
    cmocka_unit_test(test_abort),
    cmocka_unit_test(test_twice_the_same_name),
    cmocka_unit_test(test_not_writable),
    cmocka_unit_test(test_full_disk),
    cmocka_unit_test(test_file_too_long),
};

KWM_TEST_MAIN(tests)

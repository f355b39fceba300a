/* Damage behind a seal that is right, as nobody but HDF5's own checksums sees it: a byte, some bytes, a whole stretch
   changed in a good file, which is then sealed anew. Whatever HDF5 makes of it: refused, or read, no crash, no loop. */
#include "../mpi/ckpt_files.h"

enum { CASES = 1500, ROWS = 30, COLUMNS = 7, PATIENCE = 120 };

static uint64_t state = 88172645463325252u;

static size_t draw(size_t n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (size_t)(state % n);
}

static const int64_t dims[N_DIMS] = {ROWS, COLUMNS};
static const char *const arrays[] = {"/params/a", "/params/b", "/cov/a/left", "/history/counts"};
static const char *const texts[] = {"config", "version", "git"};
static const char *const numbers[] = {"step", "epoch", "seed"};

static void write_good(const char *dir) {
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_SELF, dir, 1));
  for (int i = 0; i < 3; i++) assert_ok(kwm_ckpt_put_text(ckpt, "/meta", texts[i], "learner: kalman\nseed: 1\n"));
  for (int i = 0; i < 3; i++) assert_ok(kwm_ckpt_put_i64(ckpt, "/meta", numbers[i], 40 + i));
  assert_ok(kwm_ckpt_put_f64(ckpt, "/filter", "noise", 0.5));
  for (int i = 0; i < 4; i++) assert_ok(put(ckpt, arrays[i], (enum kwm_type)(i % 3), dims, 1, 1));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
}

/* As the format said first. */
static void seal(char *bytes, size_t n) {
  uint64_t sum = 0;
  for (size_t i = 512; i < n; i++) sum += ((uint64_t)(unsigned char)bytes[i] << 8 * (i % 8)) * (2 * (i / 8) + 1);
  memset(bytes, 0, 512);
  snprintf(bytes, 512,
           "kwm-checkpoint\nbytes %zu\nsum %016llx\nHDF5 begins at byte 512 of this file; h5dump and h5py read it.\n",
           n, (unsigned long long)sum);
}

/* Returns the file's length then. */
static size_t damage(char *bytes, size_t n, int kind) {
  const size_t at = 512 + draw(n - 512), left = n - at;
  const size_t many = left < 64 ? left : 64;
  switch (kind) {
  case 0: bytes[at] ^= (char)(1 << draw(8)); return n;
  case 1: bytes[at] = (char)draw(256); return n;
  case 2: memset(bytes + at, draw(2) == 0 ? 0 : 0xff, 1 + draw(many)); return n;
  case 3: memmove(bytes + at, bytes + 512 + draw(n - 512 - many), many); return n;
  case 4:
    for (int k = 0; k < 8; k++) bytes[512 + draw(n - 512)] ^= (char)(1 + draw(255));
    return n;
  default: return at;
  }
}

static void visit(void *context, const char *name, enum kwm_type type, int n_dims, const int64_t *shape) {
  (void)name, (void)type, (void)shape;
  *(int *)context += n_dims;
}

/* Everything that a reader asks for. True if all of it came. */
static bool read_all(kwm_ckpt *ckpt) {
  double number = 0, data[ROWS * COLUMNS];
  int64_t value = 0, shape[N_DIMS];
  int all = 0, n_dims = N_DIMS;
  bool good = kwm_ckpt_list(ckpt, visit, &all) == KWM_OK;
  for (int i = 0; i < 3; i++) {
    char *text = NULL;
    good = kwm_ckpt_get_text(ckpt, "/meta", texts[i], &text) == KWM_OK && good;
    free(text);
    good = kwm_ckpt_get_i64(ckpt, "/meta", numbers[i], &value) == KWM_OK && good;
  }
  good = kwm_ckpt_get_f64(ckpt, "/filter", "noise", &number) == KWM_OK && good;
  for (int i = 0; i < 4; i++) {
    good = kwm_ckpt_shape(ckpt, arrays[i], &n_dims, shape) == KWM_OK && good;
    good = kwm_ckpt_get(ckpt, arrays[i], (enum kwm_type)(i % 3), N_DIMS, dims, 0, ROWS, data) == KWM_OK && good;
  }
  return good;
}

static void test_sealed_damage(void **state_) {
  (void)state_;
  char *dir = make_dir(), path[2 * PATH];
  size_t n;
  int refused = 0, partly = 0, whole = 0;
  write_good(dir);
  char *const good = read_file(step_path(dir, 1), &n), *const bytes = malloc(n);
  assert_non_null(good);
  snprintf(path, sizeof path, "%s/bad.h5", dir);
  for (int k = 0; k < CASES; k++) {
    kwm_ckpt *ckpt;
    memcpy(bytes, good, n);
    const size_t m = damage(bytes, n, k % 6);
    seal(bytes, m > 512 ? m : 512);
    write_file(path, bytes, m > 512 ? m : 512);
    alarm(PATIENCE); /* a reader that loops is killed */
    const kwm_status status = kwm_ckpt_open(&ckpt, MPI_COMM_SELF, path);
    assert_true(status == KWM_OK || status == KWM_ERR_DATA);
    if (status != KWM_OK)
      refused++;
    else if (read_all(ckpt))
      whole++;
    else
      partly++;
    if (status == KWM_OK) kwm_ckpt_close(&ckpt);
    alarm(0);
  }
  print_message("of %d files, sealed anew: %d refused, %d partly read, %d read\n", CASES, refused, partly, whole);
  assert_true(refused > CASES / 20 && whole > CASES / 20);
  free(good);
  free(bytes);
  drop_dir(dir);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_sealed_damage)};

KWM_TEST_MAIN(tests)

/* Damaged checkpoints: whatever byte is wrong or missing, all ranks find it and name the file, and the one before is
 * used. */
#include "ckpt_files.h"

#include <hdf5.h>

#include "kwm/log.h"

static void assert_bad(const char *path) {
  kwm_ckpt *ckpt;
  const kwm_status status = kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, path);
  assert_refused(status, KWM_ERR_DATA, path);
  assert_all(ckpt == NULL);
}

static void assert_none(const char *dir, const char *words) {
  kwm_ckpt *ckpt;
  const kwm_status status = kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir);
  assert_refused(status, KWM_ERR_DATA, dir);
  assert_all(ckpt == NULL && strstr(kwm_error_message(), words) != NULL);
}

/* Flips one bit in the middle of the array's data. */
static void damage_data(const char *path) {
  float wanted[40];
  size_t n;
  char *bytes = read_file(path, &n), *at;
  fill(KWM_F32, 1500, 40, 2, wanted);
  at = bytes == NULL ? NULL : memmem(bytes, n, wanted, sizeof wanted);
  assert_all(at != NULL);
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
  kwm_log_speaks(rank() == 0);
  assert_all(rank() != 0 || kwm_log_open(log_path) == KWM_OK);
  const kwm_status status = kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir);
  kwm_log_close();
  kwm_log_speaks(false);
  assert_all(status == KWM_OK);
  assert_string_equal(kwm_ckpt_path(ckpt), step_path(dir, 1));
  assert_all(is_small(ckpt, 1));
  kwm_ckpt_close(&ckpt);
  char *log = read_file(log_path, &n);
  const char *third = strstr(log, "step-0000000003.h5"), *second = strstr(log, "step-0000000002.h5");
  assert_all(third != NULL && second > third && strstr(log, "warning") != NULL && strstr(second, "sum") != NULL);
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
  const size_t lengths[] = {0, 1, 100, 511, 512, 560, n / 4, n / 2, n - 4096, n - 100, n - 1};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    write_file(step_path(dir, 2), bytes, lengths[i]);
    assert_bad(step_path(dir, 2));
  }
  assert_none(dir, "all damaged");
  free(bytes);
  drop_dir(dir);
}

/* Data, seal, metadata, texts (in whose structures HDF5 would loop) or a gap. */
static void test_any_byte(void **state) {
  (void)state;
  char *dir = make_dir();
  size_t n;
  write_small(dir, 2, 5);
  char *bytes = read_file(step_path(dir, 2), &n);
  for (size_t i = 0; i < n; i += 7) {
    bytes[i] ^= (char)(1 << i % 8);
    write_file(step_path(dir, 2), bytes, n);
    assert_bad(step_path(dir, 2));
    bytes[i] ^= (char)(1 << i % 8);
  }
  write_file(step_path(dir, 2), bytes, n + 1);
  assert_bad(step_path(dir, 2));
  free(bytes);
  drop_dir(dir);
}

/* What leaves a sum of whole words times odd numbers as it is: two highest bits, four signs of doubles or of floats. */
static void test_highest_bits(void **state) {
  (void)state;
  char *dir = make_dir();
  size_t n;
  write_small(dir, 2, 5);
  char *bytes = read_file(step_path(dir, 2), &n);
  const size_t apart[] = {4, 8, 16, 4096};
  for (int k = 0; k < 4; k++)
    for (int flips = 2; flips <= 4; flips += 2)
      for (size_t at = 1024 + 3; at + 3 * apart[k] < n; at += n / 20 / 4 * 4) {
        for (int j = 0; j < flips; j++) bytes[at + (size_t)j * apart[k]] ^= (char)0x80;
        write_file(step_path(dir, 2), bytes, n);
        assert_bad(step_path(dir, 2));
        for (int j = 0; j < flips; j++) bytes[at + (size_t)j * apart[k]] ^= (char)0x80;
      }
  free(bytes);
  drop_dir(dir);
}

/* A piece that never reached the disk is all zeros. */
static void test_lost_piece(void **state) {
  (void)state;
  char *dir = make_dir();
  float wanted[3000];
  size_t n;
  write_small(dir, 2, 5);
  char *bytes = read_file(step_path(dir, 2), &n);
  fill(KWM_F32, 0, 3000, 2, wanted);
  char *at = memmem(bytes, n, wanted, sizeof wanted);
  assert_all(at != NULL);
  memset(at, 0, sizeof wanted);
  write_file(step_path(dir, 2), bytes, n);
  assert_bad(step_path(dir, 2));
  assert_all(strstr(kwm_error_message(), "sum") != NULL);
  free(bytes);
  drop_dir(dir);
}

/* Seals n bytes as the format said first, whatever is in them. */
static void seal(char *bytes, size_t n) {
  uint64_t sum = 0;
  for (size_t i = 512; i < n; i++) sum += ((uint64_t)(unsigned char)bytes[i] << 8 * (i % 8)) * (2 * (i / 8) + 1);
  memset(bytes, 0, 512);
  snprintf(bytes, 512,
           "kwm-checkpoint\nbytes %zu\nsum %016llx\nHDF5 begins at byte 512 of this file; h5dump and h5py read it.\n",
           n, (unsigned long long)sum);
}

/* Behind an unbroken seal, HDF5's own checksums still find what is wrong with its structures, and all ranks hear of it.
 */
static void test_damage_behind_the_seal(void **state) {
  (void)state;
  char *dir = make_dir();
  size_t n;
  write_small(dir, 2, 5);
  char *bytes = read_file(step_path(dir, 2), &n);
  char *at = memmem(bytes, n, "OHDR", 4);
  assert_all(at != NULL);
  at[20] ^= 4;
  seal(bytes, n);
  write_file(step_path(dir, 2), bytes, n);
  assert_bad(step_path(dir, 2));
  free(bytes);
  drop_dir(dir);
}

static void put_root(hid_t file, const char *name, hid_t type, const void *value) {
  const hid_t space = H5Screate(H5S_SCALAR), attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, type, value);
  H5Aclose(attribute);
  H5Sclose(space);
}

/* A sealed HDF5 file with these root attributes. */
static void write_foreign(const char *path, const char *format, int64_t version) {
  size_t n = 0;
  if (rank() == 0) {
    const hid_t creation = H5Pcreate(H5P_FILE_CREATE), text = H5Tcopy(H5T_C_S1);
    H5Pset_userblock(creation, 512);
    H5Tset_size(text, H5T_VARIABLE);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, H5P_DEFAULT);
    if (format != NULL) put_root(file, "format", text, &format);
    put_root(file, "format_version", H5T_NATIVE_INT64, &version);
    H5Tclose(text);
    H5Pclose(creation);
    H5Fclose(file);
  }
  char *bytes = rank() == 0 ? read_file(path, &n) : NULL;
  if (bytes != NULL) seal(bytes, n);
  write_file(path, bytes, n);
  free(bytes);
}

static void assert_bad_because(const char *path, const char *words) {
  assert_bad(path);
  assert_refused(KWM_ERR_DATA, KWM_ERR_DATA, words);
}

static void test_foreign_files(void **state) {
  (void)state;
  char *dir = make_dir(), path[2 * PATH], noise[9000];
  kwm_ckpt *ckpt;
  snprintf(path, sizeof path, "%s/f.h5", dir);
  assert_bad_because(path, "No such file");
  assert_bad_because(dir, "wanted a file");
  memset(noise, 'x', sizeof noise);
  write_file(path, noise, sizeof noise);
  assert_bad_because(path, "does not begin like one");
  seal(noise, sizeof noise);
  write_file(path, noise, sizeof noise);
  assert_bad_because(path, "signature");
  write_foreign(path, NULL, 1);
  assert_bad_because(path, "attribute format");
  write_foreign(path, "another", 1);
  assert_bad_because(path, "wanted format kwm-checkpoint");
  write_foreign(path, "kwm-checkpoint", 3);
  assert_bad_because(path, "version 2, found 3");
  write_foreign(path, "kwm-checkpoint", 1);
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, path));
  kwm_ckpt_close(&ckpt);
  drop_dir(dir);
}

static void test_no_checkpoint(void **state) {
  (void)state;
  char *dir = make_dir();
  write_file(in_dir(dir, "step-0000000004.h5.part"), "half a file", 11);
  assert_none(dir, "wanted at least one step-*.h5, found none");
  assert_none(in_dir(dir, "no"), "No such file");
  drop_dir(dir);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_damage_falls_back), cmocka_unit_test(test_truncated),
    cmocka_unit_test(test_any_byte),          cmocka_unit_test(test_highest_bits),
    cmocka_unit_test(test_lost_piece),        cmocka_unit_test(test_damage_behind_the_seal),
    cmocka_unit_test(test_foreign_files),     cmocka_unit_test(test_no_checkpoint),
};

KWM_TEST_MAIN(tests)

/* Series from files: what is read, and what is refused in words. */
#include <hdf5.h>
#include <unistd.h>

#include "dense.h"
#include "kwm/series.h"

static char folder[] = "/tmp/kwm-series-XXXXXX";

static const char *file(const char *name, const char *text) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *const to = fopen(path, "w");
  assert_non_null(to);
  fputs(text, to);
  fclose(to);
  return path;
}

static struct kwm_series_spec spec_of(const char *path) {
  return (struct kwm_series_spec){.path = path, .outputs = "", .inputs = "", .time = "", .episode = ""};
}

static void test_csv(void **state) {
  (void)state;
  struct kwm_series_spec spec =
      spec_of(file("good.csv", "t,a, \"b\" ,u,run\r\n0,1,2,3,1\r\n0.5,,nan,4,1\n\n1.0,5,NA,6,1\n0,7,8,9,2\n"
                               "0.5,1e3,-2,0,2\n"));
  struct kwm_series series;
  spec.time = "t", spec.inputs = "u", spec.episode = "run";
  assert_ok(kwm_series_read(&series, &spec));
  assert_int_equal(series.n, 5);
  assert_int_equal(series.m, 2);
  assert_int_equal(series.k, 1);
  assert_close(series.dt, 0.5, 1e-15, 0);
  assert_string_equal(series.names[1], "b");
  assert_string_equal(series.names[2], "u");
  assert_true(isnan(series.y[2]) && isnan(series.y[3]) && isnan(series.y[5]));
  assert_close(series.y[8], 1000, 0, 0);
  assert_close(series.u[2], 6, 0, 0);
  const uint8_t starts[] = {1, 0, 0, 1, 0};
  assert_memory_equal(series.starts, starts, sizeof starts);
  assert_true(series.file.bytes > 0 && series.file.crc32 != 0);
  kwm_series_fini(&series);
  spec = spec_of(spec.path);
  spec.outputs = "b,a";
  assert_ok(kwm_series_read(&series, &spec));
  assert_int_equal(series.m, 2);
  assert_string_equal(series.names[0], "b");
  assert_close(series.y[1], 1, 0, 0);
  kwm_series_fini(&series);
}

static void refused(const char *text, kwm_status status, const char *words, const char *time, const char *inputs) {
  struct kwm_series_spec spec = spec_of(file("bad.csv", text));
  struct kwm_series series;
  spec.time = time, spec.inputs = inputs;
  assert_int_equal(kwm_series_read(&series, &spec), status);
  if (strstr(kwm_error_message(), words) == NULL) fail_msg("wanted `%s` in: %s", words, kwm_error_message());
}

static void test_refused(void **state) {
  (void)state;
  refused("", KWM_ERR_DATA, "header", "", "");
  refused("a,b\n", KWM_ERR_DATA, "rows", "", "");
  refused("1,2\n3,4\n", KWM_ERR_DATA, "header line of names", "", "");
  refused("a,b\n1,2\n3\n", KWM_ERR_DATA, "bad.csv:3", "", "");
  refused("a,b\n1,2\n3,4,5\n", KWM_ERR_DATA, "more", "", "");
  refused("a,b\n1,x\n", KWM_ERR_DATA, "column b", "", "");
  refused("a,b\n1,inf\n", KWM_ERR_DATA, "column b", "", "");
  refused("a,,b\n1,2,3\n", KWM_ERR_DATA, "name", "", "");
  refused("a,u\n1,2\n3,\n", KWM_ERR_DATA, "input u", "", "u");
  refused("a,b\n1,2\n", KWM_ERR_USAGE, "column `c`", "", "c");
  refused("t,a\n0,1\n1,2\n3,3\n", KWM_ERR_DATA, "equally spaced", "t", "");
  refused("t,a\n0,1\n,2\n2,3\n", KWM_ERR_DATA, "equally spaced", "t", "");
  refused("t,a\n2,1\n1,2\n0,3\n", KWM_ERR_DATA, "equally spaced", "t", "");
  struct kwm_series series;
  const struct kwm_series_spec none = spec_of("/nowhere/none.csv"), dir = spec_of(folder);
  assert_int_equal(kwm_series_read(&series, &none), KWM_ERR_DATA);
  assert_int_equal(kwm_series_read(&series, &dir), KWM_ERR_DATA);
}

static void put(hid_t to, const char *name, int n_dims, const hsize_t *dims, hid_t type, const void *data) {
  const hid_t space = H5Screate_simple(n_dims, dims, NULL);
  const hid_t set = H5Dcreate2(to, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
  H5Dclose(set);
  H5Sclose(space);
}

static void test_hdf5(void **state) {
  (void)state;
  char path[128];
  snprintf(path, sizeof path, "%s/series.h5", folder);
  const double y[6] = {1, 2, NAN, 4, 5, 6};
  const float u[3] = {7, 8, 9};
  const int t[3] = {0, 2, 4};
  const hsize_t wide[2] = {3, 2}, tall[1] = {3}, two[1] = {2};
  const hid_t to = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  put(to, "y", 2, wide, H5T_NATIVE_DOUBLE, y);
  put(to, "u", 1, tall, H5T_NATIVE_FLOAT, u);
  put(to, "t", 1, tall, H5T_NATIVE_INT, t);
  put(to, "short", 1, two, H5T_NATIVE_INT, t);
  H5Fclose(to);
  struct kwm_series series;
  struct kwm_series_spec spec = spec_of(path);
  spec.inputs = "u", spec.time = "t";
  assert_ok(kwm_series_read(&series, &spec));
  assert_int_equal(series.n, 3);
  assert_int_equal(series.m, 2);
  assert_close(series.dt, 2, 0, 0);
  assert_close(series.u[2], 9, 0, 0);
  assert_true(isnan(series.y[2]));
  assert_string_equal(series.names[1], "y.2");
  kwm_series_fini(&series);
  spec.inputs = "short";
  assert_int_equal(kwm_series_read(&series, &spec), KWM_ERR_DATA);
  spec.inputs = "none";
  assert_int_equal(kwm_series_read(&series, &spec), KWM_ERR_DATA);
  const struct kwm_series_spec text = spec_of(file("text.h5", "no HDF5"));
  assert_int_equal(kwm_series_read(&series, &text), KWM_ERR_DATA);
}

/* Parts begin where trajectories do, and the training part has mean 0 and deviation 1 afterwards. */
static void test_parts(void **state) {
  (void)state;
  struct kwm_series series;
  assert_ok(kwm_series_alloc(&series, 100, 1, 1, 0));
  for (int t = 0; t < 100; t++) {
    series.starts[t] = t % 30 == 0;
    series.y[t] = t == 7 ? NAN : 3 + 2 * test_normal(40, t);
    series.u[t] = t;
  }
  assert_ok(kwm_series_split(&series, 0.5, 0.1));
  assert_int_equal(series.train, 60);
  assert_int_equal(series.valid, 30);
  kwm_series_normalise(&series);
  double sum = 0, squares = 0;
  for (int t = 0; t < 60; t++)
    if (!isnan(series.y[t])) sum += series.y[t], squares += series.y[t] * series.y[t];
  assert_close(sum / 59, 0, 0, 1e-12);
  assert_close(squares / 59, 1, 1e-12, 0);
  assert_int_equal(kwm_series_split(&series, 0.9, 0.5), KWM_ERR_USAGE);
  kwm_series_fini(&series);
  assert_ok(kwm_series_alloc(&series, 10, 1, 0, 0));
  assert_int_equal(kwm_series_split(&series, 0.5, 0), KWM_ERR_DATA); /* never moves */
  kwm_series_fini(&series);
}

static int clean(void **state) {
  (void)state;
  static const char *const names[] = {"good.csv", "bad.csv", "series.h5", "text.h5"};
  char path[128];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    unlink(path);
  }
  return rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_csv),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_hdf5),
      cmocka_unit_test(test_parts),
  };
  if (mkdtemp(folder) == NULL) return 1;
  return cmocka_run_group_tests(tests, NULL, clean);
}

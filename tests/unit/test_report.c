/* Metrics table and JSON reports: what is written reads back, a resumed table reads as if it never stopped, and what
   can't be written leaves the old file and no other. */
#include "kwm_test.h"

#include <ftw.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "kwm/report.h"

enum { PATH = 512, TEXT = 4096 };

static const char *const columns[] = {"step", "loss", "nis"};

static int remove_entry(const char *path, const struct stat *about, int flag, struct FTW *walk) {
  (void)about, (void)flag, (void)walk;
  return remove(path);
}

static int make_dir(void **state) {
  char *dir = calloc(PATH, 1);
  const char *base = getenv("TMPDIR");
  snprintf(dir, PATH, "%s/kwm-report-XXXXXX", base != NULL ? base : P_tmpdir);
  *state = dir;
  return mkdtemp(dir) == NULL;
}

static int drop_dir(void **state) {
  const int failed = nftw(*state, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  free(*state);
  return failed;
}

static const char *in_dir(const char *dir, const char *name) {
  static char path[2 * PATH];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return path;
}

static void write_text(const char *dir, const char *name, const char *text) {
  FILE *file = fopen(in_dir(dir, name), "w");
  assert_non_null(file);
  assert_int_equal(fputs(text, file) < 0, 0);
  assert_int_equal(fclose(file), 0);
}

static void assert_text(const char *dir, const char *name, const char *wanted) {
  char text[TEXT] = "";
  FILE *file = fopen(in_dir(dir, name), "r");
  assert_non_null(file);
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  assert_string_equal(text, wanted);
}

static void assert_absent(const char *dir, const char *name) {
  assert_int_equal(access(in_dir(dir, name), F_OK), -1);
}

static void assert_says(const char *words) {
  if (strstr(kwm_error_message(), words) == NULL || strchr(kwm_error_message(), '\n') != NULL)
    fail_msg("wanted one line with [%s], found [%s]", words, kwm_error_message());
}

/* ---- metrics.tsv */

static void test_rows(void **state) {
  kwm_metrics *metrics;
  const double rows[][3] = {
      {1, 0.1, NAN}, {2, 1.0 / 3, -NAN}, {3e15, -INFINITY, 123456789.4}, {3e15 + 1, 1e-300, -0.0}};
  assert_ok(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 0));
  assert_text(*state, "metrics.tsv", "step\tloss\tnis\n");
  for (int i = 0; i < 4; i++) assert_ok(kwm_metrics_row(metrics, rows[i]));
  const char *wanted = "step\tloss\tnis\n1\t0.1\tnan\n2\t0.333333333\tnan\n3000000000000000\t-inf\t123456789\n"
                       "3000000000000001\t1e-300\t-0\n";
  assert_text(*state, "metrics.tsv", wanted); /* before closing: each row is out at once */
  kwm_metrics_close(&metrics);
  assert_null(metrics);
  kwm_metrics_close(&metrics);
  assert_text(*state, "metrics.tsv", wanted);
}

static void test_resume(void **state) {
  kwm_metrics *metrics;
  write_text(*state, "metrics.tsv", "step\tloss\tnis\n10\t1\t2\n20\t3\t4\n30\t5\t6\n40\t7");
  assert_ok(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 20));
  assert_text(*state, "metrics.tsv", "step\tloss\tnis\n10\t1\t2\n20\t3\t4\n");
  assert_ok(kwm_metrics_row(metrics, (const double[]){30, 8, 9}));
  kwm_metrics_close(&metrics);
  assert_ok(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 30));
  kwm_metrics_close(&metrics);
  assert_text(*state, "metrics.tsv", "step\tloss\tnis\n10\t1\t2\n20\t3\t4\n30\t8\t9\n");
  assert_ok(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 0));
  kwm_metrics_close(&metrics);
  assert_text(*state, "metrics.tsv", "step\tloss\tnis\n");
  assert_absent(*state, "metrics.tsv.part");
}

static void test_broken_last_line(void **state) {
  kwm_metrics *metrics;
  write_text(*state, "metrics.tsv", "step\tloss\tnis\n10\t1\t2\n20\t3\t4");
  assert_ok(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 100));
  kwm_metrics_close(&metrics);
  assert_text(*state, "metrics.tsv", "step\tloss\tnis\n10\t1\t2\n");
}

static void test_other_table(void **state) {
  static const char *const others[] = {"",
                                       "step\tloss\tnis",
                                       "step\tloss\n1\t2\n",
                                       "step\tloss\tnis\textra\n",
                                       "step\tloss\tnis\n1\t2\n",
                                       "step\tloss\tnis\n1\t2\t3\t4\n",
                                       "step\tloss\tnis\nx\t2\t3\n",
                                       "step\tloss\tnis\n\t2\t3\n"};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    kwm_metrics *metrics;
    write_text(*state, "metrics.tsv", others[i]);
    assert_int_equal(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 5), KWM_ERR_DATA);
    assert_null(metrics);
    assert_says(in_dir(*state, "metrics.tsv"));
    assert_text(*state, "metrics.tsv", others[i]);
  }
}

static void test_metrics_not_writable(void **state) {
  kwm_metrics *metrics;
  assert_int_equal(kwm_metrics_open(&metrics, in_dir(*state, "missing"), "metrics.tsv", 3, columns, 0), KWM_ERR_SYSTEM);
  assert_null(metrics);
  assert_says("missing/metrics.tsv");
  assert_int_equal(mkdir(in_dir(*state, "metrics.tsv"), 0777), 0);
  assert_int_equal(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 0), KWM_ERR_DATA);
  assert_null(metrics);
}

/* A limit on the length of files, in the way of what is called meanwhile. */
static struct rlimit limit_files(rlim_t bytes) {
  struct rlimit before, limit;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  limit = before;
  limit.rlim_cur = bytes;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  return before;
}

static void test_row_does_not_fit(void **state) {
  kwm_metrics *metrics;
  assert_ok(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 0));
  assert_ok(kwm_metrics_row(metrics, (const double[]){1, 2, 3}));
  const struct rlimit before = limit_files(22);
  const kwm_status status = kwm_metrics_row(metrics, (const double[]){2, 3, 4});
  setrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(status, KWM_ERR_SYSTEM);
  assert_says("metrics.tsv");
  kwm_metrics_close(&metrics);
  assert_ok(kwm_metrics_open(&metrics, *state, "metrics.tsv", 3, columns, 5));
  kwm_metrics_close(&metrics);
  assert_text(*state, "metrics.tsv", "step\tloss\tnis\n1\t2\t3\n");
}

/* ---- JSON */

static void test_fields(void **state) {
  const struct kwm_field fields[] = {
      {.name = "status", .kind = KWM_FIELD_TEXT, .text = "done \"so\"\n"},
      {.name = "step", .kind = KWM_FIELD_INTEGER, .integer = INT64_MAX},
      {.name = "train_loss", .kind = KWM_FIELD_NUMBER, .number = 0.1},
      {.name = "accuracy", .kind = KWM_FIELD_NUMBER, .number = 0.9735},
      {.name = "nis_mean", .kind = KWM_FIELD_NUMBER, .number = NAN},
      {.name = "worst", .kind = KWM_FIELD_NUMBER, .number = INFINITY},
      {.name = "bytes", .kind = KWM_FIELD_TEXT, .text = "no utf-8: \xe4"},
  };
  assert_ok(kwm_report_fields(*state, "summary.json", 7, fields));
  assert_text(
      *state, "summary.json",
      "{\n  \"status\": \"done \\\"so\\\"\\n\",\n  \"step\": 9223372036854775807,\n  \"train_loss\": 0.1,\n"
      "  \"accuracy\": 0.9735,\n  \"nis_mean\": null,\n  \"worst\": null,\n  \"bytes\": \"no utf-8: \xc3\xa4\"\n}\n");
  assert_ok(kwm_report_fields(*state, "summary.json", 1, &fields[1]));
  assert_text(*state, "summary.json", "{\n  \"step\": 9223372036854775807\n}\n");
  assert_ok(kwm_report_fields(*state, "summary.json", 0, fields));
  assert_text(*state, "summary.json", "{}\n");
  assert_absent(*state, "summary.json.part");
}

static void test_table(void **state) {
  const struct kwm_field fields[] = {
      {.name = "id", .kind = KWM_FIELD_TEXT, .text = "a"},
      {.name = "pass", .kind = KWM_FIELD_FLAG, .integer = 1},
      {.name = "id", .kind = KWM_FIELD_TEXT, .text = "b"},
      {.name = "pass", .kind = KWM_FIELD_FLAG, .integer = 0},
  };
  assert_ok(kwm_report_table(*state, "table.json", 2, 2, fields));
  assert_text(*state, "table.json",
              "[\n  {\n    \"id\": \"a\",\n    \"pass\": true\n  },\n"
              "  {\n    \"id\": \"b\",\n    \"pass\": false\n  }\n]\n");
  assert_ok(kwm_report_table(*state, "table.json", 0, 2, fields));
  assert_text(*state, "table.json", "[]\n");
  assert_absent(*state, "table.json.part");
  assert_int_equal(kwm_report_table(in_dir(*state, "missing"), "table.json", 2, 2, fields), KWM_ERR_SYSTEM);
}

static void test_text(void **state) {
  assert_ok(kwm_report_text(*state, "config.yaml", "seed: 1\n"));
  assert_text(*state, "config.yaml", "seed: 1\n");
  assert_ok(kwm_report_text(*state, "config.yaml", ""));
  assert_text(*state, "config.yaml", "");
  assert_absent(*state, "config.yaml.part");
  assert_int_equal(kwm_report_text(in_dir(*state, "missing"), "config.yaml", "x"), KWM_ERR_SYSTEM);
  assert_says("missing/config.yaml");
}

static void test_fields_not_writable(void **state) {
  const struct kwm_field field = {.name = "step", .kind = KWM_FIELD_INTEGER, .integer = 3};
  assert_int_equal(kwm_report_fields(in_dir(*state, "missing"), "summary.json", 1, &field), KWM_ERR_SYSTEM);
  assert_says("missing/summary.json");
  assert_ok(kwm_report_fields(*state, "summary.json", 1, &field));
  const struct rlimit before = limit_files(10);
  const kwm_status status = kwm_report_fields(*state, "summary.json", 1, &field);
  setrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(status, KWM_ERR_SYSTEM);
  assert_says("summary.json");
  assert_absent(*state, "summary.json.part");
  assert_text(*state, "summary.json", "{\n  \"step\": 3\n}\n");
  assert_int_equal(mkdir(in_dir(*state, "folder.json"), 0777), 0);
  assert_int_equal(kwm_report_fields(*state, "folder.json", 1, &field), KWM_ERR_SYSTEM);
  assert_absent(*state, "folder.json.part");
  char name[5000];
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  assert_int_equal(kwm_report_fields(*state, name, 1, &field), KWM_ERR_SYSTEM);
}

static const char *text_at(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  assert_non_null(text);
  return text;
}

static void check_manifest(const json_t *root) {
  assert_string_equal(text_at(root, "version"), "0.1.0");
  assert_string_equal(text_at(root, "git"), "abc123");
  assert_string_equal(text_at(root, "command"), "kwm train x.yaml");
  assert_string_equal(text_at(root, "compiler"), __VERSION__);
  assert_int_equal(json_integer_value(json_object_get(root, "seed")), 12345678901234567);
  assert_int_equal(json_integer_value(json_object_get(root, "ranks")), 6);
  const json_t *layout = json_object_get(root, "layout");
  assert_int_equal(json_integer_value(json_object_get(layout, "stages")), 1);
  assert_int_equal(json_integer_value(json_object_get(layout, "owners")), 2);
  assert_int_equal(json_integer_value(json_object_get(layout, "replicas")), 3);
  assert_string_equal(text_at(json_object_get(root, "libraries"), "MPI"), "3.1");
  assert_string_equal(text_at(json_object_get(root, "libraries"), "HDF5"), "1.10.8");
  const json_t *hosts = json_object_get(root, "hosts");
  assert_int_equal(json_array_size(hosts), 2);
  assert_string_equal(json_string_value(json_array_get(hosts, 1)), "h2");
  const json_t *file = json_array_get(json_object_get(root, "data"), 0);
  assert_string_equal(text_at(file, "name"), "images.gz");
  assert_string_equal(text_at(file, "crc32"), "00c0ffee");
  assert_int_equal(json_integer_value(json_object_get(file, "bytes")), 47040016);
  struct tm parts;
  const char *rest = strptime(text_at(root, "date"), "%Y-%m-%dT%H:%M:%SZ", &parts);
  assert_true(rest != NULL && *rest == '\0');
}

static void test_manifest(void **state) {
  const struct kwm_file_facts files[] = {{"images.gz", 47040016, 0xc0ffee}, {"labels.gz", 60008, 0xffffffff}};
  static const char *const hosts[] = {"h1", "h2"};
  static const char *const libraries[][2] = {{"MPI", "3.1"}, {"HDF5", "1.10.8"}};
  struct kwm_manifest manifest = {"0.1.0", "abc123", "kwm train x.yaml", 6, 1, 2, 3, 12345678901234567u, 2, hosts,
                                  2,       files};
  assert_ok(kwm_report_manifest(*state, &manifest, 2, libraries));
  json_t *root = json_load_file(in_dir(*state, "manifest.json"), 0, NULL);
  assert_non_null(root);
  check_manifest(root);
  json_decref(root);
  assert_absent(*state, "manifest.json.part");
  assert_int_equal(kwm_report_manifest(in_dir(*state, "missing"), &manifest, 2, libraries), KWM_ERR_SYSTEM);
  manifest.seed = UINT64_MAX;
  assert_ok(kwm_report_manifest(*state, &manifest, 2, libraries));
  root = json_load_file(in_dir(*state, "manifest.json"), 0, NULL);
  assert_non_null(root);
  assert_string_equal(json_string_value(json_object_get(root, "seed")), "18446744073709551615");
  json_decref(root);
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, drop_dir)

static const struct CMUnitTest tests[] = {
    IN_DIR(test_rows),
    IN_DIR(test_resume),
    IN_DIR(test_broken_last_line),
    IN_DIR(test_other_table),
    IN_DIR(test_metrics_not_writable),
    IN_DIR(test_row_does_not_fit),
    IN_DIR(test_fields),
    IN_DIR(test_table),
    IN_DIR(test_text),
    IN_DIR(test_fields_not_writable),
    IN_DIR(test_manifest),
};

KWM_TEST_MAIN(tests)

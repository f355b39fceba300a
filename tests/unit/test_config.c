/* Configuration: defaults, values from file and arguments, the resolved echo, and one clear line for every mistake. */
#include "kwm_test.h"

#include <unistd.h>

#include "kwm/config.h"

/* The mistake must be refused as usage with a message that starts with `wanted` (the rest is the raising line). */
static void assert_refused(const char *wanted, const char *text, int n_overrides, char *const *overrides) {
  struct kwm_config config;
  kwm_error_set("");
  const kwm_status status = kwm_config_load(&config, "x.yaml", text, n_overrides, overrides);
  if (status != KWM_ERR_USAGE) fail_msg("status %d for a text that must say: %s", (int)status, wanted);
  const size_t length = strlen(wanted);
  if (strncmp(kwm_error_message(), wanted, length) != 0 || strncmp(kwm_error_message() + length, " [", 2) != 0)
    fail_msg("found message: %s\nwanted: %s", kwm_error_message(), wanted);
  assert_null(config.output);
}

/* The message after "config x.yaml", for a text without overrides. */
static void refuses(const char *text, const char *wanted) {
  char message[1024];
  snprintf(message, sizeof message, "config x.yaml%s", wanted);
  assert_refused(message, text, 0, NULL);
}

/* The message after "config argument `...`: ", for one override. */
static void refuses_argument(const char *argument, const char *wanted) {
  char copy[256], message[1024];
  char *overrides[1] = {copy};
  snprintf(copy, sizeof copy, "%s", argument);
  snprintf(message, sizeof message, "config argument `%s`: %s", argument, wanted);
  assert_refused(message, "", 1, overrides);
}

static void defaults(void **state) {
  (void)state;
  struct kwm_config config;
  assert_ok(kwm_config_load(&config, "x.yaml", "", 0, NULL));
  assert_true(config.seed == 1 && config.reproducible && !config.data.permute);
  assert_string_equal(config.output, "");
  assert_string_equal(config.backend, "cpu");
  assert_string_equal(config.learner, "kalman");
  assert_string_equal(config.sensitivity, "forward");
  assert_string_equal(config.data.path, "");
  assert_true(config.data.validation == 0 && config.model.width == 256 && config.model.hidden == 256);
  assert_true(config.model.decay_min == 0.98 && config.model.decay_max == 0.9995);
  assert_true(config.model.phase_max == 1.0471975511965976);
  assert_true(config.train.epochs == 1 && config.train.max_steps == 0);
  assert_true(config.train.batch == 100 && config.train.chunks == 4);
  assert_true(config.layout.stages == 2 && config.layout.owners == 1 && config.layout.replicas == 1);
  assert_true(config.filter.gain_factor == 1 && config.filter.trust_region == 0.003);
  assert_true(config.filter.process_noise == 0 && config.filter.forgetting == 1);
  assert_true(config.filter.gate == 0 && config.filter.max_skips == 10);
  assert_string_equal(config.cov.recurrence.structure, "block");
  assert_string_equal(config.cov.recurrence.form, "information");
  assert_true(config.cov.recurrence.prior == 30);
  assert_string_equal(config.cov.hidden.structure, "kron");
  assert_string_equal(config.cov.hidden.form, "information");
  assert_true(config.cov.hidden.prior == 3 && config.cov.hidden.refresh == 100);
  assert_true(config.sgd.rate == 0.01 && config.sgd.momentum == 0.9);
  assert_true(config.adam.rate == 0.003 && config.adam.epsilon == 1e-8);
  assert_true(config.adam.beta1 == 0.9 && config.adam.beta2 == 0.99);
  assert_true(config.checkpoint.every == 0 && config.checkpoint.keep == 3 && config.report.every == 50);
  kwm_config_fini(&config);
}

static void values_from_text(void **state) {
  (void)state;
  static const char text[] = "seed: 18446744073709551615 # the largest\n"
                             "output: 'runs/a: \"b\"'\r\n"
                             "train: {epochs: 1000000, batch: +7,\n  max_steps: 1000000000000}\n"
                             "cov:\n  hidden:\n    form: innovation\n    prior: .5\n"
                             "filter:\n    trust_region: 1e-3\n    gain_factor: 3\n"
                             "data:\n  permute: true\nreproducible: false\n";
  struct kwm_config config;
  assert_ok(kwm_config_load(&config, "x.yaml", text, 0, NULL));
  assert_true(config.seed == UINT64_MAX);
  assert_string_equal(config.output, "runs/a: \"b\"");
  assert_true(config.train.epochs == 1000000 && config.train.batch == 7 && config.train.max_steps == 1000000000000);
  assert_string_equal(config.cov.hidden.form, "innovation");
  assert_string_equal(config.cov.recurrence.form, "information");
  assert_true(config.cov.hidden.prior == 0.5 && config.cov.recurrence.prior == 30);
  assert_true(config.filter.trust_region == 1e-3 && config.filter.gain_factor == 3);
  assert_true(config.data.permute && !config.reproducible);
  kwm_config_fini(&config);
}

static void later_overrides_win(void **state) {
  (void)state;
  char *const overrides[] = {"train.batch=20", "output=a=b c", "train.batch=30", "cov.recurrence.prior=2.5", "output="};
  struct kwm_config config;
  assert_ok(kwm_config_load(&config, "x.yaml", "train:\n  batch: 10\n  epochs: 2\n", 4, overrides));
  assert_true(config.train.batch == 30 && config.train.epochs == 2 && config.cov.recurrence.prior == 2.5);
  assert_string_equal(config.output, "a=b c");
  kwm_config_fini(&config);
  assert_ok(kwm_config_load(&config, "x.yaml", "", 5, overrides));
  assert_string_equal(config.output, "");
  kwm_config_fini(&config);
  kwm_config_fini(&config);
}

/* Loads text with overrides, and its echo again; the two echoes must be the same. */
static char *echo(const char *text, int n_overrides, char *const *overrides) {
  struct kwm_config config, again;
  char *first = NULL, *second = NULL;
  assert_ok(kwm_config_load(&config, "x.yaml", text, n_overrides, overrides));
  assert_ok(kwm_config_text(&config, &first));
  assert_ok(kwm_config_load(&again, "echo", first, 0, NULL));
  assert_ok(kwm_config_text(&again, &second));
  assert_string_equal(first, second);
  assert_string_equal(config.output, again.output);
  assert_true(config.seed == again.seed && config.adam.epsilon == again.adam.epsilon);
  assert_true(config.filter.gain_factor == again.filter.gain_factor && config.sgd.rate == again.sgd.rate);
  assert_true(config.train.max_steps == again.train.max_steps && config.data.permute == again.data.permute);
  kwm_config_fini(&config);
  kwm_config_fini(&again);
  free(second);
  return first;
}

static void empty_texts_give_defaults(void **state) {
  (void)state;
  static const char *const empty[] = {"\n\n", "# nothing\n", "---\n", "\xef\xbb\xbf# byte order mark\n"};
  char *wanted = echo("", 0, NULL);
  for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
    char *found = echo(empty[i], 0, NULL);
    assert_string_equal(found, wanted);
    free(found);
  }
  free(wanted);
}

static void echo_loads_back(void **state) {
  (void)state;
  char *const numbers[] = {
      "seed=18446744073709551615",   "adam.epsilon=1e-300",           "filter.gain_factor=0.1000000000000000055",
      "sgd.rate=33.333333333333336", "train.max_steps=1000000000000", "data.permute=true"};
  char *text = echo("", 6, numbers);
  assert_non_null(strstr(text, "seed: 18446744073709551615\n"));
  assert_non_null(strstr(text, "epsilon: 1.0e-300\n"));
  assert_non_null(strstr(text, "gain_factor: 0.1\n"));
  assert_non_null(strstr(text, "rate: 33.333333333333336\n"));
  assert_non_null(strstr(text, "phase_max: 1.0471975511965976\n"));
  assert_non_null(
      strstr(text, "cov:\n  joint: \"none\"\n  joint_real: \"double\"\n  recurrence:\n    structure: \"block\"\n"));
  assert_non_null(strstr(text, "output: \"\"\n"));
  free(text);
  static const char *const outputs[] = {"a: b #c",
                                        " 'x' \"\\ ",
                                        "true",
                                        "~",
                                        "- [{*a}]",
                                        "---",
                                        "caf\xc3\xa9 \xf0\x9f\x90\x9f",
                                        "\xe2\x80\xa8 \xef\xbb\xbf \xef\xbf\xbe"};
  for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
    char override[64];
    char *overrides[] = {override};
    snprintf(override, sizeof override, "output=%s", outputs[i]);
    free(echo("", 1, overrides));
  }
}

static void long_strings(void **state) {
  (void)state;
  char override[1100] = "output=", *overrides[] = {override};
  memset(override + 7, 'x', 1000);
  for (size_t i = 10; i < 1000; i += 7) override[i] = ' ';
  free(echo("", 1, overrides));
  override[1007] = 'y';
  struct kwm_config config;
  assert_int_equal(kwm_config_load(&config, "x.yaml", "", 1, overrides), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "wanted UTF-8 text of at most 1000 bytes"));
}

static void unknown_keys(void **state) {
  (void)state;
  refuses("seed: 1\nfilter:\n  gate: 3\n  gain: 2\n",
          ":4: key `filter.gain`: unknown key, nearest known key is `filter.gain_factor`");
  refuses("seed: 1\n\nbatch: 3\n", ":3: key `batch`: unknown key, nearest known key is `train.batch`");
  refuses("cov:\n  recurence:\n    prior: 3\n",
          ":2: key `cov.recurence`: unknown key, nearest known key is `cov.recurrence.form`");
  refuses("report: {every: 3,\n  evry: 4}\n",
          ":2: key `report.evry`: unknown key, nearest known key is `report.every`");
  refuses("\"a\\nb\": 3\n", ":1: key `a?b`: unknown key, nearest known key is `seed`");
  refuses_argument("train.bacth=3", "unknown key, nearest known key is `train.batch`");
  refuses_argument("train=3", "unknown key, nearest known key is `train.epochs`");
  refuses_argument("=3", "unknown key, nearest known key is `seed`");
  refuses_argument("train.batch", "wanted key=value, found no `=`");
}

static void wrong_types(void **state) {
  (void)state;
  refuses("# batch: 3\ntrain:\n  epochs: 2 # batch: 3\n\n  batch: abc\nreport:\n  every: 3\n",
          ":5: key `train.batch`: wanted an integer, found `abc`");
  refuses("train:\n  batch: 1e2\n", ":2: key `train.batch`: wanted an integer, found `1e2`");
  refuses("train:\n  batch: 3.0\n", ":2: key `train.batch`: wanted an integer, found `3.0`");
  refuses("seed: ~\n", ":1: key `seed`: wanted an integer, found `~`");
  refuses("seed:\n", ":1: key `seed`: wanted an integer, found nothing");
  refuses("reproducible: yes\n", ":1: key `reproducible`: wanted true or false, found `yes`");
  static const char *const not_numbers[] = {"nan", "inf", "0x1p-3", "1 ", "e", ".", "-", "1e", "1,5", "1e-3x"};
  for (size_t i = 0; i < sizeof not_numbers / sizeof not_numbers[0]; i++) {
    char argument[40], wanted[120];
    snprintf(argument, sizeof argument, "adam.rate=%s", not_numbers[i]);
    snprintf(wanted, sizeof wanted, "wanted a number, found `%s`", not_numbers[i]);
    refuses_argument(argument, wanted);
  }
  refuses_argument("adam.rate=", "wanted a number, found nothing");
  refuses_argument("seed=+", "wanted an integer, found `+`");
}

static void bad_text_values(void **state) {
  (void)state;
  static const char *const bad[] = {"a\x80",    "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                    "\xe2\x80", "\xff",     "\xc2\x85"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char argument[40], wanted[200];
    snprintf(argument, sizeof argument, "output=%s", bad[i]);
    snprintf(wanted, sizeof wanted, "wanted UTF-8 text of at most 1000 bytes without control characters, found `%s`",
             bad[i]);
    refuses_argument(argument, wanted);
  }
  refuses("seed: 1\noutput: \"a\\tb\"\n", ":2: key `output`: wanted UTF-8 text of at most 1000 bytes without control "
                                          "characters, found `a?b`");
}

static void out_of_range(void **state) {
  (void)state;
  refuses("train: {epochs: 2,\n  batch: 0, chunks:\n  2}\nseed: 5\n",
          ":2: key `train.batch`: wanted 1 to 1000000, found 0");
  refuses("train:\n  max_steps: 99999999999999999999999\n",
          ":2: key `train.max_steps`: wanted 0 to 1000000000000, found 99999999999999999999999");
  refuses("seed: 18446744073709551616\n",
          ":1: key `seed`: wanted 0 to 18446744073709551615, found 18446744073709551616");
  refuses("seed: -1\n", ":1: key `seed`: wanted 0 to 18446744073709551615, found -1");
  refuses("model:\n  width: 100\n", ":2: key `model.width`: wanted a multiple of 16, 16 to 65536, found 100");
  refuses("train:\n  chunks: 6\n", ":2: key `train.chunks`: wanted a power of two, 1 to 64, found 6");
  refuses("cov:\n  recurrence:\n    prior: 2\n  hidden:\n    prior: 0\n",
          ":5: key `cov.hidden.prior`: wanted above 0, up to 1e9, found 0");
  refuses("cov:\n  hidden:\n    structure: foo\n",
          ":3: key `cov.hidden.structure`: wanted one of kron, block, diag, lowrank; found `foo`");
  refuses_argument("learner=kalma", "wanted one of kalman, sgd, adam, kfac, ewc, si; found `kalma`");
  refuses_argument("learner=", "wanted one of kalman, sgd, adam, kfac, ewc, si; found ``");
  refuses_argument("adam.rate=1e999", "wanted above 0, up to 100, found 1e999");
  refuses_argument("model.phase_max=3.15", "wanted 0 to 3.141592653589793, found 3.15");
}

static kwm_status try_argument(const char *argument) {
  char copy[64];
  char *overrides[] = {copy};
  struct kwm_config config;
  snprintf(copy, sizeof copy, "%s", argument);
  const kwm_status status = kwm_config_load(&config, "x.yaml", "", 1, overrides);
  kwm_config_fini(&config);
  return status;
}

/* Both ends of every kind of interval: the last value inside, the first outside. */
static void interval_ends(void **state) {
  (void)state;
  static const char *const cases[][2] = {{"train.epochs=1", "train.epochs=0"},
                                         {"train.epochs=1000000", "train.epochs=1000001"},
                                         {"filter.gain_factor=1e-9", "filter.gain_factor=0"},
                                         {"filter.gain_factor=100", "filter.gain_factor=100.001"},
                                         {"adam.beta1=0", "adam.beta1=-1e-9"},
                                         {"adam.beta1=0.999999", "adam.beta1=1"},
                                         {"model.decay_min=1e-9", "model.decay_min=0"},
                                         {"model.decay_max=0.999999", "model.decay_max=1"},
                                         {"layout.replicas=64", "layout.replicas=128"},
                                         {"model.width=65536", "model.width=65552"},
                                         {"model.width=16", "model.width=0"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    if (try_argument(cases[i][0]) != KWM_OK) fail_msg("refused: %s", kwm_error_message());
    if (try_argument(cases[i][1]) != KWM_ERR_USAGE) fail_msg("accepted: %s", cases[i][1]);
  }
}

static void pairs(void **state) {
  (void)state;
  char *const overrides[] = {"train.chunks=32", "train.batch=15"};
  refuses("seed: 1\ntrain:\n  batch: 2\n", ":3: key `train.batch`: wanted train.chunks <= train.batch, found 4 and 2");
  refuses("train:\n  batch: 5\n  chunks: 16\n",
          ":3: key `train.chunks`: wanted train.chunks <= train.batch, found 16 and 5");
  assert_refused("config argument `train.batch=15`: wanted train.chunks <= train.batch, found 32 and 15", "", 2,
                 overrides);
  refuses("model:\n  decay_min: .9995\n",
          ":2: key `model.decay_min`: wanted model.decay_min < model.decay_max, found 0.9995 and 0.9995");
  struct kwm_config config;
  assert_ok(kwm_config_load(&config, "x.yaml", "train:\n  batch: 4\n", 0, NULL));
  kwm_config_fini(&config);
}

static void wrong_shapes(void **state) {
  (void)state;
  refuses("seed: 5\ntrain:\n  batch: 7\n  epochs: 3\n  batch: 8\nlearner: sgd\n",
          ":5: key `train.batch`: wanted once, found again");
  refuses("train:\n  batch: 7\nseed: 3\ntrain:\n  epochs: 3\n", ":4: key `train`: wanted once, found again");
  refuses("train:\n  batch: [1,2]\nseed: 1\n", ":2: key `train.batch`: wanted an integer, found a list");
  refuses("learner: {a: 2}\n", ":1: key `learner`: wanted text, found keys below it");
  refuses("seed: 1\ntrain:\n  - a\n", ":3: key `train`: wanted keys below it, found a list");
  refuses("seed: 1\ntrain: 5\n", ":2: key `train`: wanted keys below it, found none");
  refuses("# c\n- a\n", ":2: wanted `key: value` lines, found a list");
  refuses("hello\n", ":1: wanted `key: value` lines, found none");
  refuses("seed: 1\n? [a]\n: 3\n", ":2: wanted `key: value` lines, found something else (libcyaml: Internal error)");
  refuses("---\nseed: 1\n---\nseed: 2\n", ":3: wanted one YAML document, found another");
  refuses("train: &x {batch: 9}\nmodel: *x\n", ":2: wanted values, found an alias (*name)");
}

static void broken_yaml(void **state) {
  (void)state;
  refuses("seed: 1\ntrain:\n\tbatch: 1\nmodel:\n  width: 32\n",
          ":3: wanted YAML, found: found character that cannot start any token");
  refuses("seed: 1\ntrain:\n  batch: \xff\nreport:\n  every: 3\n",
          ":3: wanted YAML, found: invalid leading UTF-8 octet");
  refuses("train:\n  batch: 3\n seed: 4\n", ":3: wanted YAML, found: did not find expected key");
  refuses("output: \"a\n  b\"\nseed: 1\nbackend: \"cpu\nlearner: sgd\n",
          ":4: wanted YAML, found: found unexpected end of stream");
  refuses("seed: 1\x01\n", ":1: wanted YAML, found: control characters are not allowed");
}

static void too_long(void **state) {
  (void)state;
  static char text[65538];
  memset(text, '#', sizeof text - 1);
  refuses(text, ": wanted at most 65536 bytes, found 65537");
  text[65536] = '\0';
  free(echo(text, 0, NULL));
}

/* Every mistake's message stays one line, whatever is quoted in it. */
static void long_quotes_are_clipped(void **state) {
  (void)state;
  char argument[1500];
  char *overrides[] = {argument};
  memset(argument, 'z', sizeof argument);
  argument[700] = '\n';
  argument[sizeof argument - 1] = '\0';
  struct kwm_config config;
  for (size_t i = 0; i < 2; i++) {
    assert_int_equal(kwm_config_load(&config, "x.yaml", "", 1, overrides), KWM_ERR_USAGE);
    assert_null(strchr(kwm_error_message(), '\n'));
    assert_true(strlen(kwm_error_message()) < 600);
    memcpy(argument, "seed=\n", 6);
  }
}

/* What kwm_config_help prints, by a temporary file in stdout's place. */
static void capture_help(char *text, size_t bytes) {
  FILE *file = tmpfile();
  assert_non_null(file);
  fflush(stdout);
  const int terminal = dup(STDOUT_FILENO);
  dup2(fileno(file), STDOUT_FILENO);
  kwm_config_help();
  fflush(stdout);
  dup2(terminal, STDOUT_FILENO);
  close(terminal);
  rewind(file);
  text[fread(text, 1, bytes - 1, file)] = '\0';
  fclose(file);
}

static size_t count(const char *text, const char *mark) {
  size_t n = 0;
  for (const char *at = strstr(text, mark); at != NULL; at = strstr(at + 1, mark)) n++;
  return n;
}

static void help_names_every_key_once(void **state) {
  (void)state;
  char help[65536], *values = echo("", 0, NULL);
  capture_help(help, sizeof help);
  assert_true(count(help, "\n") > 40);
  assert_int_equal(count(help, "\n"), count(values, ": "));
  assert_int_equal(count(help, "\ntrain.batch "), 1);
  assert_int_equal(count(help, "\ncov.recurrence.structure "), 1);
  assert_non_null(strstr(help, " kalman, sgd, adam, kfac, ewc, si "));
  assert_non_null(strstr(help, " 1 to 1000000 "));
  free(values);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(defaults),
                                     cmocka_unit_test(empty_texts_give_defaults),
                                     cmocka_unit_test(values_from_text),
                                     cmocka_unit_test(later_overrides_win),
                                     cmocka_unit_test(echo_loads_back),
                                     cmocka_unit_test(long_strings),
                                     cmocka_unit_test(unknown_keys),
                                     cmocka_unit_test(wrong_types),
                                     cmocka_unit_test(bad_text_values),
                                     cmocka_unit_test(out_of_range),
                                     cmocka_unit_test(interval_ends),
                                     cmocka_unit_test(pairs),
                                     cmocka_unit_test(wrong_shapes),
                                     cmocka_unit_test(broken_yaml),
                                     cmocka_unit_test(too_long),
                                     cmocka_unit_test(long_quotes_are_clipped),
                                     cmocka_unit_test(help_names_every_key_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

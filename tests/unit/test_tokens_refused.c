/* Every way in which a text can be wrong, and what the message then says. */
#include "text_files.h"

#include <sys/stat.h>

/* Reading the training split and another one of that file fails with KWM_ERR_DATA, says all of the words, and leaves
   nothing allocated. */
static void assert_refused_from(const struct kwm_text_source *source, const char *words) {
  const size_t before = kwm_mem_bytes();
  kwm_vocabulary *vocabulary = NULL;
  struct kwm_tokens tokens;
  assert_int_equal(kwm_vocabulary_read(&vocabulary, &tokens, source), KWM_ERR_DATA);
  if (strstr(kwm_error_message(), words) == NULL) fail_msg("\"%s\" lacks \"%s\"", kwm_error_message(), words);
  assert_null(strchr(kwm_error_message(), '\n'));
  assert_null(vocabulary);
  assert_null(tokens.ids);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void assert_refused(const char *words) {
  const struct kwm_text_source source = source_of_folder();
  assert_refused_from(&source, words);
}

static void refuses_missing(void **state) {
  (void)state;
  assert_refused(
      "wanted a text with \"train\" in its name (.tokens, .txt or .text, or that with .xz or .gz), found none");
  struct kwm_text_source source = {.folder = path_of("nowhere")};
  assert_refused_from(&source, "nowhere: wanted a folder, found: No such file");
  source = (struct kwm_text_source){.folder = folder, .files = {"my.txt"}};
  assert_refused_from(&source, "/my.txt: wanted to open it, found: No such file");
  assert_int_equal(mkdir(path_of("train.txt"), 0700), 0);
  assert_refused("train.txt: wanted a file, found a folder");
  assert_int_equal(rmdir(path_of("train.txt")), 0);
  char long_name[5000];
  memset(long_name, 'x', sizeof long_name);
  long_name[sizeof long_name - 1] = '\0';
  source.files[KWM_TRAIN] = long_name;
  assert_refused_from(&source, "data: wanted a path shorter than 4096 bytes for xxx");
}

static void refuses_more_than_one(void **state) {
  (void)state;
  write_text("wiki.train.tokens", "a");
  write_text("wiki.train.tokens.xz", "not looked at");
  write_text("train.txt.gz", "b");
  assert_refused(
      "wanted one text with \"train\" in its name, found train.txt.gz and wiki.train.tokens; name the file in "
      "data.train");
}

/* A split that is not there is an error, or is none if so asked; one that is named must be there. */
static void says_which_split_is_missing(void **state) {
  (void)state;
  write_text("train.txt", "a");
  struct kwm_text_source source = source_of_folder();
  kwm_vocabulary *vocabulary = NULL;
  assert_ok(kwm_vocabulary_read(&vocabulary, NULL, &source));
  struct kwm_tokens tokens;
  assert_int_equal(kwm_tokens_read(&tokens, vocabulary, &source, KWM_VALID, false), KWM_ERR_DATA);
  assert_non_null(strstr(kwm_error_message(), "wanted a text with \"valid\" in its name"));
  assert_ok(kwm_tokens_read(&tokens, vocabulary, &source, KWM_VALID, true));
  assert_true(tokens.n == 0 && tokens.ids == NULL);
  source.files[KWM_TEST] = "mine.txt";
  assert_int_equal(kwm_tokens_read(&tokens, vocabulary, &source, KWM_TEST, true), KWM_ERR_DATA);
  assert_non_null(strstr(kwm_error_message(), "mine.txt: wanted to open it"));
  kwm_vocabulary_destroy(vocabulary);
}

static void refuses_no_text(void **state) {
  (void)state;
  write_text("train.txt", "");
  assert_refused("train.txt: wanted text, found none (0 bytes)");
  write_text("train.txt", "\xef\xbb\xbf");
  assert_refused("train.txt: wanted text, found none (3 bytes)");
  write_bytes("train.txt", "ab\ncd\0ef\n", 9);
  assert_refused("train.txt: wanted text, found a NUL byte (byte 5)");
  assert_int_equal(remove(path_of("train.txt")), 0);
  write_xz("train.txt.xz", "");
  assert_refused("train.txt.xz: wanted text, found none (0 bytes)");
}

static void refuses_endless_words(void **state) {
  (void)state;
  enum { BYTES = KWM_WORD_MAX + 4 };
  char *const text = malloc(BYTES + 1);
  assert_non_null(text);
  memset(text, 'x', BYTES);
  memcpy(text, "a\n", 2);
  text[BYTES] = '\0';
  write_text("train.txt", text);
  assert_refused("train.txt: wanted words of at most 65535 bytes, found a longer one in line 2");
  text[BYTES - 2] = '\0';
  write_text("train.txt", text);
  const struct kwm_text_source source = source_of_folder();
  kwm_vocabulary *vocabulary = NULL;
  struct kwm_tokens tokens;
  assert_ok(kwm_vocabulary_read(&vocabulary, &tokens, &source));
  assert_int_equal(tokens.n, 4);
  assert_string_equal(kwm_vocabulary_word(vocabulary, tokens.ids[2]), text + 2);
  assert_int_equal(strlen(text + 2), KWM_WORD_MAX);
  kwm_tokens_fini(&tokens);
  kwm_vocabulary_destroy(vocabulary);
  free(text);
}

static const char lines[] = "a few words\nin a few\nlines\n";

static void refuses_truncated(void **state) {
  (void)state;
  for (int xz = 0; xz < 2; xz++) {
    size_t whole = 0;
    uint8_t *const bytes = xz ? xz_of(lines, strlen(lines), &whole) : gz_of(lines, strlen(lines), &whole);
    for (size_t count = 0; count < whole; count++) {
      char words[128];
      snprintf(words, sizeof words, "wanted a whole %s stream, found it truncated at compressed byte %zu",
               xz ? "xz" : "gzip", count);
      write_bytes(xz ? "train.txt.xz" : "train.txt.gz", bytes, count);
      assert_refused(words);
    }
    free(bytes);
    (void)empty_folder(state);
  }
}

static void refuses_corrupt(void **state) {
  (void)state;
  for (int xz = 0; xz < 2; xz++) {
    size_t whole = 0;
    const char *const name = xz ? "train.txt.xz" : "train.txt.gz";
    uint8_t *const bytes = xz ? xz_of(lines, strlen(lines), &whole) : gz_of(lines, strlen(lines), &whole);
    for (size_t at = 12; at < whole; at++) {
      bytes[at] ^= 0x10;
      write_bytes(name, bytes, whole);
      assert_refused(name);
      bytes[at] ^= 0x10;
    }
    memset(bytes + whole, 0x55, 32);
    write_bytes(name, bytes, whole + 32);
    assert_refused(xz ? "found it corrupt" : "found it corrupt (incorrect header check)");
    write_text(name, lines);
    assert_refused(xz ? "wanted an xz stream, found no xz header" : "found it corrupt (incorrect header check)");
    free(bytes);
    (void)empty_folder(state);
  }
}

/* A file that opens and then fails to read: the kernel's /proc/self/mem. */
static void reports_read_errors(void **state) {
  (void)state;
  assert_int_equal(symlink("/proc/self/mem", path_of("train.txt")), 0);
  assert_refused("train.txt: wanted to read on, found: ");
  assert_int_equal(remove(path_of("train.txt")), 0);
  assert_int_equal(symlink("/proc/self/mem", path_of("train.txt.xz")), 0);
  assert_refused("train.txt.xz: wanted to read on, found: ");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(refuses_missing, empty_folder),
      cmocka_unit_test_setup(refuses_more_than_one, empty_folder),
      cmocka_unit_test_setup(says_which_split_is_missing, empty_folder),
      cmocka_unit_test_setup(refuses_no_text, empty_folder),
      cmocka_unit_test_setup(refuses_endless_words, empty_folder),
      cmocka_unit_test_setup(refuses_truncated, empty_folder),
      cmocka_unit_test_setup(refuses_corrupt, empty_folder),
      cmocka_unit_test_setup(reports_read_errors, empty_folder),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/* Reading text: how it is split and numbered, which file is taken, and the standard counts of WikiText-2. */
#include "text_files.h"

static const char training[] = " \n = A b = \n \n the cat , the dog \n <unk> sat\n";

static void assert_ids(const struct kwm_tokens *tokens, const int32_t *ids, int64_t n) {
  assert_int_equal(tokens->n, n);
  for (int64_t i = 0; i < n; i++)
    if (tokens->ids[i] != ids[i]) fail_msg("token %d is %d, wanted %d", (int)i, tokens->ids[i], ids[i]);
}

/* The ids of `text` by the vocabulary of the training file that lies in the folder. */
static void assert_encoded(const char *text, const int32_t *ids, int64_t n) {
  const struct kwm_text_source source = source_of_folder();
  kwm_vocabulary *vocabulary = NULL;
  assert_ok(kwm_vocabulary_read(&vocabulary, NULL, &source));
  struct kwm_tokens tokens;
  assert_ok(kwm_tokens_encode(&tokens, vocabulary, text, strlen(text)));
  assert_ids(&tokens, ids, n);
  kwm_tokens_fini(&tokens);
  kwm_vocabulary_destroy(vocabulary);
}

static void numbers_words_by_first_occurrence(void **state) {
  (void)state;
  write_text("train.txt", training);
  const struct kwm_text_source source = source_of_folder();
  const size_t before = kwm_mem_bytes();
  kwm_vocabulary *vocabulary = NULL;
  struct kwm_tokens tokens;
  assert_ok(kwm_vocabulary_read(&vocabulary, &tokens, &source));
  const int32_t ids[] = {0, 1, 2, 3, 1, 0, 0, 4, 5, 6, 4, 7, 0, 8, 9, 0};
  assert_ids(&tokens, ids, 16);
  static const char *const words[] = {"<eos>", "=", "A", "b", "the", "cat", ",", "dog", "<unk>", "sat"};
  const struct kwm_vocabulary_facts facts = kwm_vocabulary_facts(vocabulary);
  assert_int_equal(facts.size, 10);
  assert_int_equal(facts.unk, 8);
  assert_int_equal(facts.eos, 0);
  assert_false(facts.unk_added);
  uLong crc = 0;
  for (int32_t id = 0; id < 10; id++) {
    assert_string_equal(kwm_vocabulary_word(vocabulary, id), words[id]);
    assert_int_equal(kwm_vocabulary_id(vocabulary, words[id], strlen(words[id])), id);
    crc = crc32(crc, (const Bytef *)words[id], (uInt)strlen(words[id]));
    crc = crc32(crc, (const Bytef *)"\n", 1);
  }
  assert_int_equal(facts.crc32, crc);
  assert_int_equal(kwm_vocabulary_id(vocabulary, "theorem", 3), 4);
  assert_int_equal(kwm_vocabulary_id(vocabulary, "theorem", 7), 8);
  assert_int_equal(kwm_vocabulary_id(vocabulary, "", 0), 8);
  assert_string_equal(tokens.file.name, "train.txt");
  assert_int_equal(tokens.file.bytes, strlen(training));
  assert_int_equal(tokens.file.crc32, crc32(0, (const Bytef *)training, (uInt)strlen(training)));
  assert_int_equal(kwm_mem_bytes() - before, facts.bytes + kwm_mem_rounded(16 * sizeof(int32_t)));
  kwm_tokens_fini(&tokens);
  kwm_vocabulary_destroy(vocabulary);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void adds_unk_last(void **state) {
  (void)state;
  write_text("train.txt", "a b");
  const struct kwm_text_source source = source_of_folder();
  kwm_vocabulary *vocabulary = NULL;
  assert_ok(kwm_vocabulary_read(&vocabulary, NULL, &source));
  const struct kwm_vocabulary_facts facts = kwm_vocabulary_facts(vocabulary);
  assert_true(facts.unk_added);
  assert_int_equal(facts.size, 4);
  assert_int_equal(facts.eos, 2);
  assert_int_equal(facts.unk, 3);
  kwm_vocabulary_destroy(vocabulary);
  assert_encoded("b <unk> x a", (const int32_t[]){1, 3, 3, 0}, 4);
}

/* Line ends of other systems, a missing last one, control characters as space, a byte-order mark, bytes of no UTF-8. */
static void takes_any_text(void **state) {
  (void)state;
  write_text("train.txt", "\xef\xbb\xbf"
                          "a b\r\n\tc\va\fb\n\r\n\xff\xfe \xc3\xa9 \xc2\xa0z");
  const struct kwm_text_source source = source_of_folder();
  kwm_vocabulary *vocabulary = NULL;
  struct kwm_tokens tokens;
  assert_ok(kwm_vocabulary_read(&vocabulary, &tokens, &source));
  assert_ids(&tokens, (const int32_t[]){0, 1, 2, 3, 0, 1, 2, 2, 4, 5, 6, 2}, 12);
  assert_string_equal(kwm_vocabulary_word(vocabulary, 4), "\xff\xfe");
  assert_string_equal(kwm_vocabulary_word(vocabulary, 6), "\xc2\xa0z");
  kwm_tokens_fini(&tokens);
  kwm_vocabulary_destroy(vocabulary);
}

/* Pairs that have one hash, of one length and of two. */
static void tells_colliding_words_apart(void **state) {
  (void)state;
  write_text("train.txt", "costarring dbotcuos liquid");
  assert_encoded("liquid uapnmebm dbotcuos costarring", (const int32_t[]){2, 4, 1, 0}, 4);
  write_text("train.txt", "liquid dbotcuos uapnmebm <unk>");
  assert_encoded("uapnmebm dbotcuos costarring", (const int32_t[]){2, 1, 3}, 3);
}

static void encodes_a_prompt(void **state) {
  (void)state;
  write_text("train.txt", training);
  assert_encoded("", NULL, 0);
  assert_encoded(" ", NULL, 0);
  assert_encoded("the cat", (const int32_t[]){4, 5}, 2);
  assert_encoded("the cat\n", (const int32_t[]){4, 5, 0}, 3);
  assert_encoded("the cow\n\n the", (const int32_t[]){4, 8, 0, 0, 4}, 5);
}

static char *random_text(size_t count, unsigned seed) {
  static const char letters[] = "ab  c\n d\xc3\xa9\r\n \te";
  char *const text = malloc(count + 1);
  assert_non_null(text);
  unsigned draw = seed;
  for (size_t i = 0; i < count; i++) {
    draw = draw * 1664525u + 1013904223u;
    text[i] = letters[(draw >> 16) % (sizeof letters - 1)];
  }
  for (size_t end = 1 << 15; end < count; end += 1 << 15) memcpy(text + end - 2, "abcd", 4);
  text[count] = '\0';
  return text;
}

/* Ids by the plainest means: one word after the other, each compared with all words so far. */
static int64_t plain_ids(char *text, char **words, int32_t *n_words, int32_t *ids) {
  int64_t n = 0;
  char *rest = text;
  while (*rest != '\0') {
    char *line = strsep(&rest, "\n"), *word = NULL;
    const bool ended = rest != NULL;
    for (bool done = false; !done; n++) {
      word = strtok_r(line, " \t\v\f\r", &line);
      done = word == NULL;
      if (done) word = (char *)"<eos>";
      int32_t id = 0;
      while (id < *n_words && strcmp(words[id], word) != 0) id++;
      if (id == *n_words) words[(*n_words)++] = word;
      ids[n] = id;
    }
    if (!ended) break;
  }
  return n;
}

/* A text of many pieces, with words broken by their ends, in every packing. */
static void agrees_with_plain_means(void **state) {
  (void)state;
  enum { COUNT = 300000 };
  char *const text = random_text(COUNT, 7), *const copy = strdup(text);
  char **const words = malloc(COUNT * sizeof *words);
  int32_t *const ids = malloc(COUNT * sizeof *ids), n_words = 0;
  assert_true(copy != NULL && words != NULL && ids != NULL);
  const int64_t n = plain_ids(copy, words, &n_words, ids);
  assert_true(n > 65536 && n_words > 1000);
  for (int packing = 0; packing < 3; packing++) {
    if (packing == 0) write_text("train.txt", text);
    if (packing == 1) write_xz("train.txt.xz", text);
    if (packing == 2) write_gz("train.txt.gz", text);
    const struct kwm_text_source source = source_of_folder();
    kwm_vocabulary *vocabulary = NULL;
    struct kwm_tokens tokens;
    assert_ok(kwm_vocabulary_read(&vocabulary, &tokens, &source));
    assert_ids(&tokens, ids, n);
    const struct kwm_vocabulary_facts facts = kwm_vocabulary_facts(vocabulary);
    assert_int_equal(facts.size, n_words + facts.unk_added);
    for (int32_t id = 0; id < n_words; id++) assert_string_equal(kwm_vocabulary_word(vocabulary, id), words[id]);
    assert_int_equal(tokens.file.bytes, COUNT);
    kwm_tokens_fini(&tokens);
    kwm_vocabulary_destroy(vocabulary);
    (void)empty_folder(state);
  }
  free(text);
  free(copy);
  free(words);
  free(ids);
}

static void reads_packed_files_of_several_streams(void **state) {
  (void)state;
  size_t first = 0, second = 0;
  uint8_t *const a = xz_of("a b\nc", 5, &first), *const b = xz_of("a b\n", 4, &second);
  memcpy(a + first, b, second);
  write_bytes("train.txt.xz", a, first + second);
  uint8_t *const c = gz_of("a b\nc", 5, &first), *const d = gz_of("a b\n", 4, &second);
  memcpy(c + first, d, second);
  write_bytes("valid.txt.gz", c, first + second);
  const struct kwm_text_source source = source_of_folder();
  kwm_vocabulary *vocabulary = NULL;
  struct kwm_tokens tokens;
  assert_ok(kwm_vocabulary_read(&vocabulary, &tokens, &source));
  for (int k = 0; k < 2; k++) {
    assert_ids(&tokens, (const int32_t[]){0, 1, 2, 3, 1, 2}, 6);
    assert_int_equal(tokens.file.bytes, 9);
    kwm_tokens_fini(&tokens);
    assert_ok(kwm_tokens_read(&tokens, vocabulary, &source, KWM_VALID, false));
  }
  kwm_tokens_fini(&tokens);
  kwm_vocabulary_destroy(vocabulary);
  free(a);
  free(b);
  free(c);
  free(d);
}

static void assert_found(const struct kwm_text_source *source, enum kwm_split split, const char *name) {
  kwm_vocabulary *vocabulary = NULL;
  const struct kwm_text_source any = {.folder = folder, .files = {"train.txt"}};
  assert_ok(kwm_vocabulary_read(&vocabulary, NULL, &any));
  struct kwm_tokens tokens;
  assert_ok(kwm_tokens_read(&tokens, vocabulary, source, split, true));
  assert_string_equal(tokens.file.name, name);
  assert_true((tokens.n > 0) == (name[0] != '\0'));
  kwm_tokens_fini(&tokens);
  kwm_vocabulary_destroy(vocabulary);
}

static void finds_files_by_name(void **state) {
  (void)state;
  struct kwm_text_source source = source_of_folder();
  static const char *const others[] = {"latest.txt",       "developer.text",    "constraint.txt", "train.csv",
                                       "train.tokens.zip", ".train.tokens",     "train",          "test.tokens.xz~",
                                       "readme-test.md",   "validity.text.old", "Test.txt"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) write_text(others[i], "other");
  write_text("train.txt", "a");
  assert_found(&source, KWM_TRAIN, "train.txt");
  assert_found(&source, KWM_VALID, "");
  assert_found(&source, KWM_TEST, "");
  write_gz("wiki.test.tokens.gz", "a");
  assert_found(&source, KWM_TEST, "wiki.test.tokens.gz");
  write_xz("wiki.test.tokens.xz", "a");
  assert_found(&source, KWM_TEST, "wiki.test.tokens.xz");
  write_text("wiki.test.tokens", "a");
  assert_found(&source, KWM_TEST, "wiki.test.tokens");
  static const char *const valids[] = {"a_val_b.text", "dev.txt", "validation-1.txt", "v2-valid.tokens"};
  for (int i = 0; i < 4; i++) {
    write_text(valids[i], "a");
    assert_found(&source, KWM_VALID, valids[i]);
    assert_int_equal(remove(path_of(valids[i])), 0);
  }
  source.files[KWM_TEST] = "latest.txt";
  assert_found(&source, KWM_TEST, "latest.txt");
  const struct kwm_text_source alone = {.files = {NULL, path_of("readme-test.md"), NULL}};
  assert_found(&alone, KWM_VALID, "readme-test.md");
}

/* The table in the data set's README: tokens, of these <unk>; types. */
static void counts_wikitext_as_usual(void **state) {
  (void)state;
  const char *const where = getenv("KWM_TEST_WIKITEXT");
  if (where == NULL || where[0] == '\0') {
    print_message("no folder of WikiText-2 in KWM_TEST_WIKITEXT: its counts are not checked\n");
    skip();
  }
  const struct kwm_text_source source = {.folder = where};
  static const int64_t wanted[3][3] = {{2088628, 54625, 10797148}, {217646, 11718, 1121681}, {245569, 15218, 1256449}};
  kwm_vocabulary *vocabulary = NULL;
  struct kwm_tokens tokens;
  assert_ok(kwm_vocabulary_read(&vocabulary, &tokens, &source));
  const struct kwm_vocabulary_facts facts = kwm_vocabulary_facts(vocabulary);
  assert_int_equal(facts.size, 33278);
  assert_false(facts.unk_added);
  for (enum kwm_split split = KWM_TRAIN; split <= KWM_TEST; split++) {
    if (split != KWM_TRAIN) assert_ok(kwm_tokens_read(&tokens, vocabulary, &source, split, false));
    int64_t unknown = 0;
    for (int64_t i = 0; i < tokens.n; i++) unknown += tokens.ids[i] == facts.unk;
    assert_int_equal(tokens.n, wanted[split][0]);
    assert_int_equal(unknown, wanted[split][1]);
    assert_int_equal(tokens.file.bytes, wanted[split][2]);
    kwm_tokens_fini(&tokens);
  }
  kwm_vocabulary_destroy(vocabulary);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(numbers_words_by_first_occurrence, empty_folder),
      cmocka_unit_test_setup(adds_unk_last, empty_folder),
      cmocka_unit_test_setup(takes_any_text, empty_folder),
      cmocka_unit_test_setup(tells_colliding_words_apart, empty_folder),
      cmocka_unit_test_setup(encodes_a_prompt, empty_folder),
      cmocka_unit_test_setup(agrees_with_plain_means, empty_folder),
      cmocka_unit_test_setup(reads_packed_files_of_several_streams, empty_folder),
      cmocka_unit_test_setup(finds_files_by_name, empty_folder),
      cmocka_unit_test_setup(counts_wikitext_as_usual, empty_folder),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/* Documents found, grouped by topics that are known here, and put in the order of their topics. */
#include "text_files.h"

#include "kwm/shift.h"

enum { TOPICS = 3, DOCUMENTS = 30, WORDS = 40, TEXT_MAX = 1 << 18 };

/* The topic of a document: mixed, and the first document's is not 0. */
static int topic_of(int document) {
  return (document * document + document / 4 + 1) % TOPICS;
}

struct text {
  char at[TEXT_MAX];
  size_t length;
};

static void say(struct text *text, const char *format, int a, int b) {
  text->length += (size_t)snprintf(text->at + text->length, sizeof text->at - text->length, format, a, b);
  assert_true(text->length < sizeof text->at);
}

/* A document: half of its words are its topic's own, half are everybody's; with sections, and formulas that look like
   titles. `salt` makes another text of the same kind. */
static void write_document(struct text *text, int document, int salt) {
  unsigned draw = (unsigned)(document * 1000 + salt);
  say(text, " \n = Title %d = \n \n", document, 0);
  for (int line = 0; line < 12; line++) {
    if (line == 4) say(text, " \n = = Section = = \n \n", 0, 0);
    for (int i = 0; i < 12; i++) {
      draw = draw * 1664525u + 1013904223u;
      const int word = (int)(draw >> 16) % WORDS;
      if (i % 2 == 0)
        say(text, " common%d", word, 0);
      else
        say(text, " topic%d_%d", topic_of(document), word);
    }
    say(text, " \n", 0, 0);
    if (line == 6) say(text, " = 1 and k = \n", 0, 0);
  }
}

static struct text *text_of(int documents, int salt) {
  struct text *const text = calloc(1, sizeof *text);
  assert_non_null(text);
  for (int k = 0; k < documents; k++) write_document(text, k, salt);
  return text;
}

/* What each test reads: a training split of 30 documents, and a test split of 20 others. */
struct reading {
  kwm_vocabulary *vocabulary;
  struct kwm_tokens train, test;
};

static int write_splits(void **state) {
  if (make_folder(state) != 0) return 1;
  struct text *const train = text_of(DOCUMENTS, 0), *const test = text_of(20, 500);
  write_text("train.txt", train->at);
  write_text("test.txt", test->at);
  free(train);
  free(test);
  return 0;
}

static int read_splits(void **state) {
  static struct reading reading;
  const struct kwm_text_source source = source_of_folder();
  *state = &reading;
  if (kwm_vocabulary_read(&reading.vocabulary, &reading.train, &source) != KWM_OK) return 1;
  return kwm_tokens_read(&reading.test, reading.vocabulary, &source, KWM_TEST, false) != KWM_OK;
}

static int end_splits(void **state) {
  struct reading *const reading = *state;
  kwm_tokens_fini(&reading->train);
  kwm_tokens_fini(&reading->test);
  kwm_vocabulary_destroy(reading->vocabulary);
  return kwm_mem_bytes() != 0;
}

static kwm_topics *topics_of(const struct reading *reading, struct kwm_topics_spec spec) {
  kwm_topics *topics = NULL;
  assert_ok(kwm_topics_create(&topics, &spec, &reading->train, reading->vocabulary));
  return topics;
}

/* Topic t is the domain that the order of first documents gives it. */
static void assert_true_topics(const struct kwm_domains *domains, int documents) {
  int domain[TOPICS] = {-1, -1, -1}, next = 0;
  assert_int_equal(domains->documents, documents);
  for (int k = 0; k < documents; k++) {
    const int topic = topic_of(k);
    if (domain[topic] < 0) domain[topic] = next++;
    assert_int_equal(domains->domain[k], domain[topic]);
  }
}

static void finds_the_topics(void **state) {
  const struct reading *const reading = *state;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    kwm_topics *const topics = topics_of(reading, (struct kwm_topics_spec){.domains = TOPICS, .seed = seed});
    struct kwm_domains domains;
    assert_ok(kwm_topics_arrange(topics, &domains, &reading->train, 1));
    assert_true_topics(&domains, DOCUMENTS);
    kwm_domains_fini(&domains);
    assert_ok(kwm_topics_arrange(topics, &domains, &reading->test, 1));
    assert_true_topics(&domains, 20);
    kwm_domains_fini(&domains);
    kwm_topics_destroy(topics);
  }
}

/* Tokens [first, second) of document k of a text, found by its title. */
static void find_document(const struct reading *reading, const struct kwm_tokens *tokens, int k, int64_t range[2]) {
  const int32_t title = kwm_vocabulary_id(reading->vocabulary, "Title", 5);
  int64_t found = -1;
  range[0] = 0;
  range[1] = tokens->n;
  for (int64_t i = 0; i < tokens->n; i++) {
    if (tokens->ids[i] != title) continue;
    found++;
    if (found == k && k > 0) range[0] = i - 1;
    if (found == k + 1) range[1] = i - 1;
  }
}

static void puts_domains_in_sequence(void **state) {
  const struct reading *const reading = *state;
  kwm_topics *const topics = topics_of(reading, (struct kwm_topics_spec){.domains = TOPICS, .seed = 1});
  struct kwm_domains domains;
  assert_ok(kwm_topics_arrange(topics, &domains, &reading->train, 1));
  int64_t at = 0;
  assert_int_equal(domains.count, TOPICS);
  for (int d = 0; d < TOPICS; d++) {
    assert_int_equal(domains.start[d], at);
    for (int k = 0; k < DOCUMENTS; k++) {
      int64_t range[2];
      if (domains.domain[k] != d) continue;
      find_document(reading, &reading->train, k, range);
      assert_memory_equal(domains.ids + at, reading->train.ids + range[0], (size_t)(range[1] - range[0]) * 4);
      at += range[1] - range[0];
    }
  }
  assert_int_equal(at, reading->train.n);
  assert_true(domains.n == at && domains.length == at && domains.start[TOPICS] == at);
  kwm_domains_fini(&domains);
  kwm_topics_destroy(topics);
}

/* Streams in parallel: in each, a domain is its own consecutive part of the domain's tokens, all at one time. */
static void deals_domains_to_streams(void **state) {
  const struct reading *const reading = *state;
  kwm_topics *const topics = topics_of(reading, (struct kwm_topics_spec){.domains = TOPICS, .seed = 1});
  struct kwm_domains whole, domains;
  assert_ok(kwm_topics_arrange(topics, &whole, &reading->train, 1));
  for (int64_t streams = 1; streams <= 7; streams += 3) {
    assert_ok(kwm_topics_arrange(topics, &domains, &reading->train, streams));
    assert_int_equal(domains.n, streams * domains.length);
    for (int d = 0; d < TOPICS; d++) {
      const int64_t part = domains.start[d + 1] - domains.start[d];
      assert_int_equal(part, (whole.start[d + 1] - whole.start[d]) / streams);
      for (int64_t s = 0; s < streams; s++)
        assert_memory_equal(domains.ids + s * domains.length + domains.start[d], whole.ids + whole.start[d] + s * part,
                            (size_t)part * 4);
    }
    assert_int_equal(domains.start[TOPICS], domains.length);
    kwm_domains_fini(&domains);
  }
  /* More streams than tokens: nothing is left. */
  assert_ok(kwm_topics_arrange(topics, &domains, &reading->train, reading->train.n + 1));
  assert_int_equal(domains.n, 0);
  kwm_domains_fini(&domains);
  kwm_domains_fini(&whole);
  kwm_topics_destroy(topics);
}

/* Documents of a number of lines, where there are no titles. */
static void cuts_documents_by_lines(void **state) {
  const struct reading *const reading = *state;
  int64_t lines = 0;
  for (int64_t i = 0; i < reading->train.n; i++)
    lines += reading->train.ids[i] == kwm_vocabulary_facts(reading->vocabulary).eos;
  kwm_topics *const topics = topics_of(reading, (struct kwm_topics_spec){.domains = 2, .lines = 7, .seed = 1});
  struct kwm_domains domains;
  assert_ok(kwm_topics_arrange(topics, &domains, &reading->train, 1));
  assert_int_equal(domains.documents, (lines + 6) / 7);
  assert_int_equal(domains.n, reading->train.n);
  kwm_domains_fini(&domains);
  kwm_topics_destroy(topics);
}

/* As many domains as documents: each has its own. One domain: the text as it is. */
static void takes_any_number_of_domains(void **state) {
  const struct reading *const reading = *state;
  struct kwm_domains domains;
  kwm_topics *topics = topics_of(reading, (struct kwm_topics_spec){.domains = DOCUMENTS, .seed = 2});
  assert_ok(kwm_topics_arrange(topics, &domains, &reading->train, 1));
  for (int k = 0; k < DOCUMENTS; k++) assert_int_equal(domains.domain[k], k);
  kwm_domains_fini(&domains);
  kwm_topics_destroy(topics);
  topics = topics_of(reading, (struct kwm_topics_spec){.domains = 1, .seed = 2});
  assert_ok(kwm_topics_arrange(topics, &domains, &reading->train, 1));
  assert_memory_equal(domains.ids, reading->train.ids, (size_t)reading->train.n * 4);
  kwm_domains_fini(&domains);
  kwm_topics_destroy(topics);
}

static int64_t count_documents(const struct reading *reading, const char *text) {
  struct kwm_tokens tokens;
  assert_ok(kwm_tokens_encode(&tokens, reading->vocabulary, text, strlen(text)));
  const struct kwm_topics_spec spec = {.domains = 1};
  kwm_topics *topics = NULL;
  struct kwm_domains domains;
  assert_ok(kwm_topics_create(&topics, &spec, &tokens, reading->vocabulary));
  assert_ok(kwm_topics_arrange(topics, &domains, &tokens, 1));
  const int64_t documents = domains.documents;
  kwm_domains_fini(&domains);
  kwm_topics_destroy(topics);
  kwm_tokens_fini(&tokens);
  return documents;
}

/* Two titles are two documents, whatever lies before the first; most lines with = are no titles. */
static void knows_titles(void **state) {
  const struct reading *const reading = *state;
  assert_int_equal(count_documents(reading, "no title"), 1);
  assert_int_equal(count_documents(reading, "= A = \n"), 1);
  assert_int_equal(count_documents(reading, "before \n \n = A = \n \n words \n"), 1);
  assert_int_equal(count_documents(reading, "= A = \n \n words \n \n = B b = "), 2);
  assert_int_equal(count_documents(reading, "\n = A = \n \n \n = B = c = \n \n"), 2);
  static const char *const others[] = {"= = B = =", "= = B =", "= B = =", "= B", "B =", "= =", "=", "= = =", "= B = c"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    char text[128];
    snprintf(text, sizeof text, "= A = \n \n \n %s \n \n words \n", others[i]);
    assert_int_equal(count_documents(reading, text), 1);
  }
  assert_int_equal(count_documents(reading, "= A = \n \n words \n = B = \n \n"), 1);
  assert_int_equal(count_documents(reading, "= A = \n \n words \n \n = B = \n words"), 1);
}

/* Documents that are the same leave nothing to tell apart: still one domain each at most, and no domain is lost. */
static void survives_equal_documents(void **state) {
  const struct reading *const reading = *state;
  static const char text[] =
      " = A b = \n \n common1 common2 \n \n = A b = \n \n common1 common2 \n \n = A b = \n \n \n";
  struct kwm_tokens tokens;
  assert_ok(kwm_tokens_encode(&tokens, reading->vocabulary, text, strlen(text)));
  const struct kwm_topics_spec spec = {.domains = 3, .seed = 1};
  kwm_topics *topics = NULL;
  struct kwm_domains domains;
  assert_ok(kwm_topics_create(&topics, &spec, &tokens, reading->vocabulary));
  assert_ok(kwm_topics_arrange(topics, &domains, &tokens, 1));
  assert_int_equal(domains.documents, 3);
  assert_int_equal(domains.start[3], tokens.n);
  for (int d = 0; d < 3; d++) assert_true(domains.start[d] <= domains.start[d + 1]);
  kwm_domains_fini(&domains);
  kwm_topics_destroy(topics);
  kwm_tokens_fini(&tokens);
}

static void assert_refused(const struct reading *reading, struct kwm_topics_spec spec, kwm_status wanted,
                           const char *words) {
  const size_t before = kwm_mem_bytes();
  kwm_topics *topics = NULL;
  assert_int_equal(kwm_topics_create(&topics, &spec, &reading->train, reading->vocabulary), wanted);
  if (strstr(kwm_error_message(), words) == NULL) fail_msg("\"%s\" lacks \"%s\"", kwm_error_message(), words);
  assert_null(topics);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void refuses_too_few_documents(void **state) {
  const struct reading *const reading = *state;
  assert_refused(reading, (struct kwm_topics_spec){.domains = DOCUMENTS + 1}, KWM_ERR_DATA,
                 "topics train.txt: wanted at least 31 documents (a line \" = Title = \" begins one), found 30");
  assert_refused(reading, (struct kwm_topics_spec){.domains = 2, .lines = 100000}, KWM_ERR_DATA, "found 1");
  assert_refused(reading, (struct kwm_topics_spec){.domains = 0}, KWM_ERR_USAGE, "wanted 1 to 256 domains, found 0");
  assert_refused(reading, (struct kwm_topics_spec){.domains = 257}, KWM_ERR_USAGE, "found 257");
  assert_refused(reading, (struct kwm_topics_spec){.domains = 2, .lines = -1}, KWM_ERR_USAGE, "found -1");
}

/* The number of articles that the data set's makers state: 600, 60 and 60. */
static void finds_wikitext_articles(void **state) {
  (void)state;
  const char *const where = getenv("KWM_TEST_WIKITEXT");
  if (where == NULL || where[0] == '\0') {
    print_message("no folder of WikiText-2 in KWM_TEST_WIKITEXT: its articles are not counted\n");
    skip();
  }
  const struct kwm_text_source source = {.folder = where};
  static const int64_t wanted[] = {600, 60, 60};
  struct reading wiki;
  assert_ok(kwm_vocabulary_read(&wiki.vocabulary, &wiki.train, &source));
  kwm_topics *const topics = topics_of(&wiki, (struct kwm_topics_spec){.domains = 4, .seed = 1});
  for (enum kwm_split split = KWM_TRAIN; split <= KWM_TEST; split++) {
    struct kwm_domains domains;
    assert_ok(kwm_tokens_read(&wiki.test, wiki.vocabulary, &source, split, false));
    assert_ok(kwm_topics_arrange(topics, &domains, &wiki.test, 1));
    assert_int_equal(domains.documents, wanted[split]);
    for (int d = 0; d < 4; d++) assert_true(domains.start[d] < domains.start[d + 1]);
    kwm_domains_fini(&domains);
    kwm_tokens_fini(&wiki.test);
  }
  kwm_topics_destroy(topics);
  kwm_tokens_fini(&wiki.train);
  kwm_vocabulary_destroy(wiki.vocabulary);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(finds_the_topics, read_splits, end_splits),
      cmocka_unit_test_setup_teardown(puts_domains_in_sequence, read_splits, end_splits),
      cmocka_unit_test_setup_teardown(deals_domains_to_streams, read_splits, end_splits),
      cmocka_unit_test_setup_teardown(cuts_documents_by_lines, read_splits, end_splits),
      cmocka_unit_test_setup_teardown(takes_any_number_of_domains, read_splits, end_splits),
      cmocka_unit_test_setup_teardown(knows_titles, read_splits, end_splits),
      cmocka_unit_test_setup_teardown(survives_equal_documents, read_splits, end_splits),
      cmocka_unit_test_setup_teardown(refuses_too_few_documents, read_splits, end_splits),
      cmocka_unit_test(finds_wikitext_articles),
  };
  return cmocka_run_group_tests(tests, write_splits, remove_folder);
}

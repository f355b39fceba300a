/* Statuses and the one-line error message; bugs abort; accounted memory is exact; the log says what it was told to. */
#include "kwm_test.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kwm/base.h"
#include "kwm/log.h"

static void status_words(void **state) {
  (void)state;
  assert_string_equal(kwm_status_words(KWM_OK), "done");
  assert_string_equal(kwm_status_words(KWM_ERR_NUMERIC), "numerical stop");
  assert_string_equal(kwm_status_words((kwm_status)33), "unknown status");
  assert_int_equal(KWM_ERR_USAGE, 2);
  assert_int_equal(KWM_ERR_DATA, 3);
  assert_int_equal(KWM_ERR_NUMERIC, 4);
  assert_int_equal(KWM_STOPPED, 75);
}

static kwm_status half(int value, int *result) {
  KWM_CHECK(value % 2 == 0, KWM_ERR_USAGE, "half of %d: wanted an even number, found an odd one", value);
  *result = value / 2;
  return KWM_OK;
}

static kwm_status quarter(int value, int *result) {
  KWM_TRY(half(value, result));
  KWM_TRY(half(*result, result));
  return KWM_OK;
}

static void a_raised_message_reaches_the_caller(void **state) {
  (void)state;
  int result = 0;
  kwm_error_set("");
  assert_int_equal(quarter(12, &result), KWM_OK);
  assert_int_equal(result, 3);
  assert_string_equal(kwm_error_message(), "");
  assert_int_equal(quarter(6, &result), KWM_ERR_USAGE);
  assert_int_equal(result, 3);
  const char *wanted = "half of 3: wanted an even number, found an odd one [test_base.c:";
  assert_memory_equal(kwm_error_message(), wanted, strlen(wanted));
  kwm_error_set("from another rank");
  assert_string_equal(kwm_error_message(), "from another rank");
}

static void a_long_message_is_cut_and_keeps_its_place(void **state) {
  (void)state;
  char text[3000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  assert_int_equal(kwm_raise(KWM_ERR_DATA, "place.c", 17, "%s", text), KWM_ERR_DATA);
  const char *message = kwm_error_message();
  assert_true(strlen(message) > 500 && strlen(message) < 1024);
  assert_non_null(strstr(message, "x [place.c:17]"));
  kwm_error_set(text);
  assert_int_equal(strlen(kwm_error_message()), 1023);
}

/* True if call() ends its process by abort(). */
static bool aborts(void (*call)(void)) {
  fflush(NULL);
  const pid_t child = fork();
  if (child == 0) {
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGABRT, SIG_DFL);
    if (freopen("/dev/null", "w", stderr) == NULL) _exit(1);
    call();
    _exit(0);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void assert_what_holds(void) {
  KWM_ASSERT(1 + 1 == 2);
}
static void assert_what_does_not(void) {
  KWM_ASSERT(1 + 1 == 3);
}
static void narrow_what_fits(void) {
  kwm_int(INT32_MIN);
}
static void narrow_too_much(void) {
  kwm_int((int64_t)INT32_MAX + 1);
}
static void narrow_too_little(void) {
  kwm_int((int64_t)INT32_MIN - 1);
}

static void bugs_abort(void **state) {
  (void)state;
  assert_false(aborts(assert_what_holds));
  assert_true(aborts(assert_what_does_not));
  assert_false(aborts(narrow_what_fits));
  assert_true(aborts(narrow_too_much));
  assert_true(aborts(narrow_too_little));
  assert_int_equal(kwm_int(INT32_MAX), INT32_MAX);
  assert_int_equal(kwm_int(INT32_MIN), INT32_MIN);
}

static void memory_is_zeroed_aligned_and_summed_exactly(void **state) {
  (void)state;
  const size_t sizes[] = {0, 1, 63, 64, 65, 1000, 1 << 20};
  enum { N = sizeof sizes / sizeof sizes[0] };
  void *memory[N];
  const size_t before = kwm_mem_bytes();
  size_t sum = before;
  for (int i = 0; i < N; i++) {
    assert_ok(kwm_alloc(&memory[i], sizes[i], "a test"));
    assert_non_null(memory[i]);
    assert_int_equal((uintptr_t)memory[i] % 64, 0);
    const unsigned char *bytes = memory[i];
    for (size_t j = 0; j < sizes[i]; j++) assert_int_equal(bytes[j], 0);
    memset(memory[i], 0xff, sizes[i]);
    sum += kwm_mem_rounded(sizes[i]);
    assert_int_equal(kwm_mem_bytes(), sum);
  }
  for (int i = 0; i < N; i++) {
    const int j = i * 3 % N;
    kwm_free(memory[j]);
    sum -= kwm_mem_rounded(sizes[j]);
    assert_int_equal(kwm_mem_bytes(), sum);
  }
  assert_int_equal(kwm_mem_bytes(), before);
  kwm_free(NULL);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void rounding_adds_a_header_and_whole_lines(void **state) {
  (void)state;
  assert_int_equal(kwm_mem_rounded(0), 64);
  assert_int_equal(kwm_mem_rounded(1), 128);
  assert_int_equal(kwm_mem_rounded(64), 128);
  assert_int_equal(kwm_mem_rounded(65), 192);
}

static void memory_that_is_not_there_is_refused(void **state) {
  (void)state;
  const size_t before = kwm_mem_bytes();
  int mark = 0;
  void *memory = &mark;
  assert_int_equal(kwm_alloc(&memory, SIZE_MAX / 4, "a giant"), KWM_ERR_SYSTEM);
  assert_null(memory);
  assert_int_equal(kwm_mem_bytes(), before);
  assert_non_null(strstr(kwm_error_message(), "for a giant"));
}

static void resident_memory_is_read_from_the_kernel(void **state) {
  (void)state;
  enum { BYTES = 64 << 20 };
  const size_t before = kwm_mem_resident();
  assert_true(before > 0);
  void *memory;
  assert_ok(kwm_alloc(&memory, BYTES, "a test"));
  assert_true(kwm_mem_resident() >= before + BYTES / 2);
  assert_true(kwm_mem_peak_resident() >= before + BYTES / 2);
  kwm_free(memory);
}

/* Standard error goes to `path` while it returns to the saved descriptor later. */
static int redirect_stderr(const char *path) {
  fflush(stderr);
  const int saved = dup(STDERR_FILENO);
  assert_non_null(freopen(path, "w", stderr));
  return saved;
}

static void restore_stderr(int saved) {
  fflush(stderr);
  dup2(saved, STDERR_FILENO);
  close(saved);
}

static void read_whole(const char *path, size_t capacity, char *text) {
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  text[fread(text, 1, capacity - 1, file)] = '\0';
  fclose(file);
}

static void log_goes_to_stderr_and_file(void **state) {
  (void)state;
  const char *parent = getenv("TMPDIR");
  char dir[512], log_path[600], err_path[600], text[4096];
  snprintf(dir, sizeof dir, "%s/kwm-log-XXXXXX", parent != NULL ? parent : P_tmpdir);
  assert_non_null(mkdtemp(dir));
  snprintf(log_path, sizeof log_path, "%s/kwm.log", dir);
  snprintf(err_path, sizeof err_path, "%s/stderr", dir);
  const int saved = redirect_stderr(err_path);
  const kwm_status opened = kwm_log_open(log_path);
  kwm_log(KWM_LOG_INFO, "not said %d", 0);
  kwm_log_progress(true, "not said %d", 0);
  kwm_log_speaks(true);
  kwm_log(KWM_LOG_INFO, "seen %d", 1);
  kwm_log(KWM_LOG_WARNING, "passed over %s", "x.h5");
  kwm_log_progress(false, "step %d", 3);
  kwm_log_close();
  kwm_log(KWM_LOG_INFO, "after closing");
  kwm_log_speaks(false);
  restore_stderr(saved);

  assert_int_equal(opened, KWM_OK);
  read_whole(err_path, sizeof text, text);
  assert_string_equal(text, "kwm: seen 1\nkwm: warning: passed over x.h5\nstep 3\nkwm: after closing\n");
  read_whole(log_path, sizeof text, text);
  assert_non_null(strstr(text, " seen 1\n"));
  assert_non_null(strstr(text, " warning: passed over x.h5\n"));
  assert_non_null(strstr(text, " step 3\n"));
  assert_null(strstr(text, "not said"));
  assert_null(strstr(text, "after closing"));
  assert_int_equal(unlink(log_path), 0);
  assert_int_equal(unlink(err_path), 0);

  snprintf(log_path, sizeof log_path, "%s/no/such/folder", dir);
  assert_int_equal(kwm_log_open(log_path), KWM_ERR_SYSTEM);
  assert_non_null(strstr(kwm_error_message(), log_path));
  assert_int_equal(rmdir(dir), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(status_words),
      cmocka_unit_test(a_raised_message_reaches_the_caller),
      cmocka_unit_test(a_long_message_is_cut_and_keeps_its_place),
      cmocka_unit_test(bugs_abort),
      cmocka_unit_test(memory_is_zeroed_aligned_and_summed_exactly),
      cmocka_unit_test(rounding_adds_a_header_and_whole_lines),
      cmocka_unit_test(memory_that_is_not_there_is_refused),
      cmocka_unit_test(resident_memory_is_read_from_the_kernel),
      cmocka_unit_test(log_goes_to_stderr_and_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

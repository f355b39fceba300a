/* Each thread's one error message, and what a status is called. */
#include "kwm/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local char error_message[1024];

const char *kwm_status_words(kwm_status status) {
  switch (status) {
#define KWM_STATUS_CASE(name, value, words)                                                                            \
  case name: return words;
    KWM_STATUS_LIST(KWM_STATUS_CASE)
#undef KWM_STATUS_CASE
  }
  return "unknown status";
}

kwm_status kwm_raise(kwm_status status, const char *file, int line, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char text[sizeof error_message - 64];
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  snprintf(error_message, sizeof error_message, "%s [%s:%d]", text, file, line);
  return status;
}

const char *kwm_error_message(void) {
  return error_message;
}

void kwm_error_set(const char *message) {
  snprintf(error_message, sizeof error_message, "%s", message);
}

void kwm_assert_failed(const char *condition, const char *file, int line) {
  fprintf(stderr, "kwm: bug: %s:%d: expected %s\n", file, line, condition);
  abort();
}

int kwm_int(int64_t value) {
  KWM_ASSERT(value >= INT32_MIN && value <= INT32_MAX);
  return (int)value;
}

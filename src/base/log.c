/* Log lines and the live progress line share the terminal: a log line first clears a pending progress line. */
#include "kwm/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool speaking;
static bool progress_pending;
static FILE *log_file;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* a thread that writes a checkpoint may warn */

void kwm_log_speaks(bool speaks) {
  speaking = speaks;
}

kwm_status kwm_log_open(const char *path) {
  log_file = fopen(path, "a");
  KWM_CHECK(log_file != NULL, KWM_ERR_SYSTEM, "log %s: wanted to append, found: %s", path, strerror(errno));
  setvbuf(log_file, NULL, _IOLBF, 0);
  return KWM_OK;
}

void kwm_log_close(void) {
  if (log_file != NULL) fclose(log_file);
  log_file = NULL;
}

static void clear_progress(void) {
  if (progress_pending) fputs("\r\033[K", stderr);
  progress_pending = false;
}

static void write_file(const char *prefix, const char *text) {
  if (log_file == NULL) return;
  char stamp[32];
  const time_t now = time(NULL);
  struct tm parts;
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", localtime_r(&now, &parts));
  fprintf(log_file, "%s %s%s\n", stamp, prefix, text);
}

void kwm_log(enum kwm_log_level level, const char *format, ...) {
  if (!speaking) return;
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const char *prefix = level == KWM_LOG_WARNING ? "warning: " : "";
  pthread_mutex_lock(&lock);
  clear_progress();
  fprintf(stderr, "kwm: %s%s\n", prefix, text);
  write_file(prefix, text);
  pthread_mutex_unlock(&lock);
}

void kwm_log_progress(bool last, const char *format, ...) {
  if (!speaking) return;
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  pthread_mutex_lock(&lock);
  if (isatty(STDERR_FILENO)) {
    fprintf(stderr, "\r\033[K%s%s", text, last ? "\n" : "");
    fflush(stderr);
    progress_pending = !last;
  } else {
    fprintf(stderr, "%s\n", text);
  }
  write_file("", text);
  pthread_mutex_unlock(&lock);
}

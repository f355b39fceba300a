/* The run's log. Levels have a meaning each; a clean run prints no warning. Local; only the rank that opened prints. */
#pragma once

#include "kwm/base.h"

enum kwm_log_level {
  KWM_LOG_INFO,    /* a few lines per phase: what a reader of kwm.log wants to know a month later */
  KWM_LOG_WARNING, /* something was wrong and handled: a damaged checkpoint passed over, a step skipped */
};

/* Chooses whether this process speaks (rank 0 does), before anything is logged. */
void kwm_log_speaks(bool speaks);

/* Also appends to the file at `path` from now on (a run's kwm.log). Rank 0 calls it. */
kwm_status kwm_log_open(const char *path);
void kwm_log_close(void);

/* One line to standard error and the log file. Silent on ranks that do not speak. */
void kwm_log(enum kwm_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The live progress line: overwritten in place on a terminal, a plain line otherwise. `last` ends it. */
void kwm_log_progress(bool last, const char *format, ...) __attribute__((format(printf, 2, 3)));

#include "watch_line.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

static void pad(char *line) {
  const size_t length = strlen(line);
  memset(line + length, ' ', WATCH_LINE - 1 - length);
  line[WATCH_LINE - 1] = '\n';
}

void kwm_watch_facts_line(char *line, const struct kwm_watch_facts *facts) {
  snprintf(line, WATCH_LINE, "kwm-watch\tranks %d\tsteps %" PRId64 "\tlimit %.9g\tinterval %.9g\t", facts->ranks,
           facts->steps, facts->limit, facts->interval);
  pad(line);
}

void kwm_watch_beat_line(char *line, const struct kwm_beat *beat) {
  snprintf(line, WATCH_LINE,
           "%d\t%.63s\t%" PRId64 "\tstep %" PRId64 "\tphases %" PRId64 "\tbeat %.3f\tsince %.3f\t%s\t%.31s\t",
           beat->rank, beat->host, beat->pid, beat->step, beat->phases, beat->beat, beat->since,
           beat->waits ? "waits" : "works", beat->phase);
  pad(line);
}

static bool read_beat(const char *line, int rank, struct kwm_beat *beat) {
  char work[8] = "";
  const int fields = sscanf(
      line, "%d\t%63[^\t]\t%" SCNd64 "\tstep %" SCNd64 "\tphases %" SCNd64 "\tbeat %lf\tsince %lf\t%7[^\t]\t%31[^\t]\t",
      &beat->rank, beat->host, &beat->pid, &beat->step, &beat->phases, &beat->beat, &beat->since, work, beat->phase);
  beat->waits = strcmp(work, "waits") == 0;
  return fields == 9 && beat->rank == rank;
}

static kwm_status read_beats(FILE *file, const char *path, int ranks, struct kwm_beat *beats) {
  char line[WATCH_LINE + 1];
  for (int r = 0; r < ranks; r++)
    KWM_CHECK(fgets(line, sizeof line, file) != NULL && read_beat(line, r, &beats[r]), KWM_ERR_DATA,
              "file %s: wanted a line of rank %d, found none", path, r);
  return KWM_OK;
}

static kwm_status read_all(FILE *file, const char *path, struct kwm_watch_facts *facts, struct kwm_beat **beats) {
  enum { RANKS_MAX = 1 << 20 };
  char line[WATCH_LINE + 1] = "";
  const int fields = fgets(line, sizeof line, file) == NULL
                         ? 0
                         : sscanf(line, "kwm-watch\tranks %d\tsteps %" SCNd64 "\tlimit %lf\tinterval %lf",
                                  &facts->ranks, &facts->steps, &facts->limit, &facts->interval);
  KWM_CHECK(fields == 4 && facts->ranks >= 1 && facts->ranks <= RANKS_MAX, KWM_ERR_DATA,
            "file %s: wanted a file of kwm's, found another", path);
  *beats = calloc((size_t)facts->ranks, sizeof **beats);
  KWM_ASSERT(*beats != NULL);
  return read_beats(file, path, facts->ranks, *beats);
}

kwm_status kwm_watch_read(const char *dir, struct kwm_watch_facts *facts, struct kwm_beat **beats) {
  char path[KWM_FILE_PATH];
  *beats = NULL;
  KWM_TRY(kwm_file_path(path, dir, "watch", ""));
  FILE *const file = fopen(path, "r");
  KWM_CHECK(file != NULL, KWM_ERR_DATA, "file %s: wanted to read it, found: %s", path, strerror(errno));
  const kwm_status status = read_all(file, path, facts, beats);
  fclose(file);
  if (status == KWM_OK) return KWM_OK;
  free(*beats);
  *beats = NULL;
  return status;
}

/* Of two ranks the one that is more likely what the others wait for. */
static bool later(const struct kwm_beat *a, const struct kwm_beat *b, double lost_before) {
  if (a->phases != b->phases) return a->phases < b->phases;
  const bool a_lost = a->beat < lost_before, b_lost = b->beat < lost_before;
  if (a_lost != b_lost) return a_lost;
  return !a->waits && b->waits;
}

void kwm_watch_blame(char *text, size_t bytes, const struct kwm_watch_facts *facts, const struct kwm_beat *beats,
                     double now) {
  const double lost_before = now - 5 * facts->interval - 1;
  const struct kwm_beat *last = &beats[0], *first = &beats[0];
  for (int r = 1; r < facts->ranks; r++) {
    if (later(&beats[r], last, lost_before)) last = &beats[r];
    if (later(first, &beats[r], lost_before)) first = &beats[r];
  }
  const bool lost = last->beat < lost_before, known = later(last, first, lost_before);
  if (!known)
    snprintf(text, bytes, "step %" PRId64 ": wanted the ranks to go on within %g s, found none that did (phase %s)",
             last->step, facts->limit, last->phase);
  else
    snprintf(text, bytes,
             "step %" PRId64 ": wanted every rank within %g s, rank %d (host %s, process %" PRId64
             ") did not arrive: in phase %s of step %" PRId64 " for %.1f s, %s",
             first->step, facts->limit, last->rank, last->host, last->pid, last->phase, last->step, now - last->since,
             lost ? "and no sign of life" : "alive");
}

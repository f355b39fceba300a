/* kwm status: what a run is doing, from its directory alone. A run that ended in order says so in summary.json; of one
   that did not, or not yet, the ranks' last lines in DIR/watch tell. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "kwm/app.h"
#include "kwm/report.h"
#include "run.h"

enum { PATH_BYTES = 4096, COLUMNS_MAX = 512 };

/* The last rows of metrics.tsv. NAN: not known. */
struct pace {
  double step, epoch, seconds, loss, samples_per_s; /* of the last row */
  double step_seconds;                              /* over the last rows */
};

struct view {
  const char *dir;
  bool watched; /* DIR/watch is there */
  struct kwm_watch_facts facts;
  struct kwm_beat *beats;
  const struct kwm_beat *last; /* the rank that is furthest behind */
  struct pace pace;
  char summary[32]; /* status in summary.json, "" if there is none */
  double now;
};

static double number_at(const char *line, int column) {
  for (; column > 0 && line != NULL; column--) {
    line = strchr(line, '\t');
    if (line != NULL) line++;
  }
  return line == NULL ? NAN : strtod(line, NULL);
}

static int find_column(const char *header, const char *name) {
  const size_t length = strlen(name);
  for (int column = 0; column < COLUMNS_MAX; column++) {
    if (strncmp(header, name, length) == 0 && strchr("\t\n", header[length]) != NULL) return column;
    header = strchr(header, '\t');
    if (header == NULL) return COLUMNS_MAX;
    header++;
  }
  return COLUMNS_MAX;
}

/* Pace over the last BACK rows: enough to be even, few enough to be of now. */
static void read_rows(FILE *file, struct pace *pace) {
  enum { BACK = 8, NAMES = 5 };
  static const char *const names[NAMES] = {"step", "epoch", "seconds", "train_loss", "samples_per_s"};
  char *line = NULL;
  size_t room = 0;
  int columns[NAMES];
  double steps[BACK] = {0}, seconds[BACK] = {0};
  int64_t n = 0;
  if (getline(&line, &room, file) > 0) {
    for (int k = 0; k < NAMES; k++) columns[k] = find_column(line, names[k]);
    while (getline(&line, &room, file) > 0 && strchr(line, '\n') != NULL) {
      double values[NAMES];
      for (int k = 0; k < NAMES; k++) values[k] = number_at(line, columns[k]);
      const int64_t slot = n % BACK;
      const double from = n < BACK ? 0 : steps[slot], at = n < BACK ? 0 : seconds[slot];
      pace->step_seconds = (values[2] - at) / (values[0] - from);
      steps[slot] = values[0];
      seconds[slot] = values[2];
      pace->step = values[0];
      pace->epoch = values[1];
      pace->seconds = values[2];
      pace->loss = values[3];
      pace->samples_per_s = values[4];
      n++;
    }
  }
  free(line);
}

static void read_pace(const char *dir, struct pace *pace) {
  char path[PATH_BYTES];
  *pace = (struct pace){0, NAN, NAN, NAN, NAN, NAN};
  snprintf(path, sizeof path, "%s/metrics.tsv", dir);
  FILE *const file = fopen(path, "r");
  if (file == NULL) return;
  read_rows(file, pace);
  fclose(file);
}

static void read_view(struct view *view, const char *dir) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  memset(view, 0, sizeof *view);
  view->dir = dir;
  view->now = (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
  view->watched = kwm_watch_read(dir, &view->facts, &view->beats) == KWM_OK;
  for (int r = 0; view->watched && r < view->facts.ranks; r++)
    if (r == 0 || view->beats[r].phases < view->last->phases) view->last = &view->beats[r];
  read_pace(dir, &view->pace);
  kwm_report_status(dir, view->summary, sizeof view->summary);
}

static double newest_beat(const struct view *view) {
  double newest = view->beats[0].beat;
  for (int r = 1; r < view->facts.ranks; r++) newest = fmax(newest, view->beats[r].beat);
  return newest;
}

/* A word for the whole; words: what else there is to say, or "". */
static const char *state_of(const struct view *view, char *words, size_t bytes) {
  words[0] = '\0';
  if (!view->watched || strcmp(view->beats[0].phase, "ended") == 0) {
    if (strcmp(view->summary, "done") == 0) return "finished";
    if (strcmp(view->summary, "stopped") == 0) {
      snprintf(words, bytes, "on request; train ... --resume goes on");
      return "stopped";
    }
    if (view->summary[0] == '\0') return "not begun";
    snprintf(words, bytes, "%s: see kwm.log", view->summary);
    return "failed";
  }
  for (int r = 0; r < view->facts.ranks; r++) {
    if (strcmp(view->beats[r].phase, "gave up") != 0) continue;
    snprintf(words, bytes, "a rank did not arrive: see kwm.log; train ... --resume goes on");
    return "failed";
  }
  const double silent = view->now - newest_beat(view), still = view->now - view->last->since;
  if (silent > 3 * view->facts.interval + 3) {
    snprintf(words, bytes, "no sign of life for %.0f s: killed, or its hosts are lost; train ... --resume goes on",
             silent);
    return "failed";
  }
  const double usual = 20 * view->pace.step_seconds;
  const double limit = view->facts.limit > 0 ? view->facts.limit / 2 : 600;
  if (still > limit && !(still < usual)) {
    snprintf(words, bytes, "rank %d (host %s) is in phase %s for %.0f s%s", view->last->rank, view->last->host,
             view->last->phase, still, view->facts.limit > 0 ? ": the watchdog will end it" : "");
    return "stalled";
  }
  snprintf(words, bytes, "%s", view->last->phase);
  return "running";
}

static void print_time(const char *name, double at) {
  char text[32];
  struct tm parts;
  const time_t seconds = (time_t)at;
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", localtime_r(&seconds, &parts));
  printf("%s\t%s\n", name, text);
}

static void print_pace(const struct view *view, bool running) {
  const struct pace *const pace = &view->pace;
  const double step = view->watched ? fmax((double)view->last->step, pace->step) : pace->step;
  const double left = view->watched ? ((double)view->facts.steps - step) * pace->step_seconds : NAN;
  printf("step\t%.0f", step);
  if (view->watched) printf(" of %lld", (long long)view->facts.steps);
  printf("\nepoch\t%.4g\nseconds\t%.0f\ntrain_loss\t%.6g\nsamples_per_s\t%.0f\nseconds_a_step\t%.4g\n", pace->epoch,
         pace->seconds, pace->loss, pace->samples_per_s, pace->step_seconds);
  if (!running || !isfinite(left)) return;
  printf("seconds_left\t%.0f\n", left);
  print_time("ends", view->now + left);
}

static void print_checkpoint(struct kwm_layout *world, const char *dir) {
  char folder[PATH_BYTES], path[PATH_BYTES + 32];
  int64_t *steps = NULL, n = 0;
  struct stat about;
  snprintf(folder, sizeof folder, "%s/checkpoints", dir);
  if (kwm_ckpt_exists(folder) && kwm_ckpt_steps(world->world, folder, &steps, &n) == KWM_OK) {
    snprintf(path, sizeof path, "%s/step-%010lld.h5", folder, (long long)steps[0]);
    const bool there = stat(path, &about) == 0;
    printf("checkpoint\tstep %lld, %.3g MB, one of %lld\n", (long long)steps[0],
           there ? 1e-6 * (double)about.st_size : 0, (long long)n);
    if (there) print_time("written", (double)about.st_mtime);
  } else {
    printf("checkpoint\tnone\n");
  }
  free(steps);
}

kwm_status kwm_command_status(int argc, char **argv) {
  struct kwm_layout world;
  struct stat info;
  struct view view;
  char words[256];
  kwm_par_world(&world);
  KWM_CHECK(argc == 1, KWM_ERR_USAGE, "arguments: wanted one run directory, found %d words", argc);
  KWM_CHECK(world.size == 1, KWM_ERR_USAGE, "status: wanted one rank, found %d", world.size);
  KWM_CHECK(stat(argv[0], &info) == 0 && S_ISDIR(info.st_mode), KWM_ERR_DATA,
            "run directory %s: wanted a folder, found none", argv[0]);
  read_view(&view, argv[0]);
  const char *const state = state_of(&view, words, sizeof words);
  const bool running = strcmp(state, "running") == 0 || strcmp(state, "stalled") == 0;
  printf("state\t%s\n", state);
  if (words[0] != '\0') printf("detail\t%s\n", words);
  print_pace(&view, running);
  if (view.watched) printf("ranks\t%d\n", view.facts.ranks);
  print_checkpoint(&world, argv[0]);
  free(view.beats);
  return KWM_OK;
}

/* A run seen from outside. Every rank has one line in the file DIR/watch: how far it is, in which phase, since when; a
   thread of its own keeps it fresh, and calls nothing of MPI. `kwm status` reads the file; and if a rank's own work has
   stood still for too long its thread reads it, too, names the rank that did not arrive, and ends the process with
   KWM_STALLED, which makes the launcher end all of them. */
#pragma once

#include "kwm/par.h"

typedef struct kwm_watch kwm_watch;

/* One rank as its line says. Times are seconds since 1970 by that rank's host. */
struct kwm_beat {
  int rank;
  char host[KWM_HOST_BYTES], phase[32];
  int64_t pid, step, phases; /* step: finished ones; phases: begun since the run's start */
  double beat, since;        /* the line's last refresh; begin of the phase */
  bool waits;                /* for other ranks, in a sum or a message */
};

struct kwm_watch_facts {
  int ranks;
  int64_t steps;          /* planned */
  double limit, interval; /* seconds without progress that end the run, 0: none; between two beats */
};

/* Collective over world; rank 0 makes the file. limit: 0 to 1e9 seconds. *watch is NULL on failure, which may be passed
   to the others. */
kwm_status kwm_watch_start(kwm_watch **watch, struct kwm_layout *layout, const char *dir, int64_t steps, double limit);

/* This rank begins `phase` (static storage) of `step`; the same sequence of phases on every rank. Local. */
void kwm_watch_phase(kwm_watch *watch, const char *phase, int64_t step);

/* The run has ended in order: the last line says "ended". Local. */
void kwm_watch_stop(kwm_watch **watch);

/* Reads DIR/watch; *beats (facts->ranks) is malloc'ed. KWM_ERR_DATA if it is missing or not such a file. Local. */
kwm_status kwm_watch_read(const char *dir, struct kwm_watch_facts *facts, struct kwm_beat **beats);

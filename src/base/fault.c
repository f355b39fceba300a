/* Read anew at each call: no state, and a phase is far longer than a look into the environment. */
#include "kwm/fault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ACTION_BYTES = 16 };

/* action <- that of the order, if there is one for this place. */
static bool ordered(char action[ACTION_BYTES], const char *phase, int64_t step, int rank) {
  const char *const order = getenv("KWM_TEST_FAULT");
  char where[128];
  long long when = 0;
  int who = 0;
  if (order == NULL || sscanf(order, "%15[a-z]:%127[^:]:%lld:%d", action, where, &when, &who) != 4) return false;
  return when == step && strcmp(where, phase) == 0 && (who == -1 || who == rank);
}

static void say(const char *phase, int64_t step, int rank, const char *action) {
  fprintf(stderr, "kwm: fault on order at %s, step %lld, rank %d: %s\n", phase, (long long)step, rank, action);
}

void kwm_fault(const char *phase, int64_t step, int rank) {
  char action[ACTION_BYTES];
  if (!ordered(action, phase, step, rank)) return;
  const bool kills = strcmp(action, "kill") == 0, stops = strcmp(action, "stop") == 0;
  const bool hangs = strcmp(action, "hang") == 0;
  if (kills || stops || hangs) say(phase, step, rank, action);
  if (kills) raise(SIGKILL);
  if (stops) raise(SIGSTOP);
  while (hangs) pause();
}

bool kwm_fault_ordered(const char *action, const char *phase, int64_t step, int rank) {
  char found[ACTION_BYTES];
  if (!ordered(found, phase, step, rank) || strcmp(found, action) != 0) return false;
  say(phase, step, rank, action);
  return true;
}

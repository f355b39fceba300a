/* Read anew at each call: no state, and a phase is far longer than a look into the environment. */
#include "kwm/fault.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void kwm_fault(const char *phase, int64_t step, int rank) {
  const char *const order = getenv("KWM_TEST_FAULT");
  char action[16], where[128];
  long long when = 0;
  int who = 0;
  if (order == NULL || sscanf(order, "%15[a-z]:%127[^:]:%lld:%d", action, where, &when, &who) != 4) return;
  if (when != step || strcmp(where, phase) != 0 || (who != -1 && who != rank)) return;
  fprintf(stderr, "kwm: fault on order at %s, step %lld, rank %d: %s\n", phase, (long long)step, rank, action);
  if (strcmp(action, "kill") == 0) raise(SIGKILL);
  if (strcmp(action, "stop") == 0) raise(SIGSTOP);
  while (strcmp(action, "hang") == 0) pause();
}

/* Loaded before all else by end-to-end tests (LD_PRELOAD): a rank that waits for others asks for nothing but its turn,
   over and over, and so takes a fifth of the processor from those it waits for, where ranks outnumber cores. Here it
   sleeps instead. */
#include <time.h>

int sched_yield(void);

int sched_yield(void) {
  const struct timespec pause = {0, 20000};
  nanosleep(&pause, NULL);
  return 0;
}

/* In the ranks of tests, in place of libc's: a rank that waits for others asks for nothing but its turn, over and over,
   and so takes a fifth of the processor from those it waits for, where ranks outnumber cores. Here it sleeps instead,
   once it has asked for long: most waits are shorter than a sleep. Linked into the mpi tests, loaded before all else by
   end-to-end tests (LD_PRELOAD). */
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int sched_yield(void);

enum { TURNS = 20, NEW_WAIT = 5000 /* ns of work since the last turn */, SLEEP = 20000 /* ns */ };

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int sched_yield(void) {
  static _Thread_local int64_t last;
  static _Thread_local int turns;
  const struct timespec pause = {0, SLEEP};
  turns = now() - last > NEW_WAIT ? 0 : turns + 1;
  if (turns < TURNS) {
    syscall(SYS_sched_yield);
  } else {
    nanosleep(&pause, NULL);
  }
  last = now();
  return 0;
}

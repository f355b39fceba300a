/* In the ranks of tests, in place of libc's: a rank that waits for others asks for nothing but its turn, over and over,
   and so takes a fifth of the processor from those it waits for, where ranks outnumber cores. Here it sleeps instead,
   once it has asked WAITS_TURNS times: most waits are shorter than a sleep, but where other programs run, too, a turn
   that is given away comes back after theirs, and a sleeper before. So none are in end-to-end tests, which run beside
   each other (loaded before all else by LD_PRELOAD); some are in the mpi tests, which have the machine (linked). */
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int sched_yield(void);

enum { TURNS = WAITS_TURNS, NEW_WAIT = 5000 /* ns of work since the last turn */, SLEEP = 20000 /* ns */ };

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

/* What tests share: cmocka with its includes, assertions that all ranks reach together, relative closeness. */
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <mpi.h>

#include "kwm/base.h"

/* On several ranks assert only this: it fails on every rank if the condition fails on any (a failure on one rank alone
   would leave the others waiting). */
static inline void assert_all(bool condition) {
  int mine = condition, all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  assert_true(all);
}

static inline bool close_to(double a, double b, double relative, double absolute) {
  return fabs(a - b) <= absolute + relative * fmax(fabs(a), fabs(b));
}

#define assert_close(a, b, relative, absolute)                                                                         \
  do {                                                                                                                 \
    const double close_a_ = (a), close_b_ = (b);                                                                       \
    if (!close_to(close_a_, close_b_, (relative), (absolute)))                                                         \
      fail_msg("%s = %.9g, wanted %s = %.9g (relative %g)", #a, close_a_, #b, close_b_,                                \
               fabs(close_a_ - close_b_) / (fabs(close_b_) + 1e-300));                                                 \
  } while (0)

#define assert_ok(call)                                                                                                \
  do {                                                                                                                 \
    const kwm_status ok_status_ = (call);                                                                              \
    if (ok_status_ != KWM_OK) fail_msg("%s: %s", #call, kwm_error_message());                                          \
  } while (0)

/* main of a test program that uses MPI: only rank 0 prints; every rank returns non-zero on failure. */
#define KWM_TEST_MAIN(tests)                                                                                           \
  int main(int argc, char **argv) {                                                                                    \
    int rank = 0, mine = 0, all = 0, threads = MPI_THREAD_SINGLE;                                                      \
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &threads);                                                      \
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);                                                                              \
    if (rank != 0 && freopen("/dev/null", "w", stdout) == NULL) return 1;                                              \
    mine = cmocka_run_group_tests(tests, NULL, NULL);                                                                  \
    MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);                                                   \
    MPI_Finalize();                                                                                                    \
    return all;                                                                                                        \
  }

/* Faults on order, for tests: a process whose environment says KWM_TEST_FAULT=ACTION:PHASE:STEP:RANK kills itself or
   stands still when it comes to that place. Without the variable nothing happens. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* This process (world rank `rank`) is at `phase` of `step`. ACTION: kill (SIGKILL), stop (SIGSTOP), hang (it never
   comes back, other threads go on). RANK: -1 means every rank. Local. */
void kwm_fault(const char *phase, int64_t step, int rank);

/* True at a place where the order is ACTION, of which the caller knows what it is: `indefinite` makes a step's numbers
   look so. Local. */
bool kwm_fault_ordered(const char *action, const char *phase, int64_t step, int rank);

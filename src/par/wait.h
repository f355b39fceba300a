/* Private to par: time spent waiting for others, and messages of any length. */
#pragma once

#include "kwm/par.h"

/* Between the two this process waits (kwm_par_waiting), and the layout's communication time runs. */
double par_begin_wait(void);
void par_end_wait(struct kwm_layout *layout, double start);

/* Collective over group: kwm_par_sum_group, but pairwise in a tree from rank 0. scratch: (n). */
void par_sum_group_pairs(struct kwm_layout *layout, int64_t n, double *values, double *scratch);

/* This process's host, zeros behind its name: equal bytes for equal hosts. */
void par_host_name(char host[KWM_HOST_BYTES]);

/* Begins a receive of `bytes` bytes. */
MPI_Request par_receive(MPI_Comm comm, int from, int tag, void *data, int64_t bytes);

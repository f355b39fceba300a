/* Ranks in a grid replica x stage x owner, agreement on errors, fixed-order sums, and point-to-point messages between
   the ranks of one replica. Time spent waiting in here is the run's communication time. */
#pragma once

#include <mpi.h>

#include "kwm/device.h"

struct kwm_layout {
  int rank, size;               /* in world */
  int replicas, stages, owners; /* size = replicas * stages * owners */
  int replica, stage, owner;    /* this rank's place; owner varies fastest, then stage, then replica */
  MPI_Comm world;               /* all ranks; own duplicate */
  MPI_Comm group;               /* the ranks of this replica; rank there: stage * owners + owner */
  MPI_Comm peers;               /* the same (stage, owner) in all replicas; rank there: replica */
  MPI_Comm mates;               /* the owners of this stage in this replica; rank there: owner */
  bool direct;                  /* devices of one host may reach into each other's memory; false unless set */
  bool devices_talk;            /* the peers' devices exchange without the host (kwm_par_join_devices) */
  bool owners_talk;             /* and those of all ranks, so of mates and of the group */
  double comm_seconds;          /* time spent in this file's calls since init */
};

/* Collective over MPI_COMM_WORLD. KWM_ERR_USAGE if replicas * stages * owners is not the number of ranks or replicas is
   not a power of two; fini is then allowed but not needed. fini is collective. */
kwm_status kwm_layout_init(struct kwm_layout *layout, int64_t replicas, int64_t stages, int64_t owners);
void kwm_layout_fini(struct kwm_layout *layout);

/* rank, size and world of MPI_COMM_WORLD itself, for what happens before a layout is known (reading a configuration,
   opening a checkpoint): sums, broadcasts and messages over world work, nothing else; needs no fini. Local. */
void kwm_par_world(struct kwm_layout *layout);

/* Collective over comm: every rank gets the status of the lowest failing rank and its message ("... [rank r]");
   KWM_OK if none failed. Ends every collective phase that can fail locally. */
kwm_status kwm_agree(MPI_Comm comm, kwm_status status);

/* Collective over world: true on all ranks if `flag` is true on any. */
bool kwm_par_any(struct kwm_layout *layout, bool flag);

/* Collective over peers: values (n) summed over the replicas pairwise, ((r0+r1)+(r2+r3)), the same bits everywhere.
   scratch: (n), overwritten. */
void kwm_par_sum_replicas(struct kwm_layout *layout, int64_t n, float *values, float *scratch);
void kwm_par_sum_replicas_f64(struct kwm_layout *layout, int64_t n, double *values, double *scratch);

/* The same for a sum on a device (NULL: the host), in rooms that are large enough (kwm/rooms.h, NULL: there are none),
   else between the devices where they talk, a message for each level of the tree, else through the host. scratch (n) is
   the device's; staging (2 n) the host's, unused where they talk. */
struct kwm_sum {
  int64_t n;
  float *values, *scratch, *staging;
  struct kwm_rooms *rooms;
};
void kwm_par_sum_replicas_device(struct kwm_layout *layout, kwm_device *device, const struct kwm_sum *sum);

/* Collective over mates: values (n) summed over a stage's owners, pairwise in a tree that begins at `owner`, with whom
   the sum lies; the others' values are overwritten. scratch: (n). broadcast: what `owner` has, to all. f64: the same
   bits with all. */
void kwm_par_sum_mates(struct kwm_layout *layout, int owner, int64_t n, float *values, float *scratch);
void kwm_par_broadcast_mates(struct kwm_layout *layout, int owner, void *data, int64_t bytes);
void kwm_par_sum_mates_f64(struct kwm_layout *layout, int64_t n, double *values);

/* The first two for what lies on a device (NULL: the host), with the same bits, between the devices where the owners'
   talk, else through the host. scratch and staging as above, for both. */
void kwm_par_sum_to_owner(struct kwm_layout *layout, kwm_device *device, int owner, const struct kwm_sum *sum);
void kwm_par_spread_from_owner(struct kwm_layout *layout, kwm_device *device, int owner, const struct kwm_sum *sum);

/* Sums over owners of what ranks share that work side by side, each on its own part of the data. init: rooms for pieces
   of the longest sum; layout and device (NULL: the host) are borrowed; fini accepts a zeroed one. sum: collective over
   mates: values (n), the device's, <- their sum in kwm_par_sum_mates' tree, the same bits with all; one owner: as they
   were. */
struct kwm_shared {
  struct kwm_layout *layout;
  kwm_device *device;
  int64_t piece;
  float *scratch, *staging; /* (piece) of the device, (2 piece) of the host; owned */
};
kwm_status kwm_shared_init(struct kwm_shared *shared, struct kwm_layout *layout, kwm_device *device, int64_t longest);
void kwm_shared_fini(struct kwm_shared *shared);
void kwm_shared_sum(struct kwm_shared *shared, int64_t n, float *values);

/* This process's place among those on its host, by world rank. Collective over MPI_COMM_WORLD. */
int kwm_par_local_rank(void);

/* Collective over world: whether any two processes have one device. */
bool kwm_par_share_devices(struct kwm_layout *layout, const kwm_device *device);

/* Collective over world: makes the devices of each set of peers one group if all can talk and no two processes share
   one, or, if what the ranks of a replica sum lies on devices (`all`) and there are several, those of all ranks; NULL:
   nothing to do. KWM_ERR_SYSTEM if a device that should cannot. */
kwm_status kwm_par_join_devices(struct kwm_layout *layout, kwm_device *device, bool all);

/* Collective over group: values (n) of a device summed over the replica's ranks, pairwise in a tree from rank 0, the
   same bits everywhere, between the devices where all talk, else through the host. scratch (n) is the device's, staging
   (2 n) the host's, unused where they talk. */
struct kwm_sum_f64 {
  int64_t n;
  double *values, *scratch, *staging;
};
void kwm_par_sum_group_device(struct kwm_layout *layout, kwm_device *device, const struct kwm_sum_f64 *sum);

/* Collective over group: values (n) summed over the replica's ranks, the same bits everywhere. Where each element is
   non-zero on one rank only, the sum is exact. */
void kwm_par_sum_group(struct kwm_layout *layout, int64_t n, double *values);
void kwm_par_sum_group_f32(struct kwm_layout *layout, int64_t n, float *values);

/* Sum over world of doubles (statistics; order fixed by MPI for a layout). */
void kwm_par_sum_world(struct kwm_layout *layout, int64_t n, double *values);
/* Largest over world. */
void kwm_par_max_world(struct kwm_layout *layout, int64_t n, double *values);

/* Broadcast within the group from group rank `root`. */
void kwm_par_broadcast_group(struct kwm_layout *layout, int root, void *data, int64_t bytes);
/* Broadcast over world from rank 0. */
void kwm_par_broadcast_world(struct kwm_layout *layout, void *data, int64_t bytes);

/* Messages within the group. send is non-blocking: data stays untouched until kwm_par_wait returns on the request.
   receive blocks. Messages between a pair with one tag arrive in order. */
MPI_Request kwm_par_send(struct kwm_layout *layout, int to, int tag, const void *data, int64_t bytes);
void kwm_par_receive(struct kwm_layout *layout, int from, int tag, void *data, int64_t bytes);
void kwm_par_wait(struct kwm_layout *layout, int n, MPI_Request *requests);

/* True while this process waits for others in one of the calls above; any thread may ask. Local. */
bool kwm_par_waiting(void);

/* What this thread waits for is not the run's waiting, but while the run, in turn, waits for this thread. Local. */
void kwm_par_aside(bool aside);
void kwm_par_follow(bool follows);

/* Wall clock in seconds. */
double kwm_par_seconds(void);

/* Collective over world: rank 0 gets every rank's host name, names: (size, KWM_HOST_BYTES) zero-terminated; others may
   pass NULL. */
enum { KWM_HOST_BYTES = 64 };
void kwm_par_hosts(struct kwm_layout *layout, char *names);

/* The MPI library's own words on its version, one line; static storage. */
const char *kwm_par_version(void);

/* Agreement on errors, sums whose bits do not depend on the rank that looks, and messages of any length. MPI counts in
   int: collectives go piece by piece, a long message is one element of a type made for it. */
#include "kwm/par.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "wait.h"

enum { PIECE_BYTES = 1 << 24, MESSAGE_BYTES = 1024, SUM_TAG = 0 };

double kwm_par_seconds(void) {
  return MPI_Wtime();
}

/* Whether this process waits in here, for a thread that watches it; threads aside do not count. */
static atomic_bool waiting, waiting_aside, follows;
static _Thread_local bool aside;

void kwm_par_aside(bool is) {
  aside = is;
}

void kwm_par_follow(bool is) {
  follows = is;
}

bool kwm_par_waiting(void) {
  return waiting || (follows && waiting_aside);
}

static void set_waiting(bool is) {
  if (aside)
    waiting_aside = is;
  else
    waiting = is;
}

double par_begin_wait(void) {
  set_waiting(true);
  return kwm_par_seconds();
}

void par_end_wait(struct kwm_layout *layout, double start) {
  set_waiting(false);
  layout->comm_seconds += kwm_par_seconds() - start;
}

/* Collective phases nest: a message that has been agreed on keeps the rank that it came from. */
static bool names_rank(const char *message) {
  const char *tail = strrchr(message, '[');
  int rank = 0, end = 0;
  return tail != NULL && sscanf(tail, "[rank %d]%n", &rank, &end) == 1 && end > 0 && tail[end] == '\0';
}

kwm_status kwm_agree(MPI_Comm comm, kwm_status status) {
  int rank = 0, size = 0, first = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  const int mine = status == KWM_OK ? size : rank;
  par_begin_wait();
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, comm);
  set_waiting(false);
  if (first == size) return KWM_OK;
  int agreed = (int)status;
  char message[MESSAGE_BYTES] = "";
  const int room_for_suffix = 32;
  if (names_rank(kwm_error_message()))
    snprintf(message, sizeof message, "%s", kwm_error_message());
  else
    snprintf(message, sizeof message, "%.*s [rank %d]", MESSAGE_BYTES - room_for_suffix, kwm_error_message(), rank);
  MPI_Bcast(&agreed, 1, MPI_INT, first, comm);
  MPI_Bcast(message, MESSAGE_BYTES, MPI_CHAR, first, comm);
  kwm_error_set(message);
  return (kwm_status)agreed;
}

bool kwm_par_any(struct kwm_layout *layout, bool flag) {
  const double start = par_begin_wait();
  const int mine = flag;
  int any = 0;
  MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_LOR, layout->world);
  par_end_wait(layout, start);
  return any != 0;
}

/* What a sum has to know of its numbers. */
struct number {
  MPI_Datatype type;
  int64_t bytes;
  void (*add)(int64_t n, void *sum, const void *term);
};

static void add_f32(int64_t n, void *sum, const void *term) {
  float *a = sum;
  const float *b = term;
  for (int64_t i = 0; i < n; i++) a[i] += b[i];
}

static void add_f64(int64_t n, void *sum, const void *term) {
  double *a = sum;
  const double *b = term;
  for (int64_t i = 0; i < n; i++) a[i] += b[i];
}

static struct number number_f32(void) {
  return (struct number){MPI_FLOAT, sizeof(float), add_f32};
}

static struct number number_f64(void) {
  return (struct number){MPI_DOUBLE, sizeof(double), add_f64};
}

/* The next piece of what is left, as an MPI count. */
static int piece_of(int64_t left, int64_t element_bytes) {
  const int64_t most = PIECE_BYTES / element_bytes;
  return (int)(left < most ? left : most);
}

static void broadcast(MPI_Comm comm, int root, void *data, int64_t bytes) {
  char *at = data;
  for (int64_t left = bytes; left > 0;) {
    const int count = piece_of(left, 1);
    MPI_Bcast(at, count, MPI_BYTE, root, comm);
    at += count;
    left -= count;
  }
}

/* Reduces on rank 0 and broadcasts: MPI_Allreduce may round differently on different ranks. */
static void reduce(MPI_Comm comm, struct number number, MPI_Op op, int64_t n, void *values) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  char *at = values;
  for (int64_t left = n; left > 0;) {
    const int count = piece_of(left, number.bytes);
    if (rank == 0)
      MPI_Reduce(MPI_IN_PLACE, at, count, number.type, op, 0, comm);
    else
      MPI_Reduce(at, NULL, count, number.type, op, 0, comm);
    at += count * number.bytes;
    left -= count;
  }
  broadcast(comm, 0, values, n * number.bytes);
}

/* One element of this type is `bytes` bytes. The caller frees it, at once if it likes: pending messages keep it. */
static MPI_Datatype message_type(int64_t bytes) {
  MPI_Datatype piece, whole;
  MPI_Type_contiguous(PIECE_BYTES, MPI_BYTE, &piece);
  const int64_t pieces = bytes / PIECE_BYTES;
  const int lengths[2] = {kwm_int(pieces), (int)(bytes % PIECE_BYTES)};
  const MPI_Aint offsets[2] = {0, pieces * PIECE_BYTES};
  const MPI_Datatype types[2] = {piece, MPI_BYTE};
  MPI_Type_create_struct(2, lengths, offsets, types, &whole);
  MPI_Type_commit(&whole);
  MPI_Type_free(&piece);
  return whole;
}

static MPI_Request send(MPI_Comm comm, int to, int tag, const void *data, int64_t bytes) {
  MPI_Request request;
  if (bytes <= PIECE_BYTES) {
    MPI_Isend(data, (int)bytes, MPI_BYTE, to, tag, comm, &request);
    return request;
  }
  MPI_Datatype type = message_type(bytes);
  MPI_Isend(data, 1, type, to, tag, comm, &request);
  MPI_Type_free(&type);
  return request;
}

MPI_Request par_receive(MPI_Comm comm, int from, int tag, void *data, int64_t bytes) {
  MPI_Request request;
  if (bytes <= PIECE_BYTES) {
    MPI_Irecv(data, (int)bytes, MPI_BYTE, from, tag, comm, &request);
    return request;
  }
  MPI_Datatype type = message_type(bytes);
  MPI_Irecv(data, 1, type, from, tag, comm, &request);
  MPI_Type_free(&type);
  return request;
}

static void receive(MPI_Comm comm, int from, int tag, void *data, int64_t bytes) {
  MPI_Request request = par_receive(comm, from, tag, data, bytes);
  MPI_Wait(&request, MPI_STATUS_IGNORE);
}

/* Level by level, the rank at the start of each pair, counted from `root`, adds its partner's sum to its own; the root
   ends with all. */
static void sum_to(MPI_Comm comm, int root, struct number number, int64_t n, void *values, void *scratch) {
  int rank = 0, size = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  const int place = (rank - root + size) % size;
  for (int half = 1; half < size; half *= 2) {
    if (place % (2 * half) != 0) {
      MPI_Request request = send(comm, (place - half + root) % size, SUM_TAG, values, n * number.bytes);
      MPI_Wait(&request, MPI_STATUS_IGNORE);
      return;
    }
    if (place + half >= size) continue;
    receive(comm, (place + half + root) % size, SUM_TAG, scratch, n * number.bytes);
    number.add(n, values, scratch);
  }
}

static void sum_tree(struct kwm_layout *layout, struct number number, int64_t n, void *values, void *scratch) {
  const double start = par_begin_wait();
  sum_to(layout->peers, 0, number, n, values, scratch);
  broadcast(layout->peers, 0, values, n * number.bytes);
  par_end_wait(layout, start);
}

void kwm_par_sum_replicas(struct kwm_layout *layout, int64_t n, float *values, float *scratch) {
  sum_tree(layout, number_f32(), n, values, scratch);
}

void kwm_par_sum_replicas_f64(struct kwm_layout *layout, int64_t n, double *values, double *scratch) {
  sum_tree(layout, number_f64(), n, values, scratch);
}

static void timed_reduce(struct kwm_layout *layout, MPI_Comm comm, struct number number, MPI_Op op, int64_t n,
                         void *values) {
  const double start = par_begin_wait();
  reduce(comm, number, op, n, values);
  par_end_wait(layout, start);
}

void kwm_par_sum_group(struct kwm_layout *layout, int64_t n, double *values) {
  timed_reduce(layout, layout->group, number_f64(), MPI_SUM, n, values);
}

void par_sum_group_pairs(struct kwm_layout *layout, int64_t n, double *values, double *scratch) {
  const double start = par_begin_wait();
  sum_to(layout->group, 0, number_f64(), n, values, scratch);
  broadcast(layout->group, 0, values, n * (int64_t)sizeof *values);
  par_end_wait(layout, start);
}

void kwm_par_sum_group_f32(struct kwm_layout *layout, int64_t n, float *values) {
  timed_reduce(layout, layout->group, number_f32(), MPI_SUM, n, values);
}

void kwm_par_sum_world(struct kwm_layout *layout, int64_t n, double *values) {
  timed_reduce(layout, layout->world, number_f64(), MPI_SUM, n, values);
}

void kwm_par_max_world(struct kwm_layout *layout, int64_t n, double *values) {
  timed_reduce(layout, layout->world, number_f64(), MPI_MAX, n, values);
}

void kwm_par_sum_mates_f64(struct kwm_layout *layout, int64_t n, double *values) {
  timed_reduce(layout, layout->mates, number_f64(), MPI_SUM, n, values);
}

static void timed_broadcast(struct kwm_layout *layout, MPI_Comm comm, int root, void *data, int64_t bytes) {
  const double start = par_begin_wait();
  broadcast(comm, root, data, bytes);
  par_end_wait(layout, start);
}

void kwm_par_broadcast_group(struct kwm_layout *layout, int root, void *data, int64_t bytes) {
  timed_broadcast(layout, layout->group, root, data, bytes);
}

void kwm_par_broadcast_world(struct kwm_layout *layout, void *data, int64_t bytes) {
  timed_broadcast(layout, layout->world, 0, data, bytes);
}

void kwm_par_sum_mates(struct kwm_layout *layout, int owner, int64_t n, float *values, float *scratch) {
  const double start = par_begin_wait();
  sum_to(layout->mates, owner, number_f32(), n, values, scratch);
  par_end_wait(layout, start);
}

void kwm_par_broadcast_mates(struct kwm_layout *layout, int owner, void *data, int64_t bytes) {
  timed_broadcast(layout, layout->mates, owner, data, bytes);
}

MPI_Request kwm_par_send(struct kwm_layout *layout, int to, int tag, const void *data, int64_t bytes) {
  return send(layout->group, to, tag, data, bytes);
}

void kwm_par_receive(struct kwm_layout *layout, int from, int tag, void *data, int64_t bytes) {
  const double start = par_begin_wait();
  receive(layout->group, from, tag, data, bytes);
  par_end_wait(layout, start);
}

void kwm_par_wait(struct kwm_layout *layout, int n, MPI_Request *requests) {
  const double start = par_begin_wait();
  MPI_Waitall(n, requests, MPI_STATUSES_IGNORE);
  par_end_wait(layout, start);
}

void par_host_name(char host[KWM_HOST_BYTES]) {
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  int length = 0;
  MPI_Get_processor_name(name, &length);
  memset(host, 0, KWM_HOST_BYTES);
  memcpy(host, name, (size_t)(length < KWM_HOST_BYTES ? length : KWM_HOST_BYTES - 1));
}

void kwm_par_hosts(struct kwm_layout *layout, char *names) {
  char mine[KWM_HOST_BYTES];
  par_host_name(mine);
  MPI_Gather(mine, KWM_HOST_BYTES, MPI_CHAR, names, KWM_HOST_BYTES, MPI_CHAR, 0, layout->world);
}

const char *kwm_par_version(void) {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  text[strcspn(text, ",\n")] = '\0';
  return text;
}

/* A sum over replicas' devices in rooms (kwm/rooms.h) against the same by messages between the devices (NCCL, where it
   is there), and against the time in which its bytes cross at the rate of one long copy between two devices: each
   device sends and receives 2 n (R - 1)/R numbers. Every ratio within one repetition; medians over all, slowest rank.
   usage: mpirun -n R bench_rooms BACKEND [REPETITIONS [FLOATS...]]   (cuda 9 16384 540672 4194304 33554432) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/device_ops.h"
#include "kwm/lane.h"
#include "kwm/rooms.h"

enum { REPETITIONS_MAX = 99, COPY_BYTES = 256 << 20 };
static const double span = 4e-3; /* seconds between two waits, about */

struct state {
  struct kwm_layout layout;
  kwm_device *device;
  struct kwm_sum sum;
};

static void need(kwm_status status) {
  if (status == KWM_OK) return;
  fprintf(stderr, "bench_rooms: %s\n", kwm_error_message());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

static int rising(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* Sorts; the median, and half of the distance between the quartiles. */
static double median(int n, double *values, double *spread) {
  qsort(values, (size_t)n, sizeof *values, rising);
  *spread = (values[3 * n / 4] - values[n / 4]) / 2;
  return values[n / 2];
}

static void *device_memory(struct state *s, size_t bytes) {
  void *at;
  need(kwm_device_alloc(s->device, &at, bytes, "bench_rooms"));
  kwm_device_zero(s->device, at, bytes);
  return at;
}

static double begin(struct state *s) {
  kwm_device_wait(s->device);
  MPI_Barrier(MPI_COMM_WORLD);
  return MPI_Wtime();
}

/* Seconds of the slowest rank. */
static double end(struct state *s, double start) {
  kwm_device_wait(s->device);
  double mine = MPI_Wtime() - start, all;
  MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return all;
}

/* Bytes per second of a long copy to the neighbour's device, all devices at once; 0: it is not seen. */
static double copy_rate(struct state *s) {
  const int mate = s->layout.rank ^ 1;
  struct kwm_ticket mine, its;
  kwm_lane *lane;
  double best = 0;
  float *const own = device_memory(s, COPY_BYTES), *const from = device_memory(s, COPY_BYTES);
  need(kwm_lane_open(s->device, &lane));
  if (!kwm_lane_offer(s->device, own, &mine)) return 0;
  MPI_Sendrecv(&mine, (int)sizeof mine, MPI_BYTE, mate, 0, &its, (int)sizeof its, MPI_BYTE, mate, 0, MPI_COMM_WORLD,
               MPI_STATUS_IGNORE);
  void *const window = kwm_lane_see(s->device, &its);
  if (window == NULL) return 0;
  for (int k = 0; k < 5; k++) {
    const double start = begin(s);
    kwm_lane_copy(s->device, lane, window, from, COPY_BYTES);
    kwm_lane_close(s->device, lane); /* waits for it */
    const double rate = COPY_BYTES / end(s, start);
    best = rate > best ? rate : best;
    need(kwm_lane_open(s->device, &lane));
  }
  kwm_lane_close(s->device, lane);
  kwm_lane_unsee(s->device, window);
  MPI_Barrier(MPI_COMM_WORLD);
  kwm_device_free(s->device, own);
  kwm_device_free(s->device, from);
  return best;
}

/* Seconds of a sum among many, in rooms or without them. */
static double time_sum(struct state *s, bool in_rooms, int calls) {
  struct kwm_sum sum = s->sum;
  if (!in_rooms) sum.rooms = NULL;
  const double start = begin(s);
  for (int k = 0; k < calls; k++) kwm_par_sum_replicas_device(&s->layout, s->device, &sum);
  return end(s, start) / calls;
}

static int calls_for(struct state *s, bool in_rooms) {
  time_sum(s, in_rooms, 3);
  return 3 + (int)(span / time_sum(s, in_rooms, 10));
}

static void measure(struct state *s, int64_t n, int repetitions, double rate) {
  double rooms[REPETITIONS_MAX], ratio[REPETITIONS_MAX], spread, ratio_spread = 0;
  const double crossing = 2.0 * (double)n * (s->layout.size - 1) / s->layout.size * sizeof(float);
  s->sum = (struct kwm_sum){.n = n};
  need(kwm_rooms_open(&s->sum.rooms, &s->layout, s->device, n));
  if (s->sum.rooms == NULL) need(KWM_RAISE(KWM_ERR_SYSTEM, "wanted devices that see each other's memory, found none"));
  s->sum.values = device_memory(s, (size_t)n * sizeof(float));
  s->sum.scratch = device_memory(s, (size_t)n * sizeof(float));
  const bool talk = s->layout.devices_talk;
  const int calls = calls_for(s, true), calls_by_messages = talk ? calls_for(s, false) : 0;
  for (int r = 0; r < repetitions; r++) {
    rooms[r] = time_sum(s, true, calls);
    if (talk) ratio[r] = time_sum(s, false, calls_by_messages) / rooms[r];
  }
  const double seconds = median(repetitions, rooms, &spread);
  const double times = talk ? median(repetitions, ratio, &ratio_spread) : 0;
  if (s->layout.rank == 0)
    printf("%10lld %9.1f %6.1f %9.1f %7.0f %% %11.2f %6.2f\n", (long long)n, 1e6 * seconds, 1e6 * spread,
           1e6 * crossing / rate, 100 * crossing / rate / seconds, times, ratio_spread);
  kwm_rooms_close(s->sum.rooms);
  kwm_device_free(s->device, s->sum.values);
  kwm_device_free(s->device, s->sum.scratch);
}

int main(int argc, char **argv) {
  static const char *const usual[] = {"16384", "540672", "4194304", "33554432"};
  const char *const *const lengths = argc > 3 ? (const char *const *)argv + 3 : usual;
  const int n_lengths = argc > 3 ? argc - 3 : 4, repetitions = argc > 2 ? atoi(argv[2]) : 9;
  struct state s = {.device = NULL};
  int size = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  need(kwm_layout_init(&s.layout, size, 1, 1));
  if (size < 2 || repetitions < 1 || repetitions > REPETITIONS_MAX)
    need(KWM_RAISE(KWM_ERR_USAGE, "wanted 2, 4 or 8 ranks and 1 to 99 repetitions"));
  const struct kwm_device_spec spec = {.local_rank = kwm_par_local_rank(), .graphs = true};
  need(kwm_device_open(&s.device, argc > 1 ? argv[1] : "cuda", &spec));
  need(kwm_par_join_devices(&s.layout, s.device, false));
  const double rate = copy_rate(&s);
  if (s.layout.rank == 0)
    printf("rooms: %d devices, %s; a long copy to another, all at once: %.0f GB/s each way\n%10s %9s %6s %9s %9s %11s "
           "%6s\n",
           size, s.device->words, 1e-9 * rate, "floats", "us", "+-", "bytes, us", "share", "messages, x", "+-");
  for (int k = 0; k < n_lengths; k++) measure(&s, strtoll(lengths[k], NULL, 10) / 32 * 32, repetitions, rate);
  kwm_device_close(s.device);
  kwm_layout_fini(&s.layout);
  MPI_Finalize();
  return 0;
}

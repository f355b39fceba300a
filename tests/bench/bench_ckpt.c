/* A checkpoint against a plain collective write of the same bytes by the same ranks into a new file
   (MPI_File_write_at_all, then synced), and what a restart reads (seal verified, every array read) against a plain
   collective read; each ratio within one repetition, medians over all. Run under mpirun in the folder whose disk is
   meant. usage: bench_ckpt [REPETITIONS [MB...]]   (7 1 16 256) */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kwm/ckpt.h"

enum { ARRAYS = 8, COLUMNS = 1024, REPETITIONS_MAX = 99, MEBI = 1 << 20 };

struct state {
  int rank, size;
  int64_t rows, first, count; /* of each array; this rank's */
  float *data;                /* (ARRAYS, count, COLUMNS) */
};

static void need(kwm_status status) {
  if (status == KWM_OK) return;
  fprintf(stderr, "bench_ckpt: %s\n", kwm_error_message());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

static int rising(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double median(int n, double *values) {
  qsort(values, (size_t)n, sizeof *values, rising);
  return values[n / 2];
}

static double since(double start) {
  double mine = MPI_Wtime() - start, all;
  MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return all;
}

static double plain(struct state *s, int writing) {
  MPI_File file;
  if (writing && s->rank == 0) unlink("plain"); /* a checkpoint is a new file, too */
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  const int mode = writing ? MPI_MODE_CREATE | MPI_MODE_WRONLY : MPI_MODE_RDONLY;
  if (MPI_File_open(MPI_COMM_WORLD, "plain", mode, MPI_INFO_NULL, &file) != MPI_SUCCESS) MPI_Abort(MPI_COMM_WORLD, 1);
  for (int a = 0; a < ARRAYS; a++) {
    const MPI_Offset at = (MPI_Offset)(a * s->rows + s->first) * COLUMNS * (MPI_Offset)sizeof(float);
    float *const part = s->data + (int64_t)a * s->count * COLUMNS;
    const int n = (int)(s->count * COLUMNS);
    if (writing)
      MPI_File_write_at_all(file, at, part, n, MPI_FLOAT, MPI_STATUS_IGNORE);
    else
      MPI_File_read_at_all(file, at, part, n, MPI_FLOAT, MPI_STATUS_IGNORE);
  }
  if (writing) MPI_File_sync(file);
  MPI_File_close(&file);
  return since(start);
}

static double checkpoint(struct state *s, int writing) {
  const int64_t dims[2] = {s->rows, COLUMNS};
  kwm_ckpt *ckpt;
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  need(writing ? kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, "checkpoints", 1)
               : kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, "checkpoints"));
  for (int a = 0; a < ARRAYS; a++) {
    char name[32];
    float *const part = s->data + (int64_t)a * s->count * COLUMNS;
    snprintf(name, sizeof name, "/params/%d", a);
    need(writing ? kwm_ckpt_put(ckpt, name, KWM_F32, 2, dims, s->first, s->count, part)
                 : kwm_ckpt_get(ckpt, name, KWM_F32, 2, dims, s->first, s->count, part));
  }
  if (writing)
    need(kwm_ckpt_commit(&ckpt, 1));
  else
    kwm_ckpt_close(&ckpt);
  return since(start);
}

/* *held: seconds until the run goes on; returns a rank's processor seconds until the file is there. */
static double background(struct state *s, kwm_ckpt_writer *writer, double *held) {
  const int64_t dims[2] = {s->rows, COLUMNS};
  struct timespec begin, end;
  kwm_ckpt *ckpt;
  MPI_Barrier(MPI_COMM_WORLD);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  const double start = MPI_Wtime();
  need(kwm_ckpt_create_later(&ckpt, MPI_COMM_WORLD, writer, "checkpoints", 1));
  for (int a = 0; a < ARRAYS; a++) {
    char name[32];
    snprintf(name, sizeof name, "/params/%d", a);
    need(kwm_ckpt_put(ckpt, name, KWM_F32, 2, dims, s->first, s->count, s->data + (int64_t)a * s->count * COLUMNS));
  }
  need(kwm_ckpt_commit(&ckpt, 1));
  *held = since(start);
  need(kwm_ckpt_writer_wait(writer));
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  double mine = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec), all;
  MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return all;
}

static void measure(struct state *s, int repetitions, int64_t megabytes) {
  double written[REPETITIONS_MAX], read[REPETITIONS_MAX], w_ratio[REPETITIONS_MAX], r_ratio[REPETITIONS_MAX];
  double held[REPETITIONS_MAX], used[REPETITIONS_MAX], waited = 0;
  kwm_ckpt_writer *writer;
  need(kwm_ckpt_writer_create(&writer, MPI_COMM_WORLD));
  if (writer == NULL) MPI_Abort(MPI_COMM_WORLD, 2); /* no threads */
  s->rows = megabytes * MEBI / ARRAYS / COLUMNS / (int64_t)sizeof(float);
  s->first = s->rows * s->rank / s->size;
  s->count = s->rows * (s->rank + 1) / s->size - s->first;
  const int64_t n = ARRAYS * s->count * COLUMNS;
  s->data = malloc((size_t)n * sizeof(float));
  if (s->data == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
  for (int64_t k = 0; k < n; k++) s->data[k] = (float)(((uint64_t)k * 2654435761u >> 7) % 1000003);
  for (int r = -1; r < repetitions; r++) { /* the first one warms up */
    const double write_limit = plain(s, 1), wrote = checkpoint(s, 1);
    const double read_limit = plain(s, 0), got = checkpoint(s, 0);
    const double took = background(s, writer, &waited);
    if (r < 0) continue;
    held[r] = waited, used[r] = took, written[r] = wrote, w_ratio[r] = write_limit / wrote, read[r] = got,
    r_ratio[r] = read_limit / got;
  }
  free(s->data);
  kwm_ckpt_writer_destroy(&writer);
  if (s->rank == 0)
    printf("%6lld %10.4f %10.0f %10.2f %10.4f %10.0f %10.2f %10.4f %10.4f\n", (long long)megabytes,
           median(repetitions, written), (double)megabytes / median(repetitions, written), median(repetitions, w_ratio),
           median(repetitions, read), (double)megabytes / median(repetitions, read), median(repetitions, r_ratio),
           median(repetitions, held), median(repetitions, used));
}

int main(int argc, char **argv) {
  struct state s = {0};
  static const char *const usual[] = {"1", "16", "256"};
  int threads = MPI_THREAD_SINGLE;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &threads);
  MPI_Comm_rank(MPI_COMM_WORLD, &s.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &s.size);
  const int repetitions = argc > 1 ? atoi(argv[1]) : 7;
  if (repetitions < 1 || repetitions > REPETITIONS_MAX) MPI_Abort(MPI_COMM_WORLD, 2);
  if (s.rank == 0)
    printf("checkpoints of %d arrays on %d ranks, medians of %d\n%6s %10s %10s %10s %10s %10s %10s %10s %10s\n", ARRAYS,
           s.size, repetitions, "MiB", "write s", "MiB/s", "/ plain", "restart s", "MiB/s", "/ plain", "held s",
           "CPU s");
  const int n = argc > 2 ? argc - 2 : 3;
  for (int k = 0; k < n; k++) measure(&s, repetitions, atoll(argc > 2 ? argv[2 + k] : usual[k]));
  MPI_Finalize();
  return 0;
}

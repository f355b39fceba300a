/* Eigenvectors by cuSOLVER's dsyevd, in double: some ten n³ operations, most of them limited by memory and latency
   rather than by arithmetic, half of them between calls in which the host takes part. So each problem has a seat: a
   thread of its own while it is solved, with a handle, a stream and about four n² doubles of scratch that are kept.
   From begin to end it runs beside all else, behind which its kernels stand where both could run; alone or not, it gets
   the same bits. Then there are two passes over each matrix for the change of precision. The first call takes a tenth
   of a second, to make a handle and load kernels: a seat that was woken has that behind it. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "cuda_state.h"

enum { INFO, NOT_FINITE, REPORT };

/* Seats that are woken at most. */
enum { WOKEN_MOST = 4 };

struct cuda_seat {
  struct cuda_seat *next;
  bool taken;
  struct kwm_device_eigen given, of; /* what was begun; what the seat's thread has in hand */
  double *W;                         /* (n, n) <- eigenvectors by rows */
  bool good;                         /* it is */
  pthread_t thread, waker;
  bool beside, wakes; /* there is such a thread */

  int device;
  cudaStream_t stream;
  cudaEvent_t asked;         /* on the device's stream: the matrix is there */
  cusolverDnHandle_t solver; /* NULL until it is needed */
  int *report;               /* (REPORT), the device's */
  double *room;
  size_t doubles;
};

static size_t kept(int64_t n) {
  return (size_t)(n * n + n + 31) / 32 * 32;
}

/* Room for W, the values behind it, and `length` doubles of work; false: there is no memory for it. */
static bool lay_out(struct cuda_seat *seat, int length) {
  const size_t doubles = kept(seat->of.n) + (size_t)length;
  if (doubles > seat->doubles) {
    CUDA_MUST(cuda, cudaFree(seat->room));
    seat->room = cuda_memory(doubles * sizeof *seat->room);
    seat->doubles = seat->room != NULL ? doubles : 0;
  }
  seat->W = seat->room;
  return seat->room != NULL;
}

/* Waits. */
static bool reports_good(const struct cuda_seat *seat) {
  int report[REPORT];
  CUDA_MUST(cuda, cudaMemcpyAsync(report, seat->report, sizeof report, cudaMemcpyDefault, seat->stream));
  CUDA_MUST(cuda, cudaStreamSynchronize(seat->stream));
  return report[INFO] == 0 && report[NOT_FINITE] == 0;
}

/* *length <- doubles of work; W and the report are there. */
static bool sit_down(struct cuda_seat *seat, int *length) {
  const int n = kwm_int(seat->of.n);
  CUDA_MUST(cuda, cudaSetDevice(seat->device));
  if (seat->solver == NULL) {
    CUDA_MUST(solver, cusolverDnCreate(&seat->solver));
    CUDA_MUST(solver, cusolverDnSetStream(seat->solver, seat->stream));
  }
  CUDA_MUST(solver, cusolverDnDsyevd_bufferSize(seat->solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, NULL,
                                                n, NULL, length));
  CUDA_MUST(cuda, cudaMemsetAsync(seat->report, 0, REPORT * sizeof *seat->report, seat->stream));
  return lay_out(seat, *length);
}

/* A status other than success ends it like no convergence. */
static bool decompose(struct cuda_seat *seat, int length) {
  const int n = kwm_int(seat->of.n);
  double *const values = seat->W + seat->of.n * seat->of.n, *const work = seat->W + kept(seat->of.n);
  const cusolverStatus_t status = cusolverDnDsyevd(seat->solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n,
                                                   seat->W, n, values, work, length, &seat->report[INFO]);
  return reports_good(seat) && status == CUSOLVER_STATUS_SUCCESS;
}

static void awake(struct cuda_seat *seat) {
  if (seat->wakes) pthread_join(seat->waker, NULL);
  seat->wakes = false;
}

/* What is not finite is found before the decomposition, which might not come to an end with it. */
static void *solve(void *self) {
  struct cuda_seat *const seat = self;
  int length = 0;
  awake(seat);
  seat->of = seat->given;
  seat->good = sit_down(seat, &length);
  if (!seat->good) return NULL;
  cuda_widen(seat->of.n, seat->of.A, seat->W, &seat->report[NOT_FINITE], seat->stream);
  CUDA_MUST(cuda, cudaPeekAtLastError());
  seat->good = reports_good(seat) && decompose(seat, length);
  return NULL;
}

static struct cuda_seat *new_seat(kwm_device *d) {
  struct cuda_seat *const seat = calloc(1, sizeof *seat);
  if (seat == NULL) return NULL;
  seat->report = cuda_memory(REPORT * sizeof *seat->report);
  if (seat->report == NULL) {
    free(seat);
    return NULL;
  }
  CUDA_MUST(cuda, cudaStreamCreateWithFlags(&seat->stream, cudaStreamNonBlocking));
  CUDA_MUST(cuda, cudaEventCreateWithFlags(&seat->asked, cudaEventDisableTiming));
  seat->device = d->index;
  seat->next = cuda_state_of(d)->seats;
  cuda_state_of(d)->seats = seat;
  return seat;
}

/* Any matrix that keeps all kernels busy, its eigenvectors for nobody. */
static void *wake(void *self) {
  struct cuda_seat *const seat = self;
  const int64_t n = seat->of.n;
  double *const W = malloc((size_t)(n * n) * sizeof *W);
  int length = 0;
  for (int64_t k = 0; k < n * n && W != NULL; k++) W[k] = 1 / (1 + fabs((double)(k / n - k % n)));
  if (W != NULL && sit_down(seat, &length)) {
    CUDA_MUST(cuda, cudaMemcpyAsync(seat->W, W, (size_t)(n * n) * sizeof *W, cudaMemcpyDefault, seat->stream));
    decompose(seat, length);
  }
  free(W);
  return NULL;
}

void cuda_eigen_wake(kwm_device *d, int64_t n) {
  int count = 0;
  for (const struct cuda_seat *seat = cuda_state_of(d)->seats; seat != NULL; seat = seat->next) count++;
  struct cuda_seat *const seat = count < WOKEN_MOST ? new_seat(d) : NULL;
  if (seat == NULL) return;
  seat->of.n = n;
  seat->wakes = pthread_create(&seat->waker, NULL, wake, seat) == 0;
}

/* One that had a problem of this size before, if there is one. */
static struct cuda_seat *free_seat(kwm_device *d, int64_t n) {
  struct cuda_seat *found = NULL;
  for (struct cuda_seat *seat = cuda_state_of(d)->seats; seat != NULL; seat = seat->next)
    if (!seat->taken && (found == NULL || seat->of.n == n)) found = seat;
  return found != NULL ? found : new_seat(d);
}

void *cuda_eigen_begin(kwm_device *d, const struct kwm_device_eigen *of) {
  struct cuda_seat *const seat = free_seat(d, of->n);
  if (seat == NULL) return NULL;
  seat->taken = true;
  seat->given = *of;
  CUDA_MUST(cuda, cudaEventRecord(seat->asked, cuda_stream(d)));
  CUDA_MUST(cuda, cudaStreamWaitEvent(seat->stream, seat->asked, 0));
  seat->beside = pthread_create(&seat->thread, NULL, solve, seat) == 0;
  if (!seat->beside) solve(seat);
  return seat;
}

bool cuda_eigen_end(kwm_device *d, void *begun) {
  struct cuda_seat *const seat = begun;
  int *const not_finite = &cuda_state_of(d)->report[CUDA_NOT_FINITE];
  if (seat == NULL) return false;
  if (seat->beside) pthread_join(seat->thread, NULL);
  seat->taken = false;
  if (!seat->good) return false;
  cuda_clear_report(d);
  CUDA_LAUNCH(d, narrow, seat->of.n, seat->W, seat->of.V, not_finite);
  return cuda_good_report(d);
}

/* None is taken: what was begun was ended. */
void cuda_eigen_close(kwm_device *d) {
  struct cuda_seat *next;
  for (struct cuda_seat *seat = cuda_state_of(d)->seats; seat != NULL; seat = next) {
    next = seat->next;
    awake(seat);
    if (seat->solver != NULL) cusolverDnDestroy(seat->solver);
    cudaEventDestroy(seat->asked);
    cudaStreamDestroy(seat->stream);
    cudaFree(seat->report);
    cudaFree(seat->room);
    free(seat);
  }
}

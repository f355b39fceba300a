/* Eigenvectors by cuSOLVER's dsyevd, in double: some ten n³ operations, most of them limited by memory and latency
   rather than by arithmetic, half of them between calls in which the host takes part. So the second of two problems has
   a thread of its own, with a handle and a stream; alone or together, each gets the same bits. Beside them two passes
   over each matrix for the change of precision, and about four n² doubles of scratch, kept from the first call on. */
#include <pthread.h>

#include "cuda_state.h"

/* W (n, n), upper triangle, <- its eigenvectors by rows; values (n) and work (length) stand behind it. */
struct problem {
  int64_t n;
  double *W;
  int length;
  struct cuda_seat seat;
  int device;
  int *report; /* the device's */
  bool good;
};

static int64_t kept(int64_t n) {
  return (n * n + n + 31) / 32 * 32;
}

/* The second seat is taken when it is first needed. */
static struct cuda_seat seat_of(kwm_device *d, int k) {
  struct cuda_seat *const second = &cuda_state_of(d)->second;
  if (k == 0) return (struct cuda_seat){cuda_stream(d), cuda_solver(d)};
  if (second->solver == NULL) {
    CUDA_MUST(cuda, cudaStreamCreateWithFlags(&second->stream, cudaStreamNonBlocking));
    CUDA_MUST(solver, cusolverDnCreate(&second->solver));
    CUDA_MUST(solver, cusolverDnSetStream(second->solver, second->stream));
  }
  return *second;
}

/* A status other than success ends it like no convergence. Waits. */
static void *decompose(void *self) {
  struct problem *const p = self;
  int info = 1;
  CUDA_MUST(cuda, cudaSetDevice(p->device));
  const cusolverStatus_t status =
      cusolverDnDsyevd(p->seat.solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, kwm_int(p->n), p->W,
                       kwm_int(p->n), p->W + p->n * p->n, p->W + kept(p->n), p->length, p->report);
  CUDA_MUST(cuda, cudaMemcpyAsync(&info, p->report, sizeof info, cudaMemcpyDefault, p->seat.stream));
  CUDA_MUST(cuda, cudaStreamSynchronize(p->seat.stream));
  p->good = status == CUSOLVER_STATUS_SUCCESS && info == 0;
  return NULL;
}

/* Without a thread for the second one comes after the other. */
static void decompose_all(int count, struct problem *problems) {
  pthread_t thread;
  const bool beside = count > 1 && pthread_create(&thread, NULL, decompose, &problems[1]) == 0;
  decompose(&problems[0]);
  if (beside) pthread_join(thread, NULL);
  if (count > 1 && !beside) decompose(&problems[1]);
}

/* Room for all of them, one behind the other; false: there is no memory for it. */
static bool lay_out(kwm_device *d, int count, const struct kwm_device_eigen *of, struct problem *problems) {
  int64_t doubles = 0, at = 0;
  for (int k = 0; k < count; k++) {
    struct problem *const p = &problems[k];
    *p = (struct problem){
        .n = of[k].n, .seat = seat_of(d, k), .device = d->index, .report = &cuda_state_of(d)->report[CUDA_INFO + k]};
    CUDA_MUST(solver, cusolverDnDsyevd_bufferSize(p->seat.solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER,
                                                  kwm_int(p->n), NULL, kwm_int(p->n), NULL, &p->length));
    doubles += kept(p->n) + (p->length + 31) / 32 * 32;
  }
  double *const room = cuda_room(d, (size_t)doubles);
  for (int k = 0; k < count && room != NULL; k++) {
    problems[k].W = room + at;
    at += kept(problems[k].n) + (problems[k].length + 31) / 32 * 32;
  }
  return room != NULL;
}

/* What is not finite is found before the decomposition too, which might not come to an end with it. */
bool cuda_eigen(kwm_device *d, int count, const struct kwm_device_eigen *of) {
  int *const not_finite = &cuda_state_of(d)->report[CUDA_NOT_FINITE];
  struct problem problems[KWM_EIGENS_MAX];
  bool good = true;
  KWM_ASSERT(count <= KWM_EIGENS_MAX);
  if (!lay_out(d, count, of, problems)) return false;
  cuda_clear_report(d);
  for (int k = 0; k < count; k++) CUDA_LAUNCH(d, widen, of[k].n, of[k].A, problems[k].W, not_finite);
  if (!cuda_good_report(d)) return false;
  decompose_all(count, problems);
  for (int k = 0; k < count; k++) good = good && problems[k].good;
  for (int k = 0; k < count && good; k++) CUDA_LAUNCH(d, narrow, of[k].n, problems[k].W, of[k].V, not_finite);
  return good && cuda_good_report(d);
}

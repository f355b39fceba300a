/* Status, errors, checks and accounted memory: what every room may use. All functions here are local. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One list makes the enum and the words. The value is the process's exit code. */
#define KWM_STATUS_LIST(X)                                                                                             \
  X(KWM_OK, 0, "done")                                                                                                 \
  X(KWM_ERR_SYSTEM, 1, "failure")                                                                                      \
  X(KWM_ERR_USAGE, 2, "usage or config")                                                                               \
  X(KWM_ERR_DATA, 3, "data or checkpoint unreadable")                                                                  \
  X(KWM_ERR_NUMERIC, 4, "numerical stop")                                                                              \
  X(KWM_STOPPED, 75, "stopped on request, checkpoint written")                                                         \
  X(KWM_STALLED, 76, "a rank did not arrive")

typedef enum kwm_status {
#define KWM_STATUS_ENUM(name, value, words) name = value,
  KWM_STATUS_LIST(KWM_STATUS_ENUM)
#undef KWM_STATUS_ENUM
} kwm_status;

/* Words for a status; static storage. */
const char *kwm_status_words(kwm_status status);

/* Records the process's error message (one line: where, what was wanted, what was found) and returns `status`. */
kwm_status kwm_raise(kwm_status status, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The message recorded last, "" if none; static storage, valid until the next kwm_raise. */
const char *kwm_error_message(void);

/* Replaces the recorded message (used when another rank's message becomes everybody's). */
void kwm_error_set(const char *message);

#define KWM_RAISE(status, ...) kwm_raise((status), __FILE_NAME__, __LINE__, __VA_ARGS__)

/* Propagates a status other than KWM_OK. */
#define KWM_TRY(call)                                                                                                  \
  do {                                                                                                                 \
    const kwm_status kwm_try_status_ = (call);                                                                         \
    if (kwm_try_status_ != KWM_OK) return kwm_try_status_;                                                             \
  } while (0)

/* Raises `status` with a message unless `condition` holds. */
#define KWM_CHECK(condition, status, ...)                                                                              \
  do {                                                                                                                 \
    if (!(condition)) return KWM_RAISE((status), __VA_ARGS__);                                                         \
  } while (0)

/* A bug if violated: prints file and line and aborts the process. */
#define KWM_ASSERT(condition)                                                                                          \
  do {                                                                                                                 \
    if (!(condition)) kwm_assert_failed(#condition, __FILE_NAME__, __LINE__);                                          \
  } while (0)
void kwm_assert_failed(const char *condition, const char *file, int line) __attribute__((noreturn));

#ifndef __FILE_NAME__
#define __FILE_NAME__ __FILE__
#endif

/* Zeroed memory, 64-byte aligned, counted in kwm_mem_bytes(); raises KWM_ERR_SYSTEM naming `what` if there is none.
   Free with kwm_free (accepts NULL). Allocation happens at setup, never in a training step. */
kwm_status kwm_alloc(void **memory, size_t bytes, const char *what);
void kwm_free(void *memory);

/* Bytes now held through kwm_alloc, headers included: the number that `kwm plan` predicts. */
size_t kwm_mem_bytes(void);

/* Bytes that kwm_alloc will hold for a request of `bytes`. */
size_t kwm_mem_rounded(size_t bytes);

/* Peak resident bytes of this process so far, and the resident bytes now (from the kernel). */
size_t kwm_mem_peak_resident(void);
size_t kwm_mem_resident(void);

/* Checked narrowing for BLAS, MPI and HDF5 arguments. */
int kwm_int(int64_t value);

/* A file that was read, for the manifest. */
struct kwm_file_facts {
  char name[64];  /* inside its folder, as found (with or without .gz) */
  int64_t bytes;  /* uncompressed */
  uint32_t crc32; /* of the uncompressed bytes (zlib's crc32) */
};

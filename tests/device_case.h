/* What the tests of devices share: the device named in KWM_TEST_BACKEND (shadow if nothing is), and cases on it.

   A case owns its arrays. On the device each lies between guards, is NaN where nothing was put, and is not aligned to
   more than one of its elements in every other case; what is brought back for a comparison is also kept as a hash, so
   that a second run can be compared bit by bit. */
#pragma once

#include "dense.h"

#include "kwm/device_ops.h"

enum { CASE_ARRAYS = 64, CASE_HOSTS = 256, CASE_GUARD = 256, CASE_SKIPPED = 77 };

static kwm_device *test_device;

struct case_array {
  char *base;
  size_t lead, bytes;
  bool guarded;
};

struct device_case {
  kwm_device *device;
  int64_t shift; /* elements by which arrays are off their alignment */
  uint64_t bits; /* hash of all that was brought back */
  int n_arrays, n_hosts;
  struct case_array arrays[CASE_ARRAYS];
  void *hosts[CASE_HOSTS];
};

/* Host memory of the case, zeros. */
static inline void *case_host(struct device_case *c, int64_t n, size_t size) {
  assert_true(c->n_hosts < CASE_HOSTS);
  void *const at = calloc((size_t)(n > 0 ? n : 1), size);
  assert_non_null(at);
  c->hosts[c->n_hosts++] = at;
  return at;
}

/* Memory of the device, poisoned, between guards. */
static inline void *case_new(struct device_case *c, int64_t n, size_t size) {
  assert_true(c->n_arrays < CASE_ARRAYS);
  struct case_array *const array = &c->arrays[c->n_arrays++];
  *array =
      (struct case_array){.lead = CASE_GUARD + (size_t)c->shift * size, .bytes = (size_t)n * size, .guarded = true};
  const size_t total = array->lead + array->bytes + CASE_GUARD;
  assert_ok(kwm_device_alloc(c->device, (void **)&array->base, total, "test"));
  char *const image = malloc(total);
  assert_non_null(image);
  memset(image, 0x5A, total);
  memset(image + array->lead, 0xFF, array->bytes);
  kwm_device_put(c->device, array->base, image, total);
  free(image);
  return array->base + array->lead;
}

/* The same with what is there. */
static inline void *case_put(struct device_case *c, int64_t n, size_t size, const void *from) {
  void *const at = case_new(c, n, size);
  kwm_device_put(c->device, at, from, (size_t)n * size);
  return at;
}

#define case_floats(c, n) ((float *)case_new((c), (n), sizeof(float)))
#define case_doubles(c, n) ((double *)case_new((c), (n), sizeof(double)))
#define case_copy(c, n, from) case_put((c), (n), sizeof *(from), (from))

/* Facts, n of them. */
static inline double *case_facts(struct device_case *c, int64_t n) {
  assert_true(c->n_arrays < CASE_ARRAYS);
  struct case_array *const array = &c->arrays[c->n_arrays++];
  *array = (struct case_array){.bytes = (size_t)n * sizeof(double)};
  assert_ok(kwm_device_share(c->device, (void **)&array->base, array->bytes, "test"));
  return (double *)(void *)array->base;
}

static inline void case_hash(struct device_case *c, size_t bytes, const void *from) {
  const unsigned char *const values = from;
  for (size_t k = 0; k < bytes; k++) c->bits = (c->bits ^ values[k]) * 1099511628211u;
}

/* n elements at the device's address, brought to memory of the case. */
static inline void *case_get(struct device_case *c, int64_t n, size_t size, const void *from) {
  void *const to = case_host(c, n, size);
  kwm_device_get(c->device, to, from, (size_t)n * size);
  case_hash(c, (size_t)n * size, to);
  return to;
}

/* n facts after a wait, in memory of the case. */
static inline double *case_seen(struct device_case *c, int64_t n, const double *facts) {
  kwm_device_wait(c->device);
  double *const to = case_host(c, n, sizeof *to);
  memcpy(to, facts, (size_t)n * sizeof *to);
  case_hash(c, (size_t)n * sizeof *to, to);
  return to;
}

#define assert_floats(c, n, at, wanted, bound)                                                                         \
  assert_below(dense_error_f32((n), case_get((c), (n), sizeof(float), (at)), (wanted)), (bound))
#define assert_doubles(c, n, at, wanted, bound)                                                                        \
  assert_below(dense_error((n), case_get((c), (n), sizeof(double), (at)), (wanted)), (bound))
#define assert_facts(c, n, facts, wanted, bound)                                                                       \
  assert_below(dense_error((n), case_seen((c), (n), (facts)), (wanted)), (bound))
/* Bit by bit. */
#define assert_same(c, n, at, wanted)                                                                                  \
  assert_memory_equal(case_get((c), (n), sizeof *(wanted), (at)), (wanted), (size_t)(n) * sizeof *(wanted))

/* n normal numbers of a stream times a scale; positive: their squares and a tenth. */
static inline float *case_normals(struct device_case *c, int64_t n, uint64_t stream, double scale) {
  float *const to = case_host(c, n, sizeof *to);
  for (int64_t k = 0; k < n; k++) to[k] = (float)(scale * test_normal(stream, k));
  return to;
}

static inline float *case_positive(struct device_case *c, int64_t n, uint64_t stream) {
  float *const to = case_normals(c, n, stream, 1);
  for (int64_t k = 0; k < n; k++) to[k] = to[k] * to[k] + 0.1f;
  return to;
}

static inline double *case_wide(struct device_case *c, int64_t n, const float *from) {
  double *const to = case_host(c, n, sizeof *to);
  for (int64_t k = 0; k < n; k++) to[k] = (double)from[k];
  return to;
}

/* Nothing was written outside the arrays. */
static inline void case_check(struct device_case *c) {
  for (int k = 0; k < c->n_arrays; k++) {
    const struct case_array *const array = &c->arrays[k];
    if (!array->guarded) continue;
    const size_t total = array->lead + array->bytes + CASE_GUARD;
    unsigned char *const image = malloc(total);
    assert_non_null(image);
    kwm_device_get(c->device, image, array->base, total);
    size_t hits = 0;
    for (size_t b = 0; b < array->lead; b++) hits += image[b] != 0x5A;
    for (size_t b = array->lead + array->bytes; b < total; b++) hits += image[b] != 0x5A;
    free(image);
    if (hits > 0) fail_msg("array %d of the case: %zu bytes written outside of it", k, hits);
  }
}

static inline void case_end(struct device_case *c) {
  case_check(c);
  for (int k = 0; k < c->n_arrays; k++) kwm_device_free(c->device, c->arrays[k].base);
  for (int k = 0; k < c->n_hosts; k++) free(c->hosts[k]);
}

/* Runs the body of a test for these sizes: aligned and not, and each twice with the same bits. */
static inline void case_run(void (*body)(struct device_case *c, const int64_t *sizes), const int64_t *sizes) {
  for (int64_t shift = 0; shift < 2; shift++) {
    uint64_t bits[2] = {0, 0};
    for (int run = 0; run < 2; run++) {
      struct device_case c = {.device = test_device, .shift = shift, .bits = 1469598103934665603u};
      body(&c, sizes);
      case_end(&c);
      bits[run] = c.bits;
    }
    if (bits[0] != bits[1])
      fail_msg("sizes %lld, %lld, ...: two runs differ", (long long)sizes[0], (long long)sizes[1]);
  }
}

#define case_run_all(body, table)                                                                                      \
  for (size_t case_row_ = 0; case_row_ < sizeof(table) / sizeof *(table); case_row_++)                                 \
  case_run((body), (table)[case_row_])

/* Products in TF32 wanted, where a device has them. */
static inline bool case_tf32(void) {
  const char *const precision = getenv("KWM_TEST_PRECISION");
  return precision != NULL && strcmp(precision, "tf32") == 0;
}

/* main of a test of devices. */
#define DEVICE_TEST_MAIN(tests)                                                                                        \
  int main(void) {                                                                                                     \
    const struct kwm_device_spec device_spec_ = {.tf32 = case_tf32(), .graphs = true};                                 \
    const char *const device_name_ = getenv("KWM_TEST_BACKEND") != NULL ? getenv("KWM_TEST_BACKEND") : "shadow";       \
    if (kwm_device_open(&test_device, device_name_, &device_spec_) != KWM_OK) {                                        \
      printf("skipped: %s\n", kwm_error_message());                                                                    \
      return CASE_SKIPPED;                                                                                             \
    }                                                                                                                  \
    const int device_failed_ = cmocka_run_group_tests(tests, NULL, NULL);                                              \
    kwm_device_close(test_device);                                                                                     \
    return device_failed_;                                                                                             \
  }

/* What bench_device measures with: arrays of random numbers on a device, the time of a call among many, and a row of
   the table with the floor that the device's limits set. */
#pragma once

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kwm/device_ops.h"

enum { ARRAYS = 8, REPETITIONS = 15, CALLS = 2000, MNIST_ROW = 28, THETA_PERIOD = 10, MICRO = 1000000 };
static const double span = 3e-3; /* seconds between two waits, about */

/* What an array holds: float on (-1, 1), on (0.5, 1.5), next to 1; the units' parameters; double on (0.5, 1.5); count
   positive definite blocks (p, p); then the numbers of images and observations; of tokens: below m, where a kind's
   places begin of n (frequent ones first, as words are), the places of n, a power of two; a symmetric float matrix. */
enum kind {
  SIGNED,
  POSITIVE,
  NEAR_ONE,
  THETA,
  TABLES,
  WIDE,
  BLOCKS,
  FACTS,
  PIXELS,
  LABELS,
  SYMBOLS,
  COUNTS,
  TOKENS,
  BEGINS,
  PLACES,
  SPREAD
};
static const size_t bytes_of[] = {4, 4, 4, 4, 4, 8, 8, 8, 1, 1, 2, 4, 4, 4, 4, 4};

/* How often a call must move an array at least. */
enum { NONE, READ = 1, WRITE = 1, BOTH = 2 };

struct array {
  enum kind kind;
  int traffic;
  int64_t count;
};

/* One row. Letters mean what they mean in kwm/device_ops.h. */
struct kernel {
  const char *name;
  void (*run)(const struct kernel *k);
  void (*before)(const struct kernel *k); /* each repetition, not timed; NULL: nothing */
  int64_t calls_max;                      /* between two of those; 0: no limit */
  int64_t n, m, k, w, o, i, p, count, ld;
  bool transpose_a, transpose_b, wide;
  double bytes, f32, f64; /* beyond the arrays' traffic; operations */
  double *limit;          /* the limit that this row is, NULL if none */
  struct array arrays[ARRAYS];
  kwm_device *d;
  const struct kwm_device_ops *ops;
  void *a[ARRAYS];
};

struct bench {
  kwm_device *device;
  bool small;
  double copy, f32, f64; /* limits: bytes, operations a second */
  FILE *tsv;             /* NULL: none */
};

static void need(kwm_status status) {
  if (status == KWM_OK) return;
  fprintf(stderr, "bench_device: %s\n", kwm_error_message());
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- arrays ---- */

static uint64_t mix(uint64_t x) {
  x = (x + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/* On (-1, 1), never 0. */
static double draw(uint64_t key) {
  return ((double)(mix(key) >> 40) + 0.5) / (1 << 23) - 1;
}

/* Rows of 28 pixels, the first and last four blank, one stroke in each of the others: 81 % background as in MNIST. */
static uint8_t pixel(int64_t sample, int64_t t) {
  const int64_t line = t / MNIST_ROW % MNIST_ROW, at = t % MNIST_ROW;
  const uint64_t key = mix((uint64_t)(sample * 4096 + t / MNIST_ROW));
  const int64_t first = 6 + (int64_t)(key % 9), width = 5 + (int64_t)((key >> 32) % 6);
  if (line < 4 || line >= MNIST_ROW - 4 || at < first || at >= first + width) return 0;
  return (uint8_t)(1 + mix(key + (uint64_t)at) % 255);
}

/* Typical of a trained layer: ν and γ₀ decide how long a unit remembers and whether it listens. */
static float parameter(int64_t k, double x) {
  static const double middle[THETA_PERIOD] = {-4.5, -2, 0, 0, 0, 0, 0, 0, 0, 0};
  return (float)(middle[k % THETA_PERIOD] + x);
}

static double block_element(int64_t p, int64_t k, double x) {
  const int64_t row = k / p % p, column = k % p;
  return row == column ? 4 * (double)p + x : 0.5 * draw((uint64_t)(row < column ? k : k + (column - row) * (p - 1)));
}

/* Symmetric, of order n, with a diagonal that falls from 1 to 1 / n. */
static double spread_element(int64_t n, int64_t k) {
  const int64_t i = k / n, j = k % n, low = i < j ? i : j, high = i < j ? j : i;
  return i == j ? (double)(n - i) / (double)n : 1e-2 * draw((uint64_t)(low * n + high)) / (double)n;
}

static int32_t begin_of(int64_t n, int64_t count, int64_t k) {
  return (int32_t)((double)n * log1p((double)k) / log1p((double)count));
}

static void fill(const struct kernel *kernel, int number, void *host) {
  const struct array *const array = &kernel->arrays[number];
  for (int64_t k = 0; k < array->count; k++) {
    const double x = draw((uint64_t)number << 40 | (uint64_t)k);
    switch (array->kind) {
    case SIGNED:
    case TABLES: ((float *)host)[k] = (float)x; break;
    case POSITIVE: ((float *)host)[k] = (float)(1 + 0.5 * x); break;
    case NEAR_ONE: ((float *)host)[k] = (float)(1 + 1e-3 * x); break;
    case THETA: ((float *)host)[k] = parameter(k, x); break;
    case FACTS: break;
    case WIDE: ((double *)host)[k] = 1 + 0.5 * x; break;
    case BLOCKS: ((double *)host)[k] = block_element(kernel->p, k, x); break;
    case PIXELS: ((uint8_t *)host)[k] = pixel(k / kernel->w, k % kernel->w); break;
    case LABELS: ((uint8_t *)host)[k] = (uint8_t)(mix((uint64_t)k) % (uint64_t)kernel->m); break;
    case SYMBOLS: ((uint16_t *)host)[k] = 1; break;
    case COUNTS: ((int32_t *)host)[k] = 1; break;
    case TOKENS: ((int32_t *)host)[k] = (int32_t)(mix((uint64_t)k) % (uint64_t)kernel->m); break;
    case BEGINS: ((int32_t *)host)[k] = begin_of(kernel->n, array->count - 1, k); break;
    case PLACES: ((int32_t *)host)[k] = (int32_t)(k * 4099 % kernel->n); break;
    case SPREAD: ((float *)host)[k] = (float)spread_element(kernel->n, k); break;
    }
  }
}

static void take(struct kernel *kernel) {
  for (int number = 0; number < ARRAYS; number++) {
    const struct array *const array = &kernel->arrays[number];
    const size_t bytes = (size_t)array->count * bytes_of[array->kind];
    if (bytes == 0) continue;
    if (array->kind == FACTS) { /* only kernels write there */
      need(kwm_device_share(kernel->d, &kernel->a[number], bytes, kernel->name));
      continue;
    }
    void *host;
    need(kwm_alloc(&host, bytes, "benchmark"));
    fill(kernel, number, host);
    need(kwm_device_alloc(kernel->d, &kernel->a[number], bytes, kernel->name));
    kwm_device_put(kernel->d, kernel->a[number], host, bytes);
    kwm_free(host);
  }
}

/* ---- timing ---- */

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double seconds_of(const struct kernel *k, int64_t calls) {
  if (k->before != NULL) k->before(k);
  kwm_device_wait(k->d);
  const double start = now();
  for (int64_t call = 0; call < calls; call++) k->run(k);
  kwm_device_wait(k->d);
  return (now() - start) / (double)calls;
}

/* seconds (REPETITIONS), ascending; returns how many there are. */
static int measure(const struct bench *b, const struct kernel *k, double *seconds) {
  const int repetitions = b->small ? 3 : REPETITIONS;
  seconds_of(k, 1);
  const double wanted = b->small ? 1 : span / seconds_of(k, 1);
  int64_t calls = wanted > CALLS ? CALLS : wanted < 1 ? 1 : (int64_t)wanted;
  if (k->calls_max > 0 && calls > k->calls_max) calls = k->calls_max;
  for (int turn = 0; turn < repetitions; turn++) seconds[turn] = seconds_of(k, calls);
  qsort(seconds, (size_t)repetitions, sizeof seconds[0], ascending);
  return repetitions;
}

static double bytes_moved(const struct kernel *k) {
  double bytes = k->bytes;
  for (int number = 0; number < ARRAYS; number++)
    bytes += (double)k->arrays[number].count * k->arrays[number].traffic * (double)bytes_of[k->arrays[number].kind];
  return bytes;
}

static double floor_of(const struct bench *b, const struct kernel *k) {
  const double needs[] = {bytes_moved(k), k->f32, k->f64}, limits[] = {b->copy, b->f32, b->f64};
  double longest = 0;
  for (int n = 0; n < 3; n++)
    if (limits[n] > 0 && needs[n] / limits[n] > longest) longest = needs[n] / limits[n];
  return longest;
}

/* Seconds of a row. */
struct measured {
  double median, floor;
};

/* Measures a kernel and prints its row. */
__attribute__((format(printf, 3, 4))) static struct measured row(const struct bench *b, struct kernel k,
                                                                 const char *format, ...) {
  double seconds[REPETITIONS];
  char size[48];
  va_list list;
  va_start(list, format);
  vsnprintf(size, sizeof size, format, list);
  va_end(list);
  k.d = b->device, k.ops = b->device->ops;
  take(&k);
  const int repetitions = measure(b, &k, seconds);
  for (int number = 0; number < ARRAYS; number++) kwm_device_free(k.d, k.a[number]);
  const double median = seconds[repetitions / 2], bytes = bytes_moved(&k), operations = k.f32 + k.f64;
  if (k.limit != NULL) *k.limit = (operations > 0 ? operations : bytes) / median;
  const double least = floor_of(b, &k);
  printf("%-18s %-24s %10.2f %10.2f %10.2f %10.3f %12.3f %10.3f %7.1f\n", k.name, size, MICRO * median,
         MICRO * seconds[0], MICRO * seconds[repetitions - 1], bytes / MICRO, operations / MICRO, MICRO * least,
         100 * least / median);
  fflush(stdout);
  if (b->tsv != NULL)
    fprintf(b->tsv, "%s\t%s\t%.4f\t%.4f\t%.4f\t%.0f\t%.0f\t%.0f\t%.4f\t%.5f\n", k.name, size, MICRO * median,
            MICRO * seconds[0], MICRO * seconds[repetitions - 1], bytes, k.f32, k.f64, MICRO * least, least / median);
  return (struct measured){median, least};
}

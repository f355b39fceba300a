/* Backend `shadow`: a device made of plain loops on the host. It finds on any machine what a GPU would punish:

     the host touches memory of the device    its addresses are reserved and closed to everybody: SIGSEGV
     a kernel is given memory of the host      no live piece has that address: aborts in words
     something was never copied or computed    memory is filled with NaN when it is handed out
     the host reads results without a wait     shared memory is written beside, and NaN until the wait
     a size is wrong, memory is used after it was freed    each array must lie within one live piece: aborts */
#include "shadow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device_open.h"

enum { ALIGNMENT = 256, POISON = 0xFF }; /* all bits set: NaN as float and as double */
static const size_t ARENA = (size_t)64 << 30;

/* Live memory of the arena, in order of addresses. */
struct piece {
  struct piece *next;
  size_t first, bytes;
};

/* Shared memory: what the host sees, and what kernels write. */
struct shared {
  struct shared *next;
  size_t bytes;
  char *seen, *written;
};

struct shadow {
  char *closed;  /* ARENA bytes of addresses without access: what the outside knows */
  char *storage; /* ARENA bytes that they stand for */
  int file;      /* that holds them */
  struct piece *pieces;
  struct shared *shared;
  struct shadow_window *windows;
};

static bool in_arena(const struct shadow *shadow, const void *at, size_t bytes) {
  const uintptr_t first = (uintptr_t)at, arena = (uintptr_t)shadow->closed;
  return first < arena + ARENA && first + bytes > arena;
}

/* The live piece that holds these bytes, NULL if there is none. */
static const struct piece *piece_of(const struct shadow *shadow, const void *at, size_t bytes) {
  if (!in_arena(shadow, at, bytes)) return NULL;
  const size_t first = (uintptr_t)at - (uintptr_t)shadow->closed;
  for (const struct piece *piece = shadow->pieces; piece != NULL; piece = piece->next)
    if (first >= piece->first && first + bytes <= piece->first + piece->bytes) return piece;
  return NULL;
}

static struct shared *shared_of(const struct shadow *shadow, const void *at, size_t bytes) {
  for (struct shared *shared = shadow->shared; shared != NULL; shared = shared->next)
    if ((uintptr_t)at >= (uintptr_t)shared->seen && (uintptr_t)at + bytes <= (uintptr_t)shared->seen + shared->bytes)
      return shared;
  return NULL;
}

void *shadow_array(kwm_device *d, const void *at, int64_t n, size_t size) {
  const struct shadow *const shadow = d->state;
  KWM_ASSERT(n > 0 && (uint64_t)n < ARENA / size && "a positive number of elements");
  KWM_ASSERT(piece_of(shadow, at, (size_t)n * size) != NULL && "an array within one live piece of the device's memory");
  return shadow->storage + ((uintptr_t)at - (uintptr_t)shadow->closed);
}

/* For what moves bytes, shared memory is memory of the device too. */
static char *bytes_of(kwm_device *d, const void *at, size_t bytes, bool writes) {
  const struct shared *const shared = shared_of(d->state, at, bytes);
  if (shared == NULL) return shadow_array(d, at, (int64_t)bytes, 1);
  if (writes) memset(shared->seen, POISON, shared->bytes);
  return shared->written + ((uintptr_t)at - (uintptr_t)shared->seen);
}

double *shadow_facts(kwm_device *d, double *at, int64_t n) {
  KWM_ASSERT(n > 0 && shared_of(d->state, at, (size_t)n * sizeof *at) != NULL && "facts within shared memory");
  return (double *)(void *)bytes_of(d, at, (size_t)n * sizeof *at, true);
}

void shadow_host(kwm_device *d, const void *at, size_t bytes) {
  KWM_ASSERT(at != NULL && !in_arena(d->state, at, bytes) && "memory of the host");
}

void shadow_wait(kwm_device *d) {
  const struct shadow *const shadow = d->state;
  for (const struct shared *shared = shadow->shared; shared != NULL; shared = shared->next)
    memcpy(shared->seen, shared->written, shared->bytes);
}

bool shadow_is_ours(kwm_device *d, const void *at) {
  return in_arena(d->state, at, 1);
}

void shadow_place_of(kwm_device *d, const void *at, int *file, size_t *offset, size_t *bytes) {
  const struct shadow *const shadow = d->state;
  const struct piece *const piece = piece_of(shadow, at, 1);
  KWM_ASSERT(piece != NULL && shadow->closed + piece->first == at && "the start of a live piece");
  *file = shadow->file, *offset = piece->first, *bytes = piece->bytes;
}

struct shadow_window **shadow_windows(kwm_device *d) {
  return &((struct shadow *)d->state)->windows;
}

static void *alloc_shared(struct shadow *shadow, size_t bytes) {
  struct shared *const shared = malloc(sizeof *shared);
  if (shared == NULL) return NULL;
  *shared = (struct shared){.next = shadow->shared, .bytes = bytes, .seen = malloc(bytes), .written = malloc(bytes)};
  if (shared->seen == NULL || shared->written == NULL) {
    free(shared->seen), free(shared->written), free(shared);
    return NULL;
  }
  memset(shared->seen, POISON, bytes);
  memset(shared->written, POISON, bytes);
  shadow->shared = shared;
  return shared->seen;
}

/* In the first gap that is wide enough. */
static void *alloc_piece(struct shadow *shadow, size_t bytes) {
  struct piece **link = &shadow->pieces;
  size_t first = 0;
  for (; *link != NULL && (*link)->first - first < bytes; link = &(*link)->next)
    first = ((*link)->first + (*link)->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (bytes > ARENA || first > ARENA - bytes) return NULL;
  struct piece *const piece = malloc(sizeof *piece);
  if (piece == NULL) return NULL;
  *piece = (struct piece){.next = *link, .first = first, .bytes = bytes};
  *link = piece;
  memset(shadow->storage + first, POISON, bytes);
  return shadow->closed + first;
}

static void *shadow_alloc(kwm_device *d, size_t bytes, bool shared) {
  return shared ? alloc_shared(d->state, bytes) : alloc_piece(d->state, bytes);
}

static bool free_shared(struct shadow *shadow, const void *at) {
  for (struct shared **link = &shadow->shared; *link != NULL; link = &(*link)->next)
    if ((*link)->seen == at) {
      struct shared *const gone = *link;
      *link = gone->next;
      free(gone->seen), free(gone->written), free(gone);
      return true;
    }
  return false;
}

static bool free_piece(struct shadow *shadow, const void *at) {
  for (struct piece **link = &shadow->pieces; *link != NULL; link = &(*link)->next)
    if (shadow->closed + (*link)->first == at) {
      struct piece *const gone = *link;
      *link = gone->next;
      memset(shadow->storage + gone->first, POISON, gone->bytes);
      free(gone);
      return true;
    }
  return false;
}

static void shadow_free(kwm_device *d, void *at) {
  const bool known = free_shared(d->state, at) || free_piece(d->state, at);
  KWM_ASSERT(known && "memory that was allocated here and not freed yet");
}

static void shadow_put(kwm_device *d, void *to, const void *from_host, size_t bytes) {
  shadow_host(d, from_host, bytes);
  memcpy(bytes_of(d, to, bytes, true), from_host, bytes);
}

static void shadow_get(kwm_device *d, void *to_host, const void *from, size_t bytes) {
  shadow_host(d, to_host, bytes);
  memcpy(to_host, bytes_of(d, from, bytes, false), bytes);
  shadow_wait(d);
}

static void shadow_copy_rows(kwm_device *d, int64_t rows, size_t width, void *to, size_t pitch_to, const void *from,
                             size_t pitch_from) {
  KWM_ASSERT(rows > 0 && (rows == 1 || (pitch_to >= width && pitch_from >= width)));
  const size_t last = (size_t)rows - 1;
  char *const to_rows = bytes_of(d, to, last * pitch_to + width, true);
  const char *const from_rows = bytes_of(d, from, last * pitch_from + width, false);
  KWM_ASSERT((rows > 1 || to_rows + width <= from_rows || from_rows + width <= to_rows) && "no overlap");
  for (int64_t row = 0; row < rows; row++)
    memcpy(to_rows + (size_t)row * pitch_to, from_rows + (size_t)row * pitch_from, width);
}

static void shadow_zero(kwm_device *d, void *at, size_t bytes) {
  memset(bytes_of(d, at, bytes, true), 0, bytes);
}

static void shadow_close(kwm_device *d) {
  struct shadow *const shadow = d->state;
  while (shadow->shared != NULL) free_shared(shadow, shadow->shared->seen);
  while (shadow->pieces != NULL) free_piece(shadow, shadow->closed + shadow->pieces->first);
  while (shadow->windows != NULL) shadow_drop_window(d, shadow->windows->base);
  munmap(shadow->closed, ARENA);
  munmap(shadow->storage, ARENA);
  close(shadow->file);
  free(shadow);
  free(d);
}

static const struct kwm_device_ops shadow_ops = {
    .name = "shadow",
    .tensor = &shadow_tensor,
    .lane = &shadow_lane,
    .close = shadow_close,
    .alloc = shadow_alloc,
    .free = shadow_free,
    .put = shadow_put,
    .get = shadow_get,
    .copy_rows = shadow_copy_rows,
    .zero = shadow_zero,
    .wait = shadow_wait,
    .sum_rooms = shadow_sum_rooms,
    .gemm = shadow_gemm,
    .eigen_begin = shadow_eigen_begin,
    .eigen_end = shadow_eigen_end,
    .gemm_f64 = shadow_gemm_f64,
    .gram_f64 = shadow_gram_f64,
    .symm_f64 = shadow_symm_f64,
    .gemmt_f64 = shadow_gemmt_f64,
    .solve_lower_f64 = shadow_solve_lower_f64,
    .factor_f64 = shadow_factor_f64,
    .factor_solve_f64 = shadow_factor_solve_f64,
    .add_scaled = shadow_add_scaled,
    .square = shadow_square,
    .add_squares = shadow_add_squares,
    .column_dots = shadow_column_dots,
    .mirror = shadow_mirror,
    .pixels = shadow_pixels,
    .relu = shadow_relu,
    .relu_mask = shadow_relu_mask,
    .drop = shadow_drop,
    .gated_tables = shadow_gated_tables,
    .gated_encode = shadow_gated_encode,
    .gated_forward = shadow_gated_forward,
    .observe = shadow_observe,
    .observe_sampled = shadow_observe_sampled,
    .units_fisher = shadow_units_fisher,
    .units_diagonal = shadow_units_diagonal,
    .output_score = shadow_output_score,
    .output_squares = shadow_output_squares,
    .outer_rows = shadow_outer_rows,
    .mirror_f64 = shadow_mirror_f64,
    .downdate_both = shadow_downdate_both,
    .outer_symm = shadow_outer_symm,
    .outer_share = shadow_outer_share,
    .add_diagonal = shadow_add_diagonal,
    .add_f64 = shadow_add_f64,
    .kron_gain = shadow_kron_gain,
    .kron_forget = shadow_kron_forget,
    .kron_diffuse = shadow_kron_diffuse,
    .kron_pull = shadow_kron_pull,
    .sum_inverse = shadow_sum_inverse,
    .block_absorb = shadow_block_absorb,
    .block_take = shadow_block_take,
    .block_predict = shadow_block_predict,
    .block_trace = shadow_block_trace,
    .move_f64 = shadow_move_f64,
    .diag_absorb = shadow_diag_absorb,
    .diag_predict = shadow_diag_predict,
    .diag_trace = shadow_diag_trace,
};

static char *reserve(int access, int file) {
  const int kind = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  char *const at = mmap(NULL, ARENA, access, kind | MAP_NORESERVE, file, 0);
  return at == MAP_FAILED ? NULL : at;
}

/* ARENA bytes that no disk keeps. */
static int open_file(void) {
  const int file = memfd_create("kwm shadow device", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, (off_t)ARENA) == 0) return file;
  close(file);
  return -1;
}

kwm_status device_open_shadow(kwm_device **device, const struct kwm_device_spec *spec) {
  kwm_device *const d = calloc(1, sizeof *d);
  struct shadow *const shadow = calloc(1, sizeof *shadow);
  const int file = open_file();
  char *const closed = reserve(PROT_NONE, -1), *const storage = file < 0 ? NULL : reserve(PROT_READ | PROT_WRITE, file);
  if (d == NULL || shadow == NULL || closed == NULL || storage == NULL) {
    if (closed != NULL) munmap(closed, ARENA);
    if (storage != NULL) munmap(storage, ARENA);
    if (file >= 0) close(file);
    free(d), free(shadow);
    return KWM_RAISE(KWM_ERR_SYSTEM, "backend shadow: wanted 2 x %zu bytes of addresses, the machine gave fewer",
                     ARENA);
  }
  *shadow = (struct shadow){.closed = closed, .storage = storage, .file = file};
  *d = (kwm_device){.ops = &shadow_ops, .index = spec->local_rank, .memory = (double)ARENA, .state = shadow};
  snprintf(d->words, sizeof d->words, "plain loops of the host on memory of their own");
  *device = d;
  return KWM_OK;
}

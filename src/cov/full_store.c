/* The distributed covariance in a file: the array's rows, in canonical order, in as many blocks as there are ranks. P
   is symmetric, so a block of the file's rows is a block of P's columns, and ScaLAPACK's redistribution moves it from
   or to the grid, a slab of bounded size at a time. Of the square root Y, rows move, and each slab is transposed. */
#include "full_state.h"

#include "scalapack.h"

/* In the order of enum kwm_real. */
static const struct {
  const char *name;
  enum kwm_type type;
} dataset[] = {{"/cov/full/covariance", KWM_F64}, {"/cov/full/covariance_factor", KWM_F32}};

void full_mirror(kwm_full *full, bool lower_to_upper) {
  const struct full_shape *const shape = &full->shape;
  const double one = 1, zero = 0;
  for (int64_t first = 0; first < shape->n; first += shape->block) {
    const int64_t left = shape->n - first, order = left < shape->block ? left : shape->block;
    const int b = (int)order, rest = (int)(left - order), here = (int)first + 1, next = here + b;
    const bool mine = full_part_of(&shape->down, first) == shape->down.mine &&
                      full_part_of(&shape->across, first) == shape->across.mine;
    double *const D =
        mine ? full->P + full_local_of(&shape->across, first) * shape->p_rows + full_local_of(&shape->down, first)
             : NULL;
    for (int64_t j = 0; mine && j < order; j++)
      for (int64_t i = j + 1; i < order; i++) {
        double *const lower = &D[j * shape->p_rows + i], *const upper = &D[i * shape->p_rows + j];
        *(lower_to_upper ? upper : lower) = *(lower_to_upper ? lower : upper);
      }
    if (rest > 0 && lower_to_upper)
      pdtran_(&b, &rest, &one, full->P, &next, &here, full->desc_p, &zero, full->P, &here, &next, full->desc_p);
    if (rest > 0 && !lower_to_upper)
      pdtran_(&rest, &b, &one, full->P, &here, &next, full->desc_p, &zero, full->P, &next, &here, full->desc_p);
  }
}

/* Columns of P that each rank but the last few has in the file. */
static int64_t share(int64_t n, int size) {
  return (n + size - 1) / size;
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Rank's share of P as rows of the file: [*first, *first + returned). */
static int64_t rows_of(int64_t n, int size, int rank, int64_t *first) {
  const int64_t each = share(n, size), begin = smaller(n, rank * each);
  *first = begin;
  return smaller(n, begin + each) - begin;
}

/* Moves columns [first, first + count) of P between the grid and the slab of `rank`. */
static void move_columns(kwm_full *full, int rank, int64_t first, int64_t count, bool to_slab) {
  const int n = (int)full->shape.n, width = (int)full->shape.slab_columns, columns = (int)count;
  const int desc[FULL_DESCRIPTOR] = {1, full->line, n, width * full->shape.size, n, width, 0, 0, n};
  const int there = rank * width + 1, here = (int)first + 1;
  if (to_slab)
    Cpdgemr2d(n, columns, full->P, 1, here, full->desc_p, full->slab, 1, there, desc, full->line);
  else
    Cpdgemr2d(n, columns, full->slab, 1, there, desc, full->P, 1, here, full->desc_p, full->line);
}

/* Moves rows [first, first + count) of Y between the grid and the first half of the slab of `rank`, (slab_columns, n)
   column by column. */
static void move_rows(kwm_full *full, int rank, int64_t first, int64_t count, bool to_slab) {
  const int n = (int)full->shape.n, height = (int)full->shape.slab_columns, rows = (int)count;
  const int desc[FULL_DESCRIPTOR] = {1, full->line, height, n, height, n, 0, rank, height};
  const int here = (int)first + 1;
  float *const slab = (float *)full->slab;
  if (to_slab)
    Cpsgemr2d(rows, n, full->Y, here, 1, full->desc_p, slab, 1, 1, desc, full->line);
  else
    Cpsgemr2d(rows, n, slab, 1, 1, desc, full->Y, here, 1, full->desc_p, full->line);
}

/* The slab as rows of the file: for Y its second half, (count, n) row by row. */
static void *rows_in_file(kwm_full *full) {
  const bool is_root = full->shape.real == KWM_REAL_FLOAT;
  return is_root ? (void *)((float *)full->slab + full->shape.slab_columns * full->shape.n) : (void *)full->slab;
}

/* Between the halves. */
static void transpose(kwm_full *full, int64_t count, bool to_file) {
  const int64_t n = full->shape.n, height = full->shape.slab_columns;
  float *const slab = (float *)full->slab, *const file = slab + height * n;
  if (full->shape.real == KWM_REAL_DOUBLE) return;
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < n; j++) {
      float *const from = to_file ? &slab[j * height + i] : &file[i * n + j];
      *(to_file ? &file[i * n + j] : &slab[j * height + i]) = *from;
    }
}

/* Slab `round` of each rank's share between grid and slabs; returns where in the file this rank's begins, and its rows.
 */
static int64_t my_slab(const kwm_full *full, int rank, int64_t round, int64_t *first) {
  const int64_t rows = rows_of(full->shape.n, full->shape.size, rank, first);
  const int64_t done = smaller(rows, round * full->shape.slab_columns);
  *first += done;
  return smaller(rows - done, full->shape.slab_columns);
}

static void move_slabs(kwm_full *full, int64_t round, bool to_slab) {
  for (int rank = 0; rank < full->shape.size; rank++) {
    int64_t first;
    const int64_t count = my_slab(full, rank, round, &first);
    if (count > 0 && full->shape.real == KWM_REAL_FLOAT) move_rows(full, rank, first, count, to_slab);
    if (count > 0 && full->shape.real == KWM_REAL_DOUBLE) move_columns(full, rank, first, count, to_slab);
  }
}

static int64_t rounds_of(const kwm_full *full) {
  const int64_t each = share(full->shape.n, full->shape.size), slab = full->shape.slab_columns;
  return (each + slab - 1) / slab;
}

kwm_status kwm_full_save(kwm_full *full, kwm_ckpt *ckpt, bool writes) {
  const int64_t n = full->shape.n, dims[2] = {n, n}, rounds = rounds_of(full);
  const enum kwm_real real = full->shape.real;
  if (writes && real == KWM_REAL_DOUBLE) full_mirror(full, true);
  for (int64_t round = 0; round < rounds; round++) {
    int64_t first = 0;
    const int64_t count = writes ? my_slab(full, full->shape.rank, round, &first) : 0;
    if (writes) move_slabs(full, round, true);
    transpose(full, count, true);
    KWM_TRY((round == 0 ? kwm_ckpt_put : kwm_ckpt_put_more)(ckpt, dataset[real].name, dataset[real].type, 2, dims,
                                                            first, count, rows_in_file(full)));
  }
  return KWM_OK;
}

static bool holds(kwm_ckpt *ckpt, enum kwm_real real) {
  int n_dims = 2;
  int64_t dims[2];
  return kwm_ckpt_shape(ckpt, dataset[real].name, &n_dims, dims) == KWM_OK;
}

static kwm_status check_kind(kwm_ckpt *ckpt, enum kwm_real real) {
  const enum kwm_real other = real == KWM_REAL_FLOAT ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT;
  static const char *const words[] = {"in double", "as a square root in float"};
  KWM_CHECK(holds(ckpt, real) || !holds(ckpt, other), KWM_ERR_DATA,
            "%s: wanted the full covariance %s (%s), found it %s (%s)", kwm_ckpt_path(ckpt), words[real],
            dataset[real].name, words[other], dataset[other].name);
  return KWM_OK;
}

kwm_status kwm_full_load(kwm_full *full, kwm_ckpt *ckpt) {
  const int64_t n = full->shape.n, dims[2] = {n, n}, rounds = rounds_of(full);
  const enum kwm_real real = full->shape.real;
  full->rows = 0;
  full->conditioned = false;
  KWM_TRY(check_kind(ckpt, real));
  for (int64_t round = 0; round < rounds; round++) {
    int64_t first;
    const int64_t count = my_slab(full, full->shape.rank, round, &first);
    KWM_TRY(kwm_ckpt_get(ckpt, dataset[real].name, dataset[real].type, 2, dims, first, count, rows_in_file(full)));
    transpose(full, count, false);
    move_slabs(full, round, false);
  }
  return KWM_OK;
}

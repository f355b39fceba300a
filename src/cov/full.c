/* The exact filter in the innovation form (equations.md I1-I3, 3(c) short form in double precision, 3(d)) on a
   block-cyclic covariance:

     Z = P Hᵀ      pdsymm        S += H Z       pdgemm
     Aᵀ = Z L⁻ᵀ    pdtrsm        P <- P - AᵀA   pdsyrk, lower triangle only

   The time update is in full_predict.c, the same filter on a square root in float in full_root.c. */
#include "full_state.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "kwm/par.h"
#include "scalapack.h"

static const int origin = 1;

/* ---- making */

struct piece {
  void **memory;
  size_t bytes;
  const char *what;
};
enum { PIECES = 26, ROOT_PIECES = 3, DYNAMICS_PIECES = 3 };

/* Everything that kwm_full_create allocates, `full` itself aside; returns how many. */
static int pieces_of(const struct full_shape *s, kwm_full *full, struct piece *piece) {
  const size_t d = sizeof(double), f = sizeof(float), i = sizeof(int);
  const size_t rows = (size_t)s->p_rows, local = (size_t)s->n_local, size = (size_t)s->size;
  const struct piece all[] = {
      {s->real == KWM_REAL_FLOAT ? (void **)&full->Y : (void **)&full->P,
       rows * (s->real == KWM_REAL_FLOAT ? (size_t)s->y_columns * f : (size_t)s->p_columns * d), "full covariance"},
      {(void **)&full->Ht, rows * (size_t)s->z_columns * d, "Jacobian rows"},
      {(void **)&full->Z, rows * (size_t)s->z_columns * d, "projected rows"},
      {(void **)&full->S, (size_t)(s->s_rows * s->s_columns) * d, "distributed S"},
      {(void **)&full->gather, (size_t)(s->rows_max * s->rows_max) * d, "gathered S"},
      {(void **)&full->prior, rows * d, "prior variances"},
      {(void **)&full->partial, rows * d, "partial sums"},
      {(void **)&full->delta, local * d, "step"},
      {(void **)&full->owned, local * d, "variances"},
      {(void **)&full->wide, local * (size_t)s->across.parts * d, "numbers in flight"},
      {(void **)&full->narrow, rows * d, "numbers in flight"},
      {(void **)&full->slab, (size_t)(s->n * s->slab_columns) * d, "slab of the covariance"},
      {(void **)&full->pack_out, local * (size_t)s->pack_rows * f, "packed Jacobian rows"},
      {(void **)&full->pack_in, rows * (size_t)s->pack_rows * f, "packed Jacobian rows"},
      {(void **)&full->by_part, local * i, "parameters by grid row"},
      {(void **)&full->part_first, (size_t)(s->down.parts + 1) * i, "parameters by grid row"},
      {(void **)&full->by_owner, rows * i, "parameters by owner"},
      {(void **)&full->owner_first, (size_t)(s->size + 1) * i, "parameters by owner"},
      {(void **)&full->counts, 4 * size * i, "message lengths"},
      {(void **)&full->Hf, rows * (size_t)s->z_columns * f, "Jacobian rows"},
      {(void **)&full->F, rows * (size_t)s->z_columns * f, "projected rows"},
      {(void **)&full->root, (size_t)s->rows_max * d, "eigenvalues"},
      {(void **)&full->panel, (size_t)(s->block * s->p_columns) * f, "panel of the root"},
      {(void **)&full->tau, rows * f, "reflectors"},
      {(void **)&full->work, (size_t)(s->block * (s->p_rows + s->y_columns + s->block)) * f, "reflectors"},
  };
  const int n = (int)(sizeof all / sizeof all[0]) - (s->dynamics ? 0 : DYNAMICS_PIECES);
  memcpy(piece, all, sizeof all);
  return s->real == KWM_REAL_FLOAT ? n : n - ROOT_PIECES;
}

size_t kwm_full_bytes(const struct kwm_full_spec *spec, int ranks, int rank, int64_t n_local) {
  const struct full_shape shape = full_shape_of(spec, ranks, rank, n_local);
  struct piece piece[PIECES];
  kwm_full none;
  const int count = pieces_of(&shape, &none, piece);
  size_t bytes = kwm_mem_rounded(sizeof(kwm_full));
  for (int k = 0; k < count; k++) bytes += kwm_mem_rounded(piece[k].bytes);
  return bytes;
}

/* ScaLAPACK computes addresses inside a rank's share, and MPI offsets inside a message, in 32 bits. */
static kwm_status check_sizes(const struct full_shape *s) {
  const int64_t limit = INT_MAX, columns = s->y_columns > s->z_columns ? s->y_columns : s->z_columns;
  const int64_t elements = (s->p_rows > 0 ? s->p_rows : 1) * columns;
  KWM_CHECK(s->n <= limit && elements <= limit && s->rows_max * s->rows_max <= limit, KWM_ERR_USAGE,
            "full covariance: wanted at most %lld elements of a matrix on a rank, found %lld parameters and %lld rows "
            "on %d ranks; use more ranks or another structure",
            (long long)limit, (long long)s->n, (long long)s->rows_max, s->size);
  return KWM_OK;
}

static kwm_status allocate(kwm_full *full) {
  struct piece piece[PIECES];
  const int count = pieces_of(&full->shape, full, piece);
  KWM_TRY(check_sizes(&full->shape));
  for (int k = 0; k < count; k++) KWM_TRY(kwm_alloc(piece[k].memory, piece[k].bytes, piece[k].what));
  return KWM_OK;
}

static void describe(int *desc, int context, int64_t rows, int64_t columns, int64_t row_block, int64_t column_block,
                     int64_t local_rows) {
  const int64_t all[FULL_DESCRIPTOR] = {1, context, rows, columns, row_block, column_block, 0, 0, local_rows};
  for (int k = 0; k < FULL_DESCRIPTOR; k++) desc[k] = kwm_int(all[k]);
  if (local_rows == 0) desc[FULL_DESCRIPTOR - 1] = 1;
}

/* The grid's map is column-major; rank = row·columns + column. full->counts serves as the map. */
static void make_grids(kwm_full *full) {
  const struct full_shape *const s = &full->shape;
  const int rows = s->down.parts, columns = s->across.parts;
  full->system = Csys2blacs_handle(full->comm);
  full->grid = full->line = full->system;
  for (int r = 0; r < s->size; r++) full->counts[r % columns * rows + r / columns] = r;
  Cblacs_gridmap(&full->grid, full->counts, rows, rows, columns);
  for (int r = 0; r < s->size; r++) full->counts[r] = r;
  Cblacs_gridmap(&full->line, full->counts, 1, 1, s->size);
  describe(full->desc_p, full->grid, s->n, s->n, s->block, s->block, s->p_rows);
  describe(full->desc_z, full->grid, s->n, s->rows_max, s->block, s->narrow, s->p_rows);
  describe(full->desc_s, full->grid, s->rows_max, s->rows_max, s->narrow, s->narrow, s->s_rows);
  describe(full->desc_wide, full->grid, s->n, s->spare_first + s->n, s->block, s->block, s->p_rows);
  describe(full->desc_panel, full->grid, s->block * rows, s->n, s->block, s->block, s->block);
}

kwm_status kwm_full_create(kwm_full **full, const struct kwm_full_spec *spec) {
  int rank, size;
  int64_t n_local = 0;
  KWM_ASSERT(spec->n >= 1 && spec->rows_max >= 1 && spec->block >= 0);
  MPI_Comm_rank(spec->comm, &rank);
  MPI_Comm_size(spec->comm, &size);
  for (int64_t s = 0; s < spec->n_segments; s++) n_local += spec->segments[s].count;
  kwm_full *made = NULL;
  kwm_status status = kwm_alloc((void **)&made, sizeof *made, "full covariance");
  if (status == KWM_OK) {
    made->comm = spec->comm;
    made->system = made->grid = made->line = -1;
    made->shape = full_shape_of(spec, size, rank, n_local);
    status = allocate(made);
  }
  *full = made;
  status = kwm_agree(spec->comm, status);
  if (status == KWM_OK) status = full_deal_parameters(made, spec);
  if (status != KWM_OK) {
    kwm_full_destroy(full);
    return status;
  }
  make_grids(made);
  full_spread(made, spec->prior_variance, made->prior);
  if (spec->real == KWM_REAL_FLOAT)
    full_root_start(made);
  else
    full_add_to_diagonal(made, 1, false);
  return KWM_OK;
}

void kwm_full_destroy(kwm_full **full) {
  kwm_full *const made = *full;
  *full = NULL;
  if (made == NULL) return;
  if (made->system >= 0) {
    Cblacs_gridexit(made->grid);
    Cblacs_gridexit(made->line);
    Cfree_blacs_system_handle(made->system);
  }
  struct piece piece[PIECES];
  const int count = pieces_of(&made->shape, made, piece);
  for (int k = 0; k < count; k++) kwm_free(*piece[k].memory);
  kwm_free(made);
}

/* ---- measurement update */

/* gather (rows, rows) <- the distributed S's lower triangle, mirrored. Each element comes from one rank: the sum is
   exact, and the same everywhere. */
static void gather_innovation(kwm_full *full, int64_t rows) {
  const struct full_shape *const s = &full->shape;
  memset(full->gather, 0, (size_t)(rows * rows) * sizeof *full->gather);
  for (int64_t j = 0; j < full_count_of(&s->thin, rows); j++)
    for (int64_t i = 0; i < full_count_of(&s->thin_down, rows); i++) {
      const int64_t row = full_global_of(&s->thin_down, i), column = full_global_of(&s->thin, j);
      if (row < column) continue;
      full->gather[row * rows + column] = full->gather[column * rows + row] = full->S[j * s->s_rows + i];
    }
  MPI_Allreduce(MPI_IN_PLACE, full->gather, kwm_int(rows * rows), MPI_DOUBLE, MPI_SUM, full->comm);
}

void full_gather_product(kwm_full *full, int64_t rows, const double *A, const double *B) {
  const int n = (int)full->shape.n, m = (int)rows;
  const double one = 1, zero = 0;
  pdgemm_("T", "N", &m, &m, &n, &one, A, &origin, &origin, full->desc_z, B, &origin, &origin, full->desc_z, &zero,
          full->S, &origin, &origin, full->desc_s);
  gather_innovation(full, rows);
}

void kwm_full_project(kwm_full *full, int64_t rows, const float *H, double *S) {
  const int n = (int)full->shape.n, m = (int)rows;
  const double one = 1, zero = 0;
  KWM_ASSERT(rows >= 1 && rows <= full->shape.rows_max);
  full->rows = rows;
  full->conditioned = false;
  full_spread_rows(full, rows, H);
  if (full->shape.real == KWM_REAL_FLOAT)
    full_root_project(full, rows);
  else
    pdsymm_("L", "L", &n, &m, &one, full->P, &origin, &origin, full->desc_p, full->Ht, &origin, &origin, full->desc_z,
            &zero, full->Z, &origin, &origin, full->desc_z);
  full_gather_product(full, rows, full->shape.real == KWM_REAL_FLOAT ? full->Z : full->Ht, full->Z);
  for (int64_t k = 0; k < rows * rows; k++) S[k] += full->gather[k];
}

/* partial <- this grid column's part of Z w. */
static void multiply(kwm_full *full, int64_t rows, const double *w) {
  const struct full_shape *const s = &full->shape;
  memset(full->partial, 0, (size_t)s->p_rows * sizeof *full->partial);
  for (int64_t j = 0; j < full_count_of(&s->thin, rows); j++) {
    const double weight = w[full_global_of(&s->thin, j)];
    const double *const column = full->Z + j * s->p_rows;
    for (int64_t l = 0; l < s->p_rows; l++) full->partial[l] += column[l] * weight;
  }
}

void full_scatter(kwm_full *full, int64_t rows, const double *M) {
  const struct full_shape *const s = &full->shape;
  for (int64_t j = 0; j < full_count_of(&s->thin, rows); j++)
    for (int64_t i = 0; i < full_count_of(&s->thin_down, rows); i++)
      full->S[j * s->s_rows + i] = M[full_global_of(&s->thin_down, i) * rows + full_global_of(&s->thin, j)];
}

/* Z <- Z L⁻ᵀ. */
static void whiten(kwm_full *full, int64_t rows, const double *L) {
  const int n = (int)full->shape.n, m = (int)rows;
  const double one = 1;
  full_scatter(full, rows, L);
  pdtrsm_("R", "L", "T", "N", &n, &m, &one, full->S, &origin, &origin, full->desc_s, full->Z, &origin, &origin,
          full->desc_z);
}

/* True if the posterior's variances of this rank's parameters are positive and finite. */
static bool variances_stay_positive(kwm_full *full, int64_t rows) {
  const struct full_shape *const s = &full->shape;
  full_variances(full);
  for (int64_t j = 0; j < full_count_of(&s->thin, rows); j++) {
    const double *const column = full->Z + j * s->p_rows;
    for (int64_t l = 0; l < s->p_rows; l++) full->partial[l] -= column[l] * column[l];
  }
  full_collect(full, full->partial, full->owned);
  bool good = true;
  for (int64_t k = 0; k < s->n_local; k++) good = good && isfinite(full->owned[k]) && full->owned[k] > 0;
  return good;
}

bool kwm_full_condition(kwm_full *full, int64_t rows, const double *L, const double *w) {
  const bool is_root = full->shape.real == KWM_REAL_FLOAT;
  KWM_ASSERT(full->rows == rows && rows > 0);
  full->rows = 0;
  multiply(full, rows, w);
  if (is_root) full_root_multiply(full);
  full_collect(full, full->partial, full->delta);
  whiten(full, rows, L);
  bool good = is_root ? full_root_condition(full, rows) : variances_stay_positive(full, rows);
  for (int64_t k = 0; k < full->shape.n_local; k++) good = good && isfinite(full->delta[k]);
  full->conditioned = full_all(full, good);
  if (full->conditioned) full->rows = rows;
  return full->conditioned;
}

const double *kwm_full_delta(const kwm_full *full) {
  return full->delta;
}

void kwm_full_apply(kwm_full *full, double scale, float *mean) {
  const int n = (int)full->shape.n, m = (int)full->rows;
  const double one = 1, minus_one = -1;
  KWM_ASSERT(full->conditioned);
  full->rows = 0;
  full->conditioned = false;
  for (int64_t k = 0; k < full->shape.n_local; k++) mean[k] += (float)(scale * full->delta[k]);
  if (full->shape.real == KWM_REAL_FLOAT)
    full_root_apply(full, m);
  else
    pdsyrk_("L", "N", &n, &m, &minus_one, full->Z, &origin, &origin, full->desc_z, &one, full->P, &origin, &origin,
            full->desc_p);
}

/* ---- what it says about itself */

void full_variances(const kwm_full *full) {
  if (full->shape.real == KWM_REAL_FLOAT) {
    full_root_variances(full);
    return;
  }
  for (int64_t l = 0, at; l < full->shape.p_rows; l++)
    full->partial[l] = full_diagonal_at(&full->shape, l, &at) ? full->P[at] : 0;
}

void kwm_full_diagonal(kwm_full *full, double *variance) {
  full_variances(full);
  full_collect(full, full->partial, variance);
}

void kwm_full_health(const kwm_full *full, struct kwm_health *health) {
  full_variances(full);
  for (int64_t l = 0, at; l < full->shape.p_rows; l++) {
    health->trace += full->partial[l];
    if (!full_diagonal_at(&full->shape, l, &at)) continue;
    health->prior_trace += full->prior[l];
    health->parameters++;
  }
}

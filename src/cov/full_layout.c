/* Who holds what of the distributed covariance, and the ways between the owners of parameters and the grid rows that
   hold these parameters' rows of P. Both ends group their numbers by partner in canonical order, so that a message
   needs no indices. The rows of H travel as floats, as many at a time as fit a fixed buffer. */
#include "full_state.h"

#include <math.h>

#include "kwm/par.h"

enum { PACK_FLOATS = 1 << 20, SLAB_DOUBLES = 1 << 19 };

static int64_t at_least_one(int64_t a) {
  return a > 1 ? a : 1;
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Rows of the most square grid of `size` ranks, not more than columns. */
static int grid_rows(int size) {
  int rows = (int)sqrt((double)size);
  while (rows > 1 && size % rows != 0) rows--;
  return rows > 1 ? rows : 1;
}

struct full_shape full_shape_of(const struct kwm_full_spec *spec, int size, int rank, int64_t n_local) {
  const int64_t n = spec->n, rows_max = spec->rows_max;
  const int rows = grid_rows(size), columns = size / rows, row = rank / columns, column = rank % columns;
  struct full_shape s = {.size = size, .rank = rank, .n = n, .n_local = n_local, .rows_max = rows_max};
  s.block = spec->block > 0 ? spec->block : KWM_FULL_BLOCK;
  s.narrow = smaller(s.block, at_least_one((rows_max + columns - 1) / columns));
  s.down = (struct full_deal){s.block, rows, row};
  s.across = (struct full_deal){s.block, columns, column};
  s.thin_down = (struct full_deal){s.narrow, rows, row};
  s.thin = (struct full_deal){s.narrow, columns, column};
  s.p_rows = full_count_of(&s.down, n);
  s.p_columns = full_count_of(&s.across, n);
  s.z_columns = full_count_of(&s.thin, rows_max);
  s.s_rows = full_count_of(&s.thin_down, rows_max);
  s.s_columns = s.z_columns;
  s.pack_rows = smaller(rows_max, at_least_one(PACK_FLOATS / at_least_one(n)));
  s.slab_columns = smaller((n + size - 1) / size, at_least_one(SLAB_DOUBLES / at_least_one(n)));
  s.real = spec->real;
  s.dynamics = spec->dynamics && spec->real == KWM_REAL_FLOAT;
  if (s.dynamics) {
    s.spare_column = (n + s.block * columns - 1) / (s.block * columns) * s.block;
    s.spare_first = s.spare_column * columns;
  }
  s.y_columns = s.spare_column + s.p_columns;
  return s;
}

bool full_all(const kwm_full *full, bool mine) {
  int all = mine;
  MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_LAND, full->comm);
  return all != 0;
}

void full_share(kwm_full *full, const double *by_row) {
  const struct full_shape *const shape = &full->shape;
  for (int64_t g = 0; g < shape->n; g++) full->slab[g] = 0;
  for (int64_t l = 0; l < shape->p_rows; l++) full->slab[full_global_of(&shape->down, l)] = by_row[l];
  MPI_Allreduce(MPI_IN_PLACE, full->slab, (int)shape->n, MPI_DOUBLE, MPI_SUM, full->comm);
}

/* ---- who owns what */

/* Which grid row has each owned parameter in P: by_part, part_first. */
static void group_by_part(kwm_full *full, const struct kwm_full_spec *spec) {
  const struct full_deal *const down = &full->shape.down;
  int at = 0;
  for (int part = 0; part < down->parts; part++) {
    int local = 0;
    full->part_first[part] = at;
    for (int64_t s = 0; s < spec->n_segments; s++)
      for (int64_t k = 0; k < spec->segments[s].count; k++, local++)
        if (full_part_of(down, spec->segments[s].first + k) == part) full->by_part[at++] = local;
  }
  full->part_first[down->parts] = at;
}

/* Visits P's local rows in a segment: counts them in full->partial, and lists them from `at` on if list is not NULL.
   Returns where the list ends. */
static int visit_rows(kwm_full *full, const struct kwm_full_segment *segment, int at, int *list) {
  const struct full_deal *const down = &full->shape.down;
  for (int64_t g = segment->first; g < segment->first + segment->count; g++) {
    if (full_part_of(down, g) != down->mine) continue;
    const int64_t l = full_local_of(down, g);
    if (list != NULL)
      list[at++] = kwm_int(l);
    else
      full->partial[l]++;
  }
  return at;
}

/* Each of P's local rows must have one owner. */
static kwm_status check_partition(kwm_full *full, int64_t n_segments, const struct kwm_full_segment *segments) {
  const struct full_shape *const shape = &full->shape;
  for (int64_t s = 0; s < n_segments; s++) {
    const struct kwm_full_segment *const segment = &segments[s];
    KWM_CHECK(segment->first >= 0 && segment->count >= 0 && segment->first + segment->count <= shape->n, KWM_ERR_USAGE,
              "full covariance: wanted segments within %lld parameters, found [%lld, %lld)", (long long)shape->n,
              (long long)segment->first, (long long)(segment->first + segment->count));
    visit_rows(full, segment, 0, NULL);
  }
  for (int64_t l = 0; l < shape->p_rows; l++)
    KWM_CHECK(full->partial[l] == 1, KWM_ERR_USAGE,
              "full covariance: wanted parameter %lld in the segments of one rank, found it %d times",
              (long long)full_global_of(&shape->down, l), (int)full->partial[l]);
  return KWM_OK;
}

static void group_by_owner(kwm_full *full, const int *n_of, const struct kwm_full_segment *segments) {
  int at = 0;
  for (int owner = 0; owner < full->shape.size; owner++) {
    full->owner_first[owner] = at;
    for (int s = 0; s < n_of[owner] / 2; s++) at = visit_rows(full, segments++, at, full->by_owner);
  }
  full->owner_first[full->shape.size] = at;
}

kwm_status full_deal_parameters(kwm_full *full, const struct kwm_full_spec *spec) {
  const int size = full->shape.size, mine = 2 * kwm_int(spec->n_segments);
  int *const n_of = full->counts, *const first_of = n_of + size;
  int total = 0;
  struct kwm_full_segment *segments;
  MPI_Allgather(&mine, 1, MPI_INT, n_of, 1, MPI_INT, full->comm);
  for (int r = 0; r < size; r++) {
    first_of[r] = total;
    total += n_of[r];
  }
  kwm_status status = kwm_alloc((void **)&segments, (size_t)total * sizeof(int64_t), "segments");
  status = kwm_agree(full->comm, status);
  if (status == KWM_OK) {
    MPI_Allgatherv(spec->segments, mine, MPI_INT64_T, segments, n_of, first_of, MPI_INT64_T, full->comm);
    status = kwm_agree(full->comm, check_partition(full, total / 2, segments));
  }
  if (status == KWM_OK) {
    group_by_part(full, spec);
    group_by_owner(full, n_of, segments);
  }
  kwm_free(segments);
  return status;
}

/* ---- exchanges: between an owner and the grid */

/* Numbers to or from each rank; sets `first` and returns their sum. */
static int offsets(int size, const int *count, int *first) {
  int total = 0;
  for (int r = 0; r < size; r++) {
    first[r] = total;
    total += count[r];
  }
  return total;
}

/* Per rank: numbers per row of my parameters that it has in P, and of my rows of P that it owns. */
static void set_counts(kwm_full *full, int *to_grid, int *from_owner) {
  const struct full_shape *const shape = &full->shape;
  for (int r = 0; r < shape->size; r++) {
    const int part = r / shape->across.parts;
    to_grid[r] = full->part_first[part + 1] - full->part_first[part];
    from_owner[r] = full->owner_first[r + 1] - full->owner_first[r];
  }
}

/* Packs my columns of rows [first, last) of H for every rank. */
static void pack(kwm_full *full, int64_t first, int64_t last, const float *H, int *count) {
  const struct full_shape *const shape = &full->shape;
  float *out = full->pack_out;
  for (int r = 0; r < shape->size; r++) {
    const int part = r / shape->across.parts, column = r % shape->across.parts;
    const float *const begin = out;
    for (int64_t row = first; row < last; row++) {
      if (full_part_of(&shape->thin, row) != column) continue;
      const float *const h = H + row * shape->n_local;
      for (int k = full->part_first[part]; k < full->part_first[part + 1]; k++) *out++ = h[full->by_part[k]];
    }
    count[r] = (int)(out - begin);
  }
}

static void unpack(kwm_full *full, int64_t first, int64_t last) {
  const struct full_shape *const shape = &full->shape;
  const float *in = full->pack_in;
  for (int r = 0; r < shape->size; r++)
    for (int64_t row = first; row < last; row++) {
      if (full_part_of(&shape->thin, row) != shape->thin.mine) continue;
      double *const column = full->Ht + full_local_of(&shape->thin, row) * shape->p_rows;
      for (int k = full->owner_first[r]; k < full->owner_first[r + 1]; k++) column[full->by_owner[k]] = (double)*in++;
    }
}

void full_spread_rows(kwm_full *full, int64_t rows, const float *H) {
  const struct full_shape *const shape = &full->shape;
  const int size = shape->size;
  int *const out = full->counts, *const out_first = out + size, *const in = out + 2 * size, *const in_first = in + size;
  for (int64_t first = 0; first < rows; first += shape->pack_rows) {
    const int64_t last = smaller(rows, first + shape->pack_rows);
    int mine = 0;
    for (int64_t row = first; row < last; row++) mine += full_part_of(&shape->thin, row) == shape->thin.mine;
    pack(full, first, last, H, out);
    for (int r = 0; r < size; r++) in[r] = mine * (full->owner_first[r + 1] - full->owner_first[r]);
    offsets(size, out, out_first);
    offsets(size, in, in_first);
    MPI_Alltoallv(full->pack_out, out, out_first, MPI_FLOAT, full->pack_in, in, in_first, MPI_FLOAT, full->comm);
    unpack(full, first, last);
  }
}

void full_spread(kwm_full *full, const double *owned, double *by_row) {
  const int size = full->shape.size;
  int *const out = full->counts, *const out_first = out + size, *const in = out + 2 * size, *const in_first = in + size;
  set_counts(full, out, in);
  offsets(size, out, out_first);
  offsets(size, in, in_first);
  for (int r = 0; r < size; r++)
    for (int k = 0; k < out[r]; k++)
      full->wide[out_first[r] + k] = owned[full->by_part[full->part_first[r / full->shape.across.parts] + k]];
  MPI_Alltoallv(full->wide, out, out_first, MPI_DOUBLE, full->narrow, in, in_first, MPI_DOUBLE, full->comm);
  for (int64_t k = 0; k < full->shape.p_rows; k++) by_row[full->by_owner[k]] = full->narrow[k];
}

void full_collect(kwm_full *full, const double *by_row, double *owned) {
  const int size = full->shape.size;
  int *const in = full->counts, *const in_first = in + size, *const out = in + 2 * size, *const out_first = out + size;
  set_counts(full, in, out);
  offsets(size, in, in_first);
  offsets(size, out, out_first);
  for (int64_t k = 0; k < full->shape.p_rows; k++) full->narrow[k] = by_row[full->by_owner[k]];
  MPI_Alltoallv(full->narrow, out, out_first, MPI_DOUBLE, full->wide, in, in_first, MPI_DOUBLE, full->comm);
  for (int64_t k = 0; k < full->shape.n_local; k++) owned[k] = 0;
  for (int r = 0; r < size; r++)
    for (int k = 0; k < in[r]; k++)
      owned[full->by_part[full->part_first[r / full->shape.across.parts] + k]] += full->wide[in_first[r] + k];
}

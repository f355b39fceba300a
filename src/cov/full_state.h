/* Private to cov/full*.c: what the distributed covariance holds, and the arithmetic of its layout.

   The size ranks form a grid of n_rows x n_columns, rank = row·n_columns + column. Index g of a matrix dimension lies
   in block g/b, which belongs to grid row (or column) (g/b) mod n_rows. H and Z are kept transposed, (n, rows): their
   rows are dealt as P's, their columns over the grid's columns in blocks of `narrow`. */
#pragma once

#include "kwm/full.h"

enum { FULL_DESCRIPTOR = 9 };

/* One dimension dealt in blocks over `parts` grid rows or columns, as seen from part `mine`. */
struct full_deal {
  int64_t block;
  int parts, mine;
};

static inline int full_part_of(const struct full_deal *deal, int64_t g) {
  return (int)(g / deal->block % deal->parts);
}

static inline int64_t full_local_of(const struct full_deal *deal, int64_t g) {
  return g / (deal->block * deal->parts) * deal->block + g % deal->block;
}

static inline int64_t full_global_of(const struct full_deal *deal, int64_t l) {
  return (l / deal->block * deal->parts + deal->mine) * deal->block + l % deal->block;
}

/* How many of the first n indices part `mine` has. */
static inline int64_t full_count_of(const struct full_deal *deal, int64_t n) {
  const int64_t blocks = n / deal->block, turn = blocks % deal->parts;
  return blocks / deal->parts * deal->block + (deal->mine < turn    ? deal->block
                                               : deal->mine == turn ? n % deal->block
                                                                    : 0);
}

/* Sizes that follow from a rank's place; full_shape_of checks nothing. */
struct full_shape {
  int size, rank;
  int64_t n, n_local, rows_max;
  int64_t block, narrow;
  struct full_deal down, across;    /* P's rows and columns */
  struct full_deal thin_down, thin; /* rows and columns of S and L; `thin` also the columns of Hᵀ and Z */
  int64_t p_rows, p_columns;        /* local part of P */
  int64_t z_columns;                /* local columns of Hᵀ and Z (their rows: p_rows) */
  int64_t s_rows, s_columns;        /* local part of S and L */
  int64_t pack_rows;                /* rows of H that travel together */
  int64_t slab_columns;             /* columns of P per rank that travel together to or from a file */
  enum kwm_real real;
  bool dynamics;
  int64_t y_columns;    /* float: local columns of Y, or of [Y, spare], where a matrix like Y begins behind ... */
  int64_t spare_column; /* ... so many local columns (spare_first columns in all: whole turns of blocks) */
  int64_t spare_first;
};
struct full_shape full_shape_of(const struct kwm_full_spec *spec, int size, int rank, int64_t n_local);

struct kwm_full {
  MPI_Comm comm;
  struct full_shape shape;
  int system, grid, line; /* BLACS handle, the grid's context, all ranks in one line */
  int desc_p[FULL_DESCRIPTOR], desc_z[FULL_DESCRIPTOR], desc_s[FULL_DESCRIPTOR];
  double *P;        /* (p_rows, p_columns): the lower triangle is valid, the strict upper one is scratch */
  double *Ht, *Z;   /* (p_rows, z_columns): Hᵀ; P Hᵀ or Fᵀ, after condition Aᵀ */
  double *S;        /* (s_rows, s_columns): S, then L */
  double *gather;   /* (rows_max, rows_max) */
  double *prior;    /* (p_rows) prior variances of P's local rows */
  double *partial;  /* (p_rows) scratch */
  double *delta;    /* (n_local) */
  double *owned;    /* (n_local) scratch */
  double *wide;     /* (n_local, n_columns) numbers of owned parameters in flight to or from every grid column */
  double *narrow;   /* (p_rows) numbers of P's local rows in flight */
  double *slab;     /* (n, slab_columns) */
  float *pack_out;  /* (n_local, pack_rows) */
  float *pack_in;   /* (p_rows, pack_rows) */
  int *by_part;     /* (n_local) owned parameters, grouped by the grid row that has them in P */
  int *part_first;  /* (n_rows + 1) */
  int *by_owner;    /* (p_rows) P's local rows, grouped by the rank that owns the parameter */
  int *owner_first; /* (size + 1) */
  int *counts;      /* (4, size) counts and offsets of an exchange */

  /* Float only; desc_wide is that of [Y, spare], desc_panel of the panel. */
  int desc_wide[FULL_DESCRIPTOR], desc_panel[FULL_DESCRIPTOR];
  float *Y;      /* (p_rows, y_columns) */
  float *Hf, *F; /* (p_rows, z_columns): Hᵀ, after condition Y Bᵀ; Fᵀ, after condition Bᵀ, where BᵀB = AᵀCA */
  double *root; /* (rows_max) eigenvalues of A Aᵀ */
  float *panel; /* dynamics: (block, p_columns) */
  float *tau;   /* dynamics: (p_rows) */
  float *work;  /* dynamics: (block, p_rows + y_columns + block) */

  int64_t rows; /* of the step in hand; 0: none */
  bool conditioned;
};

/* Fills the two groupings from all ranks' segments. KWM_ERR_USAGE if they are no partition; agreed. */
kwm_status full_deal_parameters(kwm_full *full, const struct kwm_full_spec *spec);

/* Hᵀ <- H (rows, n_local) of all ranks. */
void full_spread_rows(kwm_full *full, int64_t rows, const float *H);

/* by_row (p_rows) <- the owners' values (n_local). */
void full_spread(kwm_full *full, const double *owned, double *by_row);

/* owned (n_local) <- sum over the grid's columns of by_row (p_rows), in the columns' order. */
void full_collect(kwm_full *full, const double *by_row, double *owned);

/* True on all ranks if it is on all. */
bool full_all(const kwm_full *full, bool mine);

/* partial <- what this grid column knows of P's diagonal. */
void full_variances(const kwm_full *full);

/* The distributed S <- M (rows, rows) row-major. gather (rows, rows) <- AᵀB, symmetric, for A and B laid out as Z. */
void full_scatter(kwm_full *full, int64_t rows, const double *M);
void full_gather_product(kwm_full *full, int64_t rows, const double *A, const double *B);

/* slab (n), on every rank <- sum over the grid's columns of by_row (p_rows). */
void full_share(kwm_full *full, const double *by_row);

/* P's diagonal += factor times the prior variances or their inverses. */
void full_add_to_diagonal(kwm_full *full, double factor, bool inverse);

/* In float: P <- P0, and the step's parts. */
void full_root_start(kwm_full *full);
void full_root_project(kwm_full *full, int64_t rows);
void full_root_multiply(kwm_full *full); /* partial <- Y times the sum of partial: this grid column's part */
bool full_root_condition(kwm_full *full, int64_t rows); /* Z holds Aᵀ */
void full_root_apply(kwm_full *full, int64_t rows);
void full_root_variances(const kwm_full *full);

/* The time update's parts in float, for a finite Y. Forgetting fails without a trace. */
bool full_root_finite(const kwm_full *full);
bool full_root_forget(kwm_full *full, double lambda);
void full_root_covary(kwm_full *full); /* partial <- P times partial, this grid column's part */
void full_root_walk(kwm_full *full, double q);

/* Copies P's lower triangle over the upper one, or the other way. */
void full_mirror(kwm_full *full, bool lower_to_upper);

/* P's diagonal, of local row l: true and *at its place in full->P if it is stored here. Local. */
static inline bool full_diagonal_at(const struct full_shape *shape, int64_t l, int64_t *at) {
  const int64_t g = full_global_of(&shape->down, l);
  *at = full_local_of(&shape->across, g) * shape->p_rows + l;
  return full_part_of(&shape->across, g) == shape->across.mine;
}

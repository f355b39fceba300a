/* Exact covariance P (n, n) of all parameters, distributed block-cyclically over the ranks of a communicator: the
   reference that every cheaper structure is measured against. Double precision; no rank ever holds more than its share.

     predict    Λ <- λΛ + (1-λ)Λ0, then P <- P + q P0        stabilised forgetting to the prior P0; random walk
     project    Z = P Hᵀ; S += H Z
     condition  δ = Z w and Yᵀ = Z L⁻ᵀ, where the caller has added R to S, factored it as L Lᵀ and solved S w = e
     apply      mean += scale δ; P <- P - YᵀY

   Only the last changes P and the mean (and predict P): a step can be given up after project or condition; the next
   project starts afresh. The parameters have one canonical order 0..n-1. Each rank owns some of them, given as
   segments: arrays "local" to a rank hold its parameters segment after segment. How they are dealt, and that a rank
   owns none, changes no bit of P, S or δ on a given number of ranks; another number or block changes rounding.

   Every function is collective over the communicator unless it says "local"; what it returns is the same on all ranks.
   One BLAS thread per rank: OPENBLAS_NUM_THREADS=1. */
#pragma once

#include <mpi.h>

#include "kwm/base.h"
#include "kwm/ckpt.h"
#include "kwm/health.h"

typedef struct kwm_full kwm_full;

/* Parameters [first, first + count) of the canonical order. */
struct kwm_full_segment {
  int64_t first, count;
};

struct kwm_full_spec {
  MPI_Comm comm;                           /* borrowed until destroy: the ranks of one replica */
  int64_t n;                               /* parameters in all */
  int64_t n_segments;                      /* this rank's; 0 if it owns none */
  const struct kwm_full_segment *segments; /* ascending; all ranks' are disjoint and cover 0..n-1; borrowed in create */
  const double *prior_variance;            /* (n_local) diagonal of P0, > 0; borrowed in create */
  int64_t rows_max;                        /* most rows of H in a step */
  int64_t block; /* order of the cyclic blocks; 0: KWM_FULL_BLOCK. Speed only, and rounding of sums */
};
enum { KWM_FULL_BLOCK = 64 };

/* P <- P0. KWM_ERR_USAGE if the segments don't give each parameter to exactly one rank, or if a rank's share of a
   matrix has more elements than ScaLAPACK can count (2³¹ - 1). *full is NULL on failure. */
kwm_status kwm_full_create(kwm_full **full, const struct kwm_full_spec *spec);
void kwm_full_destroy(kwm_full **full); /* accepts NULL in *full */

/* Bytes that `rank` of `ranks` holds between calls, of which it owns n_local parameters. ScaLAPACK's own buffers (some
   panels of n/grid x block) come on top. Local. */
size_t kwm_full_bytes(int64_t n, int ranks, int rank, int64_t n_local, int64_t rows_max, int64_t block);

/* Time update with forgetting factor 0 < lambda <= 1 (1: none; below, two distributed inversions) and process noise
   q >= 0. False: P is not positive definite or not finite; then it is as before, bit for bit. Ends a step in hand. */
bool kwm_full_predict(kwm_full *full, double lambda, double q);

/* S (rows, rows) += H P Hᵀ, both triangles, the same bits on every rank. H: (rows, n_local) row-major, this rank's
   columns of the whitened Jacobian. 1 <= rows <= rows_max, which may exceed n. */
void kwm_full_project(kwm_full *full, int64_t rows, const float *H, double *S);

/* After project with the same rows. L (rows, rows) row-major, lower triangle read; w (rows); both the same on all
   ranks. False: not finite, or a variance would not stay positive; then apply must not be called. Once per project. */
bool kwm_full_condition(kwm_full *full, int64_t rows, const double *L, const double *w);

/* The prepared δ (n_local), valid from a successful condition to the next call that is not local. Local. */
const double *kwm_full_delta(const kwm_full *full);

/* After a successful condition, once: mean (n_local) += scale δ; P becomes the posterior. */
void kwm_full_apply(kwm_full *full, double scale, float *mean);

/* variance (n_local) <- diagonal of P. */
void kwm_full_diagonal(kwm_full *full, double *variance);

/* Adds traces and count of the diagonal elements stored here, which are not those owned here: over the ranks they add
   up to the whole. Local. */
void kwm_full_health(const kwm_full *full, struct kwm_health *health);

/* P as array /cov/full/covariance (n, n) f64, both triangles, rows in canonical order. Collective over the checkpoint's
   ranks, which are those of all replicas' communicators (all of one size). writes: false on replicas other than the
   first, whose P is a copy. */
kwm_status kwm_full_save(kwm_full *full, kwm_ckpt *ckpt, bool writes);

/* Written on any number of ranks with any block. P is undefined after a failure. Ends a step in hand. */
kwm_status kwm_full_load(kwm_full *full, kwm_ckpt *ckpt);

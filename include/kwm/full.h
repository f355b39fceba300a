/* Exact covariance P (n, n) of all parameters, distributed block-cyclically over the ranks of a communicator: the
   reference that every cheaper structure is measured against. No rank ever holds more than its share.

                double: P                               float: a square root Y (n, n), P = Y Yᵀ
     predict    Λ <- λΛ + (1-λ)Λ0, then P <- P + q P0   the same: stabilised forgetting to the prior P0; random walk
     project    Z = P Hᵀ; S += H Z                      F = H Y; S += F Fᵀ
     condition  δ = Z w; Aᵀ = Z L⁻ᵀ                     δ = Y Fᵀw; A = L⁻¹F; C = (I + (I - A Aᵀ)^½)⁻¹
     apply      mean += scale δ; P <- P - AᵀA           mean += scale δ; Y <- Y - (Y Aᵀ) C A

   where the caller has added R to S, factored it as L Lᵀ and solved S w = e. In float, P is symmetric and positive
   whatever rounding does and takes half the memory; what a step changes by less than 1e-7 of Y is lost.

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
#include "kwm/cov.h"
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
  int64_t block;      /* order of the cyclic blocks; 0: KWM_FULL_BLOCK. Speed only, and rounding of sums */
  enum kwm_real real; /* what the state is kept in */
  bool dynamics;      /* float: kwm_full_predict will be called with lambda < 1 or q > 0, which takes n² floats more */
};
enum { KWM_FULL_BLOCK = 64 };

/* P <- P0. KWM_ERR_USAGE if the segments don't give each parameter to exactly one rank, or if a rank's share of a
   matrix has more elements than ScaLAPACK can count (2³¹ - 1). *full is NULL on failure. */
kwm_status kwm_full_create(kwm_full **full, const struct kwm_full_spec *spec);
void kwm_full_destroy(kwm_full **full); /* accepts NULL in *full */

/* Bytes that `rank` of `ranks` holds between calls, of which it owns n_local parameters; reads n, rows_max, block, real
   and dynamics of the spec. ScaLAPACK's own buffers (some panels of n/grid x block) come on top. Local. */
size_t kwm_full_bytes(const struct kwm_full_spec *spec, int ranks, int rank, int64_t n_local);

/* Time update with forgetting factor 0 < lambda <= 1 (1: none) and process noise q >= 0. lambda < 1 also pulls the mean
   (n_local) to the anchor (n_local): mean += (1-λ) Λ'⁻¹Λ0 (anchor - mean) with the forgetful Λ'; both are unused, and
   may be NULL, if lambda is 1. False: P is not positive definite or not finite; then P and mean are as before, bit for
   bit. Ends a step in hand. O(n³) operations, but for q > 0 alone in double: forgetting takes two inversions in double,
   7/3 n³ in float; q > 0 in float an LQ factorisation of (n, 2n), 10/3 n³. */
bool kwm_full_predict(kwm_full *full, double lambda, double q, const float *anchor, float *mean);

/* S (rows, rows) += H P Hᵀ, both triangles, the same bits on every rank. H: (rows, n_local) row-major, this rank's
   columns of the whitened Jacobian. 1 <= rows <= rows_max, which may exceed n. */
void kwm_full_project(kwm_full *full, int64_t rows, const float *H, double *S);

/* After project with the same rows. L (rows, rows) row-major, lower triangle read; w (rows); both the same on all
   ranks. False: not finite, or P would not stay positive (double: a variance; float: I - A Aᵀ); then apply must not be
   called. Once per project. */
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

/* values (n), on every rank <- the eigenvalues of P0^-½ P P0^-½, ascending. Takes 8 n² bytes over the ranks while it
   runs, in float 16 n². KWM_ERR_SYSTEM: no memory; KWM_ERR_NUMERIC: P is not finite, or no convergence. */
kwm_status kwm_full_spectrum(kwm_full *full, double *values);

/* P (n, n) <- the covariance in canonical order, both triangles, in double; one rank only (assertion): for comparisons.
 */
void kwm_full_covariance(const kwm_full *full, double *P);

/* Double: P as array /cov/full/covariance (n, n) f64, both triangles; float: Y as /cov/full/covariance_factor (n, n)
   f32; rows in canonical order. Collective over the checkpoint's ranks, which are those of all replicas' communicators
   (all of one size). writes: false on replicas other than the first, whose P is a copy. */
kwm_status kwm_full_save(kwm_full *full, kwm_ckpt *ckpt, bool writes);

/* Written on any number of ranks with any block, in the same real. P is undefined after a failure. Ends a step in hand.
 */
kwm_status kwm_full_load(kwm_full *full, kwm_ckpt *ckpt);

/* Estimated operations of a step on each of so many ranks, beside the caller's with S (cost.c); reads n, rows_max and
   real. Countable: create takes the sizes, which kwm_full_bytes does not check. Local. */
double kwm_full_operations(const struct kwm_full_spec *spec, int ranks, bool forgets, bool diffuses);
bool kwm_full_countable(const struct kwm_full_spec *spec, int ranks);

/* Koopman models whose lift is learned: encoder φ, decoder ψ, K and B are one vector of parameters θ, and what a filter
   observes of θ are the three losses of equation (131) with exact Jacobians. Local.

     φ(w) = [w; 0] + W₂ [tanh(W₁ [w; 1]); 1]        w: window of outputs, newest first (kwm/lift.h); W₁ (hidden, w + 1)
     ψ(z) = C [z; 1] + V₂ tanh(V₁ [z; 1])           decoder 0: linear, so that the lifted filter is exact
     z⁺   = K z + B u                               stable: K = (I - M/2)⁻¹ (I + M/2), M = S - Sᵀ - L Lᵀ, so |K|₂ <= 1

   The linear part of φ holds z's scale, reconstruction keeps φ from collapsing. θ in the order W₁, W₂ (size, hidden +
   1), V₁ (decoder, size + 1), V₂ (m, decoder), C (m, size + 1), K (size, size) or its S and L in one square (S above
   the diagonal, L on and below it), B (size, k). */
#pragma once

#include "kwm/space.h"

struct kwm_encoder_spec {
  int m, k, delays;    /* outputs, inputs; outputs before the last in the window */
  int size;            /* elements of z */
  int hidden, decoder; /* units of φ and of ψ */
  int ahead;           /* steps that predictions look ahead */
  bool stable;
};

/* What the losses look at, borrowed: the windows at the first and the last of ahead + 1 steps (NULL: not whole), inputs
   from the first on (ahead, k). */
struct kwm_encoder_sample {
  const double *first, *last, *inputs;
};

struct kwm_encoder {
  struct kwm_encoder_spec spec;
  int window, n;
  int W2, V1, V2, C, K, B; /* where each begins in θ; W₁ at 0 */
  struct kwm_encoder_sample sample;
  double *work;
};

/* KWM_ERR_USAGE: size below the outputs, or more than some thousand parameters. fini accepts a zeroed one. */
kwm_status kwm_encoder_init(struct kwm_encoder *encoder, const struct kwm_encoder_spec *spec);
void kwm_encoder_fini(struct kwm_encoder *encoder);

/* Prior of θ: mean (n), keyed by seed, and variance (n) in units of scale². */
void kwm_encoder_prior(const struct kwm_encoder *encoder, uint64_t seed, double scale, double *mean, double *variance);

/* z (size) <- φ(window), Z (size, n) <- dz/dθ; NULL: not wanted. */
void kwm_encoder_lift(const struct kwm_encoder *encoder, const double *theta, const double *window, double *z,
                      double *Z);

/* y (m) <- ψ(z), Yz (m, size) <- dy/dz; Yt (m, n), added to: ∂y/∂θ at this z. Both may be NULL. */
void kwm_encoder_read(const struct kwm_encoder *encoder, const double *theta, const double *z, double *y, double *Yz,
                      double *Yt);

/* A (size, size + k) <- [K B]; G (size, size) <- ½ (I - M/2)⁻¹ if stable, NULL: not wanted. */
void kwm_encoder_matrix(const struct kwm_encoder *encoder, const double *theta, double *A, double *G);

/* The losses as observations of θ alone (d = 0), rows: m for each of `ahead` predictions ψ(Kʲ φ(w) + ...), m for the
   reconstruction ψ(φ(w)), size for the linearity K^ahead φ(w) + ... - φ(w') (observed: zero). All at
   encoder->sample, whose first window must be there; without a last one the linearity's rows are zero. */
int kwm_encoder_rows(const struct kwm_encoder_spec *spec);
void kwm_encoder_space(const struct kwm_encoder *encoder, struct kwm_space *space);

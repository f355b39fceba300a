/* Layers: how activations and their sensitivities are computed. Local; arrays are row-major and borrowed for the call.
   With a device all arrays are the device's, and what is asked for runs beside the host (kwm/device.h).

   gated: complex diagonal recurrence over a sequence of pixels, state carried forward together with its sensitivities.
   dense: W (d_o, d_i), the last column of W is the bias, inputs have a 1 appended. */
#pragma once

#include "kwm/device.h"

/* Unit u with parameters θ = (ν, φ, ρ, ρ₀, γ, γ₀, Re b, Im b, Re c, Im c) and pixel x = value/255 in [0,1]:
     a = exp(-e^ν σ(ρx + ρ₀) + i e^φ)      decay gate, a function of the pixel
     g = σ(γx + γ₀)                         input gate
     h <- a h + g (b x + c)                 h = 0 before the first pixel */
enum { KWM_GATED_PARAMS = 10, KWM_GATED_CHANNELS = 2, KWM_GATED_LANES = 16 };

typedef struct kwm_gated kwm_gated;

/* For `count` units (a multiple of KWM_GATED_LANES) and up to n_max sequences of `length` pixels a call. device:
   borrowed. */
kwm_status kwm_gated_create(kwm_gated **gated, kwm_device *device, int64_t count, int64_t length, int64_t n_max);
void kwm_gated_destroy(kwm_gated *gated);

/* What create holds on the host without a device, and on a device with one. */
size_t kwm_gated_bytes(int64_t count, int64_t length, int64_t n_max);
size_t kwm_gated_device_bytes(int64_t count, int64_t length, int64_t n_max);

/* Takes new parameters theta (count, KWM_GATED_PARAMS): must be called after each change of them. */
void kwm_gated_refresh(kwm_gated *gated, const float *theta);

/* Runs sequences pixels[index[i]·length ...], i < n, to their ends; on a device index is NULL, pixels (n, length):
   h (n, 2, count): real and imaginary parts of the final states;
   S (n, 2, KWM_GATED_PARAMS, count): ∂h/∂θ, exact (equations.md 3(h)); NULL: not wanted. */
void kwm_gated_forward(kwm_gated *gated, int64_t n, const uint8_t *pixels, const int32_t *index, float *h, float *S);

/* Floating-point operations that kwm_gated_forward with S executes for these sequences, and those of the plain
   recurrence pixel by pixel (equations.md 3(h) term by term) for the same result. Host only. */
void kwm_gated_operations(kwm_gated *gated, int64_t n, const uint8_t *pixels, const int32_t *index, double *executed,
                          double *plain);

/* out (n, d_o) <- a Wᵀ for a (n, d_i), W (d_o, d_i). ld_out: elements from row to row of out. */
void kwm_dense_forward(kwm_device *device, int64_t n, int64_t d_i, int64_t d_o, const float *W, const float *a,
                       float *out, int64_t ld_out);

/* aU (n, d) <- a U for a (n, d), U (d, d). */
void kwm_dense_turn(kwm_device *device, int64_t n, int64_t d, const float *U, const float *a, float *aU);

/* Rows of a Jacobian with respect to the outputs J (rows, d_o) -> with respect to the inputs without the appended 1:
   out (rows, d_i - 1) <- J W[:, :d_i-1]. */
void kwm_dense_pull_back(kwm_device *device, int64_t rows, int64_t d_i, int64_t d_o, const float *W, const float *J,
                         float *out);

/* act (n, d + 1) <- [max(u, 0), 1] for u (n, d); NaN stays NaN, so that it is seen in the loss. */
void kwm_relu_forward(kwm_device *device, int64_t n, int64_t d, const float *u, float *act);

/* J (n, m, d) <- J where u (n, d) > 0, else 0. */
void kwm_relu_pull_back(kwm_device *device, int64_t n, int64_t m, int64_t d, const float *u, float *J);

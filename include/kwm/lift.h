/* Koopman models: a window of outputs is lifted by a dictionary to z = φ(window), which moves linearly, z⁺ = K z + B u
   (equations (119)-(124)); outputs are the first elements of z, or what a learned decoder makes of
   it. Autoregression and dynamic mode decomposition are the
   dictionaries of degree one, with and without delays. Local. */
#pragma once

#include "kwm/encoder.h"

struct kwm_lift_spec {
  int m, k;    /* outputs, inputs */
  int delays;  /* outputs before the last in the window */
  int degree;  /* monomials of the window up to this degree */
  int radials; /* exp(-|window - centre|² / 2 width²) */
  /* Borrowed; not NULL: z = φ(window; θ) and y = ψ(z; θ) are networks', which have the same m, k and delays. */
  const struct kwm_encoder *encoder;
  const double *theta;
};

struct kwm_lift {
  struct kwm_lift_spec spec;
  int window,
      size; /* m (delays + 1); elements of z: the window, 1, monomials of degree 2 and more, radials; network's */
  int monomials;
  uint8_t *powers;
  double *centres, width; /* (radials, window) */
  double *A;              /* (size, size + k) [K B] */
};

/* KWM_ERR_USAGE: more than some thousand elements. fini accepts a zeroed one. */
kwm_status kwm_lift_init(struct kwm_lift *lift, const struct kwm_lift_spec *spec);
void kwm_lift_fini(struct kwm_lift *lift);

/* z (size) <- φ(window). */
void kwm_lift_apply(const struct kwm_lift *lift, const double *window, double *z);

/* window <- the outputs y (n, m) up to step t, newest first; steps before `first` or missing are filled with the next
   newer value there is. False if any had to be. */
bool kwm_lift_window(const struct kwm_lift *lift, const double *y, int64_t t, int64_t first, double *window);

/* z⁺ = K z + B u, y = z's first elements or ψ(z); borrows lift. */
void kwm_lift_space(const struct kwm_lift *lift, struct kwm_space *space);

/* next (size) <- K z + B u */
void kwm_lift_step(const struct kwm_lift *lift, const double *z, const double *u, double *next);

/* y (m) <- z's first elements or ψ(z), C (m, size) <- dy/dz; NULL: not wanted. */
void kwm_lift_read(const struct kwm_lift *lift, const double *z, double *y, double *C);

/* What K says. values (size, 2): eigenvalues, largest modulus first; modes (size, 2): of each the part of its mode in
   the first output, modulus and phase, for a mode of length one. */
struct kwm_lift_facts {
  double radius;        /* largest modulus */
  double observability; /* smallest eigenvalue of the observability Gramian over `size` steps, relative to its largest;
                           decoder: as it reads around φ(0) */
  int unstable;         /* eigenvalues beyond the unit circle by more than 1e-6 */
};
kwm_status kwm_lift_spectrum(const struct kwm_lift *lift, double *values, double *modes, struct kwm_lift_facts *facts);

/* Moves eigenvalues beyond `limit` onto that circle; does nothing if there are none. KWM_ERR_NUMERIC: not
 * diagonalisable.
 */
kwm_status kwm_lift_stabilise(struct kwm_lift *lift, double limit);

/* K, stable by construction or not, and the losses with their Jacobians, carried forward: Z <- K Z + ∂(K z + B u)/∂θ.
 */
#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/encoder.h"

/* M/2, from the square with S above its diagonal and L on and below. */
static void half_generator(int p, const double *square, double *M) {
  for (int i = 0; i < p; i++)
    for (int j = 0; j < p; j++) {
      double sum = 0;
      for (int l = 0; l <= i && l <= j; l++) sum -= square[i * p + l] * square[j * p + l];
      if (j > i) sum += square[i * p + j];
      if (j < i) sum -= square[j * p + i];
      M[i * p + j] = sum / 2;
    }
}

/* K and G = ½ (I - M/2)⁻¹; I - M/2 has a positive definite symmetric part, so that it always has an inverse. */
static void cayley(const struct kwm_encoder *encoder, const double *square, double *K, int stride, double *G) {
  const int p = encoder->spec.size;
  double *const left = encoder->work, *const right = left + p * p, *const inverse = right + p * p;
  half_generator(p, square, right);
  for (int i = 0; i < p * p; i++) {
    const bool diagonal = i % (p + 1) == 0;
    left[i] = diagonal - right[i];
    right[i] += diagonal;
    inverse[i] = diagonal;
  }
  if (!kwm_solve_f64(p, p, left, inverse))
    for (int i = 0; i < p * p; i++) inverse[i] = NAN;
  for (int i = 0; i < p; i++)
    for (int j = 0; j < p; j++) {
      double sum = 0;
      for (int l = 0; l < p; l++) sum += inverse[i * p + l] * right[l * p + j];
      K[i * stride + j] = sum;
      if (G != NULL) G[i * p + j] = inverse[i * p + j] / 2;
    }
}

void kwm_encoder_matrix(const struct kwm_encoder *encoder, const double *theta, double *A, double *G) {
  const int p = encoder->spec.size, k = encoder->spec.k;
  const double *const K = theta + encoder->K, *const B = theta + encoder->B;
  if (encoder->spec.stable) cayley(encoder, K, A, p + k, G);
  for (int i = 0; i < p; i++) {
    if (!encoder->spec.stable) memcpy(A + i * (p + k), K + i * p, (size_t)p * sizeof *K);
    if (k > 0) memcpy(A + i * (p + k) + p, B + i * k, (size_t)k * sizeof *B);
  }
}

/* Where a step's matrices are kept: behind the layers' scratch (kwm_encoder_init). */
struct pieces {
  double *z, *Z, *next, *Next, *A, *G, *Yz;
};

static struct pieces pieces_of(const struct kwm_encoder *encoder) {
  const struct kwm_encoder_spec *const spec = &encoder->spec;
  const int64_t p = spec->size, n = encoder->n, k = spec->k;
  const int64_t layer = encoder->window + 1 + (spec->hidden > spec->decoder ? spec->hidden : spec->decoder) + p + 1;
  struct pieces pieces;
  double *at = encoder->work + 3 * p * p + layer;
  pieces.z = at, at += p, pieces.next = at, at += p;
  pieces.Z = at, at += p * n, pieces.Next = at, at += p * n;
  pieces.A = at, at += p * (p + k), pieces.G = at, at += p * p;
  pieces.Yz = at;
  return pieces;
}

/* Z's columns of K's parameters += ∂(K z)/∂them; stable: dK = G dM (K + I). */
static void add_matrix(const struct kwm_encoder *encoder, const double *theta, const struct pieces *at, const double *z,
                       double *Z) {
  const int p = encoder->spec.size, n = encoder->n, stride = p + encoder->spec.k;
  const double *const L = theta + encoder->K;
  double *const v = encoder->work, *const Lv = v + p;
  if (!encoder->spec.stable) {
    for (int i = 0; i < p; i++)
      for (int j = 0; j < p; j++) Z[(int64_t)i * n + encoder->K + i * p + j] += z[j];
    return;
  }
  for (int i = 0; i < p; i++) {
    v[i] = z[i];
    for (int j = 0; j < p; j++) v[i] += at->A[i * stride + j] * z[j];
  }
  for (int j = 0; j < p; j++) {
    Lv[j] = 0;
    for (int i = j; i < p; i++) Lv[j] += L[i * p + j] * v[i];
  }
  for (int r = 0; r < p; r++) {
    const double *const G = at->G + r * p;
    double *const to = Z + (int64_t)r * n + encoder->K;
    for (int j = 0; j < p; j++) {
      double GL = 0; /* (G L)_rj */
      for (int i = j; i < p; i++) GL += G[i] * L[i * p + j];
      for (int i = 0; i < j; i++) to[i * p + j] += G[i] * v[j] - G[j] * v[i];
      for (int i = j; i < p; i++) to[i * p + j] -= G[i] * Lv[j] + GL * v[i];
    }
  }
}

/* (next, Next) <- (K z + B u, its dθ). */
static void carry(const struct kwm_encoder *encoder, const double *theta, const struct pieces *at, const double *u,
                  bool tangents) {
  const int p = encoder->spec.size, k = encoder->spec.k, n = encoder->n;
  for (int i = 0; i < p; i++) {
    const double *const row = at->A + i * (p + k);
    double sum = 0;
    for (int j = 0; j < p; j++) sum += row[j] * at->z[j];
    for (int j = 0; j < k; j++) sum += row[p + j] * u[j];
    at->next[i] = sum;
  }
  if (!tangents) return;
  kwm_gemm_f64(false, false, p, n, p, 1, at->A, p + k, at->Z, n, 0, at->Next, n);
  add_matrix(encoder, theta, at, at->z, at->Next);
  for (int i = 0; i < p; i++)
    for (int j = 0; j < k; j++) at->Next[(int64_t)i * n + encoder->B + i * k + j] += u[j];
}

/* y, and its rows of the Jacobian: ψ's own parameters, and those that z depends on. */
static void read_out(const struct kwm_encoder *encoder, const double *theta, const struct pieces *at, double *y,
                     double *Ht) {
  const int m = encoder->spec.m, p = encoder->spec.size, n = encoder->n;
  kwm_encoder_read(encoder, theta, at->z, y, Ht != NULL ? at->Yz : NULL, Ht);
  if (Ht != NULL) kwm_gemm_f64(false, false, m, n, p, 1, at->Yz, p, at->Z, n, 1, Ht, n);
}

static void observe(const void *context, const double *x, const double *theta, double *y, double *Hx, double *Ht) {
  const struct kwm_encoder *const encoder = context;
  const struct kwm_encoder_sample *const sample = &encoder->sample;
  const int m = encoder->spec.m, p = encoder->spec.size, k = encoder->spec.k, ahead = encoder->spec.ahead;
  const int64_t n = encoder->n, row = (int64_t)m * n;
  struct pieces at = pieces_of(encoder);
  (void)x, (void)Hx;
  if (Ht != NULL) memset(Ht, 0, (size_t)(kwm_encoder_rows(&encoder->spec) * n) * sizeof *Ht);
  kwm_encoder_matrix(encoder, theta, at.A, at.G);
  kwm_encoder_lift(encoder, theta, sample->first, at.z, Ht != NULL ? at.Z : NULL);
  read_out(encoder, theta, &at, y + m * ahead, Ht != NULL ? Ht + ahead * row : NULL);
  for (int j = 0; j < ahead; j++) {
    carry(encoder, theta, &at, sample->inputs + j * k, Ht != NULL);
    double *const z = at.z, *const Z = at.Z;
    at.z = at.next, at.next = z, at.Z = at.Next, at.Next = Z;
    read_out(encoder, theta, &at, y + m * j, Ht != NULL ? Ht + j * row : NULL);
  }
  double *const linear = y + m * (ahead + 1);
  memset(linear, 0, (size_t)p * sizeof *linear);
  if (sample->last == NULL) return;
  kwm_encoder_lift(encoder, theta, sample->last, at.next, Ht != NULL ? at.Next : NULL);
  for (int i = 0; i < p; i++) linear[i] = at.z[i] - at.next[i];
  for (int64_t i = 0; Ht != NULL && i < p * n; i++) Ht[(ahead + 1) * row + i] = at.Z[i] - at.Next[i];
}

static void stay(const void *context, const double *x, const double *u, const double *theta, double *next, double *Fx,
                 double *Ft) {
  (void)context, (void)x, (void)u, (void)theta, (void)next, (void)Fx, (void)Ft; /* there is no state */
}

void kwm_encoder_space(const struct kwm_encoder *encoder, struct kwm_space *space) {
  *space = (struct kwm_space){.n = encoder->n,
                              .m = kwm_encoder_rows(&encoder->spec),
                              .k = encoder->spec.k,
                              .context = encoder,
                              .step = stay,
                              .observe = observe};
}

/* Sensitivities: how the Jacobian blocks H of the outputs are obtained. Local; one chunk of samples a call.

   `forward`: the recurrence carries ∂h/∂θ forward with its state; the read-out's Jacobian is pushed from the outputs to
   its input h, layer by layer, at one time step. No sweep through time: the price is one product with each read-out
   matrix per output row (m d_o d_i operations a sample).

   `adjoint`: the reverse sweep through all layers of a dense model, the exact reference: rows at a layer's outputs are
   pulled back to its inputs, 2 d_o d_i operations a row. `stage`: the same, but each hidden layer is swept from its own
   read-out only, and nothing comes back from the layers behind it.

   With a device (NULL: host) all arrays are the device's. */
#pragma once

#include "kwm/lin.h"
#include "kwm/model.h"

/* What is observed, and where the facts of its innovation go. */
struct kwm_sens_seen {
  const uint8_t *labels;       /* (n) */
  struct kwm_draw draw;        /* host, sampled */
  struct kwm_innovation *sums; /* host: added to */
  const double *draws;         /* device, sampled: the draw's numbers (kwm_draws) */
  double *facts;               /* device: (n, KWM_FACTS) */
};

/* The facts alone, of logits (n, classes). */
void kwm_sens_facts(kwm_device *device, const struct kwm_model *model, int64_t n, const float *logits,
                    const struct kwm_sens_seen *seen);

/* Logits of act (n, hidden + 1) -> innovation, and Jacobian rows at both ends of the output layer. */
struct kwm_sens_output {
  float *logits; /* (n, classes) */
  float *e;      /* (n, classes) whitened innovations */
  float *J;      /* (n, classes, classes) ∂ŷ/∂logits */
  float *J_act;  /* (n, classes, hidden) ∂ŷ/∂(hidden activations) */
};
void kwm_sens_output(kwm_device *device, const struct kwm_model *model, int64_t n, const float *W, const float *act,
                     const struct kwm_sens_seen *seen, const struct kwm_sens_output *out);

/* J_act (n, classes, hidden), masked in place to ∂ŷ/∂(pre-activations u (n, hidden)); J_state (n, classes, 2 width) <-
   ∂ŷ/∂h through W (hidden, 2 width + 1). */
void kwm_sens_hidden(kwm_device *device, const struct kwm_model *model, int64_t n, const float *W, const float *u,
                     float *J_act, float *J_state);

/* The Jacobian block of one group over n samples: `count` units with J (n, m, 2, count) and S (n, 2, params, count), or
   a matrix block with J (n, m, d_o) and layer inputs a (n, d_i). */
struct kwm_jac kwm_sens_jac(const struct kwm_model *model, int group, int64_t n, int64_t count, const float *J,
                            const float *inputs, const float *e);

/* Rows of the Jacobian at some layer's outputs (d of them), sample by sample: exact, m rows and the innovations e
   beside them; sampled, one row and the score g (kwm/lin.h); outputs: m rows only. */
struct kwm_sens_rows {
  float *J; /* (n, rows, d) */
  float *g; /* (n, d); sampled only, else NULL */
};

/* Logits (n, classes) -> rows at the logits (d = classes), e (n, classes; exact only) and the innovation's facts.
   Outputs: host only. */
void kwm_sens_observe(kwm_device *device, const struct kwm_model *model, enum kwm_evidence evidence, int64_t n,
                      const float *logits, const struct kwm_sens_seen *seen, const struct kwm_sens_rows *rows,
                      float *e);

/* to: rows at the inputs of W (d_o, d_i), without the appended 1 <- from, those at its outputs; per_sample rows each.
 */
void kwm_sens_pull(kwm_device *device, int64_t n, int64_t per_sample, int64_t d_o, int64_t d_i, const float *W,
                   const struct kwm_sens_rows *from, const struct kwm_sens_rows *to);

/* Through the ReLU of pre-activations u (n, d): rows become zero where u is not positive. */
void kwm_sens_relu(kwm_device *device, int64_t n, int64_t per_sample, int64_t d, const float *u,
                   const struct kwm_sens_rows *rows);

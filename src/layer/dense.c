/* Dense and ReLU layers: values forward, Jacobian rows back to the layer's input. */
#include "kwm/layer.h"

#include "kwm/device_ops.h"

void kwm_dense_forward(kwm_device *device, int64_t n, int64_t d_i, int64_t d_o, const float *W, const float *a,
                       float *out, int64_t ld_out) {
  kwm_device_gemm(device, false, true, n, d_o, d_i, 1.0f, a, d_i, W, d_i, 0.0f, out, ld_out);
}

void kwm_dense_turn(kwm_device *device, int64_t n, int64_t d, const float *U, const float *a, float *aU) {
  kwm_device_gemm(device, false, false, n, d, d, 1.0f, a, d, U, d, 0.0f, aU, d);
}

void kwm_dense_pull_back(kwm_device *device, int64_t rows, int64_t d_i, int64_t d_o, const float *W, const float *J,
                         float *out) {
  kwm_device_gemm(device, false, false, rows, d_i - 1, d_o, 1.0f, J, d_o, W, d_i, 0.0f, out, d_i - 1);
}

void kwm_relu_forward(kwm_device *device, int64_t n, int64_t d, const float *u, float *act) {
  if (device != NULL) {
    if (n > 0) device->ops->relu(device, n, d, u, act);
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    for (int64_t k = 0; k < d; k++) act[i * (d + 1) + k] = u[i * d + k] <= 0 ? 0 : u[i * d + k]; /* NaN stays NaN */
    act[i * (d + 1) + d] = 1;
  }
}

void kwm_relu_pull_back(kwm_device *device, int64_t n, int64_t m, int64_t d, const float *u, float *J) {
  if (device != NULL) {
    if (n > 0) device->ops->relu_mask(device, n, m, d, u, J);
    return;
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t r = 0; r < m; r++)
      for (int64_t k = 0; k < d; k++)
        if (!(u[i * d + k] > 0)) J[(i * m + r) * d + k] = 0;
}

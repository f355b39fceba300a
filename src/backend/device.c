/* The table of devices, and what is common to all of them and to the host. */
#include "kwm/device_ops.h"

#include <string.h>

#include "kwm/backend.h"
#include "device_open.h"
#include "dropout.h"

kwm_status kwm_device_open(kwm_device **device, const char *name, const struct kwm_device_spec *spec) {
  *device = NULL;
  if (strcmp(name, "cpu") == 0) return KWM_OK;
  if (strcmp(name, "shadow") == 0) return device_open_shadow(device, spec);
  KWM_CHECK(strcmp(name, "cuda") == 0, KWM_ERR_USAGE, "backend: wanted cpu, shadow or cuda, found `%s`", name);
  return device_open_module(device, name, spec);
}

void kwm_device_close(kwm_device *device) {
  if (device != NULL) device->ops->close(device);
}

const char *kwm_device_name(const kwm_device *device) {
  return device == NULL ? "cpu" : device->ops->name;
}

static kwm_status take(kwm_device *device, void **at, size_t bytes, bool shared, const char *what) {
  if (device == NULL) return kwm_alloc(at, bytes, what);
  *at = device->ops->alloc(device, bytes > 0 ? bytes : 1, shared);
  KWM_CHECK(*at != NULL, KWM_ERR_SYSTEM, "memory of the %s device: wanted %zu bytes for %s, found no room",
            device->ops->name, bytes, what);
  return KWM_OK;
}

kwm_status kwm_device_alloc(kwm_device *device, void **at, size_t bytes, const char *what) {
  return take(device, at, bytes, false, what);
}

kwm_status kwm_device_share(kwm_device *device, void **at, size_t bytes, const char *what) {
  return take(device, at, bytes, true, what);
}

void kwm_device_free(kwm_device *device, void *at) {
  if (device == NULL)
    kwm_free(at);
  else if (at != NULL)
    device->ops->free(device, at);
}

void kwm_device_put(kwm_device *device, void *to, const void *from, size_t bytes) {
  if (bytes == 0) return;
  if (device == NULL)
    memcpy(to, from, bytes);
  else
    device->ops->put(device, to, from, bytes);
}

void kwm_device_get(kwm_device *device, void *to, const void *from, size_t bytes) {
  if (bytes == 0) return;
  if (device == NULL)
    memcpy(to, from, bytes);
  else
    device->ops->get(device, to, from, bytes);
}

void kwm_device_copy(kwm_device *device, void *to, const void *from, size_t bytes) {
  if (bytes == 0) return;
  if (device == NULL)
    memcpy(to, from, bytes);
  else
    device->ops->copy_rows(device, 1, bytes, to, bytes, from, bytes);
}

void kwm_device_zero(kwm_device *device, void *at, size_t bytes) {
  if (bytes == 0) return;
  if (device == NULL)
    memset(at, 0, bytes);
  else
    device->ops->zero(device, at, bytes);
}

void kwm_device_begin(kwm_device *device) {
  if (device != NULL && device->ops->begin != NULL) device->ops->begin(device);
}

void kwm_device_wait(kwm_device *device) {
  if (device != NULL) device->ops->wait(device);
}

void kwm_device_aside(kwm_device *device, bool begins) {
  if (device != NULL && device->ops->aside != NULL) device->ops->aside(device, begins);
}

void kwm_device_rejoin(kwm_device *device) {
  if (device != NULL && device->ops->rejoin != NULL) device->ops->rejoin(device);
}

void kwm_device_copy_rows(kwm_device *device, int64_t rows, int64_t width, float *to, int64_t ld_to, const float *from,
                          int64_t ld_from) {
  if (rows == 0 || width == 0) return;
  if (device != NULL) {
    device->ops->copy_rows(device, rows, (size_t)width * sizeof(float), to, (size_t)ld_to * sizeof(float), from,
                           (size_t)ld_from * sizeof(float));
    return;
  }
  for (int64_t row = 0; row < rows; row++)
    memcpy(to + row * ld_to, from + row * ld_from, (size_t)width * sizeof(float));
}

void kwm_device_gemm(kwm_device *device, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C,
                     int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (device == NULL)
    kwm_gemm(transpose_a, transpose_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
  else
    device->ops->gemm(device, transpose_a, transpose_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}

void kwm_device_drop(kwm_device *device, int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop,
                     float *x) {
  if (n == 0 || !(drop->rate > 0)) return;
  if (device == NULL)
    dropout_rows(n, m, w, ld, drop, x);
  else
    device->ops->drop(device, n, m, w, ld, drop, x);
}

void kwm_device_add(kwm_device *device, int64_t n, const float *x, float *y) {
  if (n == 0) return;
  if (device == NULL)
    for (int64_t k = 0; k < n; k++) y[k] = x[k] + y[k];
  else
    device->ops->add_scaled(device, n, 1, x, y);
}

bool kwm_device_offers(const kwm_device *device) {
  return device != NULL && device->ops->exchange != NULL;
}

kwm_status kwm_device_identity(kwm_device *device, unsigned char identity[KWM_DEVICE_IDENTITY]) {
  KWM_CHECK(device->ops->identity(device, identity), KWM_ERR_SYSTEM,
            "backend %s: wanted an identity for a group, got none", device->ops->name);
  return KWM_OK;
}

kwm_status kwm_device_join(kwm_device *device, const unsigned char identity[KWM_DEVICE_IDENTITY], int rank, int size) {
  KWM_CHECK(device->ops->join(device, identity, rank, size), KWM_ERR_SYSTEM,
            "backend %s: wanted to join a group of %d devices as number %d, could not", device->ops->name, size, rank);
  return KWM_OK;
}

void kwm_device_exchange(kwm_device *device, int peer, const struct kwm_device_message *message) {
  device->ops->exchange(device, peer, message);
}

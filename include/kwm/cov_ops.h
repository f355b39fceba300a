/* Covariance structures, seen by who writes one: the table of operations behind kwm/cov.h, which says what each means.
   Calls come checked: no operation but those of a collective structure sees a rank that owns nothing. */
#pragma once

#include "kwm/cov.h"

/* Rows at most that a matrix in the innovation form keeps on a device before they are subtracted from P; more only if
   they are one step's (src/cov/block_matrix.h). */
enum { KWM_PENDING_ROWS = 640 };

struct kwm_cov_ops {
  const char *name;
  bool collective;                                    /* see the head of this file */
  const struct kwm_cov_ops *device;                   /* the same structure on a device; NULL: there is none */
  bool (*on_device)(const struct kwm_cov_spec *spec); /* goes with device: for this spec */
  size_t (*bytes)(const struct kwm_cov_spec *spec);
  size_t (*device_bytes)(const struct kwm_cov_spec *spec); /* of a structure on a device: there */
  int64_t (*evidence_length)(const struct kwm_cov_spec *spec);
  kwm_status (*create)(kwm_cov *cov);
  bool (*predict)(kwm_cov *cov, int64_t step, const float *anchor, float *mean);
  void (*evidence)(kwm_cov *cov, const struct kwm_jac *jac, float *evidence);
  void (*prepare)(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch); /* NULL: nothing */
  bool (*absorb)(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl);
  void (*project)(kwm_cov *cov, const struct kwm_jac *jac, double *S);
  bool (*condition)(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w);
  /* the same two with S, of which the lower triangle is enough, L and w on the device; NULL: not known */
  void (*project_there)(kwm_cov *cov, const struct kwm_jac *jac, double *S);
  bool (*condition_there)(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w);
  void (*delta)(const kwm_cov *cov, double *delta);
  void (*moved)(const kwm_cov *cov, double *moved);
  void (*slope)(const kwm_cov *cov, double *slope);       /* NULL: not known, like expected and move */
  void (*expected)(const kwm_cov *cov, double *expected); /* goes with slope, like move */
  void (*apply)(kwm_cov *cov, double scale, float *mean);
  void (*move)(kwm_cov *cov, double scale, float *mean);
  void (*health)(const kwm_cov *cov, struct kwm_health *health);
  int64_t (*spectrum_length)(const struct kwm_cov_spec *spec);
  bool (*spectrum)(const kwm_cov *cov, double *values);
  bool (*covariance)(const kwm_cov *cov, double *P);
  bool (*predictive)(kwm_cov *cov, const struct kwm_jac *jac, double *C); /* NULL: not known */
  struct kwm_frame (*frame)(const kwm_cov *cov);                          /* NULL: the mean is never framed */
  void (*unframe)(const kwm_cov *cov, const float *framed, float *plain); /* goes with frame */
  kwm_status (*save)(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes);
  kwm_status (*load)(kwm_cov *cov, kwm_ckpt *ckpt);
  void (*destroy)(kwm_cov *cov);
};

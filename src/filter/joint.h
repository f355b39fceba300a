/* Private to filter: one exact covariance of all parameters of all ranks (kwm/full.h) in place of one for each group.
 */
#pragma once

#include "kwm/filter.h"

/* Collective over the layout's group. Parts lie one after the other in the canonical order of parameters. */
kwm_status kwm_joint_create(struct kwm_joint **joint, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                            int n_parts, const struct kwm_filter_part *parts);
void kwm_joint_destroy(struct kwm_joint *joint); /* accepts NULL; collective */
size_t kwm_joint_bytes(const struct kwm_filter_spec *spec, int ranks, int rank, int n_parts,
                       const struct kwm_filter_part *parts);

/* The step's phases; each collective over the layout's group, false if the step cannot be applied. Means and anchors
   are the groups'; all groups have one q. S (rows, rows) += H P Hᵀ; L, w as in kwm/cov.h. */
bool kwm_joint_predict(struct kwm_joint *joint, struct kwm_filter_group *groups);
void kwm_joint_project(struct kwm_joint *joint, const struct kwm_lin *lin, double *S);
bool kwm_joint_condition(struct kwm_joint *joint, const struct kwm_lin *lin, const double *L, const double *w);
void kwm_joint_update(struct kwm_joint *joint, struct kwm_filter_group *groups, double scale);

/* After condition. moved[b] (count) <- δᵀP0⁻¹δ of this rank's blocks of part g. Local. */
void kwm_joint_moved(const struct kwm_joint *joint, int g, const struct kwm_filter_part *part, double *moved);

/* One rank: P (n, n) <- the covariance. */
void kwm_joint_covariance(const struct kwm_joint *joint, double *P);

/* Collective over the layout's group: values (n), on every rank <- the eigenvalues (kwm_full_spectrum). */
kwm_status kwm_joint_spectrum(const struct kwm_joint *joint, double *values);

/* Local; the checkpoint calls are collective over its ranks. */
void kwm_joint_health(const struct kwm_joint *joint, struct kwm_health *health);
kwm_status kwm_joint_save(struct kwm_joint *joint, kwm_ckpt *ckpt, bool writes);
kwm_status kwm_joint_load(struct kwm_joint *joint, kwm_ckpt *ckpt);

/* Private to filter: one exact covariance of all parameters of all ranks (kwm/full.h) in place of one for each group.
 */
#pragma once

#include "kwm/filter.h"

/* Collective over the layout's group. Groups lie one after the other in the canonical order of parameters. */
kwm_status kwm_joint_create(struct kwm_joint **joint, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                            int n_groups, const struct kwm_joint_group *groups);
void kwm_joint_destroy(struct kwm_joint *joint); /* accepts NULL; collective */
size_t kwm_joint_bytes(const struct kwm_filter_spec *spec, int ranks, int rank, int n_groups,
                       const struct kwm_joint_group *groups);

/* The step's phases; each collective over the layout's group, false if the step cannot be applied. */
bool kwm_joint_predict(struct kwm_joint *joint);
void kwm_joint_innovate(struct kwm_joint *joint, const struct kwm_lin *lin);
bool kwm_joint_gain(struct kwm_joint *joint, const struct kwm_lin *lin, double *change);
void kwm_joint_update(struct kwm_joint *joint, double scale);

/* Local; the checkpoint calls are collective over its ranks. */
void kwm_joint_health(const struct kwm_joint *joint, struct kwm_health *health);
kwm_status kwm_joint_save(struct kwm_joint *joint, kwm_ckpt *ckpt, bool writes);
kwm_status kwm_joint_load(struct kwm_joint *joint, kwm_ckpt *ckpt);

/* Private to app: spectra of a language model's checkpoint. */
#pragma once

#include "run.h"

/* /spectra/TENSOR/... of every tensor's covariance in the open file, and a line each; one rank works on a tensor.
   Collective over the layout's world, all of whose ranks are owners. */
kwm_status kwm_language_spectra(const struct kwm_run *run, kwm_ckpt *ckpt, kwm_ckpt *file);

/* Private to pipe: what a pipe on a device holds beside its arrays. Images stay on the host: the pixels and labels of
   the samples in hand are gathered there and put. Without a device nothing of this is held. */
#pragma once

#include "kwm/pipe.h"

/* Samples [at, at + n) of the buffers: a chunk in hand. */
struct pipe_span {
  int64_t at, n;
};

struct pipe_place {
  uint8_t *pixels;               /* device: (n_max, length); NULL where no layer reads them */
  uint8_t *ahead, *ahead_labels; /* device: the same, and labels (n_max), of the mini-batch that comes next */
  int64_t ahead_step, held_step; /* whose samples came ahead, whose are in pixels and labels; -1: no step's */
  double *draws;                 /* device: (n_max, kwm_draws_width); sampled only */
  double *facts;  /* shared: (n_max, KWM_FACTS), on the output's owner, else NULL: those of the last linearise */
  double *seen;   /* shared: the same of the samples that are predicted */
  double *unread; /* shared: the same of hidden layers' own read-outs, whose facts nobody asks for */
  void *gathered; /* host: pixels, labels or draws on their way */
};

/* What init takes of the device's memory. */
size_t pipe_place_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                        const struct kwm_pipe_spec *spec);
kwm_status pipe_place_init(struct kwm_pipe *pipe);
void pipe_place_fini(struct kwm_pipe *pipe);

/* Device only. Pixels, where they are read, and labels of the span <- those of images[index[0..n)]. */
void pipe_gather(struct kwm_pipe *pipe, struct pipe_span span, const struct kwm_images *images, const int32_t *index);

/* Device only. The same for all local samples of a mini-batch, unless they came ahead. */
void pipe_gather_step(struct kwm_pipe *pipe, struct pipe_span span, const struct kwm_batch *batch,
                      const int32_t *index);

/* Device only. draws <- those of the first n samples. */
void pipe_draw(struct kwm_pipe *pipe, int64_t n, const struct kwm_draw *draw);

/* The last column of a (n_max, width) <- 1. */
kwm_status pipe_append_ones(const struct kwm_pipe *pipe, int64_t width, float *a);

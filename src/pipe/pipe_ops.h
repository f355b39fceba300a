/* Private to pipe: what the models' pipes share, and the operations in which they differ. */
#pragma once

#include "kwm/device_ops.h"
#include "kwm/link.h"
#include "kwm/tensor.h"
#include "place.h"

/* What a rank of the group sends another under one tag: floats of each sample. */
enum { PIPE_LINKS_MAX = 2 * KWM_GROUP_RANKS_MAX };
struct pipe_link {
  int from, to, tag;
  int64_t floats;
};

struct pipe_ops {
  /* Messages that a rank may have under way for each chunk. */
  int (*requests)(const struct kwm_model *model, const struct kwm_stages *stages);
  /* What create holds, without the requests. */
  size_t (*bytes)(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                  const struct kwm_pipe_spec *spec);
  /* The arrays and layers on a device, samples apart. */
  size_t (*device_bytes)(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                         const struct kwm_pipe_spec *spec);
  /* Allocates the model's own struct, whose first member is a copy of `filled`; destroy releases its arrays only. */
  kwm_status (*create)(struct kwm_pipe **pipe, const struct kwm_pipe *filled);
  void (*destroy)(struct kwm_pipe *pipe);
  /* lin: chunks, bounds, batch are set; start: the first local sample's place in the batch. */
  void (*linearise)(struct kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_batch *batch, int64_t start,
                    struct kwm_lin *lin);
  /* Before the first predict at new means. */
  void (*begin)(struct kwm_pipe *pipe, const struct kwm_means *means);
  /* images: NULL on a device that has the samples. sums: added to; on a device untouched, the facts of the span take
   * their place. */
  void (*predict)(struct kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_images *images,
                  struct pipe_span span, const int32_t *index, struct kwm_innovation *sums);
  const float *(*outputs)(const struct kwm_pipe *pipe);
  /* All that passes between the group's ranks, the same list on all of them; returns how many. */
  int (*links)(const struct kwm_model *model, const struct kwm_stages *stages, const struct kwm_pipe_spec *spec,
               struct pipe_link list[PIPE_LINKS_MAX]);
};
extern const struct pipe_ops pipe_gated, pipe_dense;

struct kwm_pipe {
  const struct pipe_ops *ops;
  struct kwm_layout *layout;
  const struct kwm_model *model;
  const struct kwm_stages *stages;
  struct kwm_pipe_spec spec;
  int64_t n_max;
  int64_t block;           /* samples predicted together: one size on every layout, so that results agree bitwise */
  int me;                  /* rank in the replica's group */
  uint8_t *labels;         /* (n_max), where the activations are */
  struct pipe_place place; /* zeros without a device */
  struct kwm_dropout drop; /* of the step in hand, from its first local sample on; rate 0: nothing */
  MPI_Request *requests;
  int n_requests, requests_max;
  kwm_links *links; /* on a device with several ranks, else NULL; link k is known[k] */
  int n_known;
  struct pipe_link known[PIPE_LINKS_MAX];
};

static inline struct pipe_span pipe_chunk(const struct kwm_lin *lin, int64_t c) {
  return (struct pipe_span){lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]};
}

/* All local samples of a step. */
static inline struct pipe_span pipe_whole(const struct kwm_lin *lin) {
  return (struct pipe_span){0, lin->bounds[lin->chunks]};
}

/* Where a device leaves the facts of sample `at` and those after it. */
static inline double *pipe_facts(double *facts, int64_t at) {
  return facts == NULL ? NULL : facts + at * KWM_FACTS;
}

/* lin <- the innovation of its chunk c. */
static inline void pipe_observed(struct kwm_lin *lin, int64_t c, const struct kwm_innovation *of_chunk) {
  lin->surprisal[c] = of_chunk->surprisal;
  kwm_innovation_add(&lin->innovation, of_chunk);
}

/* x (span.n, m, w), rows ld floats apart, <- what dropout keeps of the hidden units of site `site`. */
void pipe_drop(struct kwm_pipe *pipe, struct pipe_span span, int site, int64_t m, int64_t w, int64_t ld, float *x);

/* Messages, in parts that lie apart (kwm/link.h). What was sent stays untouched, on the host until wait, on a device
   until what is asked of it after settle. wait: nobody waits for this host's messages any more; not for the device. */
void pipe_send(struct kwm_pipe *pipe, int to, int tag, int n, const struct kwm_link_part *parts);
void pipe_receive(struct kwm_pipe *pipe, int from, int tag, int n, const struct kwm_link_part *parts);
void pipe_settle(struct kwm_pipe *pipe);
void pipe_wait(struct kwm_pipe *pipe);

/* Opens the links of a pipe on a device. Collective over the layout's world. bytes: what they take of a device. */
kwm_status pipe_messages_open(struct kwm_pipe *pipe);
size_t pipe_messages_bytes(const struct pipe_ops *ops, const struct kwm_model *model, const struct kwm_stages *stages,
                           int group_rank, const struct kwm_pipe_spec *spec, int64_t replicas);

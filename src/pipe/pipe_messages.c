/* Messages of a pipe: on the host by MPI from where they lie, on a device over links (kwm/link.h), a link for
   everything that one rank sends another under one tag. A link has as many slots as a step has chunks: what a rank
   sends of one step waits for nothing but the step before to be read. Steps are short, and a device that waits for a
   message is not another's meanwhile: where ranks share one, their hosts wait, and messages go through them. */
#include "pipe_ops.h"

/* The longest message is that of the largest chunk. */
static int specs_of(int n, const struct pipe_link *list, const struct kwm_pipe_spec *spec, int64_t replicas,
                    struct kwm_link_spec specs[PIPE_LINKS_MAX]) {
  const int64_t samples = (spec->batch + spec->chunks - 1) / spec->chunks;
  for (int k = 0; k < n; k++)
    specs[k] = (struct kwm_link_spec){.from = list[k].from,
                                      .to = list[k].to,
                                      .slots = (int)(spec->chunks / replicas),
                                      .floats = samples * list[k].floats};
  return n;
}

size_t pipe_messages_bytes(const struct pipe_ops *ops, const struct kwm_model *model, const struct kwm_stages *stages,
                           int group_rank, const struct kwm_pipe_spec *spec, int64_t replicas) {
  struct pipe_link list[PIPE_LINKS_MAX];
  struct kwm_link_spec specs[PIPE_LINKS_MAX];
  const int n = specs_of(ops->links(model, stages, spec, list), list, spec, replicas, specs);
  return (size_t)kwm_links_bytes(group_rank, true, n, specs).device;
}

kwm_status pipe_messages_open(struct kwm_pipe *pipe) {
  struct kwm_link_spec specs[PIPE_LINKS_MAX];
  pipe->n_known = pipe->ops->links(pipe->model, pipe->stages, &pipe->spec, pipe->known);
  const int n = specs_of(pipe->n_known, pipe->known, &pipe->spec, pipe->layout->replicas, specs);
  const bool direct = pipe->spec.direct && !kwm_par_share_devices(pipe->layout, pipe->spec.device);
  return kwm_links_open(&pipe->links, pipe->layout, pipe->spec.device, direct, n, specs);
}

static int link_between(const struct kwm_pipe *pipe, int from, int to, int tag) {
  int k = 0;
  while (k < pipe->n_known && (pipe->known[k].from != from || pipe->known[k].to != to || pipe->known[k].tag != tag))
    k++;
  KWM_ASSERT(k < pipe->n_known);
  return k;
}

/* A chunk without samples: nothing passes. */
static bool is_empty(const struct kwm_link_part *parts) {
  return parts[0].floats == 0;
}

void pipe_send(struct kwm_pipe *pipe, int to, int tag, int n, const struct kwm_link_part *parts) {
  if (is_empty(parts)) return;
  if (pipe->spec.device != NULL) {
    kwm_link_send(pipe->links, link_between(pipe, pipe->me, to, tag), n, parts);
    return;
  }
  KWM_ASSERT(pipe->n_requests + n <= pipe->requests_max);
  for (int i = 0; i < n; i++)
    pipe->requests[pipe->n_requests++] =
        kwm_par_send(pipe->layout, to, tag, parts[i].at, parts[i].floats * (int64_t)sizeof(float));
}

void pipe_receive(struct kwm_pipe *pipe, int from, int tag, int n, const struct kwm_link_part *parts) {
  if (is_empty(parts)) return;
  if (pipe->spec.device != NULL) {
    kwm_link_receive(pipe->links, link_between(pipe, from, pipe->me, tag), n, parts);
    return;
  }
  for (int i = 0; i < n; i++)
    kwm_par_receive(pipe->layout, from, tag, parts[i].at, parts[i].floats * (int64_t)sizeof(float));
}

void pipe_settle(struct kwm_pipe *pipe) {
  kwm_links_settle(pipe->links);
}

void pipe_wait(struct kwm_pipe *pipe) {
  if (pipe->spec.device != NULL) {
    kwm_links_finish(pipe->links);
    return;
  }
  kwm_par_wait(pipe->layout, pipe->n_requests, pipe->requests);
  pipe->n_requests = 0;
}

const char *kwm_pipe_ways(const kwm_pipe *pipe) {
  return kwm_links_words(pipe->links);
}

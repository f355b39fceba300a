/* Private to the CUDA backend: calls that wait to be put on the stream, and sequences of them that come again.

   To put a product on the stream takes the host longer (cuBLAS: 7 to 17 µs) than a GPU takes to do it at the sizes of a
   small net. So what is asked for is kept until somebody needs it done or in order: cuda_stream, cuda_blas and
   cuda_solver put it on the stream first. A sequence that was seen before is captured as a CUDA graph, whose nodes are
   the same kernels with the same arguments, and from then on it is one call. Sequences are told apart by every byte of
   every call: what changes its addresses or numbers is another sequence, called one by one. */
#pragma once

#include "kwm/device.h"

struct cuda_replay;
/* graphs false: every call is done at once. NULL: no memory. */
struct cuda_replay *cuda_replay_open(bool graphs);
void cuda_replay_close(struct cuda_replay *replay); /* accepts NULL */

/* Does the call. */
typedef void cuda_play(kwm_device *d, const void *call);

/* play(d, call) in its turn; call (bytes), without padding, is copied. What play asks for itself is done at once. */
void cuda_ask(kwm_device *d, cuda_play *play, const void *call, size_t bytes);
#define CUDA_ASK(d, name, ...)                                                                                         \
  cuda_ask(d, play_##name, &(const struct name##_call){__VA_ARGS__}, sizeof(struct name##_call))

/* All that was asked for is on the stream. */
void cuda_flush(kwm_device *d);

/* Memory is given back, which may come again as another's, or be what calls find for themselves: what was captured is
   not done again. */
void cuda_replay_forget(kwm_device *d);

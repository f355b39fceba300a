/* Private to app: the mini-batches of a run, in order. */
#pragma once

#include "run.h"

struct kwm_feed {
  int32_t *order;         /* of the pass, then 0 .. batch - 1: that of a mini-batch which was made */
  struct kwm_images made; /* the stream's or, with data.shift, run->moved: borrowed */
  struct kwm_batch batch;
  int64_t pass, step; /* whose order and whose mini-batch these are, -1: nobody's */
};

kwm_status kwm_feed_init(struct kwm_feed *feed, const struct kwm_run *run);
void kwm_feed_fini(struct kwm_feed *feed);

/* The mini-batch of a step, valid until another is taken. */
struct kwm_batch kwm_feed_take(struct kwm_feed *feed, struct kwm_run *run, int64_t step);

/* After `step` was linearised: on a device, whose work goes on meanwhile, the samples of the next step go there. The
   mini-batch of `step` keeps what is on the device. Nothing happens at the end of a lap. */
void kwm_feed_ahead(struct kwm_feed *feed, struct kwm_run *run, int64_t step);

/* Private to app: the mini-batches of a run, in order. */
#pragma once

#include "run.h"

/* The order of a pass: places from `left` on are settled. pass -1: nobody's. */
struct kwm_feed_order {
  int64_t pass, left;
  int32_t *at;
};

struct kwm_feed {
  struct kwm_feed_order orders[2]; /* of even and odd passes */
  int32_t *in_order;               /* (batch) 0, 1, ...: that of a mini-batch which was made */
  struct kwm_images made;          /* the stream's or, with data.shift, run->moved: borrowed */
  struct kwm_batch batch;
  int64_t step; /* whose mini-batch this is, -1: nobody's */
};

kwm_status kwm_feed_init(struct kwm_feed *feed, const struct kwm_run *run);
void kwm_feed_fini(struct kwm_feed *feed);

/* The mini-batch of a step, valid until another is taken. */
struct kwm_batch kwm_feed_take(struct kwm_feed *feed, struct kwm_run *run, int64_t step);

/* After `step` was linearised: on a device, whose work goes on meanwhile, the samples of the next step go there, but
   for the last of a lap, and a share of the next pass's order is settled. The mini-batch of `step` keeps what is on the
   device. */
void kwm_feed_ahead(struct kwm_feed *feed, struct kwm_run *run, int64_t step);

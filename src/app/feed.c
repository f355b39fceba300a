/* Mini-batches from one data set, in the order of its passes, as they are or moved; or from a stream. */
#include "feed.h"

#include <string.h>

static int64_t order_length(const struct kwm_run *run) {
  return run->stream != NULL ? 0 : run->train.n;
}

kwm_status kwm_feed_init(struct kwm_feed *feed, const struct kwm_run *run) {
  const int64_t n = order_length(run), batch = run->config.train.batch;
  memset(feed, 0, sizeof *feed);
  feed->step = -1;
  KWM_TRY(kwm_alloc((void **)&feed->in_order, (size_t)batch * sizeof *feed->in_order, "order"));
  for (int64_t i = 0; i < batch; i++) feed->in_order[i] = (int32_t)i;
  for (int k = 0; k < 2; k++) {
    feed->orders[k].pass = -1;
    KWM_TRY(kwm_alloc((void **)&feed->orders[k].at, (size_t)n * sizeof *feed->orders[k].at, "order"));
  }
  return KWM_OK;
}

void kwm_feed_fini(struct kwm_feed *feed) {
  for (int k = 0; k < 2; k++) kwm_free(feed->orders[k].at);
  kwm_free(feed->in_order);
}

/* The order of a pass, at most `places` more of it settled. */
static const struct kwm_feed_order *settle(struct kwm_feed *feed, const struct kwm_run *run, int64_t pass,
                                           int64_t places) {
  struct kwm_feed_order *const order = &feed->orders[pass % 2];
  if (order->pass != pass) order->pass = pass, order->left = run->train.n;
  const int64_t to = order->left > places ? order->left - places : 0;
  if (order->left > 0) kwm_order_part(run->config.seed, pass, run->train.n, order->left, to, order->at);
  order->left = to;
  return order;
}

/* Of the data set as it is. */
static struct kwm_batch plain(struct kwm_feed *feed, struct kwm_run *run, int64_t step) {
  const int64_t batch = run->config.train.batch;
  const struct kwm_lap lap = kwm_run_lap(run, step);
  const int64_t at = (step - lap.first) * batch, left = run->train.n - at;
  const struct kwm_feed_order *const order = settle(feed, run, lap.lap, run->train.n);
  return (struct kwm_batch){
      .images = &run->train, .order = order->at + at, .n = left < batch ? left : batch, .step = (uint64_t)step};
}

struct kwm_batch kwm_feed_take(struct kwm_feed *feed, struct kwm_run *run, int64_t step) {
  const int32_t *const in_order = feed->in_order;
  if (feed->step == step) return feed->batch;
  feed->step = step;
  if (run->stream != NULL) {
    kwm_stream_batch(run->stream, step, &feed->made);
    feed->batch = (struct kwm_batch){&feed->made, in_order, feed->made.n, (uint64_t)step};
    return feed->batch;
  }
  feed->batch = plain(feed, run, step);
  if (run->config.data.shift > 0) {
    feed->made = run->moved;
    kwm_images_move(&feed->batch, run->config.data.shift, run->config.seed, &feed->made);
    feed->batch.images = &feed->made;
    feed->batch.order = in_order;
  }
  return feed->batch;
}

/* Many small pieces between calls to the device, not a large one that it waits for at the end of a pass. */
static void settle_next_pass(struct kwm_feed *feed, const struct kwm_run *run, const struct kwm_lap *lap) {
  if (run->stream != NULL || lap->first + lap->steps >= kwm_run_steps(run)) return;
  settle(feed, run, lap->lap + 1, (run->train.n + lap->steps - 1) / lap->steps);
}

void kwm_feed_ahead(struct kwm_feed *feed, struct kwm_run *run, int64_t step) {
  const struct kwm_lap lap = kwm_run_lap(run, step);
  if (run->device == NULL) return;
  if (step + 1 < lap.first + lap.steps) {
    const struct kwm_batch next = kwm_feed_take(feed, run, step + 1);
    kwm_pipe_ahead(run->pipe, &next);
  }
  settle_next_pass(feed, run, &lap);
}

/* Mini-batches from one data set, in the order of its passes, as they are or moved; or from a stream. */
#include "feed.h"

#include <string.h>

static int64_t order_length(const struct kwm_run *run) {
  return run->stream != NULL ? 0 : run->train.n;
}

kwm_status kwm_feed_init(struct kwm_feed *feed, const struct kwm_run *run) {
  const int64_t n = order_length(run), batch = run->config.train.batch;
  memset(feed, 0, sizeof *feed);
  feed->pass = feed->step = -1;
  KWM_TRY(kwm_alloc((void **)&feed->order, (size_t)(n + batch) * sizeof *feed->order, "order"));
  for (int64_t i = 0; i < batch; i++) feed->order[n + i] = (int32_t)i;
  return KWM_OK;
}

void kwm_feed_fini(struct kwm_feed *feed) {
  kwm_free(feed->order);
}

/* Of the data set as it is. */
static struct kwm_batch plain(struct kwm_feed *feed, struct kwm_run *run, int64_t step) {
  const int64_t batch = run->config.train.batch;
  const struct kwm_lap lap = kwm_run_lap(run, step);
  const int64_t at = (step - lap.first) * batch, left = run->train.n - at;
  if (feed->pass != lap.lap) kwm_order(run->config.seed, feed->pass = lap.lap, run->train.n, feed->order);
  return (struct kwm_batch){
      .images = &run->train, .order = feed->order + at, .n = left < batch ? left : batch, .step = (uint64_t)step};
}

struct kwm_batch kwm_feed_take(struct kwm_feed *feed, struct kwm_run *run, int64_t step) {
  const int32_t *const in_order = feed->order + order_length(run);
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

void kwm_feed_ahead(struct kwm_feed *feed, struct kwm_run *run, int64_t step) {
  const struct kwm_lap lap = kwm_run_lap(run, step);
  if (run->device == NULL || step + 1 == lap.first + lap.steps) return;
  const struct kwm_batch next = kwm_feed_take(feed, run, step + 1);
  kwm_pipe_ahead(run->pipe, &next);
}

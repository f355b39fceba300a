/* A stream of tasks over image data, for continual learning: each task shows the images in its own way, or its own
   classes, or its own data set. Any step can be made without the steps before it, with the same bytes. Memory does not
   grow with the number of tasks. Local: every rank holds the data; nothing here communicates. */
#pragma once

#include "kwm/data.h"

enum kwm_stream_kind {
  KWM_STREAM_PERMUTED, /* task 0: images as they are; every other task: pixels in a fixed random order of its own */
  KWM_STREAM_ROTATED,  /* task t: turned counter-clockwise by angle * t / (tasks - 1) degrees, 0 outside */
  KWM_STREAM_SPLIT,    /* task t: the samples of classes [t * c / tasks, (t + 1) * c / tasks), c = 10 */
  KWM_STREAM_LIST      /* task t: the data set in the t-th folder of `paths`, from the first again after the last */
};

struct kwm_stream_spec {
  enum kwm_stream_kind kind;
  int64_t tasks, passes; /* 1 to 65536 each; passes over each task's samples */
  int64_t batch;
  int64_t samples;    /* training samples of each task, drawn for each task anew, 0: all */
  int64_t validation; /* held out from the end of each training file */
  uint64_t seed;
  double angle; /* rotated: degrees between the first task and the last */
  double blend; /* 0 to 1: share of a task over which it gives way to the next, centred on the boundary; 0: abrupt */
  bool relabel; /* split: a label is the class within its task */
  const char *path;  /* folder (all but list); both strings are borrowed during the call only */
  const char *paths; /* list: folders, separated by commas or spaces */
};

typedef struct kwm_stream kwm_stream;

/* Reads the data sets and makes the buffers. KWM_ERR_USAGE for a spec out of range or more than the data can give
   (samples, held-out samples, a task without samples, images that aren't square to rotate), KWM_ERR_DATA for data that
   can't be read or whose image sizes disagree. */
kwm_status kwm_stream_create(kwm_stream **stream, const struct kwm_stream_spec *spec);
void kwm_stream_destroy(kwm_stream *stream); /* accepts NULL */

struct kwm_stream_facts {
  int64_t tasks, length; /* pixels per sample */
  int classes;           /* 10; with relabel: classes of one task */
  size_t bytes;          /* held by the stream (kwm_alloc) */
};
struct kwm_stream_facts kwm_stream_facts(const kwm_stream *stream);

/* The facts from the file headers alone (for `kwm plan`); errors as in create, but for those that only labels tell. */
kwm_status kwm_stream_probe(const struct kwm_stream_spec *spec, struct kwm_stream_facts *facts);

/* The files read, for the manifest: training images and labels, test images and labels of each data set in turn. */
int64_t kwm_stream_files(const kwm_stream *stream);
const struct kwm_file_facts *kwm_stream_file(const kwm_stream *stream, int64_t i);

/* Training samples in one pass of a task. */
int64_t kwm_stream_samples(const kwm_stream *stream, int64_t task);

/* Steps of the first `tasks` tasks together: where task `tasks` begins; with all tasks, the length of the stream. */
int64_t kwm_stream_steps(const kwm_stream *stream, int64_t tasks);

/* Where a step lies: samples [first, first + n) in the order of (task, pass). The last step of a pass may be short. */
struct kwm_stream_place {
  int64_t task, pass, first, n;
};
struct kwm_stream_place kwm_stream_place(const kwm_stream *stream, int64_t step);

/* The whole mini-batch of a step, the same on every rank. The order of samples is keyed by (seed, task, pass); task 0
   with all samples has that of kwm_order. Near a boundary (blend) a sample comes from the neighbour task with a chance
   that reaches 1/2 at the boundary: the sample at the same place of the neighbour's own order. `batch` borrows the
   stream's buffer until the next kwm_stream_batch. */
void kwm_stream_batch(kwm_stream *stream, int64_t step, struct kwm_images *batch);

/* All samples of KWM_TEST or KWM_VALID as task `task` shows them, in the order of the files; n is 0 if none are held
   out. `images` borrows a second buffer until the next kwm_stream_split. */
void kwm_stream_split(kwm_stream *stream, int64_t task, enum kwm_split split, struct kwm_images *images);

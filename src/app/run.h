/* Private to app: a run assembled from its configuration. */
#pragma once

#include "kwm/config.h"
#include "kwm/learn.h"
#include "kwm/stream.h"

struct kwm_run {
  struct kwm_config config;
  char *config_text; /* resolved, as written to the run directory and checkpoints; malloc'ed */
  struct kwm_layout layout;
  struct kwm_model model;
  struct kwm_stages stages;
  struct kwm_images train, valid, test; /* valid.n is 0 without a held-out part; with a stream none is held */
  kwm_stream *stream;                   /* NULL: one data set */
  struct kwm_images moved;              /* room for one mini-batch with data.shift */
  struct kwm_params params;
  kwm_learner learner;
  kwm_pipe *pipe;
  kwm_device *device;     /* kwm_run_open_device's; NULL: host */
  size_t libraries_bytes; /* resident before the first large allocation */
};

/* What follows a command: CONFIG [--output DIR] [--resume] [key=value ...]. */
struct kwm_arguments {
  const char *subject; /* CONFIG, DIR or CHECKPOINT; NULL if none */
  bool resume;
  int n_overrides;
  char *overrides[256]; /* borrowed from argv, but "output=DIR" made from --output: freed by fini */
  char *output_override;
};
kwm_status kwm_arguments_read(struct kwm_arguments *arguments, int argc, char **argv);
/* One more key=value word, after the user's; borrowed. */
kwm_status kwm_arguments_add(struct kwm_arguments *arguments, char *word);
void kwm_arguments_fini(struct kwm_arguments *arguments);

/* Collective: rank 0 reads the file, all ranks check the text. */
kwm_status kwm_run_configure(struct kwm_run *run, const struct kwm_arguments *arguments);
/* The same from text already on all ranks (a checkpoint's). */
kwm_status kwm_run_configure_text(struct kwm_run *run, const char *name, const char *text,
                                  const struct kwm_arguments *arguments);

/* Before kwm_run_lay_out: keeps the configuration's layout if it fits the ranks at hand, else chooses one stage with as
   many ranks as may be as replicas (powers of two), the others as owners. spread: as few replicas as may be. Local. */
void kwm_run_fit_layout(struct kwm_config *config, bool spread);

/* Model, layout and ownership; no large memory. length: pixels per sample. */
kwm_status kwm_run_lay_out(struct kwm_run *run, int64_t length, int classes);

/* Folder of the data: data.path, else the environment's KWM_DATA. KWM_ERR_USAGE if neither is given. */
kwm_status kwm_run_data_path(const struct kwm_run *run, const char **path);

/* Sample counts and image size from the files' headers; checks data.validation. Collective. */
struct kwm_probe {
  int64_t n_train, n_test, length; /* n_train: with a stream, of the first task */
  int64_t tasks;                   /* 0 without a stream */
  int classes;
  size_t stream_bytes;
};
kwm_status kwm_run_probe(const struct kwm_run *run, struct kwm_probe *probe);

/* Reads the splits wanted (train and valid, test) and cuts off the validation part. Collective. */
kwm_status kwm_run_read_data(struct kwm_run *run, bool train, bool test);

/* device.c: before build, the device that the configuration names, for all ranks or for none: without one, the host,
   and a warning. Collective. */
kwm_status kwm_run_open_device(struct kwm_run *run);
/* After build: one line to the log on where what works, nothing without a device. Local. */
void kwm_run_say_device(const struct kwm_run *run);

/* Means and learner; and the pipe. Collective. */
kwm_status kwm_run_build_learner(struct kwm_run *run);
kwm_status kwm_run_build(struct kwm_run *run);
void kwm_run_fini(struct kwm_run *run);

/* The learner's settings from the configuration; steps: of the whole run. */
struct kwm_learn_spec kwm_run_learn_spec(const struct kwm_config *config, const struct kwm_model *model, int64_t steps);

/* What the keys' words must agree on beyond their own ranges. Local. */
kwm_status kwm_run_check_words(const struct kwm_config *config);

/* The keys of a role, cov.WORD.*, and the word. */
struct kwm_config_cov *kwm_run_cov(struct kwm_config *config, enum kwm_role role);
const char *kwm_run_role_words(enum kwm_role role);

/* The kind of lowrank that a word of the configuration names. */
enum kwm_lowrank_kind kwm_run_kind(const char *word);

/* One S couples all samples of a step: no replicas. */
bool kwm_run_couples_samples(const struct kwm_config *config);

/* Steps of one epoch of n samples. */
int64_t kwm_run_epoch_steps(const struct kwm_config *config, int64_t n);

/* What the pipe works with, from the configuration. */
struct kwm_pipe_spec kwm_run_pipe_spec(const struct kwm_config *config);

/* The stream's settings; *streams: there is one. path: the data's folder, borrowed. */
struct kwm_stream_spec kwm_run_stream_spec(const struct kwm_config *config, const char *path);
bool kwm_run_streams(const struct kwm_config *config);

/* A pass over the data, or a task of the stream: where it begins and how many steps it has. */
struct kwm_lap {
  int64_t lap, first, steps;
};
struct kwm_lap kwm_run_lap(const struct kwm_run *run, int64_t step);

/* Steps of the whole run, train.max_steps considered; needs the data. */
int64_t kwm_run_steps(const struct kwm_run *run);

/* {name, version} of the libraries in use, for the manifest; returns their number. */
int kwm_run_libraries(const char *libraries[][2], int capacity);

/* Opens DIR's newest good checkpoint, or the file itself. Collective over MPI_COMM_WORLD's duplicate `comm`. */
kwm_status kwm_run_open_checkpoint(kwm_ckpt **ckpt, struct kwm_layout *layout, const char *subject);

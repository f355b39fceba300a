/* kwm spectra: the eigenvalues of a checkpoint's covariance, relative to the prior, on any layout and without data: to
   RUN/spectra/step-XXXXXXXXXX.h5, and a table of what they say. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kwm/app.h"
#include "kwm/log.h"
#include "kwm_version.h"
#include "language_run.h"
#include "language_spectra.h"
#include "run.h"
#include "spectra_group.h"
#include "world_run.h"

enum { PATH = 4096 };

struct source {
  kwm_ckpt *ckpt;
  const char *path; /* borrowed from ckpt */
  char *config;     /* as the checkpoint has it; malloc'ed */
  int64_t step, epoch_steps;
};

/* ---- where to */

/* dir (PATH) <- folder of the file at `path`. */
static void parent_of(const char *path, char *dir) {
  const char *const slash = strrchr(path, '/');
  if (slash == NULL)
    strcpy(dir, ".");
  else
    snprintf(dir, PATH, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static const char *last_word(const char *path) {
  const char *const slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

/* folder (PATH) <- spectra beside the folder `checkpoints`, else in the checkpoint's own. */
static kwm_status spectra_folder(const char *path, char *folder) {
  char dir[PATH], run[PATH], whole[PATH_MAX];
  parent_of(path, dir);
  strcpy(run, dir);
  /* From inside the folder its name shows only in the whole path. */
  const bool inside = strcmp(dir, ".") == 0 && realpath(dir, whole) != NULL && strlen(whole) < PATH;
  if (strcmp(last_word(inside ? whole : dir), "checkpoints") == 0) parent_of(inside ? whole : dir, run);
  KWM_CHECK(strlen(run) + sizeof "/spectra" <= PATH, KWM_ERR_SYSTEM,
            "spectra: wanted a path below %d bytes beside %.200s...", PATH, path);
  strcpy(folder, run);
  strcat(folder, "/spectra");
  return KWM_OK;
}

/* ---- one checkpoint */

static kwm_status read_meta(struct source *source) {
  source->path = kwm_ckpt_path(source->ckpt);
  KWM_TRY(kwm_ckpt_get_text(source->ckpt, "/meta", "config", &source->config));
  KWM_TRY(kwm_ckpt_get_i64(source->ckpt, "/meta", "step", &source->step));
  return kwm_ckpt_get_i64(source->ckpt, "/meta", "epoch_steps", &source->epoch_steps);
}

/* As little as a covariance needs that will never see a step. What it holds does not depend on these keys. */
static void make_lean(struct kwm_config *config) {
  config->train.batch = config->train.chunks = config->layout.replicas;
  config->filter.forgetting = 1;
  config->filter.process_noise = config->filter.adapt_process = config->filter.adapt_noise = 0;
  config->filter.score_test = false;
}

static kwm_status assemble(struct kwm_run *run, const struct source *source) {
  int64_t pixels = 0, classes = 0;
  KWM_CHECK(strcmp(run->config.learner, "kalman") == 0, KWM_ERR_USAGE,
            "checkpoint %s: wanted a covariance (learner kalman), found learner %s", source->path, run->config.learner);
  if (kwm_language_is(&run->config)) {
    struct kwm_layout world;
    kwm_par_world(&world);
    return kwm_layout_init(&run->layout, 1, 1, world.size);
  }
  KWM_TRY(kwm_ckpt_get_i64(source->ckpt, "/meta", "classes", &classes));
  KWM_TRY(kwm_ckpt_get_i64(source->ckpt, "/meta", "pixels", &pixels));
  kwm_run_fit_layout(&run->config, true);
  make_lean(&run->config);
  KWM_TRY(kwm_run_lay_out(run, pixels, (int)classes));
  KWM_TRY(kwm_run_build_learner(run));
  return kwm_filter_load(kwm_learner_filter(&run->learner), source->ckpt);
}

static kwm_status put_meta(const struct source *source, kwm_ckpt *file) {
  KWM_TRY(kwm_ckpt_put_i64(file, "/meta", "step", source->step));
  KWM_TRY(kwm_ckpt_put_f64(file, "/meta", "epoch", (double)source->step / (double)source->epoch_steps));
  KWM_TRY(kwm_ckpt_put_text(file, "/meta", "version", KWM_VERSION));
  KWM_TRY(kwm_ckpt_put_text(file, "/meta", "git", KWM_GIT));
  KWM_TRY(kwm_ckpt_put_text(file, "/meta", "config", source->config));
  return kwm_ckpt_put_text(file, "/meta", "source", last_word(source->path));
}

static kwm_status write_groups(const struct kwm_run *run, const struct source *source, kwm_ckpt *file) {
  if (kwm_language_is(&run->config)) return kwm_language_spectra(run, source->ckpt, file);
  const struct kwm_filter *const filter = kwm_learner_filter(&run->learner);
  kwm_status status = KWM_OK;
  for (int g = 0; g < kwm_group_spectra(filter) && status == KWM_OK; g++) {
    struct kwm_group_spectrum spectrum;
    status = kwm_group_spectrum_init(&spectrum, filter, g);
    if (status == KWM_OK) status = kwm_group_spectrum_put(&spectrum, &run->layout, file);
    if (status == KWM_OK && run->layout.rank == 0) kwm_group_spectrum_print(&spectrum);
    kwm_group_spectrum_fini(&spectrum);
  }
  return status;
}

static kwm_status write_spectra(struct kwm_run *run, const struct source *source) {
  char folder[PATH];
  kwm_ckpt *file = NULL;
  KWM_TRY(kwm_agree(run->layout.world, spectra_folder(source->path, folder)));
  KWM_TRY(kwm_ckpt_create(&file, run->layout.world, folder, source->step));
  if (run->layout.rank == 0) {
    printf("checkpoint\t%s\nstep\t%lld\n", source->path, (long long)source->step);
    kwm_group_spectrum_head();
  }
  kwm_status status = put_meta(source, file);
  if (status == KWM_OK) status = write_groups(run, source, file);
  if (status == KWM_OK) status = kwm_ckpt_commit(&file, INT64_MAX);
  kwm_ckpt_abort(&file);
  if (status == KWM_OK && run->layout.rank == 0)
    printf("spectra\t%s/step-%010lld.h5\n", folder, (long long)source->step);
  return status;
}

/* Closes the checkpoint. */
static kwm_status spectra_of(kwm_ckpt *ckpt, const struct kwm_arguments *arguments) {
  struct source source = {.ckpt = ckpt};
  struct kwm_run run;
  memset(&run, 0, sizeof run);
  kwm_status status = read_meta(&source);
  if (status == KWM_OK) status = kwm_run_configure_text(&run, source.path, source.config, arguments);
  const bool world = status == KWM_OK && kwm_world_wanted(&run.config);
  if (world) status = kwm_world_spectra(&run, ckpt);
  if (status == KWM_OK && !world) status = assemble(&run, &source);
  if (status == KWM_OK && !world) status = write_spectra(&run, &source);
  kwm_run_fini(&run);
  free(source.config);
  kwm_ckpt_close(&ckpt);
  return status;
}

/* ---- one or all */

static kwm_status spectra_of_all(const struct kwm_layout *world, const char *dir,
                                 const struct kwm_arguments *arguments) {
  int64_t *steps, n, good = 0;
  KWM_TRY(kwm_ckpt_steps(world->world, dir, &steps, &n));
  kwm_status status = KWM_OK;
  for (int64_t i = n - 1; i >= 0 && status == KWM_OK; i--) {
    kwm_ckpt *ckpt = NULL;
    kwm_log_progress(false, "spectra: step %lld, %lld of %lld checkpoints", (long long)steps[i], (long long)(n - i),
                     (long long)n);
    const kwm_status opened = kwm_ckpt_open_step(&ckpt, world->world, dir, steps[i]);
    if (opened == KWM_ERR_DATA) {
      kwm_log(KWM_LOG_WARNING, "damaged, passed over: %s", kwm_error_message());
      continue;
    }
    if (good++ > 0 && world->rank == 0) printf("\n");
    status = opened == KWM_OK ? spectra_of(ckpt, arguments) : opened;
  }
  free(steps);
  kwm_log_progress(true, "spectra: %lld of %lld checkpoints good", (long long)good, (long long)n);
  KWM_TRY(status);
  KWM_CHECK(good > 0, KWM_ERR_DATA, "checkpoint folder %s: wanted one good step-*.h5, found %lld, all damaged", dir,
            (long long)n);
  return KWM_OK;
}

static kwm_status check_words(const struct kwm_arguments *arguments) {
  KWM_CHECK(arguments->subject != NULL, KWM_ERR_USAGE, "arguments: wanted a run directory or checkpoint, found none");
  KWM_CHECK(!arguments->resume, KWM_ERR_USAGE, "arguments: wanted no --resume with spectra");
  for (int k = 0; k < arguments->n_overrides; k++)
    KWM_CHECK(strncmp(arguments->overrides[k], "layout.", strlen("layout.")) == 0, KWM_ERR_USAGE,
              "arguments: wanted layout.* keys with spectra (the others are the checkpoint's), found `%s`",
              arguments->overrides[k]);
  return KWM_OK;
}

static kwm_status spectra(const struct kwm_arguments *arguments, bool all) {
  struct kwm_layout world;
  struct stat info;
  char dir[PATH];
  kwm_ckpt *ckpt = NULL;
  kwm_par_world(&world);
  KWM_TRY(check_words(arguments));
  if (!all) {
    KWM_TRY(kwm_run_open_checkpoint(&ckpt, &world, arguments->subject));
    return spectra_of(ckpt, arguments);
  }
  const bool folder = stat(arguments->subject, &info) == 0 && S_ISDIR(info.st_mode);
  KWM_TRY(
      kwm_agree(world.world, folder ? KWM_OK
                                    : KWM_RAISE(KWM_ERR_USAGE, "arguments: wanted a run directory with --all, found %s",
                                                arguments->subject)));
  snprintf(dir, sizeof dir, "%s/checkpoints", arguments->subject);
  return spectra_of_all(&world, stat(dir, &info) == 0 ? dir : arguments->subject, arguments);
}

/* --all is this command's alone; argc <- words without it. */
static bool take_all(int *argc, char **argv) {
  int kept = 0;
  for (int k = 0; k < *argc; k++)
    if (strcmp(argv[k], "--all") != 0) argv[kept++] = argv[k];
  const bool found = kept < *argc;
  *argc = kept;
  return found;
}

kwm_status kwm_command_spectra(int argc, char **argv) {
  struct kwm_arguments arguments;
  const bool all = take_all(&argc, argv);
  kwm_status status = kwm_arguments_read(&arguments, argc, argv);
  if (status == KWM_OK) status = spectra(&arguments, all);
  kwm_arguments_fini(&arguments);
  return status;
}

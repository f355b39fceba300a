/* The run directory and the signals of a training run. */
#include "rundir.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kwm/log.h"
#include "kwm/report.h"
#include "kwm_version.h"

static volatile sig_atomic_t stop_requested;

static void on_signal(int signal) {
  (void)signal;
  stop_requested = 1;
}

void kwm_rundir_catch_signals(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

bool kwm_rundir_stop_requested(void) {
  return stop_requested != 0;
}

/* mkdir -p */
static kwm_status make_folders(const char *path) {
  char part[4096];
  KWM_CHECK(strlen(path) < sizeof part, KWM_ERR_USAGE, "output: wanted a shorter path");
  for (size_t k = 1; k <= strlen(path); k++) {
    if (path[k] != '/' && path[k] != '\0') continue;
    snprintf(part, sizeof part, "%.*s", (int)k, path);
    KWM_CHECK(mkdir(part, 0777) == 0 || errno == EEXIST, KWM_ERR_USAGE,
              "output %s: wanted a folder that can be made, found: %s", part, strerror(errno));
  }
  return KWM_OK;
}

static kwm_status open_log(const char *dir) {
  char path[4096];
  snprintf(path, sizeof path, "%s/kwm.log", dir);
  return kwm_log_open(path);
}

kwm_status kwm_rundir_check(const struct kwm_run *run, bool resume) {
  struct stat info;
  const char *const dir = run->config.output;
  KWM_CHECK(dir[0] != '\0', KWM_ERR_USAGE, "output: wanted a run directory (--output DIR or key output), found none");
  const bool exists = stat(dir, &info) == 0;
  KWM_CHECK(!exists || resume, KWM_ERR_USAGE, "output %s: wanted a new folder, found one (go on with it: --resume)",
            dir);
  KWM_CHECK(!exists || S_ISDIR(info.st_mode), KWM_ERR_USAGE, "output %s: wanted a folder, found something else", dir);
  return exists ? open_log(dir) : KWM_OK;
}

kwm_status kwm_rundir_make(const struct kwm_run *run) {
  struct stat info;
  const char *const dir = run->config.output;
  if (stat(dir, &info) != 0) {
    KWM_TRY(make_folders(dir));
    KWM_TRY(open_log(dir));
  }
  return kwm_report_text(dir, "config.yaml", run->config_text);
}

/* Rank 0. names: (ranks, KWM_HOST_BYTES). */
static kwm_status write_manifest(const struct kwm_run *run, const char *names, int n_files,
                                 const struct kwm_file_facts *files) {
  enum { LIBRARIES_MAX = 9 };
  const int ranks = run->layout.size;
  const char **hosts = calloc((size_t)ranks, sizeof *hosts);
  KWM_CHECK(hosts != NULL, KWM_ERR_SYSTEM, "memory: no room for %d host names", ranks);
  for (int r = 0; r < ranks; r++) hosts[r] = names + r * KWM_HOST_BYTES;
  const char *libraries[LIBRARIES_MAX][2];
  int n_libraries = kwm_run_libraries(libraries, LIBRARIES_MAX - 1);
  char backend[sizeof run->device->words + 16];
  snprintf(backend, sizeof backend, "%s%s%s", kwm_device_name(run->device), run->device == NULL ? "" : ": ",
           run->device == NULL ? "" : run->device->words);
  libraries[n_libraries][0] = "backend";
  libraries[n_libraries++][1] = backend;
  const struct kwm_manifest manifest = {.version = KWM_VERSION,
                                        .git = KWM_GIT,
                                        .command = "train",
                                        .ranks = ranks,
                                        .stages = run->layout.stages,
                                        .owners = run->layout.owners,
                                        .replicas = run->layout.replicas,
                                        .seed = run->config.seed,
                                        .n_hosts = ranks,
                                        .hosts = hosts,
                                        .n_files = n_files,
                                        .files = files};
  const kwm_status status =
      kwm_report_manifest(run->config.output, &manifest, n_libraries, (const char *const(*)[2])libraries);
  free(hosts);
  return status;
}

kwm_status kwm_rundir_manifest(struct kwm_run *run, int n_files, const struct kwm_file_facts *files) {
  char *names = NULL;
  kwm_status status = KWM_OK;
  if (run->layout.rank == 0) {
    names = calloc((size_t)run->layout.size, KWM_HOST_BYTES);
    if (names == NULL) status = KWM_RAISE(KWM_ERR_SYSTEM, "memory: no room for host names");
  }
  status = kwm_agree(run->layout.world, status);
  if (status == KWM_OK) {
    kwm_par_hosts(&run->layout, names);
    status = kwm_agree(run->layout.world, run->layout.rank == 0 ? write_manifest(run, names, n_files, files) : KWM_OK);
  }
  free(names);
  return status;
}

bool kwm_rundir_has_checkpoint(struct kwm_run *run) {
  char dir[4096];
  snprintf(dir, sizeof dir, "%s/checkpoints", run->config.output);
  return kwm_par_any(&run->layout, run->layout.rank == 0 && kwm_ckpt_exists(dir));
}

const char *kwm_rundir_word(kwm_status status) {
  switch (status) {
  case KWM_OK: return "done";
  case KWM_STOPPED: return "stopped";
  case KWM_ERR_NUMERIC: return "numerical stop";
  default: return "failed";
  }
}

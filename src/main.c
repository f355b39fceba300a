/* kwm: subcommands, one error line, one exit code. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "kwm/app.h"
#include "kwm/backend.h"
#include "kwm/log.h"

static const struct {
  const char *name, *words;
  kwm_status (*run)(int argc, char **argv);
} commands[] = {
    {"plan", "CONFIG [key=value ...]               memory and work per rank, before anything is allocated",
     kwm_command_plan},
    {"train", "CONFIG [--output DIR] [--resume] [key=value ...]", kwm_command_train},
    {"eval", "DIR|CHECKPOINT [key=value ...]       test and validation metrics of a run, or of every task of a stream",
     kwm_command_eval},
    {"generate", "DIR|CHECKPOINT [--prompt TEXT|--file FILE] [tokens=N] [temperature=T] [key=value ...]",
     kwm_command_generate},
    {"judge", "CONFIG [key=value ...]               distance of every structure from the exact filter",
     kwm_command_judge},
    {"spectra", "DIR|CHECKPOINT [--all] [key=value ...] eigenvalues of the covariance, to a file and a table",
     kwm_command_spectra},
    {"verify", "[--json FILE] [seed=N]               the theory's claims by numbers, one a line", kwm_command_verify},
    {"inspect",
     "DIR|CHECKPOINT | --verify ... | --diff A B   what is in there, sizes, health, checksums; all good; how far apart",
     kwm_command_inspect},
    {"status", "DIR                                  what a run is doing, how far, how fast, when it will end",
     kwm_command_status},
    {"keys", "                                     every configuration key: type, default, range, meaning",
     kwm_command_keys},
    {"version", "", kwm_command_version},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *to) {
  fputs("usage: [mpirun -n RANKS] kwm COMMAND ...\n", to);
  for (int i = 0; i < N_COMMANDS; i++) fprintf(to, "  kwm %-8s %s\n", commands[i].name, commands[i].words);
}

static kwm_status run(int argc, char **argv, bool speaks) {
  const char *const name = argc > 1 ? argv[1] : "help";
  if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) {
    if (speaks) print_usage(argc > 1 ? stdout : stderr);
    return argc > 1 ? KWM_OK : KWM_RAISE(KWM_ERR_USAGE, "wanted a command, found none");
  }
  for (int i = 0; i < N_COMMANDS; i++)
    if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 2, argv + 2);
  return KWM_RAISE(KWM_ERR_USAGE,
                   "wanted a command (plan, train, eval, generate, judge, spectra, verify, inspect, status, keys, "
                   "version), found `%s`",
                   name);
}

int main(int argc, char **argv) {
  kwm_backend_kernels(argv);
  int threads = MPI_THREAD_SINGLE, rank = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &threads); /* for checkpoints in the background */
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  kwm_backend_start();
  kwm_log_speaks(rank == 0);
  const kwm_status status = run(argc, argv, rank == 0);
  if (status != KWM_OK && status != KWM_STOPPED && rank == 0)
    fprintf(stderr, "kwm: error: %s (exit %d: %s)\n", kwm_error_message(), (int)status, kwm_status_words(status));
  kwm_log_close();
  MPI_Finalize();
  return (int)status;
}

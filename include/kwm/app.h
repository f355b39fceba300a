/* The program's commands. Each is collective over MPI_COMM_WORLD, prints results on rank 0's standard output and
   returns the status whose value is the exit code, the same on all ranks; kwm_error_message() then holds the one error
   line. */
#pragma once

#include "kwm/base.h"

/* argv: the words after the command's name. */
kwm_status kwm_command_plan(int argc, char **argv);
kwm_status kwm_command_train(int argc, char **argv);
kwm_status kwm_command_eval(int argc, char **argv);
kwm_status kwm_command_generate(int argc, char **argv);
kwm_status kwm_command_judge(int argc, char **argv);
kwm_status kwm_command_spectra(int argc, char **argv); /* also writes RUN/spectra */
kwm_status kwm_command_verify(int argc, char **argv);
kwm_status kwm_command_inspect(int argc, char **argv);
kwm_status kwm_command_status(int argc, char **argv); /* one rank */
kwm_status kwm_command_keys(int argc, char **argv);   /* prints the configuration's schema */
kwm_status kwm_command_version(int argc, char **argv);

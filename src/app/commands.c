/* The commands that only print. */
#include <stdio.h>

#include "kwm/app.h"
#include "kwm_version.h"
#include "run.h"

kwm_status kwm_command_keys(int argc, char **argv) {
  (void)argv;
  struct kwm_layout world;
  kwm_par_world(&world);
  KWM_CHECK(argc == 0, KWM_ERR_USAGE, "arguments: wanted none after keys, found %d", argc);
  if (world.rank == 0) kwm_config_help();
  return KWM_OK;
}

kwm_status kwm_command_version(int argc, char **argv) {
  enum { LIBRARIES_MAX = 8 };
  (void)argv;
  struct kwm_layout world;
  kwm_par_world(&world);
  KWM_CHECK(argc == 0, KWM_ERR_USAGE, "arguments: wanted none after version, found %d", argc);
  const char *libraries[LIBRARIES_MAX][2];
  const int n = kwm_run_libraries(libraries, LIBRARIES_MAX);
  if (world.rank == 0) printf("kwm\t%s\ncommit\t%s\n", KWM_VERSION, KWM_GIT);
  for (int i = 0; i < n && world.rank == 0; i++) printf("%s\t%s\n", libraries[i][0], libraries[i][1]);
  return KWM_OK;
}

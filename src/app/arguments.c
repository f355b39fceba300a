/* Command-line words: one subject, flags, key=value overrides. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

kwm_status kwm_arguments_add(struct kwm_arguments *arguments, char *word) {
  const int capacity = sizeof arguments->overrides / sizeof arguments->overrides[0];
  KWM_CHECK(arguments->n_overrides < capacity, KWM_ERR_USAGE, "arguments: wanted at most %d key=value words", capacity);
  arguments->overrides[arguments->n_overrides++] = word;
  return KWM_OK;
}

static kwm_status add_output(struct kwm_arguments *arguments, const char *dir) {
  const size_t size = strlen(dir) + sizeof "output=";
  free(arguments->output_override);
  arguments->output_override = malloc(size);
  KWM_CHECK(arguments->output_override != NULL, KWM_ERR_SYSTEM, "memory: wanted %zu bytes for an argument", size);
  snprintf(arguments->output_override, size, "output=%s", dir);
  return kwm_arguments_add(arguments, arguments->output_override);
}

kwm_status kwm_arguments_read(struct kwm_arguments *arguments, int argc, char **argv) {
  memset(arguments, 0, sizeof *arguments);
  for (int i = 0; i < argc; i++) {
    if (strcmp(argv[i], "--resume") == 0) {
      arguments->resume = true;
    } else if (strcmp(argv[i], "--output") == 0) {
      KWM_CHECK(i + 1 < argc, KWM_ERR_USAGE, "arguments: wanted a folder after --output, found the end");
      KWM_CHECK(arguments->output_override == NULL, KWM_ERR_USAGE, "arguments: wanted one --output, found two");
      KWM_TRY(add_output(arguments, argv[++i]));
    } else if (strncmp(argv[i], "--", 2) == 0) {
      return KWM_RAISE(KWM_ERR_USAGE, "arguments: wanted --output, --resume or key=value, found `%s`", argv[i]);
    } else if (arguments->subject == NULL && strchr(argv[i], '=') == NULL) {
      arguments->subject = argv[i];
    } else {
      KWM_TRY(kwm_arguments_add(arguments, argv[i]));
    }
  }
  return KWM_OK;
}

void kwm_arguments_fini(struct kwm_arguments *arguments) {
  free(arguments->output_override);
  arguments->output_override = NULL;
}

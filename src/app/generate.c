/* kwm generate: the command line, the prompt, the checkpoint. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/app.h"
#include "language_commands.h"
#include "language_run.h"

enum { PROMPT_MAX = 1 << 26, WORDS_MAX = 256, WORD_BYTES = 64 };

/* generate's own words: tokens= and temperature= stand for the keys of these names. */
struct request {
  struct kwm_arguments arguments;
  const char *prompt, *file;
  char *words[WORDS_MAX];
  char keys[2][WORD_BYTES];
};

static kwm_status take_key(struct request *request, int at, const char *name, char *word, char **taken) {
  *taken = word;
  if (strncmp(word, name, strlen(name)) != 0) return KWM_OK;
  const int written = snprintf(request->keys[at], WORD_BYTES, "generate.%s", word);
  KWM_CHECK(written < WORD_BYTES, KWM_ERR_USAGE, "arguments: wanted %sNUMBER, found `%s`", name, word);
  *taken = request->keys[at];
  return KWM_OK;
}

static kwm_status read_request(struct request *request, int argc, char **argv) {
  int n = 0;
  memset(request, 0, sizeof *request);
  for (int i = 0; i < argc; i++) {
    const bool prompt = strcmp(argv[i], "--prompt") == 0;
    if (prompt || strcmp(argv[i], "--file") == 0) {
      KWM_CHECK(i + 1 < argc, KWM_ERR_USAGE, "arguments: wanted a %s after %s, found the end", prompt ? "text" : "file",
                argv[i]);
      KWM_CHECK(request->prompt == NULL && request->file == NULL, KWM_ERR_USAGE,
                "arguments: wanted one prompt, by --prompt or --file, found two");
      *(prompt ? &request->prompt : &request->file) = argv[++i];
      continue;
    }
    KWM_CHECK(n < WORDS_MAX, KWM_ERR_USAGE, "arguments: wanted at most %d words", WORDS_MAX);
    KWM_TRY(take_key(request, 0, "tokens=", argv[i], &request->words[n]));
    KWM_TRY(take_key(request, 1, "temperature=", request->words[n], &request->words[n]));
    n++;
  }
  return kwm_arguments_read(&request->arguments, n, request->words);
}

/* *text (malloc'ed) <- the prompt. */
static kwm_status read_prompt(const struct request *request, char **text, size_t *bytes) {
  if (request->file == NULL) {
    *text = strdup(request->prompt != NULL ? request->prompt : "");
    KWM_CHECK(*text != NULL, KWM_ERR_SYSTEM, "memory: no room for a prompt");
    *bytes = strlen(*text);
    return KWM_OK;
  }
  FILE *const file = fopen(request->file, "rb");
  KWM_CHECK(file != NULL, KWM_ERR_DATA, "prompt: wanted a readable file %s, found: %s", request->file, strerror(errno));
  *text = malloc((size_t)PROMPT_MAX + 1);
  *bytes = *text != NULL ? fread(*text, 1, (size_t)PROMPT_MAX + 1, file) : 0;
  const bool bad = ferror(file) != 0;
  fclose(file);
  KWM_CHECK(*text != NULL, KWM_ERR_SYSTEM, "memory: no room for a prompt");
  KWM_CHECK(!bad && *bytes <= PROMPT_MAX, KWM_ERR_DATA, "prompt: wanted a text of at most %d bytes in %s, found %s",
            PROMPT_MAX, request->file, bad ? "no text" : "more");
  return KWM_OK;
}

static kwm_status generate(struct kwm_run *run, const struct request *request, kwm_ckpt **ckpt, const char *prompt,
                           size_t bytes) {
  struct kwm_layout world;
  char *text = NULL;
  const char *const subject = request->arguments.subject;
  KWM_CHECK(subject != NULL, KWM_ERR_USAGE, "arguments: wanted a run directory or checkpoint, found none");
  KWM_CHECK(!request->arguments.resume, KWM_ERR_USAGE, "arguments: wanted no --resume with generate");
  kwm_par_world(&world);
  KWM_TRY(kwm_run_open_checkpoint(ckpt, &world, subject));
  KWM_TRY(kwm_ckpt_get_text(*ckpt, "/meta", "config", &text));
  const kwm_status status = kwm_run_configure_text(run, subject, text, &request->arguments);
  free(text);
  KWM_TRY(status);
  KWM_CHECK(kwm_language_is(&run->config), KWM_ERR_USAGE,
            "generate: wanted a language model (model.kind transformer), found %s in %s", run->config.model.kind,
            subject);
  return kwm_language_generate(run, *ckpt, prompt, bytes);
}

kwm_status kwm_command_generate(int argc, char **argv) {
  struct request request;
  struct kwm_run run;
  kwm_ckpt *ckpt = NULL;
  char *prompt = NULL;
  size_t bytes = 0;
  memset(&run, 0, sizeof run);
  kwm_status status = read_request(&request, argc, argv);
  if (status == KWM_OK) status = kwm_agree(MPI_COMM_WORLD, read_prompt(&request, &prompt, &bytes));
  if (status == KWM_OK) status = generate(&run, &request, &ckpt, prompt, bytes);
  free(prompt);
  kwm_ckpt_close(&ckpt);
  kwm_run_fini(&run);
  kwm_arguments_fini(&request.arguments);
  return status;
}

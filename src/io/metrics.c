/* metrics.tsv: one write per row, so that a row is there or (at the very end) broken off; opening drops a broken one.
 */
#include "kwm/report.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

enum { NUMBER = 32 };

struct kwm_metrics {
  int file, n_columns;
  char *line; /* room for one row */
  char path[KWM_FILE_PATH];
};

/* The whole file, ended by '\0'; *text is malloc'ed, NULL if there is no such file. */
static kwm_status read_whole(const char *path, char **text) {
  *text = NULL;
  FILE *file = fopen(path, "r");
  if (file == NULL && errno == ENOENT) return KWM_OK;
  KWM_CHECK(file != NULL, KWM_ERR_DATA, "metrics %s: wanted to read it, found: %s", path, strerror(errno));
  struct stat about;
  size_t n = 0;
  if (fstat(fileno(file), &about) == 0) *text = calloc((size_t)about.st_size + 1, 1);
  if (*text != NULL) n = fread(*text, 1, (size_t)about.st_size, file);
  const bool whole = *text != NULL && n == (size_t)about.st_size;
  fclose(file);
  if (whole) return KWM_OK;
  free(*text);
  *text = NULL;
  return KWM_RAISE(KWM_ERR_DATA, "metrics %s: wanted all its bytes, found %zu", path, n);
}

static char *make_header(int n_columns, const char *const *columns) {
  size_t bytes = 1;
  for (int c = 0; c < n_columns; c++) bytes += strlen(columns[c]) + 1;
  char *header = malloc(bytes), *end = header;
  KWM_ASSERT(header != NULL);
  for (int c = 0; c < n_columns; c++) {
    end = stpcpy(end, columns[c]);
    *end++ = c + 1 < n_columns ? '\t' : '\n';
  }
  *end = '\0';
  return header;
}

static int count_columns(const char *line, const char *end) {
  int n = 1;
  for (; line < end; line++) n += *line == '\t';
  return n;
}

/* Moves the rows that stay to the text's front, behind the header; `rows` points behind the header. */
static kwm_status keep_rows(const char *path, char *rows, int n_columns, int64_t keep_until) {
  char *kept = rows;
  int number = 2;
  for (char *line = rows, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, number++) {
    char *rest;
    const int64_t step = strtoll(line, &rest, 10);
    const bool sound =
        isdigit((unsigned char)*line) && (*rest == '\t' || *rest == '\n') && count_columns(line, end) == n_columns;
    KWM_CHECK(sound, KWM_ERR_DATA, "metrics %s:%d: wanted a step and %d columns, found another line", path, number,
              n_columns);
    if (step > keep_until) continue;
    memmove(kept, line, (size_t)(end + 1 - line));
    kept += end + 1 - line;
  }
  *kept = '\0';
  return KWM_OK;
}

/* Makes the file anew: header and the rows that stay. */
static kwm_status rewrite(const char *dir, const char *name, const char *path, int n_columns,
                          const char *const *columns, int64_t keep_until) {
  char *text;
  KWM_TRY(read_whole(path, &text));
  char *header = make_header(n_columns, columns);
  const size_t n = strlen(header);
  kwm_status status = KWM_OK;
  if (text != NULL && strncmp(text, header, n) != 0)
    status = KWM_RAISE(KWM_ERR_DATA, "metrics %s:1: wanted the columns of this version, found %.*s...", path,
                       (int)strcspn(text, "\t\n"), text);
  if (status == KWM_OK && text != NULL) status = keep_rows(path, text + n, n_columns, keep_until);
  const char *content = text != NULL ? text : header;
  if (status == KWM_OK) status = kwm_file_replace(dir, name, content, strlen(content));
  free(header);
  free(text);
  return status;
}

kwm_status kwm_metrics_open(kwm_metrics **metrics, const char *dir, const char *name, int n_columns,
                            const char *const *columns, int64_t keep_until) {
  char path[KWM_FILE_PATH];
  *metrics = NULL;
  KWM_TRY(kwm_file_path(path, dir, name, ""));
  KWM_TRY(rewrite(dir, name, path, n_columns, columns, keep_until));
  const int file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
  KWM_CHECK(file >= 0, KWM_ERR_SYSTEM, "metrics %s: wanted to append, found: %s", path, strerror(errno));
  kwm_metrics *made = calloc(1, sizeof *made);
  KWM_ASSERT(made != NULL);
  made->file = file;
  made->n_columns = n_columns;
  made->line = malloc((size_t)n_columns * NUMBER);
  KWM_ASSERT(made->line != NULL);
  strcpy(made->path, path);
  *metrics = made;
  return KWM_OK;
}

kwm_status kwm_metrics_row(kwm_metrics *metrics, const double *values) {
  char *end = metrics->line;
  end += snprintf(end, NUMBER, "%" PRId64, (int64_t)values[0]);
  for (int c = 1; c < metrics->n_columns; c++)
    end += isnan(values[c]) ? sprintf(end, "\tnan") : snprintf(end, NUMBER, "\t%.9g", values[c]);
  *end++ = '\n';
  return kwm_file_write(metrics->file, metrics->path, metrics->line, (size_t)(end - metrics->line));
}

void kwm_metrics_close(kwm_metrics **metrics) {
  if (*metrics == NULL) return;
  close((*metrics)->file);
  free((*metrics)->line);
  free(*metrics);
  *metrics = NULL;
}

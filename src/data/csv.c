/* CSV: one header line of names, then rows of as many numbers, by commas. */
#include "csv.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <zlib.h>

struct reader {
  const char *path;
  char *text, *at; /* whole file; the next line */
  int64_t line;
};

static kwm_status read_whole(struct reader *reader, struct kwm_file_facts *facts) {
  struct stat info;
  FILE *const file =
      stat(reader->path, &info) == 0 && S_ISDIR(info.st_mode) ? (errno = EISDIR, NULL) : fopen(reader->path, "rb");
  KWM_CHECK(file != NULL, KWM_ERR_DATA, "data %s: wanted a readable file, found: %s", reader->path, strerror(errno));
  kwm_status status = kwm_alloc((void **)&reader->text, (size_t)info.st_size + 1, "series");
  const size_t got = status == KWM_OK ? fread(reader->text, 1, (size_t)info.st_size, file) : 0;
  fclose(file);
  KWM_TRY(status);
  KWM_CHECK(got == (size_t)info.st_size && memchr(reader->text, '\0', got) == NULL, KWM_ERR_DATA,
            "data %s: wanted %lld bytes of text, found others", reader->path, (long long)info.st_size);
  const char *const slash = strrchr(reader->path, '/');
  snprintf(facts->name, sizeof facts->name, "%.63s", slash == NULL ? reader->path : slash + 1);
  facts->bytes = (int64_t)got;
  facts->crc32 = (uint32_t)crc32(0, (const Bytef *)reader->text, (uInt)got);
  reader->at = reader->text;
  return KWM_OK;
}

/* The next line that is not blank, ended by '\0'; NULL at the end. */
static char *next_line(struct reader *reader) {
  while (*reader->at != '\0') {
    char *const line = reader->at;
    const size_t length = strcspn(line, "\r\n");
    const size_t ends = line[length] == '\r' && line[length + 1] == '\n' ? 2 : line[length] != '\0';
    reader->at = line + length + ends;
    line[length] = '\0';
    reader->line++;
    if (line[strspn(line, " \t")] != '\0') return line;
  }
  return NULL;
}

/* The field at *at without blanks and quotes; *at moves behind it, to NULL behind the last. */
static char *next_field(char **at) {
  char *field = *at, *const comma = strchr(field, ',');
  *at = comma == NULL ? NULL : comma + 1;
  if (comma != NULL) *comma = '\0';
  field += strspn(field, " \t\"");
  char *end = field + strlen(field);
  while (end > field && strchr(" \t\"", end[-1]) != NULL) *--end = '\0';
  return field;
}

static kwm_status read_header(struct reader *reader, struct kwm_table *table) {
  char *at = next_line(reader);
  KWM_CHECK(at != NULL, KWM_ERR_DATA, "data %s: wanted a header line, found an empty file", reader->path);
  KWM_TRY(kwm_alloc((void **)&table->names, KWM_SERIES_COLUMNS * sizeof *table->names, "names"));
  while (at != NULL) {
    const char *const name = next_field(&at);
    KWM_CHECK(table->columns < KWM_SERIES_COLUMNS, KWM_ERR_DATA, "data %s: wanted at most %d columns", reader->path,
              KWM_SERIES_COLUMNS);
    KWM_CHECK(*name != '\0' && strlen(name) < KWM_SERIES_NAME, KWM_ERR_DATA,
              "data %s:%lld: column %d: wanted a name of 1 to %d letters, found `%.60s`", reader->path,
              (long long)reader->line, table->columns + 1, KWM_SERIES_NAME - 1, name);
    char *end;
    strtod(name, &end);
    KWM_CHECK(*end != '\0', KWM_ERR_DATA, "data %s:%lld: wanted a header line of names, found the number %s",
              reader->path, (long long)reader->line, name);
    strcpy(table->names[table->columns++], name);
  }
  return KWM_OK;
}

static kwm_status read_number(const struct reader *reader, const char *name, const char *field, double *value) {
  char *end;
  *value = NAN;
  if (*field == '\0' || strcasecmp(field, "nan") == 0 || strcmp(field, "NA") == 0) return KWM_OK;
  *value = strtod(field, &end);
  KWM_CHECK(*end == '\0' && isfinite(*value), KWM_ERR_DATA,
            "data %s:%lld: column %s: wanted a number, nothing or nan, found `%.60s`", reader->path,
            (long long)reader->line, name, field);
  return KWM_OK;
}

static kwm_status read_rows(struct reader *reader, struct kwm_table *table) {
  int64_t lines = 1;
  for (const char *at = reader->at; *at != '\0'; at++) lines += *at == '\n' || *at == '\r';
  KWM_TRY(kwm_alloc((void **)&table->values, (size_t)(lines * table->columns) * sizeof(double), "series"));
  for (char *at; (at = next_line(reader)) != NULL; table->rows++) {
    int column = 0;
    for (; at != NULL && column < table->columns; column++) {
      double *const value = table->values + table->rows * table->columns + column;
      KWM_TRY(read_number(reader, table->names[column], next_field(&at), value));
    }
    KWM_CHECK(at == NULL && column == table->columns, KWM_ERR_DATA,
              "data %s:%lld: wanted %d numbers as in the header, found %s", reader->path, (long long)reader->line,
              table->columns, at == NULL ? "fewer" : "more");
  }
  KWM_CHECK(table->rows > 0, KWM_ERR_DATA, "data %s: wanted rows behind the header, found none", reader->path);
  return KWM_OK;
}

kwm_status kwm_csv_read(struct kwm_table *table, const char *path) {
  struct reader reader = {.path = path};
  memset(table, 0, sizeof *table);
  kwm_status status = read_whole(&reader, &table->file);
  if (status == KWM_OK) status = read_header(&reader, table);
  if (status == KWM_OK) status = read_rows(&reader, table);
  kwm_free(reader.text);
  return status;
}

void kwm_table_fini(struct kwm_table *table) {
  kwm_free(table->names);
  kwm_free(table->values);
  memset(table, 0, sizeof *table);
}

/* summary.json and manifest.json, through jansson; fields keep their order. */
#include "kwm/report.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "file.h"

/* Takes `object` over. 15 digits: a number prints as people wrote it. */
static kwm_status write_json(const char *dir, const char *name, json_t *object) {
  char *text = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
  json_decref(object);
  KWM_CHECK(text != NULL, KWM_ERR_SYSTEM, "report %s/%s: wanted JSON, jansson made none", dir, name);
  const size_t n = strlen(text);
  text[n] = '\n'; /* in the place of the final '\0', which is not written */
  const kwm_status status = kwm_file_replace(dir, name, text, n + 1);
  free(text);
  return status;
}

/* What a host or a command line says may not be UTF-8, as JSON wants: then it is kept byte by byte, as Latin-1. */
static json_t *any_text(const char *text) {
  json_t *value = json_string(text);
  if (value != NULL) return value;
  char *utf8 = malloc(2 * strlen(text) + 1), *end = utf8;
  KWM_ASSERT(utf8 != NULL);
  for (; *text != '\0'; text++) {
    const unsigned char byte = (unsigned char)*text;
    if (byte >= 0x80) *end++ = (char)(0xc0 | byte >> 6);
    *end++ = (char)(byte < 0x80 ? byte : 0x80 | (byte & 0x3f));
  }
  *end = '\0';
  value = json_string(utf8);
  free(utf8);
  return value;
}

static json_t *field_value(const struct kwm_field *field) {
  switch (field->kind) {
  case KWM_FIELD_NUMBER: return isfinite(field->number) ? json_real(field->number) : json_null();
  case KWM_FIELD_INTEGER: return json_integer(field->integer);
  case KWM_FIELD_FLAG: return json_boolean(field->integer != 0);
  case KWM_FIELD_TEXT: break;
  }
  return any_text(field->text);
}

static json_t *fields_object(int n_fields, const struct kwm_field *fields) {
  json_t *object = json_object();
  for (int i = 0; i < n_fields; i++) json_object_set_new(object, fields[i].name, field_value(&fields[i]));
  return object;
}

kwm_status kwm_report_fields(const char *dir, const char *name, int n_fields, const struct kwm_field *fields) {
  return write_json(dir, name, fields_object(n_fields, fields));
}

void kwm_report_status(const char *dir, char *status, size_t bytes) {
  char path[KWM_FILE_PATH];
  json_t *const object = kwm_file_path(path, dir, "summary.json", "") == KWM_OK ? json_load_file(path, 0, NULL) : NULL;
  const char *const found = json_string_value(json_object_get(object, "status"));
  snprintf(status, bytes, "%s", found == NULL ? "" : found);
  json_decref(object);
}

kwm_status kwm_report_table(const char *dir, const char *name, int n_rows, int n_fields,
                            const struct kwm_field *fields) {
  json_t *array = json_array();
  for (int row = 0; row < n_rows; row++)
    json_array_append_new(array, fields_object(n_fields, fields + (int64_t)row * n_fields));
  return write_json(dir, name, array);
}

static json_t *date_now(void) {
  char text[32];
  struct tm parts;
  const time_t now = time(NULL);
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
  return json_string(text);
}

static json_t *layout_object(const struct kwm_manifest *manifest) {
  json_t *object = json_object();
  json_object_set_new(object, "stages", json_integer(manifest->stages));
  json_object_set_new(object, "owners", json_integer(manifest->owners));
  json_object_set_new(object, "replicas", json_integer(manifest->replicas));
  return object;
}

static json_t *libraries_object(int n, const char *const (*libraries)[2]) {
  json_t *object = json_object();
  for (int i = 0; i < n; i++) json_object_set_new(object, libraries[i][0], any_text(libraries[i][1]));
  return object;
}

static json_t *hosts_array(const struct kwm_manifest *manifest) {
  json_t *array = json_array();
  for (int i = 0; i < manifest->n_hosts; i++) json_array_append_new(array, any_text(manifest->hosts[i]));
  return array;
}

static json_t *files_array(const struct kwm_manifest *manifest) {
  json_t *array = json_array();
  for (int i = 0; i < manifest->n_files; i++) {
    const struct kwm_file_facts *file = &manifest->files[i];
    char crc32[16];
    snprintf(crc32, sizeof crc32, "%08x", (unsigned)file->crc32);
    json_t *object = json_object();
    json_object_set_new(object, "name", any_text(file->name));
    json_object_set_new(object, "bytes", json_integer(file->bytes));
    json_object_set_new(object, "crc32", json_string(crc32));
    json_array_append_new(array, object);
  }
  return array;
}

/* JSON integers end at 2^63 - 1: a larger seed is kept as text. */
static json_t *seed_value(uint64_t seed) {
  char text[32];
  if (seed <= INT64_MAX) return json_integer((json_int_t)seed);
  snprintf(text, sizeof text, "%" PRIu64, seed);
  return json_string(text);
}

kwm_status kwm_report_manifest(const char *dir, const struct kwm_manifest *manifest, int n_libraries,
                               const char *const (*libraries)[2]) {
  json_t *object = json_object();
  json_object_set_new(object, "version", any_text(manifest->version));
  json_object_set_new(object, "git", any_text(manifest->git));
  json_object_set_new(object, "command", any_text(manifest->command));
  json_object_set_new(object, "date", date_now());
  json_object_set_new(object, "seed", seed_value(manifest->seed));
  json_object_set_new(object, "ranks", json_integer(manifest->ranks));
  json_object_set_new(object, "layout", layout_object(manifest));
  json_object_set_new(object, "hosts", hosts_array(manifest));
  json_object_set_new(object, "compiler", json_string(__VERSION__));
  json_object_set_new(object, "libraries", libraries_object(n_libraries, libraries));
  json_object_set_new(object, "data", files_array(manifest));
  return write_json(dir, "manifest.json", object);
}

kwm_status kwm_report_text(const char *dir, const char *name, const char *text) {
  return kwm_file_replace(dir, name, text, strlen(text));
}

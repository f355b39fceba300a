/* A configuration from YAML and key=value arguments. libcyaml reads the file into one text per key, by a schema built
   from the table in config_schema.c; values from file and arguments then pass through the same reader.

   Line numbers: a problem is on the first line from which on every longer beginning of the text shows it. libcyaml's
   own numbers point at the value before an unknown key, and it has none for syntax errors. */
#include "kwm/config.h"

#include <cyaml/cyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_schema.h"

enum { FROM_DEFAULT = -2, FROM_FILE = -1 }; /* or the number of an override */
enum { GROUPS_MAX = 48, NAME_BYTES = 24, NO_KEY = KWM_MAX_KEYS };
enum { TEXT_BYTES_MAX = 65536 }; /* bounds the search for a line */

/* Where the values come from; from[i] is the source of key i. */
struct source {
  const char *name, *text;
  char *const *overrides;
  int from[KWM_MAX_KEYS];
};

/* The texts that libcyaml fills in; NULL if a key is not given. */
struct texts {
  const char *of[KWM_MAX_KEYS];
};

struct schema {
  cyaml_schema_value_t top;
  cyaml_schema_field_t fields[4 * KWM_MAX_KEYS]; /* pool; a key takes one field per level, a group one end mark */
  char names[GROUPS_MAX][NAME_BYTES];
  size_t n_fields, n_names;
};

/* What libcyaml objects to: its first message, and the path of the field it was in. */
struct problem {
  cyaml_err_t error;
  char message[160], path[80];
};

/* A key's field; a refused one wants more text than there can be, which makes libcyaml stop there. */
static cyaml_schema_field_t key_field(size_t key, const char *name, bool refused) {
  const unsigned quotes = kwm_keys[key].kind == KWM_KIND_TEXT ? CYAML_FLAG_SCALAR_QUOTE_DOUBLE : 0;
  const cyaml_schema_field_t field = {
      .key = name,
      .data_offset = (uint32_t)(offsetof(struct texts, of) + key * sizeof(char *)),
      .value = {.type = CYAML_STRING,
                .flags = (cyaml_flag_e)(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL | quotes),
                .data_size = sizeof(char),
                .string = {.min = refused ? UINT32_MAX : 0, .max = UINT32_MAX}}};
  return field;
}

static const char *group_name(struct schema *schema, const char *name, size_t length) {
  KWM_ASSERT(schema->n_names < GROUPS_MAX && length < NAME_BYTES);
  char *copy = schema->names[schema->n_names++];
  memcpy(copy, name, length);
  return copy;
}

/* The fields of keys [first, end), which share their path's first `skip` letters. Groups lie at offset 0 of their
   parent: every key has its place in struct texts. */
static const cyaml_schema_field_t *group_fields(struct schema *schema, size_t first, size_t end, size_t skip,
                                                size_t refused) {
  cyaml_schema_field_t *const fields = schema->fields + schema->n_fields;
  cyaml_schema_field_t *field = fields;
  schema->n_fields += end - first + 1;
  KWM_ASSERT(schema->n_fields <= sizeof schema->fields / sizeof schema->fields[0]);
  for (size_t i = first, next = first; i < end; i = next, field++) {
    const char *name = kwm_keys[i].path + skip;
    const size_t length = strcspn(name, ".");
    next = i + 1;
    if (name[length] == '\0') {
      *field = key_field(i, name, i == refused);
      continue;
    }
    while (next < end && strncmp(kwm_keys[next].path + skip, name, length + 1) == 0) next++;
    field->key = group_name(schema, name, length);
    field->value.type = CYAML_MAPPING;
    field->value.flags = CYAML_FLAG_OPTIONAL;
    field->value.data_size = sizeof(struct texts);
    field->value.mapping.fields = group_fields(schema, i, next, skip + length + 1, refused);
  }
  return fields;
}

static void schema_init(struct schema *schema, size_t refused) {
  memset(schema, 0, sizeof *schema);
  schema->top.type = CYAML_MAPPING;
  schema->top.flags = CYAML_FLAG_POINTER_NULL;
  schema->top.data_size = sizeof(struct texts);
  schema->top.mapping.fields = group_fields(schema, 0, kwm_n_keys, 0, refused);
}

/* libcyaml's log: first the message, then the fields it was in, the innermost first. */
static void note(cyaml_log_t level, void *context, const char *format, va_list arguments) {
  (void)level;
  struct problem *problem = context;
  static const char field_mark[] = "  in mapping field '";
  char line[sizeof problem->message];
  const int length = vsnprintf(line, sizeof line, format, arguments);
  if (length > 0 && length < (int)sizeof line && line[length - 1] == '\n') line[length - 1] = '\0';
  if (strncmp(line, field_mark, strlen(field_mark)) == 0) {
    const char *name = line + strlen(field_mark);
    char path[sizeof line + sizeof problem->path];
    snprintf(path, sizeof path, "%.*s%s%s", (int)strcspn(name, "'"), name, problem->path[0] == '\0' ? "" : ".",
             problem->path);
    kwm_clip(problem->path, sizeof problem->path, path);
  } else if (problem->message[0] == '\0' && strcmp(line, "Load: Backtrace:") != 0) {
    kwm_clip(problem->message, sizeof problem->message, line);
  }
}

static cyaml_config_t settings(struct problem *problem) {
  const cyaml_config_t config = {.log_fn = note,
                                 .log_ctx = problem,
                                 .mem_fn = cyaml_mem,
                                 .log_level = CYAML_LOG_WARNING,
                                 .flags = CYAML_CFG_STYLE_BLOCK | CYAML_CFG_NO_ALIAS};
  return config;
}

/* NULL if there is a problem or nothing in the text. */
static struct texts *load_texts(const struct schema *schema, const char *text, size_t length, struct problem *problem) {
  memset(problem, 0, sizeof *problem);
  const cyaml_config_t config = settings(problem);
  cyaml_data_t *texts = NULL;
  problem->error = cyaml_load_data((const uint8_t *)text, length, &config, &schema->top, &texts, NULL);
  return texts;
}

static void free_texts(const struct schema *schema, struct texts *texts) {
  struct problem ignored = {.error = CYAML_OK};
  const cyaml_config_t config = settings(&ignored);
  cyaml_free(&config, &schema->top, texts, 0);
}

static bool same_problem(const struct problem *a, const struct problem *b) {
  return a->error == b->error && strcmp(a->message, b->message) == 0 && strcmp(a->path, b->path) == 0;
}

/* The line of a problem that loading the whole text gives; see the head of this file. */
static int line_of(const struct schema *schema, const char *text, const struct problem *problem) {
  int line = 1;
  for (const char *end = strchr(text, '\n'); end != NULL && end[1] != '\0'; end = strchr(end + 1, '\n')) line++;
  for (; line > 1; line--) {
    const char *end = text;
    for (int i = 1; i < line; i++) end = strchr(end, '\n') + 1;
    struct problem earlier;
    free_texts(schema, load_texts(schema, text, (size_t)(end - text), &earlier));
    if (!same_problem(problem, &earlier)) break;
  }
  return line;
}

/* A list where a value is wanted, and the like. */
static void describe_shape(const struct problem *problem, char *words) {
  const char *event = strstr(problem->message, "event: ");
  const char *found = event == NULL                                 ? problem->message
                      : strcmp(event, "event: SEQUENCE_START") == 0 ? "a list"
                      : strcmp(event, "event: MAPPING_START") == 0  ? "keys below it"
                                                                    : "none";
  const struct kwm_key *key = kwm_key_find(problem->path, strlen(problem->path));
  if (problem->path[0] == '\0')
    snprintf(words, KWM_COMPLAINT_BYTES, "wanted `key: value` lines, found %s", found);
  else
    snprintf(words, KWM_COMPLAINT_BYTES, "key `%s`: wanted %s, found %s", problem->path,
             key == NULL ? "keys below it" : kwm_key_wants(key), found);
}

static void describe(const struct problem *problem, char *words) {
  static const char unknown[] = "Load: Unexpected key: ", syntax[] = "Load: libyaml: ";
  const char *message = problem->message;
  if (strncmp(message, unknown, strlen(unknown)) == 0) {
    char path[sizeof problem->path + sizeof problem->message];
    snprintf(path, sizeof path, "%s%s%s", problem->path, problem->path[0] == '\0' ? "" : ".",
             message + strlen(unknown));
    snprintf(words, KWM_COMPLAINT_BYTES, "key `%s`: unknown key, nearest known key is `%s`", path,
             kwm_key_nearest(path)->path);
  } else if (strncmp(message, syntax, strlen(syntax)) == 0) {
    snprintf(words, KWM_COMPLAINT_BYTES, "wanted YAML, found: %s", message + strlen(syntax));
  } else if (strstr(message, "already seen") != NULL) {
    snprintf(words, KWM_COMPLAINT_BYTES, "key `%s`: wanted once, found again", problem->path);
  } else if (strstr(message, "Expecting") != NULL) {
    describe_shape(problem, words);
  } else if (problem->error == CYAML_OK) {
    snprintf(words, KWM_COMPLAINT_BYTES, "wanted one YAML document, found another");
  } else if (problem->error == CYAML_ERR_ALIAS) {
    snprintf(words, KWM_COMPLAINT_BYTES, "wanted values, found an alias (*name)");
  } else {
    snprintf(words, KWM_COMPLAINT_BYTES, "wanted `key: value` lines, found something else (libcyaml: %s)",
             message[0] == '\0' ? cyaml_strerror(problem->error) : message);
  }
}

static kwm_status raise_problem(const struct source *source, const struct schema *schema,
                                const struct problem *problem) {
  KWM_CHECK(problem->error != CYAML_ERR_OOM, KWM_ERR_SYSTEM, "config %s: wanted memory, found none", source->name);
  char words[KWM_COMPLAINT_BYTES];
  describe(problem, words);
  return KWM_RAISE(KWM_ERR_USAGE, "config %s:%d: %s", source->name, line_of(schema, source->text, problem), words);
}

static size_t index_of(const struct kwm_key *key) {
  return (size_t)(key - kwm_keys);
}

/* A complaint about a key's value, where the key got it. */
static kwm_status raise_value(const struct source *source, const struct kwm_key *key, const char *complaint) {
  const int from = source->from[index_of(key)];
  KWM_ASSERT(from != FROM_DEFAULT);
  if (from != FROM_FILE) {
    char argument[160];
    kwm_clip(argument, sizeof argument, source->overrides[from]);
    return KWM_RAISE(KWM_ERR_USAGE, "config argument `%s`: %s", argument, complaint);
  }
  struct schema schema;
  struct problem refusal;
  schema_init(&schema, index_of(key));
  free_texts(&schema, load_texts(&schema, source->text, strlen(source->text), &refusal));
  return KWM_RAISE(KWM_ERR_USAGE, "config %s:%d: key `%s`: %s", source->name, line_of(&schema, source->text, &refusal),
                   key->path, complaint);
}

static kwm_status set(struct source *source, const struct kwm_key *key, int from, const char *text,
                      struct kwm_config *config) {
  char complaint[KWM_COMPLAINT_BYTES];
  source->from[index_of(key)] = from;
  const kwm_status status = kwm_key_read(key, text, config, complaint);
  return status == KWM_ERR_USAGE ? raise_value(source, key, complaint) : status;
}

static kwm_status load_defaults(struct source *source, struct kwm_config *config) {
  for (size_t i = 0; i < kwm_n_keys; i++) KWM_TRY(set(source, &kwm_keys[i], FROM_DEFAULT, kwm_keys[i].initial, config));
  return KWM_OK;
}

static kwm_status load_file(struct source *source, struct kwm_config *config) {
  struct schema schema;
  struct problem problem;
  const size_t length = strlen(source->text);
  KWM_CHECK(length <= TEXT_BYTES_MAX, KWM_ERR_USAGE, "config %s: wanted at most %d bytes, found %zu", source->name,
            TEXT_BYTES_MAX, length);
  schema_init(&schema, NO_KEY);
  struct texts *texts = load_texts(&schema, source->text, length, &problem);
  kwm_status status = KWM_OK;
  if (problem.error != CYAML_OK || problem.message[0] != '\0') status = raise_problem(source, &schema, &problem);
  for (size_t i = 0; texts != NULL && status == KWM_OK && i < kwm_n_keys; i++)
    if (texts->of[i] != NULL) status = set(source, &kwm_keys[i], FROM_FILE, texts->of[i], config);
  free_texts(&schema, texts);
  return status;
}

static kwm_status load_override(struct source *source, int number, struct kwm_config *config) {
  const char *argument = source->overrides[number], *equals = strchr(argument, '=');
  char clipped[160];
  kwm_clip(clipped, sizeof clipped, argument);
  KWM_CHECK(equals != NULL, KWM_ERR_USAGE, "config argument `%s`: wanted key=value, found no `=`", clipped);
  const struct kwm_key *key = kwm_key_find(argument, (size_t)(equals - argument));
  if (key != NULL) return set(source, key, number, equals + 1, config);
  char *path = strndup(argument, (size_t)(equals - argument));
  KWM_CHECK(path != NULL, KWM_ERR_SYSTEM, "config argument `%s`: wanted memory, found none", clipped);
  const char *nearest = kwm_key_nearest(path)->path;
  free(path);
  return KWM_RAISE(KWM_ERR_USAGE, "config argument `%s`: unknown key, nearest known key is `%s`", clipped, nearest);
}

/* Raises that two keys' values do not go together, at the one given last. */
static kwm_status raise_pair(const struct source *source, const struct kwm_config *config, const char *left_path,
                             const char *relation, const char *right_path) {
  const struct kwm_key *left = kwm_key_find(left_path, strlen(left_path));
  const struct kwm_key *right = kwm_key_find(right_path, strlen(right_path));
  char complaint[KWM_COMPLAINT_BYTES], left_value[KWM_VALUE_BYTES], right_value[KWM_VALUE_BYTES];
  snprintf(complaint, sizeof complaint, "wanted %s %s %s, found %s and %s", left_path, relation, right_path,
           kwm_key_text(left, config, left_value), kwm_key_text(right, config, right_value));
  const bool left_is_later = source->from[index_of(left)] >= source->from[index_of(right)];
  return raise_value(source, left_is_later ? left : right, complaint);
}

static kwm_status check_pairs(const struct source *source, const struct kwm_config *config) {
  if (config->train.chunks > config->train.batch)
    return raise_pair(source, config, "train.chunks", "<=", "train.batch");
  if (config->model.decay_min >= config->model.decay_max)
    return raise_pair(source, config, "model.decay_min", "<", "model.decay_max");
  return KWM_OK;
}

kwm_status kwm_config_load(struct kwm_config *config, const char *name, const char *text, int n_overrides,
                           char *const *overrides) {
  struct source source = {.name = name, .text = text, .overrides = overrides};
  memset(config, 0, sizeof *config);
  kwm_status status = load_defaults(&source, config);
  if (status == KWM_OK) status = load_file(&source, config);
  for (int i = 0; i < n_overrides && status == KWM_OK; i++) status = load_override(&source, i, config);
  if (status == KWM_OK) status = check_pairs(&source, config);
  if (status != KWM_OK) kwm_config_fini(config);
  return status;
}

void kwm_config_fini(struct kwm_config *config) {
  for (size_t i = 0; i < kwm_n_keys; i++)
    if (kwm_keys[i].kind == KWM_KIND_TEXT) free(*kwm_key_string(&kwm_keys[i], config));
  memset(config, 0, sizeof *config);
}

kwm_status kwm_config_text(const struct kwm_config *config, char **text) {
  struct schema schema;
  struct problem problem = {.error = CYAML_OK};
  struct texts texts = {{NULL}};
  char buffers[KWM_MAX_KEYS][KWM_VALUE_BYTES], *yaml = NULL;
  size_t length = 0;
  schema_init(&schema, NO_KEY);
  for (size_t i = 0; i < kwm_n_keys; i++) texts.of[i] = kwm_key_text(&kwm_keys[i], config, buffers[i]);
  const cyaml_config_t how = settings(&problem);
  problem.error = cyaml_save_data(&yaml, &length, &how, &schema.top, &texts, 0);
  KWM_CHECK(problem.error == CYAML_OK, KWM_ERR_SYSTEM, "config: wanted its values as YAML, found: %s %s",
            cyaml_strerror(problem.error), problem.message);
  *text = strndup(yaml, length);
  cyaml_mem(NULL, yaml, 0);
  KWM_CHECK(*text != NULL, KWM_ERR_SYSTEM, "config: wanted memory for its text, found none");
  return KWM_OK;
}

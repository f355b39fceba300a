/* A series from a table: which columns are what, a grid of time that is regular, parts, normalisation. */
#include "kwm/series.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "csv.h"
#include "kwm/array.h"

kwm_status kwm_series_alloc(struct kwm_series *series, int64_t n, int m, int k, int d) {
  const size_t steps = (size_t)n, columns = (size_t)(m + k);
  const size_t numbers = steps * (columns + (d > 0 ? (size_t)(m + d) : 0)) + 2 * columns;
  memset(series, 0, sizeof *series);
  KWM_TRY(kwm_alloc((void **)&series->memory, numbers * sizeof(double) + steps + columns * KWM_SERIES_NAME, "series"));
  *series = (struct kwm_series){.n = n, .m = m, .k = k, .d = d, .dt = 1, .memory = series->memory};
  series->y = series->memory;
  series->u = series->y + steps * (size_t)m;
  series->mean = series->u + steps * (size_t)k;
  series->scale = series->mean + columns;
  double *end = series->scale + columns;
  if (d > 0) series->truth = end, series->states = end + steps * (size_t)m, end = series->states + steps * (size_t)d;
  series->names = (char(*)[KWM_SERIES_NAME])end;
  series->starts = (uint8_t *)(series->names + columns);
  for (int i = 0; i < m + k; i++) series->scale[i] = 1;
  return KWM_OK;
}

void kwm_series_fini(struct kwm_series *series) {
  kwm_free(series->memory);
  memset(series, 0, sizeof *series);
}

/* ---- HDF5 as a table: every dataset's columns beside each other */

static kwm_status add_dataset(struct kwm_table *table, const char *path, const char *name) {
  int64_t rows = 0, columns = 0;
  double *values = NULL, *wider = NULL;
  KWM_TRY(kwm_array_read(path, name, &rows, &columns, &values));
  kwm_status status = KWM_OK;
  if (rows < 1 || columns < 1 || table->columns + columns > KWM_SERIES_COLUMNS)
    status = KWM_RAISE(KWM_ERR_DATA, "data %s: %s: wanted 1 to %d columns of numbers, found %lld x %lld", path, name,
                       KWM_SERIES_COLUMNS - table->columns, (long long)rows, (long long)columns);
  else if (table->columns > 0 && rows != table->rows)
    status = KWM_RAISE(KWM_ERR_DATA, "data %s: %s: wanted %lld rows as in the others, found %lld", path, name,
                       (long long)table->rows, (long long)rows);
  const int64_t width = table->columns + columns;
  if (status == KWM_OK) status = kwm_alloc((void **)&wider, (size_t)(rows * width) * sizeof(double), "series");
  for (int64_t t = 0; t < rows && status == KWM_OK; t++) {
    if (table->columns > 0)
      memcpy(wider + t * width, table->values + t * table->columns, (size_t)table->columns * sizeof(double));
    memcpy(wider + t * width + table->columns, values + t * columns, (size_t)columns * sizeof(double));
  }
  for (int64_t c = 0; c < columns && status == KWM_OK; c++) {
    char *const words = table->names[table->columns + c];
    snprintf(words, KWM_SERIES_NAME, columns == 1 ? "%.30s" : "%.30s.%d", name, (int)c + 1);
  }
  kwm_free(values);
  if (status != KWM_OK) return status;
  kwm_free(table->values);
  table->values = wider;
  table->rows = rows;
  table->columns = (int)width;
  return KWM_OK;
}

/* Calls add for each name of a list by commas. */
static kwm_status each_name(const char *list, kwm_status (*add)(void *context, const char *name), void *context) {
  while (*list != '\0') {
    char name[KWM_SERIES_NAME];
    list += strspn(list, " ,");
    const size_t length = strcspn(list, ",");
    if (length == 0) break;
    KWM_CHECK(length < sizeof name, KWM_ERR_USAGE, "series: wanted names below %d letters, found `%.60s`",
              KWM_SERIES_NAME, list);
    snprintf(name, sizeof name, "%.*s", (int)length, list);
    for (size_t end = length; end > 0 && name[end - 1] == ' '; end--) name[end - 1] = '\0';
    KWM_TRY(add(context, name));
    list += length;
  }
  return KWM_OK;
}

struct datasets {
  struct kwm_table *table;
  const char *path;
};

static kwm_status add_named(void *context, const char *name) {
  const struct datasets *const sets = context;
  return add_dataset(sets->table, sets->path, name);
}

static kwm_status read_hdf5(struct kwm_table *table, const struct kwm_series_spec *spec, int *outputs, int *inputs) {
  struct datasets sets = {table, spec->path};
  struct stat info;
  memset(table, 0, sizeof *table);
  KWM_TRY(kwm_alloc((void **)&table->names, KWM_SERIES_COLUMNS * sizeof *table->names, "names"));
  KWM_TRY(each_name(*spec->outputs != '\0' ? spec->outputs : "y", add_named, &sets));
  *outputs = table->columns;
  KWM_TRY(each_name(spec->inputs, add_named, &sets));
  *inputs = table->columns - *outputs;
  KWM_TRY(each_name(spec->time, add_named, &sets));
  KWM_TRY(each_name(spec->episode, add_named, &sets));
  const char *const slash = strrchr(spec->path, '/');
  snprintf(table->file.name, sizeof table->file.name, "%.63s", slash == NULL ? spec->path : slash + 1);
  if (stat(spec->path, &info) == 0) table->file.bytes = info.st_size;
  return KWM_OK;
}

/* ---- columns */

enum { UNUSED, OUTPUT, INPUT, TIME, EPISODE };

struct roles {
  const struct kwm_table *table;
  const char *path;
  int role, of[KWM_SERIES_COLUMNS], order[KWM_SERIES_COLUMNS], n; /* order: columns as they were named */
};

static kwm_status give(void *context, const char *name) {
  struct roles *const roles = context;
  int c = 0;
  while (c < roles->table->columns && strcmp(roles->table->names[c], name) != 0) c++;
  KWM_CHECK(c < roles->table->columns, KWM_ERR_USAGE,
            "data %s: wanted column `%s`, found none of that name (first: %s)", roles->path, name,
            roles->table->names[0]);
  KWM_CHECK(roles->of[c] == UNUSED, KWM_ERR_USAGE, "data %s: wanted column `%s` once, found it named twice",
            roles->path, name);
  roles->of[c] = roles->role;
  roles->order[roles->n++] = c;
  return KWM_OK;
}

static kwm_status choose(struct roles *roles, const struct kwm_series_spec *spec) {
  const char *const lists[] = {
      [OUTPUT] = spec->outputs, [INPUT] = spec->inputs, [TIME] = spec->time, [EPISODE] = spec->episode};
  for (int role = OUTPUT; role <= EPISODE; role++) {
    roles->role = role;
    KWM_TRY(each_name(lists[role], give, roles));
  }
  if (*spec->outputs != '\0') return KWM_OK;
  for (int c = 0; c < roles->table->columns; c++)
    if (roles->of[c] == UNUSED) roles->of[c] = OUTPUT, roles->order[roles->n++] = c;
  return KWM_OK;
}

/* ---- the series */

static kwm_status copy_columns(struct kwm_series *series, const struct roles *roles) {
  const struct kwm_table *const table = roles->table;
  int output = 0, input = 0;
  for (int o = 0; o < roles->n; o++) {
    const int c = roles->order[o];
    const bool is_input = roles->of[c] == INPUT;
    if (roles->of[c] != OUTPUT && !is_input) continue;
    const int column = is_input ? input++ : output++;
    strcpy(series->names[is_input ? series->m + column : column], table->names[c]);
    for (int64_t t = 0; t < series->n; t++) {
      const double value = table->values[t * table->columns + c];
      KWM_CHECK(!is_input || isfinite(value), KWM_ERR_DATA,
                "data %s: input %s: wanted a number in every row, row %lld "
                "has none",
                roles->path, table->names[c], (long long)t + 1);
      if (is_input)
        series->u[t * series->k + column] = value;
      else
        series->y[t * series->m + column] = value;
    }
  }
  return KWM_OK;
}

static kwm_status check_time(struct kwm_series *series, const struct roles *roles, int c) {
  const struct kwm_table *const table = roles->table;
  double dt = NAN;
  for (int64_t t = 1; t < series->n; t++) {
    const double step = table->values[t * table->columns + c] - table->values[(t - 1) * table->columns + c];
    if (series->starts[t]) continue;
    if (isnan(dt)) dt = step;
    KWM_CHECK(
        step > 0 && fabs(step - dt) <= 1e-3 * dt, KWM_ERR_DATA,
        "data %s: wanted equally spaced times in column %s (%g), row %lld is %g behind the one before: bring it to "
        "a regular grid, rows without an observation left empty, or name a column series.episode",
        roles->path, table->names[c], dt, (long long)t + 1, step);
  }
  if (!isnan(dt)) series->dt = dt;
  return KWM_OK;
}

static kwm_status build(struct kwm_series *series, const struct roles *roles) {
  const struct kwm_table *const table = roles->table;
  int count[EPISODE + 1] = {0}, column[EPISODE + 1] = {0};
  for (int c = 0; c < table->columns; c++) count[roles->of[c]]++, column[roles->of[c]] = c;
  KWM_CHECK(count[OUTPUT] > 0, KWM_ERR_USAGE, "data %s: wanted an output column, found none", roles->path);
  KWM_CHECK(count[TIME] <= 1 && count[EPISODE] <= 1, KWM_ERR_USAGE,
            "data %s: wanted one column for series.time and series.episode each", roles->path);
  KWM_TRY(kwm_series_alloc(series, table->rows, count[OUTPUT], count[INPUT], 0));
  series->file = table->file;
  series->starts[0] = 1;
  for (int64_t t = 1; t < series->n && count[EPISODE] == 1; t++) {
    const double *const value = table->values + t * table->columns + column[EPISODE];
    series->starts[t] = fabs(value[0] - value[-table->columns]) > 0;
  }
  KWM_TRY(copy_columns(series, roles));
  return count[TIME] == 1 ? check_time(series, roles, column[TIME]) : KWM_OK;
}

kwm_status kwm_series_read(struct kwm_series *series, const struct kwm_series_spec *spec) {
  struct kwm_table table;
  struct roles roles = {.table = &table, .path = spec->path};
  const char *const dot = strrchr(spec->path, '.');
  const bool hdf5 = dot != NULL && (strcasecmp(dot, ".h5") == 0 || strcasecmp(dot, ".hdf5") == 0);
  int outputs = 0, inputs = 0;
  memset(series, 0, sizeof *series);
  kwm_status status = hdf5 ? read_hdf5(&table, spec, &outputs, &inputs) : kwm_csv_read(&table, spec->path);
  for (int c = 0; c < table.columns && hdf5; c++) {
    const bool time = c == outputs + inputs && *spec->time != '\0';
    roles.of[c] = c < outputs ? OUTPUT : c < outputs + inputs ? INPUT : time ? TIME : EPISODE;
    roles.order[roles.n++] = c;
  }
  if (status == KWM_OK && !hdf5) status = choose(&roles, spec);
  if (status == KWM_OK) status = build(series, &roles);
  kwm_table_fini(&table);
  if (status != KWM_OK) kwm_series_fini(series);
  return status;
}

/* ---- parts */

/* The step at or behind `at` where a trajectory begins, if one does before `end`; else `at`. */
static int64_t begin_at(const struct kwm_series *series, int64_t at, int64_t end) {
  for (int64_t t = at; t < end; t++)
    if (series->starts[t]) return t;
  return at;
}

static kwm_status measure(struct kwm_series *series, const double *values, int width, int c, int name) {
  double sum = 0, squares = 0, count = 0;
  for (int64_t t = 0; t < series->train; t++) {
    const double value = values[t * width + c];
    if (isnan(value)) continue;
    sum += value, count++;
  }
  const double mean = sum / count;
  for (int64_t t = 0; t < series->train; t++) {
    const double value = values[t * width + c];
    if (!isnan(value)) squares += (value - mean) * (value - mean);
  }
  const double deviation = sqrt(squares / count);
  KWM_CHECK(count > 0 && deviation > 0, KWM_ERR_DATA, "series: wanted %s to move in the training part, found %s",
            series->names[name], count > 0 ? "one value" : "no observation");
  series->mean[name] = mean, series->scale[name] = deviation;
  return KWM_OK;
}

kwm_status kwm_series_split(struct kwm_series *series, double train, double valid) {
  const int64_t n = series->n;
  series->train = begin_at(series, (int64_t)(train * (double)n), n);
  const int64_t behind = begin_at(series, series->train + (int64_t)(valid * (double)n), n);
  series->valid = behind - series->train;
  KWM_CHECK(series->train > 1 && behind < n, KWM_ERR_USAGE,
            "series: wanted a training and a test part of %lld steps, found %lld and %lld (series.train, series.valid)",
            (long long)n, (long long)series->train, (long long)(n - behind));
  for (int c = 0; c < series->m; c++) KWM_TRY(measure(series, series->y, series->m, c, c));
  for (int c = 0; c < series->k; c++) KWM_TRY(measure(series, series->u, series->k, c, series->m + c));
  return KWM_OK;
}

static void scale_all(double *values, int64_t n, int width, const double *mean, const double *scale) {
  for (int64_t t = 0; values != NULL && t < n; t++)
    for (int c = 0; c < width; c++) values[t * width + c] = (values[t * width + c] - mean[c]) / scale[c];
}

void kwm_series_normalise(struct kwm_series *series) {
  scale_all(series->y, series->n, series->m, series->mean, series->scale);
  scale_all(series->truth, series->n, series->m, series->mean, series->scale);
  scale_all(series->u, series->n, series->k, series->mean + series->m, series->scale + series->m);
}

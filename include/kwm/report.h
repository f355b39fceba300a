/* What a run leaves for people and scripts: tables by step (metrics.tsv), summary.json, manifest.json. Local: rank 0
   calls it. Files are written whole to NAME.part and renamed (tables by step are appended row by row and flushed). */
#pragma once

#include "kwm/base.h"

typedef struct kwm_metrics kwm_metrics;

/* Opens DIR/NAME, a table with the given columns (column 0 is the integer `step`). If it exists, its header must match
   (KWM_ERR_DATA) and rows with step > `keep_until` (or an incomplete last line) are dropped: a resumed run's table
   reads as if it never stopped. */
kwm_status kwm_metrics_open(kwm_metrics **metrics, const char *dir, const char *name, int n_columns,
                            const char *const *columns, int64_t keep_until);

/* Appends one row; values: (n_columns), NAN is written as "nan". KWM_ERR_SYSTEM if it can't be written. */
kwm_status kwm_metrics_row(kwm_metrics *metrics, const double *values);
void kwm_metrics_close(kwm_metrics **metrics);

/* One field of summary.json; exactly one kind. */
struct kwm_field {
  const char *name;
  enum { KWM_FIELD_NUMBER, KWM_FIELD_INTEGER, KWM_FIELD_TEXT, KWM_FIELD_FLAG } kind; /* flag: integer is not 0 */
  double number;                                                                     /* NAN is written as null */
  int64_t integer;
  const char *text;
};

/* Writes DIR/NAME as one JSON object with the fields in order. */
kwm_status kwm_report_fields(const char *dir, const char *name, int n_fields, const struct kwm_field *fields);

/* status (bytes) <- the field of that name in DIR/summary.json, "" if it is not there. */
void kwm_report_status(const char *dir, char *status, size_t bytes);

/* Writes DIR/NAME as a JSON array of n_rows objects of n_fields each; fields: (n_rows, n_fields). */
kwm_status kwm_report_table(const char *dir, const char *name, int n_rows, int n_fields,
                            const struct kwm_field *fields);

/* Writes DIR/NAME with this text, whole or not at all. */
kwm_status kwm_report_text(const char *dir, const char *name, const char *text);

/* What manifest.json says: how to reproduce the run. Strings borrowed. */
struct kwm_manifest {
  const char *version, *git, *command;
  int ranks;
  int64_t stages, owners, replicas;
  uint64_t seed;
  int n_hosts;
  const char *const *hosts; /* (n_hosts), one per rank */
  int n_files;
  const struct kwm_file_facts *files; /* data checksums */
};

/* Writes DIR/manifest.json, adding library versions (MPI, HDF5, OpenBLAS, libcyaml, jansson, zlib: `libraries`,
   {name, version} pairs given by the caller), compiler and date. */
kwm_status kwm_report_manifest(const char *dir, const struct kwm_manifest *manifest, int n_libraries,
                               const char *const (*libraries)[2]);

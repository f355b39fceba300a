/* Private to data: a table of named columns, from CSV or HDF5. */
#pragma once

#include "kwm/series.h"

struct kwm_table {
  int64_t rows;
  int columns;
  char (*names)[KWM_SERIES_NAME]; /* (columns) */
  double *values;                 /* (rows, columns), NaN: missing */
  struct kwm_file_facts file;
};

/* CSV with a header line: numbers; empty, nan and NA are missing. KWM_ERR_DATA with file and line. fini also after a
   failure. */
kwm_status kwm_csv_read(struct kwm_table *table, const char *path);
void kwm_table_fini(struct kwm_table *table);

/* Private to io: small files that are whole or absent. Local. */
#pragma once

#include "kwm/base.h"

enum { KWM_FILE_PATH = 4096 };

/* path = DIR/NAME+SUFFIX; path holds KWM_FILE_PATH bytes. KWM_ERR_SYSTEM if it does not fit. */
kwm_status kwm_file_path(char *path, const char *dir, const char *name, const char *suffix);

/* Forces a file or folder to the disk. */
kwm_status kwm_file_sync(const char *path);

/* Renames `part` to `path` and forces the folder `dir` that holds both to the disk. */
kwm_status kwm_file_publish(const char *dir, const char *part, const char *path);

/* Writes DIR/NAME whole: to DIR/NAME.part, synced, renamed. A failure leaves no .part and the old file. */
kwm_status kwm_file_replace(const char *dir, const char *name, const char *bytes, size_t n);

/* Writes all of `bytes` to the open file; `path` is for the message. */
kwm_status kwm_file_write(int file, const char *path, const char *bytes, size_t n);

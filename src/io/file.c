/* A file is written under another name, forced to the disk and renamed: a reader sees the old one or the new one. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

kwm_status kwm_file_path(char *path, const char *dir, const char *name, const char *suffix) {
  const int length = snprintf(path, KWM_FILE_PATH, "%s/%s%s", dir, name, suffix);
  KWM_CHECK(length > 0 && length < KWM_FILE_PATH, KWM_ERR_SYSTEM, "file %s in %.200s...: wanted a path below %d bytes",
            name, dir, KWM_FILE_PATH);
  return KWM_OK;
}

kwm_status kwm_file_sync(const char *path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  KWM_CHECK(file >= 0, KWM_ERR_SYSTEM, "file %s: wanted to open it for syncing, found: %s", path, strerror(errno));
  /* Some file systems can't sync a folder and say EINVAL. */
  const int failure = fsync(file) == 0 || errno == EINVAL ? 0 : errno;
  close(file);
  KWM_CHECK(failure == 0, KWM_ERR_SYSTEM, "file %s: wanted it on the disk, found: %s", path, strerror(failure));
  return KWM_OK;
}

kwm_status kwm_file_publish(const char *dir, const char *part, const char *path) {
  KWM_CHECK(rename(part, path) == 0, KWM_ERR_SYSTEM, "file %s: wanted to rename it to %s, found: %s", part, path,
            strerror(errno));
  return kwm_file_sync(dir);
}

kwm_status kwm_file_write(int file, const char *path, const char *bytes, size_t n) {
  while (n > 0) {
    const ssize_t written = write(file, bytes, n);
    if (written < 0 && errno == EINTR) continue;
    KWM_CHECK(written > 0, KWM_ERR_SYSTEM, "file %s: wanted to write %zu more bytes, found: %s", path, n,
              strerror(errno));
    bytes += written;
    n -= (size_t)written;
  }
  return KWM_OK;
}

static kwm_status write_part(const char *part, const char *bytes, size_t n) {
  const int file = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  KWM_CHECK(file >= 0, KWM_ERR_SYSTEM, "file %s: wanted to write it, found: %s", part, strerror(errno));
  kwm_status status = kwm_file_write(file, part, bytes, n);
  if (status == KWM_OK && fsync(file) != 0)
    status = KWM_RAISE(KWM_ERR_SYSTEM, "file %s: wanted it on the disk, found: %s", part, strerror(errno));
  if (close(file) != 0 && status == KWM_OK)
    status = KWM_RAISE(KWM_ERR_SYSTEM, "file %s: wanted to close it, found: %s", part, strerror(errno));
  return status;
}

kwm_status kwm_file_replace(const char *dir, const char *name, const char *bytes, size_t n) {
  char path[KWM_FILE_PATH], part[KWM_FILE_PATH];
  KWM_TRY(kwm_file_path(path, dir, name, ""));
  KWM_TRY(kwm_file_path(part, dir, name, ".part"));
  kwm_status status = write_part(part, bytes, n);
  if (status == KWM_OK) status = kwm_file_publish(dir, part, path);
  if (status != KWM_OK) unlink(part);
  return status;
}

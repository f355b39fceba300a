/* Finds out in plain words what can't be written, before HDF5 does. */
#include "room.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* What a user may write on it; a file system that doesn't say has room enough. */
static int64_t bytes_free(const char *dir) {
  struct statvfs about;
  if (statvfs(dir, &about) != 0 || about.f_blocks == 0) return INT64_MAX;
  return (int64_t)about.f_bavail * (int64_t)about.f_frsize;
}

kwm_status kwm_room_open(int *file, const char *dir, const char *part, int64_t bytes) {
  *file = -1;
  if (mkdir(dir, 0777) != 0 && errno != EEXIST)
    return KWM_RAISE(KWM_ERR_SYSTEM, "checkpoint folder %s: wanted to make it, found: %s", dir, strerror(errno));
  const int64_t found = bytes_free(dir);
  KWM_CHECK(found >= bytes, KWM_ERR_SYSTEM,
            "checkpoint %s: wanted %lld bytes as the one before has, found %lld free: %s", part, (long long)bytes,
            (long long)found, strerror(ENOSPC));
  *file = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  KWM_CHECK(*file >= 0, KWM_ERR_SYSTEM, "checkpoint %s: wanted to write it, found: %s", part, strerror(errno));
  return KWM_OK;
}

/* Where the file system can't reserve, zeros are written; they must be on the disk before other hosts write there. */
static int take(int file, int64_t first, int64_t bytes) {
  if (fallocate(file, 0, first, bytes) == 0) return 0;
  if (errno != EOPNOTSUPP) return errno;
  const int error = posix_fallocate(file, first, bytes);
  if (error == 0 && fsync(file) != 0) return errno;
  return error;
}

kwm_status kwm_room_take(int file, const char *part, int64_t bytes, int64_t *reserved) {
  const int error = take(file, *reserved, bytes);
  KWM_CHECK(error == 0, KWM_ERR_SYSTEM, "checkpoint %s: wanted %lld more bytes on the disk, found: %s", part,
            (long long)bytes, strerror(error));
  *reserved += bytes;
  return KWM_OK;
}

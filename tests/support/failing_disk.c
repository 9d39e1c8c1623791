// A disk whose syncs fail on order, for a real process: preloaded, it makes fsync and fdatasync of files
// below $FAILING_DISK_DIR answer EIO for as long as the file $FAILING_DISK_ORDER exists.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
  const char* dir = getenv("FAILING_DISK_DIR");
  const char* order = getenv("FAILING_DISK_ORDER");
  if (dir == NULL || order == NULL || access(order, F_OK) != 0) return 0;
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = '\0';
  return strncmp(path, dir, strlen(dir)) == 0;
}

static int sync_or_fail(const char* symbol, int fd) {
  if (fails(fd)) {
    errno = EIO;
    return -1;
  }
  return ((int (*)(int))dlsym(RTLD_NEXT, symbol))(fd);
}

int fsync(int fd) { return sync_or_fail("fsync", fd); }
int fdatasync(int fd) { return sync_or_fail("fdatasync", fd); }

// A disk whose syncs fail or hang on order, for a real process: preloaded, it makes fsync and fdatasync of
// files below $FAILING_DISK_DIR answer EIO for as long as the file $FAILING_DISK_ORDER exists, and not come
// back while $FAILING_DISK_HANG does. The thread named $HANGING_THREAD does not come back from epoll_wait
// while $HANGING_THREAD_ORDER exists.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static int ordered(const char* variable) {
  const char* order = getenv(variable);
  return order != NULL && access(order, F_OK) == 0;
}

static int is_on_disk(int fd) {
  const char* dir = getenv("FAILING_DISK_DIR");
  if (dir == NULL) return 0;
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = '\0';
  return strncmp(path, dir, strlen(dir)) == 0;
}

static int sync_or_fail(const char* symbol, int fd) {
  while (ordered("FAILING_DISK_HANG") && is_on_disk(fd)) usleep(10000);
  if (ordered("FAILING_DISK_ORDER") && is_on_disk(fd)) {
    errno = EIO;
    return -1;
  }
  return ((int (*)(int))dlsym(RTLD_NEXT, symbol))(fd);
}

int fsync(int fd) { return sync_or_fail("fsync", fd); }
int fdatasync(int fd) { return sync_or_fail("fdatasync", fd); }

int epoll_wait(int poll, struct epoll_event* events, int most, int wait) {
  const char* thread = getenv("HANGING_THREAD");
  char name[16] = "";
  if (thread != NULL && pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, thread) == 0) {
    while (ordered("HANGING_THREAD_ORDER")) usleep(10000);
  }
  return ((int (*)(int, struct epoll_event*, int, int))dlsym(RTLD_NEXT, "epoll_wait"))(poll, events, most, wait);
}

/* Preloaded into programs: moves their clock, and lets fsync fail as it does on a broken disk, where the data is lost and the
   next fsync succeeds. FAULTS_SHIM names a file with three numbers: seconds added to the clock, and the number of the fsync
   that fails (0: none; counted over all processes) in a file below FAULTS_SHIM_DIR. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
  int64_t clock_seconds;
  int64_t failing_sync;
  int64_t syncs;
  int64_t failed;
};

static struct control none, *control;

static struct control *get(void) {
  if (!control) {
    const char *name = getenv("FAULTS_SHIM");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(0, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    control = map == MAP_FAILED ? &none : map;
  }
  return control;
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = NEXT(clock_gettime)(clock, time);
  if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += get()->clock_seconds;
  return result;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  int result = NEXT(gettimeofday)(time, zone);
  if (!result) time->tv_sec += get()->clock_seconds;
  return result;
}

/* The last write to each descriptor. */
static struct { off_t offset; size_t length; } last[1024];

static ssize_t wrote(int fd, off_t offset, ssize_t length) {
  if (length > 0 && fd >= 0 && fd < 1024) last[fd].offset = offset, last[fd].length = length;
  return length;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
  return wrote(fd, offset, NEXT(pwrite64)(fd, bytes, length, offset));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  return wrote(fd, offset, NEXT(pwrite64)(fd, bytes, length, offset));
}

ssize_t write(int fd, const void *bytes, size_t length) {
  off_t offset = fd > 2 ? lseek(fd, 0, SEEK_CUR) : -1;
  ssize_t written = NEXT(write)(fd, bytes, length);
  return offset < 0 ? written : wrote(fd, offset, written);
}

/* Returns whether this sync fails. */
static int fails(int fd) {
  const char *dir = getenv("FAULTS_SHIM_DIR");
  struct control *shared = get();
  char link[64], path[4096];
  struct stat stat;
  if (!dir || !shared->failing_sync) return 0;
  strcpy(link, "/proc/self/fd/");
  char digits[16], *digit = digits + 15;
  int number = fd;
  for (*digit = 0; number || !*digit; number /= 10) *--digit = '0' + number % 10;
  strcat(link, digit);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  if (strncmp(path, dir, strlen(dir)) || fstat(fd, &stat)) return 0;
  if (__sync_add_and_fetch(&shared->syncs, 1) != shared->failing_sync) return 0;
  shared->failed = 1;
  if (S_ISREG(stat.st_mode) && fd < 1024 && last[fd].length) {
    static const char zeros[65536];
    size_t lost = last[fd].length < sizeof zeros ? last[fd].length : sizeof zeros;
    NEXT(pwrite64)(fd, zeros, lost, last[fd].offset);
  }
  errno = EIO;
  return 1;
}

int fsync(int fd) { return fails(fd) ? -1 : NEXT(fsync)(fd); }

int fdatasync(int fd) { return fails(fd) ? -1 : NEXT(fdatasync)(fd); }

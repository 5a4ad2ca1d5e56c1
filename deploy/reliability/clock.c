/* Preloaded into a server: its wall clock jumps an hour ahead and an hour back, every second, while the file that
   JUMP_MARKER names exists. The monotonic clock is left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef int (*clock_function)(clockid_t, struct timespec *);

static clock_function next(void) {
  static clock_function found;
  if (!found) found = (clock_function)dlsym(RTLD_NEXT, "clock_gettime");
  return found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = next()(clock, now);
  const char *marker = getenv("JUMP_MARKER");
  if (failed || clock != CLOCK_REALTIME || !marker || access(marker, F_OK)) return failed;
  struct timespec steady;
  next()(CLOCK_MONOTONIC, &steady);
  now->tv_sec += steady.tv_sec % 2 ? 3600 : -3600;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (out) *out = precise.tv_sec;
  return precise.tv_sec;
}

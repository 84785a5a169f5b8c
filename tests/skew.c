/*
 * skew.c - preloaded into daemons of a test node, gives them a wall clock that is wrong by what a shared file says:
 * eight bytes, nanoseconds to add, read anew each time. The monotonic clocks stay right, as they do when somebody sets
 * the clock. (libfaketime shifts too much: sd-event's timers stop working under it.) nng asks the wall clock when its
 * threads are to wake up, and waits by it: that wait is put right again.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SKEW_FILE "/etc/microswarm/skew"

static const volatile int64_t *skew_ns;

__attribute__((constructor)) static void skew_open(void)
{
    int fd = open(SKEW_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    void *p = mmap(NULL, sizeof *skew_ns, PROT_READ, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED)
        skew_ns = p;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    int r = (int)syscall(SYS_clock_gettime, clock, ts);
    if (r == 0 && skew_ns && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec + *skew_ns;
        ts->tv_sec = ns / 1000000000;
        ts->tv_nsec = ns % 1000000000;
    }
    return r;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m,
                           const struct timespec *restrict until)
{
    int64_t ns = (int64_t)until->tv_sec * 1000000000 + until->tv_nsec - (skew_ns ? *skew_ns : 0);
    struct timespec right = { ns > 0 ? ns / 1000000000 : 0, ns > 0 ? ns % 1000000000 : 0 };
    return pthread_cond_clockwait(c, m, CLOCK_REALTIME, &right);
}

time_t time(time_t *ret)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ret)
        *ret = ts.tv_sec;
    return ts.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec ts;
    (void)tz;
    clock_gettime(CLOCK_REALTIME, &ts);
    *tv = (struct timeval){ ts.tv_sec, ts.tv_nsec / 1000 };
    return 0;
}

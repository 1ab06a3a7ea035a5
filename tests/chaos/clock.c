/* Moves the wall clock of one process by the nanoseconds that stand in a file, for tests.
 *
 * Must never touch a clock that counts from the start of the machine: those do not jump.
 * Loaded with LD_PRELOAD; TEST_CLOCK_FILE names the file, eight bytes, signed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void open_offset(void)
{
    const char *path = getenv("TEST_CLOCK_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED)
        offset = shared;
}

static int (*real_clock)(clockid_t, struct timespec *);

int clock_gettime(clockid_t id, struct timespec *at)
{
    if (!real_clock)
        *(void **)&real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real_clock ? real_clock(id, at) : (int)syscall(SYS_clock_gettime, id, at);
    if (failed || !offset || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
        return failed;
    int64_t ns = at->tv_nsec + *offset % 1000000000;
    at->tv_sec += *offset / 1000000000;
    if (ns < 0) {
        ns += 1000000000;
        at->tv_sec -= 1;
    } else if (ns >= 1000000000) {
        ns -= 1000000000;
        at->tv_sec += 1;
    }
    at->tv_nsec = ns;
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

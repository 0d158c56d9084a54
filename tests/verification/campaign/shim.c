/* Preloaded into ds01d alone: its wall clock runs beside the host's, and its disk can be slow.
 *
 * DS01_SHIM names a file of three 64-bit numbers, which is mapped, so that a change counts at once:
 * seconds to add to CLOCK_REALTIME, milliseconds that a sync takes, milliseconds that a rename
 * takes. CLOCK_BOOTTIME and CLOCK_MONOTONIC stay as they are, as after a step of the clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_s;
    int64_t sync_ms;
    int64_t rename_ms;
};

static const volatile struct control *control;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DS01_SHIM");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *map = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED)
        control = map;
}

static void wait_ms(int64_t ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (ms > 0 && nanosleep(&left, &left) != 0) {
    }
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static __typeof__(&clock_gettime) real;
    if (!real)
        real = REAL(clock_gettime);
    int result = real(clock, now);
    if (!result && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += control->clock_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec fine;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &fine))
        return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec fine;
    if (clock_gettime(CLOCK_REALTIME, &fine))
        return -1;
    if (now)
        *now = fine.tv_sec;
    return fine.tv_sec;
}

int fsync(int file)
{
    wait_ms(control ? control->sync_ms : 0);
    return REAL(fsync)(file);
}

int fdatasync(int file)
{
    wait_ms(control ? control->sync_ms : 0);
    return REAL(fdatasync)(file);
}

int rename(const char *from, const char *to)
{
    wait_ms(control ? control->rename_ms : 0);
    return REAL(rename)(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    wait_ms(control ? control->rename_ms : 0);
    return REAL(renameat)(from_dir, from, to_dir, to);
}

/* Another wall clock for a process and its children, by LD_PRELOAD: CLOCK_REALTIME is shifted by the nanoseconds that
 * stand in the file which SBC_WALL_CLOCK names, eight octets of this machine. Whoever writes there sets the clock of all
 * of them at once. Monotonic clocks, sleeps and timers stay what they are. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L

static const volatile int64_t *shift;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("SBC_WALL_CLOCK");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        shift = page;
}

static void move(struct timespec *time, int64_t by)
{
    int64_t ns = time->tv_nsec + by % SECOND;
    time->tv_sec += by / SECOND;
    if (ns < 0) {
        ns += SECOND;
        time->tv_sec--;
    } else if (ns >= SECOND) {
        ns -= SECOND;
        time->tv_sec++;
    }
    time->tv_nsec = ns;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (syscall(SYS_clock_gettime, clock, time))
        return -1;
    if (shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        move(time, *shift);
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds)
        *seconds = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *time, int base)
{
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, time) ? base : 0;
}

/* Its limit is a time of the wall clock, which the caller has read here, and the kernel knows another one. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec limit = *until;
    if (shift)
        move(&limit, -*shift);
    return sem_clockwait(semaphore, CLOCK_REALTIME, &limit);
}

#define _GNU_SOURCE
#include "surroundings.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One read of the kernel's own words (5 us) instead of a question for each signal (9 us). The
 * thread's file, since a first thread that has ended has no umask any more. */
static void parse_status(const char *status, struct pn_surroundings *ret)
{
    const char *line = strstr(status, "\nUmask:");
    ret->umask = line == NULL ? -1 : (int32_t)strtol(line + 7, NULL, 8);
    line = strstr(status, "\nSigIgn:");
    if (line != NULL && strlen(line) > 8 + 1 + 16) { /* whole: a long list of groups precedes it */
        ret->ignored = strtoull(line + 8, NULL, 16);
        return;
    }
    for (int number = 1; number <= 64; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            ret->ignored |= 1ull << (number - 1);
    }
}

void pn_surroundings_read(const char *status, struct pn_surroundings *ret)
{
    memset(ret, 0, sizeof *ret);
    /* the system call, not the library's: the kernel's own set of 64 signals */
    (void)syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &ret->blocked, sizeof ret->blocked);
    parse_status(status, ret);
    ret->nice = getpriority(PRIO_PROCESS, 0);
    ret->pgid = getpgrp();
    long got = syscall(SYS_sched_getaffinity, 0, sizeof ret->affinity, ret->affinity);
    ret->affinity_size = got > 0 ? (int32_t)got : 0;
    for (int n = 0; n < PN_LIMITS; n++) {
        struct rlimit limit;
        if (getrlimit((__rlimit_resource_t)n, &limit) == 0) {
            ret->limits[n].soft = limit.rlim_cur;
            ret->limits[n].hard = limit.rlim_max;
        }
    }
}

static void apply_limit(int number, uint64_t soft, uint64_t hard, uint64_t hard_now)
{
    struct rlimit limit = {.rlim_cur = soft, .rlim_max = hard};
    if (setrlimit((__rlimit_resource_t)number, &limit) == 0)
        return;
    limit.rlim_max = hard_now;
    limit.rlim_cur = soft < hard_now ? soft : hard_now;
    (void)setrlimit((__rlimit_resource_t)number, &limit);
}

void pn_surroundings_apply(const struct pn_surroundings *wanted, const struct pn_surroundings *now)
{
    if (wanted->umask >= 0 && wanted->umask != now->umask)
        (void)umask((mode_t)wanted->umask);
    if (wanted->pgid != now->pgid)
        (void)setpgid(0, wanted->pgid);
    if (wanted->nice != now->nice)
        (void)setpriority(PRIO_PROCESS, 0, wanted->nice);
    if (wanted->affinity_size > 0 &&
        memcmp(wanted->affinity, now->affinity, sizeof wanted->affinity) != 0)
        (void)syscall(SYS_sched_setaffinity, 0, (size_t)wanted->affinity_size, wanted->affinity);
    for (int n = 0; n < PN_LIMITS; n++)
        if (wanted->limits[n].soft != now->limits[n].soft ||
            wanted->limits[n].hard != now->limits[n].hard)
            apply_limit(n, wanted->limits[n].soft, wanted->limits[n].hard, now->limits[n].hard);
}

void pn_set_blocked(uint64_t mask)
{
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
}

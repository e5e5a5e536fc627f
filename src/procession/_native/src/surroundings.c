#define _GNU_SOURCE
#include "surroundings.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static ssize_t read_file(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, buffer, size - 1);
    close(fd);
    buffer[got > 0 ? got : 0] = 0;
    return got;
}

static int32_t read_umask(void)
{
    char text[256]; /* Umask is the second line */
    if (read_file("/proc/self/status", text, sizeof text) <= 0)
        return -1;
    const char *line = strstr(text, "\nUmask:");
    return line == NULL ? -1 : (int32_t)strtol(line + 7, NULL, 8);
}

static uint64_t read_ignored(void)
{
    uint64_t ignored = 0;
    for (int number = 1; number <= 64; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            ignored |= 1ull << (number - 1);
    }
    return ignored;
}

void pn_surroundings_read(struct pn_surroundings *ret)
{
    memset(ret, 0, sizeof *ret);
    /* the kernel's own set of 64 signals */
    (void)syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &ret->blocked, sizeof ret->blocked);
    ret->ignored = read_ignored();
    ret->umask = read_umask();
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
    for (int n = 0; n < PN_LIMITS; n++) {
        if (wanted->limits[n].soft == now->limits[n].soft &&
            wanted->limits[n].hard == now->limits[n].hard)
            continue;
        struct rlimit limit = {.rlim_cur = wanted->limits[n].soft,
                               .rlim_max = wanted->limits[n].hard};
        (void)setrlimit((__rlimit_resource_t)n, &limit);
    }
}

void pn_set_blocked(uint64_t mask)
{
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
}

static uint64_t hash(const void *data, size_t size) /* FNV-1a */
{
    const unsigned char *bytes = data;
    uint64_t value = 0xcbf29ce484222325ull;
    for (size_t n = 0; n < size; n++)
        value = (value ^ bytes[n]) * 0x100000001b3ull;
    return value;
}

void pn_credentials_read(struct pn_credentials *ret)
{
    static const char *const namespaces[8] = {
        "/proc/self/ns/mnt",  "/proc/self/ns/pid",    "/proc/self/ns/net",
        "/proc/self/ns/user", "/proc/self/ns/ipc",    "/proc/self/ns/uts",
        "/proc/self/ns/time", "/proc/self/ns/cgroup",
    };
    memset(ret, 0, sizeof *ret);
    (void)getresuid(&ret->uid[0], &ret->uid[1], &ret->uid[2]);
    (void)getresgid(&ret->gid[0], &ret->gid[1], &ret->gid[2]);
    gid_t groups[256];
    int count = getgroups(256, groups);
    if (count > 0)
        ret->groups = hash(groups, (size_t)count * sizeof groups[0]);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    (void)syscall(SYS_capget, &header, ret->capabilities);
    ret->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    ret->seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
    ret->session = getsid(0);
    struct stat status;
    for (int n = 0; n < 8; n++)
        if (stat(namespaces[n], &status) == 0)
            ret->namespaces[n] = status.st_ino;
    if (stat("/", &status) == 0) {
        ret->root[0] = status.st_dev;
        ret->root[1] = status.st_ino;
    }
    char text[2048];
    ssize_t got = read_file("/proc/self/cgroup", text, sizeof text);
    if (got > 0)
        ret->cgroup = hash(text, (size_t)got);
}

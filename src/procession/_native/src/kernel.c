#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

extern char **environ;

static int64_t nanoseconds(struct timeval time)
{
    return (int64_t)time.tv_sec * 1000000000 + (int64_t)time.tv_usec * 1000;
}

int pn_peek_child(struct pn_dead *ret_dead)
{
    siginfo_t info = {0};
    struct rusage used = {0};
    /* the system call, not the library's waitid: only it also tells what was used */
    if (syscall(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT, &used) != 0)
        return -errno;
    if (info.si_pid == 0)
        return 0;
    int status = info.si_status;
    if (info.si_code == CLD_EXITED)
        ret_dead->wait_status = (status & 0xff) << 8;
    else
        ret_dead->wait_status = (status & 0x7f) | (info.si_code == CLD_DUMPED ? 0x80 : 0);
    ret_dead->pid = info.si_pid;
    ret_dead->utime_ns = nanoseconds(used.ru_utime);
    ret_dead->stime_ns = nanoseconds(used.ru_stime);
    ret_dead->max_rss_kib = used.ru_maxrss;
    return 1;
}

uint64_t pn_own_start_time(void)
{
    char text[1024];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    const char *field = strrchr(text, ')'); /* the name may hold anything; fields 3… follow */
    for (int n = 2; field != NULL && n < 22; n++)
        field = strchr(field + 1, ' ');
    return field == NULL ? 0 : strtoull(field, NULL, 10);
}

/* include/uapi/linux/pidfd.h of Linux 6.15; older headers lack it */
struct pidfd_info_v0 {
    uint64_t mask, cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
_Static_assert(sizeof(struct pidfd_info_v0) == 64, "PIDFD_INFO_SIZE_VER0");
#define PN_PIDFD_INFO_EXIT (1u << 3)
#define PN_PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info_v0)

int pn_pidfd_exit_status(int pidfd, int *ret_status)
{
    struct pidfd_info_v0 info = {.mask = PN_PIDFD_INFO_EXIT};
    if (ioctl(pidfd, PN_PIDFD_GET_INFO, &info) != 0)
        return -ENOTSUP;
    if (!(info.mask & PN_PIDFD_INFO_EXIT))
        return -ENODATA;
    *ret_status = info.exit_code;
    return 0;
}

int pn_close_all_but(const int *keep, size_t count)
{
    unsigned int first = 0;
    for (size_t n = 0; n < count; n++) {
        unsigned int kept = (unsigned int)keep[n];
        if (kept > first && syscall(SYS_close_range, first, kept - 1, 0) != 0)
            return -errno;
        first = kept + 1;
    }
    return syscall(SYS_close_range, first, UINT_MAX, 0) != 0 ? -errno : 0;
}

int pn_spawn(const char *path, char *const *arguments, const int *keep, size_t count,
             pid_t *ret_pid)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    int error = posix_spawnattr_init(&attributes);
    if (error != 0)
        return -error;
    error = posix_spawn_file_actions_init(&actions);
    if (error != 0) {
        (void)posix_spawnattr_destroy(&attributes);
        return -error;
    }
    sigset_t all, chld;
    sigfillset(&all);
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD); /* ignored, it would survive exec and turn waitpid into ECHILD */
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                    POSIX_SPAWN_SETPGROUP);
    (void)posix_spawnattr_setsigmask(&attributes, &all);
    (void)posix_spawnattr_setsigdefault(&attributes, &chld);
    (void)posix_spawnattr_setpgroup(&attributes, 0);
    for (int fd = 0; fd < 3 && error == 0; fd++)
        error = posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    for (size_t n = 0; n < count && error == 0; n++) /* onto itself: clears close-on-exec */
        error = posix_spawn_file_actions_adddup2(&actions, keep[n], keep[n]);
    if (error == 0)
        error = posix_spawn(ret_pid, path, &actions, &attributes, arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attributes);
    return -error;
}

int pn_spawn_detached(const char *path, char *const *arguments, const int *keep, size_t count,
                      pid_t *ret_pid)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -errno;
    pid_t between = fork();
    if (between < 0) {
        int error = errno;
        close(ends[0]);
        close(ends[1]);
        return -error;
    }
    int32_t answer[2] = {-EPIPE, 0};
    if (between == 0) {
        pid_t pid = 0;
        answer[0] = pn_spawn(path, arguments, keep, count, &pid);
        answer[1] = pid;
        ssize_t written = write(ends[1], answer, sizeof answer);
        _exit(written == (ssize_t)sizeof answer ? 0 : 1);
    }
    close(ends[1]);
    ssize_t got;
    do
        got = read(ends[0], answer, sizeof answer);
    while (got < 0 && errno == EINTR);
    close(ends[0]);
    while (waitpid(between, NULL, 0) < 0 && errno == EINTR)
        ;
    if (got != (ssize_t)sizeof answer)
        return -EPIPE;
    *ret_pid = answer[1];
    return answer[0];
}

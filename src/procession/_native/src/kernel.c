#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* younger than the headers of some systems that we build on */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

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

ssize_t pn_read_file(int directory, const char *path, char *ret_text, size_t size)
{
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, ret_text, size - 1);
    int error = errno;
    (void)close(fd);
    ret_text[got > 0 ? got : 0] = 0;
    return got < 0 ? -error : got;
}

const char *pn_stat_field(const char *text, int field)
{
    const char *at = strrchr(text, ')'); /* the name may hold anything; fields 3... follow */
    for (int n = 2; at != NULL && n < field; n++)
        at = strchr(at + 1, ' ');
    return at == NULL ? NULL : at + 1;
}

uint64_t pn_start_time(int directory, const char *path)
{
    char text[1024];
    if (pn_read_file(directory, path, text, sizeof text) <= 0)
        return 0;
    const char *field = pn_stat_field(text, 22);
    return field == NULL ? 0 : strtoull(field, NULL, 10);
}

uint64_t pn_own_start_time(void)
{
    return pn_start_time(AT_FDCWD, "/proc/self/stat");
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

int pn_mrelease(int pidfd)
{
    return syscall(SYS_process_mrelease, pidfd, 0) == 0 ? 0 : -errno;
}

/* linux_dirent64 of getdents64(2), which the libraries have under several names */
struct entry {
    uint64_t inode;
    int64_t next;
    uint16_t size;
    uint8_t type;
    char name[];
};

/* Close those from first to last that /proc tells of. Without opendir(3): nothing is allocated in a
 * process that shares another one's memory (anchor.h). */
static int close_listed(unsigned int first, unsigned int last)
{
    _Alignas(struct entry) char list[1024];
    int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -errno;
    long got;
    while ((got = syscall(SYS_getdents64, folder, list, sizeof list)) > 0)
        for (const char *at = list; at < list + got;) {
            const struct entry *it = (const void *)at;
            unsigned long fd = strtoul(it->name, NULL, 10);
            if (it->name[0] != '.' && fd >= first && fd <= last && fd != (unsigned long)folder)
                (void)close((int)fd);
            at += it->size;
        }
    int error = got < 0 ? errno : 0;
    (void)close(folder);
    return -error;
}

/* Close first to last. */
static int close_span(unsigned int first, unsigned int last)
{
    if (syscall(SYS_close_range, first, last, 0) == 0)
        return 0;
    if (errno != ENOSYS && errno != EPERM) /* EPERM: sandboxes that do not know the call */
        return -errno;
    if (close_listed(first, last) == 0) /* the limit may be a billion, or lowered since */
        return 0;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -errno;
    for (unsigned int fd = first; fd <= last && fd < limit.rlim_cur && fd < INT_MAX; fd++)
        (void)close((int)fd);
    return 0;
}

int pn_close_all_but(const int *keep, size_t count)
{
    unsigned int first = 0;
    for (size_t n = 0; n < count; n++) {
        unsigned int kept = (unsigned int)keep[n];
        int result = kept > first ? close_span(first, kept - 1) : 0;
        if (result != 0)
            return result;
        first = kept + 1;
    }
    return close_span(first, UINT_MAX);
}

/* Whether /proc is of our own pid namespace: the process has one number in it, its own. */
static int proc_is_ours(void)
{
    char text[2048];
    if (pn_read_file(AT_FDCWD, "/proc/self/status", text, sizeof text) <= 0)
        return 0;
    const char *line = strstr(text, "\nNStgid:");
    if (line == NULL)
        return 0;
    char *end;
    long number = strtol(line + strlen("\nNStgid:"), &end, 10);
    return *end == '\n' && number == (long)getpid();
}

uint32_t pn_own_view(void)
{
    struct stat pids, times;
    if (!proc_is_ours() || stat("/proc/self/ns/pid", &pids) != 0)
        return 0;
    uint32_t view = (uint32_t)pids.st_ino;
    if (stat("/proc/self/ns/time", &times) == 0) /* Linux 5.6 */
        view ^= (uint32_t)times.st_ino << 16 | (uint32_t)times.st_ino >> 16;
    return view != 0 ? view : 1;
}

int64_t pn_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

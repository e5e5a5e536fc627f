/* System calls that Python does not offer, or not all of. Negative errno is the error. */
#ifndef PN_KERNEL_H
#define PN_KERNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pn_dead {
    pid_t pid;
    int wait_status; /* as of wait(2) */
    int64_t utime_ns, stime_ns, max_rss_kib;
};

/* A child that has ended, left unreaped. 1, 0 when none has, -ECHILD when there is no child. */
int pn_peek_child(struct pn_dead *ret_dead);

/* When this process started: clock ticks since boot (proc_pid_stat(5), field 22); 0 unknown. */
uint64_t pn_own_start_time(void);

/* Wait status of a process that somebody has reaped already, from its pidfd (Linux 6.15).
 * 0, or -ENOTSUP, -ENODATA. */
int pn_pidfd_exit_status(int pidfd, int *ret_status);

/* Close every descriptor but these, which are sorted upward. */
int pn_close_all_but(const int *keep, size_t count);

/* Start a program with posix_spawn: all signals blocked, SIGCHLD at its default, 0-2 on /dev/null,
 * a process group of its own, the descriptors in `keep` inherited under their numbers.
 * Descriptors that the user made inheritable are inherited too: the program closes what it does
 * not know. 0 or -errno. */
int pn_spawn(const char *path, char *const *arguments, const int *keep, size_t count,
             pid_t *ret_pid);

/* The same by a child that ends at once, so that the program is no child of the caller. */
int pn_spawn_detached(const char *path, char *const *arguments, const int *keep, size_t count,
                      pid_t *ret_pid);

#endif

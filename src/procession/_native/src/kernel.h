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

/* When a process started: clock ticks since boot (proc_pid_stat(5), field 22); 0 unknown. The path
 * is that of its stat file, from `directory`. */
uint64_t pn_start_time(int directory, const char *path);

/* The same of this process. */
uint64_t pn_own_start_time(void);

/* A field of a stat file of procfs, from the third on, whatever the name before it holds; NULL. */
const char *pn_stat_field(const char *text, int field);

/* Wait status of a process that somebody has reaped already, from its pidfd (Linux 6.15).
 *
 *   -ENOTSUP   the kernel does not know this question
 *   -ENODATA   it was not reaped yet */
int pn_pidfd_exit_status(int pidfd, int *ret_status);

/* Free the memory of a process that was killed and has not got around to it. 0 or -errno. */
int pn_mrelease(int pidfd);

/* Close every descriptor but these, which are sorted upward. */
int pn_close_all_but(const int *keep, size_t count);

/* A whole small file of procfs, ended by a zero; what does not fit is cut. Its size or -errno. */
ssize_t pn_read_file(int directory, const char *path, char *ret_text, size_t size);

/* What this process sees of pids and start times, as a number: the same one in the same pid and
 * time namespaces, under a /proc of that pid namespace. 0: unknown, no /proc. */
uint32_t pn_own_view(void);

/* CLOCK_MONOTONIC. */
int64_t pn_now_ns(void);

#endif

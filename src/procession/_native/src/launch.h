/* Starting the keeper's program. Negative errno is the error. */
#ifndef PN_LAUNCH_H
#define PN_LAUNCH_H

#include <stddef.h>
#include <sys/types.h>

/* Start a program: all signals blocked, SIGCHLD at its default, 0-2 on /dev/null, a process group
 * of its own, the descriptors in `keep` inherited under their numbers (0-2 among them are kept, not
 * replaced). posix_spawn cannot close others: what the user made inheritable is inherited, and the
 * program closes what it does not know. 0 or -errno. */
int pn_spawn(const char *path, char *const *arguments, const int *keep, size_t count,
             pid_t *ret_pid);

/* The same, but not as a child of the caller: nobody gets a SIGCHLD for it, and no wait() of the
 * caller's, in whatever thread, ever sees it. */
int pn_spawn_detached(const char *path, char *const *arguments, const int *keep, size_t count,
                      pid_t *ret_pid);

#endif

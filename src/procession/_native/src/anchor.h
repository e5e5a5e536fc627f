/* A process that keeps a process group from being orphaned. */
#ifndef PN_ANCHOR_H
#define PN_ANCHOR_H

#include <sys/types.h>

/* Children are in main's process group and below the zygote, which is in another one of the same
 * session. While there is such a child the group is not orphaned; when the last one ends it becomes
 * so, and the kernel sends SIGHUP to all of it, main too, if any member is stopped (setpgid(2),
 * _exit(2)). An anchor is a member that ends no sooner than the zygote, so that this never happens.
 *
 * It runs nothing: a second process on the memory of this one (CLONE_VM), without descriptors and
 * with every signal blocked, that sleeps until it is killed, or its parent is.
 *
 * Returns its pid, or -errno: -EPERM where the group is not of this session, or no more. */
pid_t pn_anchor(pid_t group);

/* Take it out of the group, which orphans nobody, and end it. */
void pn_weigh_anchor(pid_t anchor);

#endif

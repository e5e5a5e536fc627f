/* Who a process is to the kernel. A child of a keeper with other credentials than its starter's
 * would have more privilege than that, or less; two processes with equal ones may stand for each
 * other. */
#ifndef PN_CREDENTIALS_H
#define PN_CREDENTIALS_H

#include <stdint.h>

#define PN_NAMESPACES 8

/* Compared byte by byte; what is not to be seen (no /proc) is 0. All of the calling thread. */
struct pn_credentials {
    uint32_t uid[3], gid[3];      /* real, effective, saved */
    uint64_t groups;              /* hash */
    uint32_t capabilities[6];     /* effective, permitted, inheritable: low words, then high ones */
    int32_t no_new_privs, seccomp;
    uint64_t bounding, ambient;   /* capabilities that a program may get by being executed */
    int64_t securebits;
    int64_t filters;              /* seccomp filters: one more is less privilege */
    int64_t session;
    uint64_t namespaces[PN_NAMESPACES]; /* inode numbers, those that children get */
    uint64_t root[2];             /* device and inode */
    uint64_t cgroup;              /* hash */
    uint64_t label;               /* hash: SELinux context, AppArmor profile */
};
_Static_assert(sizeof(struct pn_credentials) == 6 * 4 + 8 + 6 * 4 + 2 * 4 + 8 * 17,
               "a hole between members would make equals differ");

/* `self` is a descriptor of /proc/thread-self/ns, or -1 without /proc; `status` the text of the
 * thread's status, empty without /proc. 0, or -errno where the process has no descriptor or no
 * memory to look: nothing is known then. */
int pn_credentials_read(int self, const char *status, struct pn_credentials *ret);

/* Whether an error only means that: it says nothing about what was looked at. */
int pn_cannot_look(int error);

#endif

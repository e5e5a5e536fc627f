/* What a child shares with its starter beside memory and descriptors, in one comparable piece. */
#ifndef PN_SURROUNDINGS_H
#define PN_SURROUNDINGS_H

#include <stdint.h>

#define PN_LIMITS 16
#define PN_AFFINITY_BYTES 128 /* 1024 processors */

struct pn_surroundings {
    uint64_t blocked;  /* signal mask of the calling thread, bit n-1 for signal n */
    uint64_t ignored;  /* signals whose disposition is SIG_IGN */
    int32_t umask;     /* -1 where /proc does not tell: it cannot be read without being set */
    int32_t nice;
    int32_t pgid;
    int32_t affinity_size; /* bytes used, 0 when unknown */
    unsigned char affinity[PN_AFFINITY_BYTES];
    struct {
        uint64_t soft, hard;
    } limits[PN_LIMITS];
};

void pn_surroundings_read(struct pn_surroundings *ret);

/* Change this process where `wanted` differs from `now`; signals are left to the caller. What is
 * not allowed (a higher priority, a foreign process group) is left as it is. */
void pn_surroundings_apply(const struct pn_surroundings *wanted, const struct pn_surroundings *now);

/* Make `mask` the signal mask. */
void pn_set_blocked(uint64_t mask);

/* Who this process is to the kernel: a child of a keeper with other credentials would have more
 * privilege than its starter, or less. Two processes with equal ones may stand for each other. */
struct pn_credentials {
    uint32_t uid[3], gid[3];
    uint64_t groups;       /* hash */
    uint32_t capabilities[6];
    int32_t no_new_privs, seccomp, session, spare;
    uint64_t namespaces[8]; /* inode numbers */
    uint64_t root[2];
    uint64_t cgroup; /* hash */
};

void pn_credentials_read(struct pn_credentials *ret);

#endif

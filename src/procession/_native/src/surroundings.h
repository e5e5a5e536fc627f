/* What a child shares with its starter beside memory and descriptors, in one comparable piece. */
#ifndef PN_SURROUNDINGS_H
#define PN_SURROUNDINGS_H

#include <stdint.h>

#define PN_LIMITS 16
#define PN_AFFINITY_BYTES 128 /* 1024 processors */

struct pn_surroundings {
    uint64_t blocked;      /* signal mask of the calling thread, bit n-1 for signal n */
    uint64_t ignored;      /* signals whose disposition is SIG_IGN */
    int32_t umask;         /* -1 where /proc does not tell: it cannot be read without being set */
    int32_t nice;          /* of the calling thread */
    int32_t pgid;
    int32_t affinity_size; /* bytes used, 0 when unknown (more processors than fit) */
    unsigned char affinity[PN_AFFINITY_BYTES];
    struct {
        uint64_t soft, hard;
    } limits[PN_LIMITS];
};

/* `status` is the text of the thread's status in /proc, empty where there is none. */
void pn_surroundings_read(const char *status, struct pn_surroundings *ret);

/* Change this process where `wanted` differs from `now`; signals are left to the caller. What is
 * not known is not touched. What is not allowed (a better priority, a process group of another
 * session, a higher hard limit) stays as it is; of a limit the allowed part is taken. */
void pn_surroundings_apply(const struct pn_surroundings *wanted, const struct pn_surroundings *now);

/* Make `mask` the signal mask of the calling thread. */
void pn_set_blocked(uint64_t mask);

#endif

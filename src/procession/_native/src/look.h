/* One look of a thread at itself, for a start: who it is to the kernel, and what a child shares. */
#ifndef PN_LOOK_H
#define PN_LOOK_H

#include <stdint.h>

#include "credentials.h"
#include "surroundings.h"

struct pn_look {
    struct pn_credentials credentials;
    struct pn_surroundings surroundings;
    uint64_t directory[2]; /* device and inode of the working directory, 0 where it is gone */
    uint32_t standard;     /* bit n: descriptor n of 0-2 is open */
};

/* What of it is asked for by path comes from one opened folder and one read of the status there:
 * finding it takes half of the time of a look. 0, or -errno where the process has no descriptor or
 * no memory to look: nothing is known then. */
int pn_look(struct pn_look *ret);

/* The credentials alone. */
int pn_look_at_credentials(struct pn_credentials *ret);

/* The surroundings alone; without a descriptor for /proc the umask is unknown. */
void pn_look_at_surroundings(struct pn_surroundings *ret);

#endif

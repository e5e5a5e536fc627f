/* The user's semaphore, and a ledger of who has its permits, so that those of the dead come back.
 * Bytes, all zero but value and bound in a new one:
 *
 *     mutex      mutex.h; guards all that follows but the reading of `value`
 *     value      permits that are free
 *     bound      how many there may be; SEM_VALUE_MAX where the user set none
 *     gate       gate.h: who waits for a permit
 *     reclaim    whether permits of a plain acquire() come back, too
 *     recovered  permits that came back from the dead
 *     clock      counts what was acquired: who has a permit for the longest time
 *     top        the ledger's entries from here on are empty
 *     record     what is being done; see below
 *     blocks     where the ledger's entries are that it grew by: from the semaphore, in units of
 *                PN_CELL; 0 where nobody has needed any. Block n has those of PN_PERMITS << n slots,
 *                from slot PN_PERMITS << n on
 *     ledger     an entry for each of the first slots of the table
 *
 * An entry's permits belong to the process that its owner word names (identity.h), and there are two
 * sorts: *scoped* ones, of a `with` block, which their taker would have released, and *plain* ones,
 * which may be anybody's to release, or nobody's. Each operation changes value and one entry; it
 * writes what they shall be into the record first (mutex.h), and so is repaired by being done. */
#ifndef PN_SEMAPHORE_H
#define PN_SEMAPHORE_H

#include "gate.h"
#include "memory.h"
#include "mutex.h"

#define PN_SEMAPHORE_MAX 0x7fffffffu
#define PN_PERMITS 32u       /* entries to begin with */
#define PN_PERMIT_BLOCKS 11u /* with them, as many as a table has slots (_wire/messages.py) */

struct pn_permits {
    _Atomic uint64_t owner;  /*  0  0: nobody has been here */
    _Atomic uint64_t since;  /*  8  of the clock, when the first of them was taken */
    _Atomic uint32_t scoped; /* 16 */
    _Atomic uint32_t plain;  /* 20 */
};
_Static_assert(sizeof(struct pn_permits) == 24, "bump PN_MEMORY_FORMAT");

struct pn_semaphore {
    struct pn_mutex mutex;      /*   0 */
    _Atomic uint32_t value;     /*  24 */
    uint32_t bound;             /*  28 */
    struct pn_gate gate;        /*  32 */
    uint32_t reclaim;           /*  64 */
    _Atomic uint32_t recovered; /*  68 */
    _Atomic uint64_t clock;     /*  72 */
    _Atomic uint32_t top;       /*  80 */
    uint32_t spare;             /*  84 */
    struct pn_semaphore_record {
        _Atomic uint32_t valid;    /*  88 */
        _Atomic uint32_t index;    /*  92  the entry */
        struct pn_permits entry;   /*  96  what it shall be */
        _Atomic uint64_t clock;    /* 120 */
        _Atomic uint32_t value, recovered;
    } record;
    _Atomic uint32_t blocks[PN_PERMIT_BLOCKS]; /* 136 */
    unsigned char spare2[12];                  /* 180 */
    struct pn_permits ledger[PN_PERMITS];      /* 192 */
};
_Static_assert(offsetof(struct pn_semaphore, gate) == 32, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_semaphore, record) == 88, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_semaphore, blocks) == 136, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_semaphore, ledger) == 192, "bump PN_MEMORY_FORMAT");
_Static_assert(sizeof(struct pn_semaphore) == 960, "bump PN_MEMORY_FORMAT");

/* How a permit is taken or given back. */
enum pn_sort { PN_PLAIN, PN_SCOPED };

/* A wait; zero to begin with, but for the deadline (CLOCK_MONOTONIC, PN_FOREVER = no limit, 0 = do
 * not wait). */
struct pn_permit_wait {
    int64_t deadline_ns;
    struct pn_ticket ticket;
    uint64_t before; /* whose death gave back what was taken; 0: nobody's */
};

/* Take a permit if there is one, without ever waiting.
 *
 *    0            taken; *ret_before is whose death gave it back, or 0
 *    -EAGAIN      none is free, or somebody is just at it: call pn_semaphore_take()
 *    -ENOBUFS     the ledger has no room for this process: pn_semaphore_grow(), and call again
 *    -ENOSPC ...  this process has no identity in the table */
int pn_semaphore_try(struct pn_self *self, struct pn_semaphore *it, enum pn_sort sort,
                     uint64_t *ret_before);

/* Take a permit; wait until the deadline. As above, and:
 *
 *    -ETIMEDOUT   not taken
 *    -EINTR       a signal came, or one may have come while nobody slept: see to it, and call again
 *                 with the same wait
 *
 * After any other result but -ENOBUFS, pn_semaphore_end(). Not with the GIL. */
int pn_semaphore_take(struct pn_self *self, struct pn_semaphore *it, enum pn_sort sort,
                      struct pn_permit_wait *wait);

/* The wait is over, by that result. */
void pn_semaphore_end(struct pn_self *self, struct pn_semaphore *it, struct pn_permit_wait *wait,
                      int result);

/* Give a permit back: one of this process's, of that sort if it has one; if it has none, then of
 * whoever has one for the longest time. 0; -EPERM: there are as many as there may be; -EAGAIN, only
 * where it may not `wait`: somebody is just at it. */
int pn_semaphore_release(struct pn_self *self, struct pn_semaphore *it, enum pn_sort sort,
                         int wait);

/* This process comes to Python's own end: what it has stays taken. */
int pn_semaphore_leave(struct pn_self *self, struct pn_semaphore *it);

/* How many permits this process has. */
uint32_t pn_semaphore_own(struct pn_self *self, struct pn_semaphore *it);

/* Have room in the ledger for this process, out of the memory that the semaphore lies in. 0 or
 * -errno: -ENOSPC, all of that is taken; -ENOMEM, ... Not with the GIL. */
int pn_semaphore_grow(struct pn_self *self, struct pn_semaphore *it, struct pn_memory *memory,
                      size_t memory_size, int fd);

/* Entries of the ledger that there is room for. */
uint32_t pn_semaphore_room(const struct pn_semaphore *it);

#endif

/* A lock of a process that its death gives back: the core's own, around state of many words.
 *
 *     word    an owner word (identity.h), 0 when it is free; the futex is its low half
 *     watch   see wait.h
 *
 * All zero is a free mutex. It knows processes, not threads: of two threads of one process the
 * second waits, and any thread may unlock. It is held for microseconds, without the GIL's being
 * waited for and without a signal handler in between.
 *
 * State behind a mutex is changed by a redo record beside it, so that a death at any instruction
 * leaves either the old state or a record to be replayed:
 *
 *     1. write the new values (absolute ones, never "add 1") into the record
 *     2. set its `valid` by a store with release
 *     3. carry the record out: copy the values to their places
 *     4. clear `valid` by a store with release; unlock
 *
 * One function does 3 and 4, and is called by both: the owner, and whoever gets -EOWNERDEAD. */
#ifndef PN_MUTEX_H
#define PN_MUTEX_H

#include "identity.h"
#include "wait.h"

struct pn_mutex {
    _Atomic uint64_t word;  /*  0 */
    struct pn_watch watch;  /*  8 */
};
_Static_assert(sizeof(struct pn_mutex) == 24, "part of other layouts");

/* Take it; wait until deadline_ns (CLOCK_MONOTONIC, PN_FOREVER = no limit, 0 = do not wait).
 *
 *    0            owned
 *    -EOWNERDEAD  owned, but the last owner died inside: replay its record, then go on; who dies
 *                 over that leaves it to the next one, who is told the same
 *    -ETIMEDOUT   not owned
 *    -EINTR       not owned: a signal came; handle it and call again
 *    -ENOSPC, ... not owned: this process has no identity in the table
 *
 * Safe without the GIL, after fork(), and if killed at any instruction. */
int pn_mutex_lock(struct pn_self *self, struct pn_mutex *mutex, int64_t deadline_ns);

void pn_mutex_unlock(struct pn_mutex *mutex);

#endif

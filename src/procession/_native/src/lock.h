/* The user's lock, whose holder may die at any instruction. All zero is a free one. Bytes:
 *
 *     word       owner word (identity.h) of the process that holds it, 0 when it is free; the futex
 *                is its low half. PN_LEFT in it: its owner came to Python's own end and left it
 *                held, so nobody takes it over and anybody may release it
 *     watch      wait.h
 *     holder     which thread of that process: a mix of both, so that what a dead process left in
 *                here is never a living thread's; 0 while nobody can say
 *     count      how often that thread has it; only a recursive lock has more than 1
 *     recovered  how often it was taken over from the dead
 *
 * The word alone is the lock: taking it, letting go and taking over are one compare-and-swap of it
 * each, so there is nothing to repair. holder and count are read by nobody who does not find its
 * own mix in `holder`, which is written last and cleared first. */
#ifndef PN_LOCK_H
#define PN_LOCK_H

#include "identity.h"
#include "wait.h"

#define PN_LEFT (1ull << 24)

struct pn_lock {
    _Atomic uint64_t word;      /*  0 */
    struct pn_watch watch;      /*  8 */
    _Atomic uint64_t holder;    /* 24 */
    _Atomic uint32_t count;     /* 32 */
    _Atomic uint32_t recovered; /* 36 */
};
_Static_assert(offsetof(struct pn_lock, watch) == 8, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_lock, holder) == 24, "bump PN_MEMORY_FORMAT");
_Static_assert(sizeof(struct pn_lock) == 40, "bump PN_MEMORY_FORMAT");

enum pn_taking {
    PN_TAKEN,      /* it was free */
    PN_TAKEN_OVER, /* its owner had died otherwise than by Python's own end */
    PN_LEFT_HELD,  /* not taken: its owner came to Python's own end and left it held */
};

/* The mix for a thread (any number that no two living threads of a process share) of a process. */
static inline uint64_t pn_lock_holder(uint64_t owner, uint64_t thread)
{
    return ((owner & PN_OWNER_MASK) * 0x9e3779b97f4a7c15ull ^ thread) | 1;
}

/* Whether a thread of this process has it. */
static inline int pn_lock_is_mine(const struct pn_lock *lock, uint64_t holder)
{
    return atomic_load_explicit(&lock->holder, memory_order_relaxed) == holder;
}

/* Take it if it is free: whether it was. `me` is this process's owner word. */
static inline int pn_lock_try(struct pn_lock *lock, uint64_t me, uint64_t holder)
{
    uint64_t nobody = 0;
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &nobody, me, memory_order_acquire,
                                                 memory_order_relaxed))
        return 0;
    atomic_store_explicit(&lock->count, 1, memory_order_relaxed);
    atomic_store_explicit(&lock->holder, holder, memory_order_relaxed);
    return 1;
}

/* Begin a wait until deadline_ns (CLOCK_MONOTONIC, PN_FOREVER = no limit, 0 = do not wait). */
void pn_lock_begin(const struct pn_table *table, struct pn_lock *lock, uint64_t me,
                   struct pn_waiter *wait, int64_t deadline_ns);

/* Take it, or wait. The wait is over with every result but -EINTR.
 *
 *    PN_TAKEN, PN_TAKEN_OVER   owned
 *    PN_LEFT_HELD              not owned, and `told` was false: tell the user, and begin again
 *    -ETIMEDOUT                not owned
 *    -EINTR                    a signal came, or one may have come while nobody slept: see to it,
 *                              then call again with the same wait, or pn_wait_end()
 *
 * ret_before: whom it was taken over from, or who left it. Safe without the GIL. */
int pn_lock_take(const struct pn_table *table, struct pn_lock *lock, uint64_t holder, int told,
                 struct pn_waiter *wait, uint64_t *ret_before);

/* Let go, whoever has it. 0, or -EPERM: it was free. */
int pn_lock_release(struct pn_lock *lock);

/* This process comes to Python's own end: what it holds is left held. Whether it held it. */
int pn_lock_leave(struct pn_lock *lock, uint64_t me);

#endif

/* Sleeping on a word of shared memory that a death may leave without a wake.
 *
 * Whoever is woken may be killed with the wake-up in its hands, and whoever should wake may be
 * killed before it comes to that. Three things see to it that the others go on:
 *
 *   1. A sleeper names whose death ends its wait (pn_wait_for), and hears of it from the kernel: it
 *      sleeps on that process's life word as well, and is woken before the dead one's memory is
 *      torn down. All who sleep on a life word are woken, by whom the kernel woke.
 *   2. Of the old waits one, the *sentry*, looks again every 16 ms while something happens, and now
 *      and then while nothing does; whoever wakes a sleeper tells it that something happens. All
 *      the others sleep for seconds.
 *   3. The others hear of the sentry's death as in 1, and of that of its *deputy*, who hears of the
 *      sentry's: the next one takes the place. A hundred idle waiters cost what one does.
 *
 * The two offices are leases in shared memory: until when somebody has promised to look again, and
 * who. Of one who was stopped the lease runs out; nothing ever has to be repaired. A young wait is
 * nobody's sentry: it looks again after 2, 4, 8 ms. Where nothing can be heard (kernels before
 * 5.16, a process whose first thread holds no life word) two look every 16 ms instead. Times are
 * CLOCK_MONOTONIC.
 *
 *     struct pn_waiter wait;
 *     pn_wait_begin(&wait, &object->watch, word, deadline_ns);
 *     pn_wait_as(&wait, table, my owner word);
 *     for (;;) {
 *         look at the state; leave with the answer when there is one
 *         pn_wait_for(&wait, owner word of who has it);
 *         result = pn_wait_sleep(&wait, value of the word that was seen);
 *         if (result < 0)
 *             break;
 *     }
 *     pn_wait_end(&wait, result);
 *
 * A signal that comes while nobody sleeps ends no sleep. Who waits for a user therefore comes back
 * after each sleep (-EINTR) and goes on with the same wait, once signals were seen to: one that
 * came a moment too late is seen to after the next sleep.
 *
 * Where each waiter has a word of its own, so that one is woken and not all, it sets `bell` to a
 * word that they share: there an office is offered to one of them.
 */
#ifndef PN_WAIT_H
#define PN_WAIT_H

#include <stdint.h>

#include "futex.h"

struct pn_table;

struct pn_watch {
    _Atomic uint64_t lease[2]; /*  0, 8  sentry, deputy; all zero is valid: nobody watches */
};
_Static_assert(sizeof(struct pn_watch) == 16, "part of every shared object's layout");

#define PN_HEARD 4 /* whose deaths one sleep can hear of, beside those of sentry and deputy */

struct pn_waiter {
    struct pn_watch *watch;
    const uint32_t *word, *bell;
    const struct pn_table *table; /* NULL: nothing is heard */
    int64_t deadline_ns, slice_ns;
    int growth; /* of a young wait's slices: by this part of themselves */
    uint64_t me, held, dying;
    uint64_t others[PN_HEARD];
    unsigned int other_count;
    int office; /* 0, 1, or -1: none */
    int slept, calm;
    uint32_t seen;
};

void pn_wait_begin(struct pn_waiter *wait, struct pn_watch *watch, const uint32_t *word,
                   int64_t deadline_ns);

/* Who waits, as an owner word of a table: without it no death is heard of. */
void pn_wait_as(struct pn_waiter *wait, const struct pn_table *table, uint64_t me);

/* The next sleep ends with this process's death, too; an owner word, PN_HEARD of them at most. */
void pn_wait_for(struct pn_waiter *wait, uint64_t owner);

/* Sleep while *word is `expected`.
 *
 *    0            look again: woken, the word differed, or it is time to
 *    -ETIMEDOUT   the deadline has passed
 *    -EINTR       a signal came */
int pn_wait_sleep(struct pn_waiter *wait, uint32_t expected);

/* A process is dying, and nobody will tell when it is dead: look again after 1, 1.5, 2.2, ... ms. Of
 * the same one (an owner word) only the first time. */
void pn_wait_soon(struct pn_waiter *wait, uint64_t dying);

/* The wait is over, with what was waited for (0) or without (< 0): then a wake-up that came with
 * the deadline or the signal is passed on. */
void pn_wait_end(struct pn_waiter *wait, int result);

/* Wake so many of those who sleep on a word, after it was changed: how many there were. */
int pn_wait_wake(struct pn_watch *watch, const uint32_t *word, int count);

#endif

/* Sleeping on a word of shared memory that a death may leave without a wake.
 *
 * Whoever is woken may be killed with the wake-up in its hands, and whoever should wake may be
 * killed before it comes to that. So a young wait looks again after 2, 4, 8, 16 ms. Of the old ones
 * two look every 16 ms, the *sentry* and its deputy, and the others sleep for seconds: a hundred
 * idle waiters cost what two do. The two offices are leases, times in shared memory until which
 * somebody has promised to look: of one who was killed or stopped the lease runs out, nothing has
 * to be repaired, and the other one wakes a successor. Times are CLOCK_MONOTONIC.
 *
 *     struct pn_waiter wait;
 *     pn_wait_begin(&wait, &object->watch, word, deadline_ns);
 *     for (;;) {
 *         look at the state; leave with the answer when there is one
 *         result = pn_wait_sleep(&wait, value of the word that was seen);
 *         if (result < 0)
 *             break;
 *     }
 *     pn_wait_end(&wait, result);
 */
#ifndef PN_WAIT_H
#define PN_WAIT_H

#include <stdint.h>

#include "futex.h"

struct pn_watch {
    _Atomic int64_t lease[2]; /*  0, 8  all zero is valid: nobody watches */
};
_Static_assert(sizeof(struct pn_watch) == 16, "part of every shared object's layout");

struct pn_waiter {
    struct pn_watch *watch;
    const uint32_t *word;
    int64_t deadline_ns, slice_ns, held_ns;
    int office; /* 0, 1, or -1: none */
    int slept;
};

void pn_wait_begin(struct pn_waiter *wait, struct pn_watch *watch, const uint32_t *word,
                   int64_t deadline_ns);

/* Sleep while *word is `expected`.
 *
 *    0            look again: woken, the word differed, or it is time to
 *    -ETIMEDOUT   the deadline has passed
 *    -EINTR       a signal came */
int pn_wait_sleep(struct pn_waiter *wait, uint32_t expected);

/* Something is about to happen that nobody will tell of: look again after 1, 2, 4, ... ms. */
void pn_wait_soon(struct pn_waiter *wait);

/* The wait is over, with what was waited for (0) or without (< 0): then a wake-up that came with
 * the deadline or the signal is passed on. */
void pn_wait_end(struct pn_waiter *wait, int result);

#endif

/* The user's event: a flag that wakes all who wait for it. All zero is an unset one. Bytes:
 *
 *     word    bit 0     it is set
 *             bit 1     somebody may sleep on it, until the next set
 *             bits 2-31 turn: how often it was set, modulo 2^30; so that who waits sees that it was
 *                       set even when it was cleared again at once. The futex word
 *     watch   wait.h
 *
 * Every operation is one compare-and-swap of the word, so there is nothing to repair. Who is killed
 * between a set and the wake leaves those who sleep to the two who watch: they wake the others. */
#ifndef PN_EVENT_H
#define PN_EVENT_H

#include <stdatomic.h>
#include <stddef.h>

#include "wait.h"

struct pn_event {
    _Atomic uint32_t word; /*  0 */
    uint32_t spare;        /*  4 */
    struct pn_watch watch; /*  8 */
};
_Static_assert(offsetof(struct pn_event, watch) == 8, "bump PN_MEMORY_FORMAT");
_Static_assert(sizeof(struct pn_event) == 24, "bump PN_MEMORY_FORMAT");

#define PN_EVENT_SET 1u

/* The word as it is, with what was written before a set that it shows. */
static inline uint32_t pn_event_look(const struct pn_event *event)
{
    return atomic_load_explicit(&event->word, memory_order_acquire);
}

void pn_event_set(struct pn_event *event);

void pn_event_clear(struct pn_event *event);

/* Begin a wait until deadline_ns (CLOCK_MONOTONIC, PN_FOREVER = no limit, 0 = do not wait); say
 * who waits by pn_wait_as(); it ends with pn_wait_end(). */
void pn_event_begin(struct pn_event *event, struct pn_waiter *wait, int64_t deadline_ns);

/* Wait until it is set, or was since `seen`.
 *
 *    0            it is, or was
 *    -ETIMEDOUT   it was not
 *    -EINTR       a signal came, or one may have come while nobody slept: see to it, and call again
 *                 with the same wait and the same `seen` */
int pn_event_wait(struct pn_event *event, uint32_t seen, struct pn_waiter *wait);

#endif

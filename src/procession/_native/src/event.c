#define _GNU_SOURCE
#include "event.h"

#define SET PN_EVENT_SET
#define SLEEPERS 2u
#define TURN 4u

static const uint32_t *futex_of(const struct pn_event *event)
{
    return (const uint32_t *)(const void *)&event->word;
}

void pn_event_begin(struct pn_event *event, struct pn_waiter *wait, int64_t deadline_ns)
{
    pn_wait_begin(wait, &event->watch, futex_of(event), deadline_ns);
}

void pn_event_set(struct pn_event *event)
{
    uint32_t word = atomic_load_explicit(&event->word, memory_order_relaxed);
    /* written also where it is set already: who sees it so from now on sees all that was before */
    while (!atomic_compare_exchange_weak(&event->word, &word,
                                         word & SET ? word : ((word & ~SLEEPERS) + TURN) | SET))
        ;
    if (word & SLEEPERS)
        (void)pn_wait_wake(&event->watch, futex_of(event), INT_MAX);
}

void pn_event_clear(struct pn_event *event)
{
    (void)atomic_fetch_and(&event->word, ~SET);
}

static int was_set(uint32_t word, uint32_t seen)
{
    return (word & SET) != 0 || (word ^ seen) >= TURN;
}

int pn_event_wait(struct pn_event *event, uint32_t seen, struct pn_waiter *wait)
{
    for (int slept = 0;;) {
        uint32_t word = atomic_load(&event->word);
        if (was_set(word, seen)) {
            if (wait->office >= 0) /* who set it may have been killed before it woke them */
                pn_futex_wake_all(futex_of(event));
            return 0;
        }
        if (slept)
            return -EINTR;
        if (wait->deadline_ns == 0)
            return -ETIMEDOUT; /* without a mark: nobody will sleep */
        if (!(word & SLEEPERS)) {
            if (!atomic_compare_exchange_strong(&event->word, &word, word | SLEEPERS))
                continue;
            word |= SLEEPERS;
        }
        int result = pn_wait_sleep(wait, word);
        if (result < 0)
            return result;
        slept = 1;
    }
}

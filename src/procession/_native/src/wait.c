#define _GNU_SOURCE
#include "wait.h"

#include "table.h"

#define MS ((int64_t)1000000)
#define FIRST_NS (2 * MS)
#define SLICE_NS (16 * MS)   /* of the two who watch: recovery takes one slice at most */
#define LEASE_NS (24 * MS)   /* a slice, and what a busy machine takes to come around to it */
#define LONG_NS (5000 * MS)  /* of the others, who only look whether two watch */

void pn_wait_begin(struct pn_waiter *wait, struct pn_watch *watch, const uint32_t *word,
                   int64_t deadline_ns)
{
    *wait = (struct pn_waiter){watch, word, deadline_ns, FIRST_NS, 0, -1, 0};
}

void pn_wait_soon(struct pn_waiter *wait)
{
    wait->slice_ns = MS;
}

/* A lease far ahead was given by somebody whose clock is another (time namespaces). */
static int expired(int64_t lease, int64_t now)
{
    return lease <= now || lease > now + 10 * LEASE_NS;
}

/* Hold an office from now on. */
static int hold(struct pn_waiter *wait, int office, int64_t before, int64_t now)
{
    if (!atomic_compare_exchange_strong(&wait->watch->lease[office], &before, now + LEASE_NS))
        return 0;
    wait->office = office;
    wait->held_ns = now + LEASE_NS;
    return 1;
}

/* Whether this waiter is one of the two who watch, from now on until the next time. */
static int watches(struct pn_waiter *wait, int64_t now)
{
    if (wait->office >= 0 && !hold(wait, wait->office, wait->held_ns, now))
        wait->office = -1; /* we came late, and somebody else took it */
    for (int office = 0; wait->office < 0 && office < 2; office++) {
        int64_t lease = atomic_load(&wait->watch->lease[office]);
        if (expired(lease, now))
            (void)hold(wait, office, lease, now);
    }
    if (wait->office < 0)
        return 0;
    if (expired(atomic_load(&wait->watch->lease[!wait->office]), now))
        (void)pn_futex_wake(wait->word, 1); /* whoever that is takes the other one */
    return 1;
}

int pn_wait_sleep(struct pn_waiter *wait, uint32_t expected)
{
    int64_t now = pn_now_ns();
    if (wait->deadline_ns != PN_FOREVER && now >= wait->deadline_ns)
        return -ETIMEDOUT;
    int64_t until;
    if (wait->slice_ns < SLICE_NS) {
        until = now + wait->slice_ns;
        wait->slice_ns *= 2;
    } else {
        until = now + (watches(wait, now) ? SLICE_NS : LONG_NS);
    }
    if (wait->deadline_ns != PN_FOREVER && wait->deadline_ns < until)
        until = wait->deadline_ns;
    wait->slept = 1;
    int result = pn_futex_wait(wait->word, expected, until);
    return result == -EINTR ? result : 0;
}

void pn_wait_end(struct pn_waiter *wait, int result)
{
    int wake = result < 0 && wait->slept;
    if (wait->office >= 0) {
        int64_t held = wait->held_ns;
        wake |= atomic_compare_exchange_strong(&wait->watch->lease[wait->office], &held, 0);
    }
    if (wake)
        (void)pn_futex_wake(wait->word, 1);
}

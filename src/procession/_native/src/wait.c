#define _GNU_SOURCE
#include "wait.h"

#include "identity.h"

#define MS ((int64_t)1000000)
#define FIRST_NS (2 * MS)
#define SLICE_NS (16 * MS)    /* of a sentry: a lost wake-up is found in one slice at most */
#define QUIET_NS (45 * MS)    /* while nothing happens but somebody may die unheard */
#define SILENT_NS (500 * MS)  /* while nothing happens and every death is heard */
#define LONG_NS (4000 * MS)   /* of the others, at least; three times that at most */
#define GRACE_NS (8 * MS)     /* what a busy machine may take to come around to a promise */
#define CALM 3                /* looks without a change until nothing happens */

/* --- leases: until when (units of 2^20 ns), who (slot + 1, or 0), and whether it wants to be told
 * that something happens --- */

#define TO_BE_TOLD 1ull
#define SLOT_MASK 0xfffffeull
#define UNIT 20

static uint64_t lease_of(const struct pn_waiter *wait, int64_t until)
{
    return (uint64_t)(until >> UNIT) << 24 | (wait->me & SLOT_MASK);
}

/* The slot of who holds it, if the waiter's table has it. */
static const struct pn_slot *officer(const struct pn_waiter *wait, uint64_t lease)
{
    uint32_t number = (uint32_t)((lease & SLOT_MASK) >> 1);
    if (wait->table == NULL || number == 0 || number > wait->table->slot_count)
        return NULL;
    return &wait->table->slots[number - 1];
}

/* Whether nobody holds it: it has run out, or its holder is dead. One that is far ahead was given by
 * somebody whose clock is another (time namespaces). */
static int is_vacant(const struct pn_waiter *wait, uint64_t lease, int64_t now)
{
    int64_t until = (int64_t)(lease >> 24) << UNIT;
    if (until <= now || until > now + 10 * LONG_NS)
        return 1;
    const struct pn_slot *slot = officer(wait, lease);
    return slot != NULL && pn_life_read(slot) == PN_LIFE_DIED;
}

static int hold(struct pn_waiter *wait, int office, uint64_t before, uint64_t lease)
{
    if (!atomic_compare_exchange_strong(&wait->watch->lease[office], &before, lease))
        return 0;
    wait->office = office;
    wait->held = lease;
    return 1;
}

/* Promise to look again at that time; take an office if there is one, the sentry's first. */
static void serve(struct pn_waiter *wait, int64_t now)
{
    uint64_t mine = lease_of(wait, now + SLICE_NS + GRACE_NS);
    if (wait->office >= 0 && !hold(wait, wait->office, wait->held, mine)) {
        wait->calm = 0; /* we were told that something happens; or else came late, */
        if (!hold(wait, wait->office, wait->held & ~TO_BE_TOLD, mine))
            wait->office = -1; /* and somebody else took it */
    }
    for (int office = 0; office < 2 && (wait->office < 0 || office < wait->office); office++) {
        uint64_t lease = atomic_load(&wait->watch->lease[office]);
        int before = wait->office;
        uint64_t held = wait->held;
        if (is_vacant(wait, lease, now) && hold(wait, office, lease, mine) && before >= 0)
            (void)atomic_compare_exchange_strong(&wait->watch->lease[before], &held, 0);
    }
    if (wait->office >= 0 && is_vacant(wait, atomic_load(&wait->watch->lease[!wait->office]), now))
        (void)pn_futex_wake(wait->bell, 1); /* whoever that is takes the other one */
}

/* --- what one sleep listens to --- */

struct sleep {
    struct pn_futex words[PN_HEARD + 4];
    unsigned int count;
    unsigned int lives; /* of these the last ones: life words */
};

static _Atomic int deaf; /* this kernel or sandbox cannot wait for several words */

static int listen(struct sleep *sleep, const struct pn_slot *slot)
{
    const uint32_t *word;
    uint32_t value;
    if (slot == NULL || atomic_load_explicit(&deaf, memory_order_relaxed) ||
        !pn_life_listen(slot, &word, &value))
        return 0;
    sleep->words[sleep->count++] = pn_futex_of(word, value);
    sleep->lives++;
    return 1;
}

/* Whether the deaths of all that the waiter named will be heard of. */
static int listen_to_others(struct pn_waiter *wait, struct sleep *sleep)
{
    int all = wait->table != NULL && wait->other_count <= PN_HEARD;
    for (unsigned int n = 0; n < wait->other_count && n < PN_HEARD; n++) {
        uint32_t index = pn_owner_index(wait->others[n]);
        all &= wait->table != NULL && index < wait->table->slot_count &&
               listen(sleep, &wait->table->slots[index]);
    }
    return all;
}

/* Whether the sentry's death, if it is not us, will be heard of; and the deputy's, by the others.
 * -EAGAIN: one of them has died since we looked for an office. */
static int listen_to_officers(struct pn_waiter *wait, struct sleep *sleep, int64_t now)
{
    int heard = 1;
    for (int office = 0; office < 2 && office != wait->office && wait->office != 0; office++) {
        uint64_t lease = atomic_load(&wait->watch->lease[office]);
        if (listen(sleep, officer(wait, lease)))
            continue;
        if (officer(wait, lease) != NULL && is_vacant(wait, lease, now))
            return -EAGAIN;
        heard = 0;
    }
    return heard;
}

/* How long an old wait sleeps. */
static int64_t length(struct pn_waiter *wait, struct sleep *sleep, int all_heard, int64_t now)
{
    serve(wait, now);
    int sentry_heard = listen_to_officers(wait, sleep, now);
    if (sentry_heard < 0)
        return 0; /* look again */
    if (wait->office != 0 && wait->bell != wait->word) {
        if (atomic_load_explicit(&deaf, memory_order_relaxed))
            return SLICE_NS; /* no bell is heard: all look for an office */
        sleep->words[sleep->count++] = pn_futex_of(wait->bell, *wait->bell);
    }
    if (wait->office < 0) /* not all at once, so that the first of many comes early */
        return LONG_NS + (int64_t)((uint64_t)now * 0x9e3779b97f4a7c15ull >> 1) % (2 * LONG_NS);
    int64_t slice = SLICE_NS;
    if (wait->office == 1 && all_heard && sentry_heard)
        slice = LONG_NS;
    else if (wait->office == 0 && all_heard && wait->calm >= CALM)
        slice = wait->other_count > 0 ? SILENT_NS : QUIET_NS;
    if (slice == SLICE_NS)
        return slice;
    uint64_t lease = lease_of(wait, now + slice + GRACE_NS);
    if (wait->office == 0)
        lease |= TO_BE_TOLD;
    if (!hold(wait, wait->office, wait->held, lease))
        return 0; /* it was taken from us: look again */
    if (wait->office == 0) /* what happened before it asked to be told has changed the word */
        sleep->words[sleep->count++] =
            pn_futex_of(pn_low_half(&wait->watch->lease[0]), (uint32_t)lease);
    return slice;
}

static int sleep_on(struct sleep *sleep, const uint32_t *word, uint32_t expected, int64_t until)
{
    if (sleep->count == 1)
        return pn_futex_wait(word, expected, until);
    int result = pn_futex_wait_any(sleep->words, sleep->count, until);
    if (result == -ENOSYS || result == -EPERM)
        atomic_store_explicit(&deaf, 1, memory_order_relaxed);
    for (unsigned int n = 1; n <= sleep->lives; n++)
        pn_life_heard((const uint32_t *)(uintptr_t)sleep->words[n].address,
                      (uint32_t)sleep->words[n].expected);
    return result;
}

/* --- */

void pn_wait_begin(struct pn_waiter *wait, struct pn_watch *watch, const uint32_t *word,
                   int64_t deadline_ns)
{
    *wait = (struct pn_waiter){.watch = watch,
                               .word = word,
                               .bell = word,
                               .deadline_ns = deadline_ns,
                               .slice_ns = FIRST_NS,
                               .growth = 1,
                               .office = -1};
}

void pn_wait_as(struct pn_waiter *wait, const struct pn_table *table, uint64_t me)
{
    wait->table = table;
    wait->me = me;
}

void pn_wait_for(struct pn_waiter *wait, uint64_t owner)
{
    if (wait->other_count < PN_HEARD)
        wait->others[wait->other_count] = owner;
    wait->other_count++;
}

void pn_wait_soon(struct pn_waiter *wait, uint64_t dying)
{
    dying &= PN_OWNER_MASK;
    if (wait->dying == dying)
        return;
    wait->dying = dying;
    wait->slice_ns = MS;
    wait->growth = 2;
}

int pn_wait_sleep(struct pn_waiter *wait, uint32_t expected)
{
    int64_t now = pn_now_ns();
    if (wait->deadline_ns != PN_FOREVER && now >= wait->deadline_ns)
        return -ETIMEDOUT;
    struct sleep sleep = {.words = {pn_futex_of(wait->word, expected)}, .count = 1};
    int64_t until = now;
    wait->calm = wait->slept && wait->seen == expected ? wait->calm + 1 : 0;
    wait->seen = expected;
    if (wait->slice_ns < SLICE_NS) {
        if (wait->slept) /* a lock that is passed around quickly is never heard of */
            (void)listen_to_others(wait, &sleep);
        until += wait->slice_ns;
        wait->slice_ns += wait->slice_ns / wait->growth;
    } else {
        int all_heard = listen_to_others(wait, &sleep);
        until += length(wait, &sleep, all_heard, now);
    }
    wait->other_count = 0;
    wait->slept = 1;
    if (until == now)
        return 0;
    if (wait->deadline_ns != PN_FOREVER && wait->deadline_ns < until)
        until = wait->deadline_ns;
    int result = sleep_on(&sleep, wait->word, expected, until);
    return result == -EINTR ? result : 0;
}

void pn_wait_end(struct pn_waiter *wait, int result)
{
    int wake = result < 0 && wait->slept;
    if (wait->office >= 0) {
        _Atomic uint64_t *lease = &wait->watch->lease[wait->office];
        uint64_t held = wait->held, told = wait->held & ~TO_BE_TOLD;
        wake |= atomic_compare_exchange_strong(lease, &held, 0) ||
                atomic_compare_exchange_strong(lease, &told, 0);
    }
    if (wake)
        (void)pn_futex_wake(wait->bell, 1);
}

int pn_wait_wake(struct pn_watch *watch, const uint32_t *word, int count)
{
    atomic_thread_fence(memory_order_seq_cst); /* the word first, then the question who listens */
    uint64_t lease = atomic_load(&watch->lease[0]);
    int woken = pn_futex_wake(word, count);
    while (lease & TO_BE_TOLD)
        if (atomic_compare_exchange_weak(&watch->lease[0], &lease, lease & ~TO_BE_TOLD)) {
            (void)pn_futex_wake(pn_low_half(&watch->lease[0]), 1);
            break;
        }
    return woken;
}

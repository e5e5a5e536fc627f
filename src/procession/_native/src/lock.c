#define _GNU_SOURCE
#include "lock.h"

#include "mutex.h"

static void note_holder(struct pn_lock *lock, uint64_t holder)
{
    atomic_store_explicit(&lock->count, 1, memory_order_relaxed);
    atomic_store_explicit(&lock->holder, holder, memory_order_relaxed);
}

/* What to do about the owner: 0 wait for it; or a result of pn_lock_take(), or -EAGAIN: look again.
 * It has been seen in `word`. */
static int ask_for_owner(const struct pn_table *table, struct pn_lock *lock, uint64_t word,
                         int told, struct pn_waiter *wait)
{
    if (word & PN_LEFT)
        return told ? 0 : PN_LEFT_HELD;
    enum pn_fate fate = pn_owner_fate(table, word);
    if (fate == PN_DYING)
        pn_wait_soon(wait, word);
    if (fate != PN_DEAD)
        return 0;
    if (pn_owner_came_to_its_end(table, word)) {
        (void)atomic_compare_exchange_strong(&lock->word, &word, word | PN_LEFT);
        return -EAGAIN;
    }
    /* who waits beside us does not know that the lock changed hands: keep the mark */
    if (!atomic_compare_exchange_strong(&lock->word, &word, wait->me | PN_WAITERS))
        return -EAGAIN;
    atomic_fetch_add(&lock->recovered, 1);
    return PN_TAKEN_OVER;
}

static int wait_taken(const struct pn_table *table, struct pn_lock *lock, int told,
                      struct pn_waiter *wait, uint64_t *ret_before)
{
    for (int slept = 0;;) {
        uint64_t word = atomic_load(&lock->word);
        if ((word & PN_OWNER_MASK) == 0) {
            if (atomic_compare_exchange_strong(&lock->word, &word,
                                               wait->me | (wait->slept ? PN_WAITERS : 0)))
                return PN_TAKEN;
            continue;
        }
        *ret_before = word;
        int result = ask_for_owner(table, lock, word, told, wait);
        if (result == -EAGAIN)
            continue;
        if (result != 0)
            return result;
        if (wait->deadline_ns == 0)
            return -ETIMEDOUT; /* without a mark: nobody will sleep */
        if (slept)
            return -EINTR;
        if (!(word & PN_WAITERS)) {
            if (!atomic_compare_exchange_strong(&lock->word, &word, word | PN_WAITERS))
                continue;
            word |= PN_WAITERS;
        }
        if (!(word & PN_LEFT))
            pn_wait_for(wait, word);
        result = pn_wait_sleep(wait, (uint32_t)word);
        if (result < 0)
            return result;
        slept = 1;
    }
}

void pn_lock_begin(const struct pn_table *table, struct pn_lock *lock, uint64_t me,
                   struct pn_waiter *wait, int64_t deadline_ns)
{
    pn_wait_begin(wait, &lock->watch, pn_low_half(&lock->word), deadline_ns);
    pn_wait_as(wait, table, me);
}

int pn_lock_take(const struct pn_table *table, struct pn_lock *lock, uint64_t holder, int told,
                 struct pn_waiter *wait, uint64_t *ret_before)
{
    int result = wait_taken(table, lock, told, wait, ret_before);
    if (result == PN_TAKEN || result == PN_TAKEN_OVER)
        note_holder(lock, holder);
    if (result != -EINTR)
        pn_wait_end(wait, result == PN_LEFT_HELD ? -EAGAIN : result);
    return result;
}

int pn_lock_release(struct pn_lock *lock)
{
    uint64_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
    if ((word & PN_OWNER_MASK) == 0)
        return -EPERM;
    atomic_store_explicit(&lock->holder, 0, memory_order_relaxed);
    do
        if ((word & PN_OWNER_MASK) == 0)
            return -EPERM; /* somebody was quicker */
    while (!atomic_compare_exchange_weak_explicit(&lock->word, &word, 0, memory_order_release,
                                                  memory_order_relaxed));
    if (word & PN_WAITERS)
        (void)pn_wait_wake(&lock->watch, pn_low_half(&lock->word), 1);
    return 0;
}

int pn_lock_leave(struct pn_lock *lock, uint64_t me)
{
    uint64_t word = atomic_load(&lock->word);
    while ((word & PN_OWNER_MASK) == me && !(word & PN_LEFT))
        if (atomic_compare_exchange_weak(&lock->word, &word, word | PN_LEFT))
            return 1;
    return 0;
}

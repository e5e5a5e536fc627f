#define _GNU_SOURCE
#include "mutex.h"

#define ROUNDS 4
#define PAUSES 100 /* a microsecond or two: long enough for the owner to do some more of its work */

/* Who has it lets go in a fraction of a microsecond, unless it does not run: a look now and then
 * spares both the system calls of a sleep. Seldom, since each look takes the word away from the
 * owner's cache, and two who take turns at every chance are slower than two who take several. */
static int spin(struct pn_mutex *mutex, uint64_t me)
{
    uint64_t word = 0;
    for (int round = 0; round < ROUNDS && !(word & PN_WAITERS); round++) {
        for (int n = 0; n < PAUSES; n++)
            pn_pause();
        word = 0;
        if (atomic_compare_exchange_strong_explicit(&mutex->word, &word, me, memory_order_acquire,
                                                    memory_order_relaxed))
            return 1;
    }
    return 0;
}

/* Wait for an owner word to become ours. */
static int wait_owned(struct pn_self *self, struct pn_mutex *mutex, uint64_t me,
                      struct pn_waiter *wait)
{
    for (;;) {
        uint64_t word = atomic_load(&mutex->word);
        if ((word & PN_OWNER_MASK) == 0) {
            /* others may sleep whose mark went with the word: keep it once we have slept */
            if (atomic_compare_exchange_strong(&mutex->word, &word,
                                               me | (wait->slept ? PN_WAITERS : 0)))
                return 0;
            continue;
        }
        enum pn_fate fate = pn_owner_fate(self->table, word);
        if (fate == PN_DEAD) {
            if (atomic_compare_exchange_strong(&mutex->word, &word, me | PN_WAITERS))
                return -EOWNERDEAD;
            continue;
        }
        if (fate == PN_DYING)
            pn_wait_soon(wait, word);
        if (!(word & PN_WAITERS)) {
            if (!atomic_compare_exchange_strong(&mutex->word, &word, word | PN_WAITERS))
                continue;
            word |= PN_WAITERS;
        }
        pn_wait_for(wait, word);
        int result = pn_wait_sleep(wait, (uint32_t)word);
        if (result < 0)
            return result;
    }
}

int pn_mutex_lock(struct pn_self *self, struct pn_mutex *mutex, int64_t deadline_ns)
{
    uint64_t me, nobody = 0;
    int result = pn_self_owner(self, &me);
    if (result != 0)
        return result;
    if (atomic_compare_exchange_strong_explicit(&mutex->word, &nobody, me, memory_order_acquire,
                                                memory_order_relaxed))
        return 0;
    if (spin(mutex, me))
        return 0;
    struct pn_waiter wait;
    pn_wait_begin(&wait, &mutex->watch, pn_low_half(&mutex->word), deadline_ns);
    pn_wait_as(&wait, self->table, me);
    result = wait_owned(self, mutex, me, &wait);
    pn_wait_end(&wait, result == -EOWNERDEAD ? 0 : result);
    return result;
}

void pn_mutex_unlock(struct pn_mutex *mutex)
{
    uint64_t word = atomic_exchange_explicit(&mutex->word, 0, memory_order_release);
    if (word & PN_WAITERS)
        (void)pn_wait_wake(&mutex->watch, pn_low_half(&mutex->word), 1);
}

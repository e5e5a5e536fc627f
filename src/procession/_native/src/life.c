/* The life word: a robust mutex that a process's first thread holds as long as it lives.
 *
 * Of the mutex only taking it is left to the C library, which owns the one robust list that a
 * thread can have. Whether the holder lives is read from the futex word, whose meaning is the
 * kernel's (get_robust_list(2), "futex word format"): thread id, FUTEX_WAITERS, FUTEX_OWNER_DIED.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>

#include "table.h"

#ifdef __GLIBC__
#define WORD_AT 0 /* __data.__lock */
#else
#define WORD_AT 1 /* musl: _m_lock */
#endif

static _Atomic uint32_t *word_of(const union pn_life_word *life)
{
    return (_Atomic uint32_t *)(uintptr_t)life + WORD_AT;
}

static const uint32_t *futex_of(const union pn_life_word *life)
{
    return (const uint32_t *)(const void *)life + WORD_AT;
}

static int init(union pn_life_word *life)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0)
        return -error;
    error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0)
        error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (error == 0) {
        memset(life, 0, sizeof *life);
        error = pthread_mutex_init(&life->mutex, &attributes);
    }
    (void)pthread_mutexattr_destroy(&attributes);
    return -error;
}

int pn_life_check(void)
{
    union pn_life_word life;
    if (init(&life) != 0 || pthread_mutex_trylock(&life.mutex) != 0)
        return -ENOTSUP;
    uint32_t held = atomic_load(word_of(&life));
    (void)pthread_mutex_unlock(&life.mutex);
    int right = held == (uint32_t)syscall(SYS_gettid) && atomic_load(word_of(&life)) == 0;
    (void)pthread_mutex_destroy(&life.mutex);
    return right ? 0 : -ENOTSUP;
}

int pn_life_init(struct pn_slot *slot)
{
    return init(&slot->life);
}

int pn_life_take(struct pn_slot *slot)
{
    /* FUTEX_WAITERS apart: it stays where somebody watched and was killed */
    if ((atomic_load(word_of(&slot->life)) & ~FUTEX_WAITERS) == (uint32_t)syscall(SYS_gettid))
        return 0; /* it sits down once more */
    int error = pthread_mutex_trylock(&slot->life.mutex);
    if (error == EOWNERDEAD) /* this process's own, from before it executed this program */
        error = pthread_mutex_consistent(&slot->life.mutex);
    if (error == 0)
        pn_futex_wake_all(futex_of(&slot->life)); /* watchers, who look for a holder to watch */
    return -error;
}

int pn_life_drop(struct pn_slot *slot)
{
    return -pthread_mutex_unlock(&slot->life.mutex);
}

enum pn_life pn_life_read(const struct pn_slot *slot)
{
    enum pn_state state = pn_word_state(atomic_load(&slot->word));
    if (state == PN_FREE || state == PN_CLAIMING)
        return PN_LIFE_FREE;
    uint32_t value = atomic_load(word_of(&slot->life));
    if (value & FUTEX_OWNER_DIED)
        return PN_LIFE_DIED;
    return (value & FUTEX_TID_MASK) != 0 ? PN_LIFE_HELD : PN_LIFE_FREE;
}

/* --- watching --- */

int pn_life_listen(const struct pn_slot *slot, const uint32_t **ret_word, uint32_t *ret_value)
{
    _Atomic uint32_t *word = word_of(&slot->life);
    uint32_t value = atomic_load(word);
    do
        if ((value & FUTEX_OWNER_DIED) || (value & FUTEX_TID_MASK) == 0)
            return 0;
    /* who waits for a mutex says so in its word, or neither kernel nor owner would wake anybody */
    while (!(value & FUTEX_WAITERS) &&
           !atomic_compare_exchange_weak(word, &value, value | FUTEX_WAITERS));
    *ret_word = futex_of(&slot->life);
    *ret_value = value | FUTEX_WAITERS;
    return 1;
}

void pn_life_heard(const uint32_t *word, uint32_t value)
{
    if (atomic_load((const _Atomic uint32_t *)(const void *)word) != value)
        pn_futex_wake_all(word);
}

void pn_life_tell(const struct pn_slot *slot)
{
    uint32_t value = atomic_load(word_of(&slot->life));
    if ((value & FUTEX_OWNER_DIED) && (value & FUTEX_WAITERS))
        pn_futex_wake_all(futex_of(&slot->life));
}

struct watch {
    struct pn_slot *slot;
    int eventfd;
    _Atomic uint32_t begun; /* the thread has its own copy of this; futex word */
};

/* The kernel wakes one of those who sleep on a life word. If that is somebody who is killed at the
 * same moment, this is how long it takes until it is noticed. */
#define SLICE_NS ((int64_t)250000000)

/* Wait until the holder has died: 1. 0 when the slot is another's. */
static int wait_died(const struct pn_slot *slot, uint32_t generation)
{
    const union pn_life_word *life = &slot->life;
    while (pn_word_generation(atomic_load(&slot->word)) == generation) {
        uint32_t value = atomic_load(word_of(life));
        if (value & FUTEX_OWNER_DIED) {
            pn_futex_wake_all(futex_of(life)); /* the kernel woke one of us only */
            return 1;
        }
        const uint32_t *word = futex_of(life);
        (void)pn_life_listen(slot, &word, &value); /* if nobody holds it yet: until somebody does */
        (void)pn_futex_wait(word, value, pn_now_ns() + SLICE_NS);
    }
    return 0;
}

static void *watch(void *argument)
{
    struct watch *given = argument;
    struct pn_slot *slot = given->slot;
    int eventfd = given->eventfd;
    uint32_t generation = pn_word_generation(atomic_load(&slot->word));
    atomic_store(&given->begun, 1);
    pn_futex_wake_all((const uint32_t *)(const void *)&given->begun);
    const uint64_t one = 1;
    if (wait_died(slot, generation))
        while (write(eventfd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    return NULL;
}

int pn_life_watch(struct pn_slot *slot, int eventfd)
{
    struct watch it = {slot, eventfd, 0};
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return -error;
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, 64 * 1024);
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    error = pthread_create(&thread, &attributes, watch, &it);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    while (error == 0 && !atomic_load(&it.begun)) /* until then it reads from this stack */
        (void)pn_futex_wait((const uint32_t *)(const void *)&it.begun, 0, PN_FOREVER);
    return -error;
}

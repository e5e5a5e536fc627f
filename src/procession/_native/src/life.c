/* The life word: a robust mutex that a process's first thread holds as long as it lives.
 *
 * It is never waited for to be *had*. Its futex word says whether the holder lives, and the kernel
 * changes it and wakes one waiter when the holder ends, whatever way (get_robust_list(2)). */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "table.h"

int pn_life_init(struct pn_slot *slot)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0)
        return -error;
    error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0)
        error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (error == 0) {
        memset(&slot->life, 0, sizeof slot->life);
        error = pthread_mutex_init(&slot->life.life, &attributes);
    }
    (void)pthread_mutexattr_destroy(&attributes);
    return -error;
}

int pn_life_take(struct pn_slot *slot)
{
    int error = pthread_mutex_trylock(&slot->life.life);
    if (error == EOWNERDEAD) /* ours to have: an earlier program image of this process held it */
        error = pthread_mutex_consistent(&slot->life.life);
    return -error;
}

int pn_life_drop(struct pn_slot *slot)
{
    return -pthread_mutex_unlock(&slot->life.life);
}

enum pn_life pn_life_read(const struct pn_slot *slot)
{
#ifdef __GLIBC__
    const int *word = &slot->life.life.__data.__lock;
#else
    const int *word = (const int *)(const void *)&slot->life.life + 1; /* musl: _m_lock */
#endif
    uint32_t value = (uint32_t)__atomic_load_n(word, __ATOMIC_ACQUIRE);
    if (value & FUTEX_OWNER_DIED)
        return PN_LIFE_DIED;
    return (value & FUTEX_TID_MASK) != 0 ? PN_LIFE_HELD : PN_LIFE_FREE;
}

struct watch {
    struct pn_slot *slot;
    int eventfd;
};

static void *watch(void *argument)
{
    struct watch it = *(struct watch *)argument;
    free(argument);
    int error = pthread_mutex_lock(&it.slot->life.life);
    if (error == 0) {
        (void)pthread_mutex_unlock(&it.slot->life.life); /* dropped, not died */
        return NULL;
    }
    uint64_t one = 1;
    while (write(it.eventfd, &one, sizeof one) < 0 && errno == EINTR)
        ;
    /* the mutex stays ours and inconsistent: whoever looks sees that its owner is not there */
    return NULL;
}

int pn_life_watch(struct pn_slot *slot, int eventfd)
{
    struct watch *argument = malloc(sizeof *argument);
    if (argument == NULL)
        return -ENOMEM;
    argument->slot = slot;
    argument->eventfd = eventfd;
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error == 0) {
        (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        (void)pthread_attr_setstacksize(&attributes, 64 * 1024);
        sigset_t all, before;
        sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        pthread_t thread;
        error = pthread_create(&thread, &attributes, watch, argument);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        (void)pthread_attr_destroy(&attributes);
    }
    if (error != 0)
        free(argument);
    return -error;
}

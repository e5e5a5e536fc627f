/* Races of what waits: threads over one mapping, so that a thread sanitizer sees every pair of them.
 *
 *   lock      everybody counts under a lock, got in every way; now and then it is held for long, so
 *             that there are sentries
 *   mutex     the same under the core's own
 *   gate      two put into a ring that is nearly always full or empty, two get
 *
 * argv[1]: rounds. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "lock.h"
#include "mutex.h"
#include "ring.h"

#define SLOTS 8
#define THREADS 4
#define LONG_HOLD_NS (40 * 1000 * 1000) /* older than a young wait */

static struct pn_table *table;
static struct pn_self self;
static long rounds;
static long counted; /* no atomic: what a lock guards */

static void in_threads(int count, void *(*act)(void *))
{
    pthread_t threads[2 * THREADS];
    for (uintptr_t n = 0; n < (uintptr_t)count; n++)
        CHECK(pthread_create(&threads[n], NULL, act, (void *)(n + 1)) == 0, "");
    for (int n = 0; n < count; n++)
        (void)pthread_join(threads[n], NULL);
}

static void linger(long n, uintptr_t number)
{
    if (n % 200 != 0 || number != 1)
        return;
    struct timespec hold = {0, LONG_HOLD_NS};
    (void)nanosleep(&hold, NULL);
}

/* --- lock --- */

static struct pn_lock lock;

static void *count_locked(void *argument)
{
    uintptr_t number = (uintptr_t)argument;
    uint64_t me, before, holder;
    CHECK(pn_self_owner(&self, &me) == 0, "");
    holder = pn_lock_holder(me, number);
    for (long n = 0; n < rounds; n++) {
        int64_t deadline = n % 5 == 0 ? pn_now_ns() + 3000000 : pn_now_ns() + LIMIT;
        int result = PN_TAKEN;
        if (n % 3 != 0 || !pn_lock_try(&lock, me, holder)) {
            struct pn_waiter wait;
            pn_lock_begin(table, &lock, me, &wait, deadline);
            do
                result = pn_lock_take(table, &lock, holder, 1, &wait, &before);
            while (result == -EINTR);
        }
        if (result == -ETIMEDOUT && n % 5 == 0) {
            n--;
            continue;
        }
        CHECK(result == PN_TAKEN, "%d", result);
        counted++;
        linger(n, number);
        if (n % 8 == 0)
            (void)sched_yield(); /* who had it before us may not be done with it */
        CHECK(pn_lock_is_mine(&lock, holder), "it was taken off us");
        CHECK(pn_lock_release(&lock) == 0, "");
    }
    return NULL;
}

/* --- mutex --- */

static struct pn_mutex mutex;

static void *count_in_mutex(void *argument)
{
    for (long n = 0; n < rounds; n++) {
        int result = pn_mutex_lock(&self, &mutex, pn_now_ns() + LIMIT);
        CHECK(result == 0, "%d", result);
        counted++;
        linger(n, (uintptr_t)argument);
        pn_mutex_unlock(&mutex);
    }
    return NULL;
}

/* --- gates of a ring --- */

static struct pn_ring ring;
static _Atomic long taken, sum;

static void *put_and_get(void *argument)
{
    uintptr_t number = (uintptr_t)argument;
    for (long n = 1; n <= rounds; n++) {
        long value = n;
        struct pn_part part = {&value, sizeof value};
        struct pn_record record = {.bytes = (unsigned char *)&value, .room = sizeof value};
        int result = number % 2 ? pn_ring_put(&ring, 1, &part, 1, pn_now_ns() + LIMIT)
                                : pn_ring_get(&ring, &record, pn_now_ns() + LIMIT);
        CHECK(result == 0, "%d", result);
        if (number % 2 == 0) {
            atomic_fetch_add(&taken, 1);
            atomic_fetch_add(&sum, value);
        }
        linger(n, number); /* the others find it empty */
    }
    return NULL;
}

static void through_ring(void)
{
    int fd, bell;
    void *head = mmap(NULL, sizeof(struct pn_ring_head), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(head != MAP_FAILED && pn_ring_create(head, 1 << 20, 3, &fd, &bell) == 0, "");
    CHECK(pn_ring_open(&self, head, fd, bell, &ring) == 0, "");
    in_threads(THREADS, put_and_get);
    CHECK(atomic_load(&taken) == THREADS / 2 * rounds, "");
    CHECK(atomic_load(&sum) == THREADS / 2 * rounds * (rounds + 1) / 2, "");
    pn_ring_close(&ring);
    (void)close(fd);
    (void)close(bell);
}

int main(int count, char **arguments)
{
    rounds = count > 1 ? atol(arguments[1]) : 1000;
    int fd;
    uint64_t me;
    CHECK(pn_table_create(SLOTS, &table, &fd) == 0, "");
    (void)close(fd);
    CHECK(pn_self_open(table, &self) == 0 && pn_self_owner(&self, &me) == 0, "");
    in_threads(THREADS, count_locked);
    CHECK(counted == THREADS * rounds, "%ld of %ld", counted, THREADS * rounds);
    counted = 0;
    in_threads(THREADS, count_in_mutex);
    CHECK(counted == THREADS * rounds, "%ld of %ld", counted, THREADS * rounds);
    through_ring();
    (void)printf("%ld rounds\n", rounds);
    return 0;
}

/* Records in and out, and what goes with them. Layout, and why a death does no harm: ring.h. */
#define _GNU_SOURCE
#include "ring.h"

#include <stdlib.h>
#include <string.h>

#include "futex.h"
#include "ring_room.h"
#include "table.h"

#define RECORD_HEAD 8
#define KIND_BITS 8

#define LINGER_NS 20000 /* about what a sleep and a wake-up take */
#define LOOK 8          /* pauses between two looks */
#define MOST_LUCK 8
#define SELDOM 16 /* sleeps of which one is preceded by a try all the same */

/* --- state --- */

static const struct pn_ring_state *current(const struct pn_ring *ring)
{
    return &ring->head->states[atomic_load_explicit(&ring->head->commits, memory_order_acquire) & 1];
}

struct pn_ring_state *pn_ring_begin(struct pn_ring *ring)
{
    uint32_t commits = atomic_load_explicit(&ring->head->commits, memory_order_relaxed);
    ring->draft = ring->head->states[commits & 1];
    return &ring->draft;
}

void pn_ring_commit(struct pn_ring *ring)
{
    uint32_t commits = atomic_load_explicit(&ring->head->commits, memory_order_relaxed);
    uint64_t *next = (uint64_t *)(void *)&ring->head->states[(commits + 1) & 1];
    const uint64_t *draft = (const uint64_t *)(const void *)&ring->draft;
    /* who peeks may still be at it: no byte of it may come before the commit that made it old */
    atomic_thread_fence(memory_order_release);
    for (size_t n = 0; n < offsetof(struct pn_ring_state, spare) / sizeof *next; n++)
        __atomic_store_n(&next[n], draft[n], __ATOMIC_RELAXED);
    atomic_store_explicit(&ring->head->commits, commits + 1, memory_order_release);
}

/* One field without the lock. */
#define PEEK(ring, field)                                                                          \
    uint32_t commits = atomic_load(&(ring)->head->commits);                                        \
    for (;;) {                                                                                     \
        const struct pn_ring_state *state = &(ring)->head->states[commits & 1];                    \
        uint64_t value = __atomic_load_n(&state->field, __ATOMIC_RELAXED);                         \
        atomic_thread_fence(memory_order_acquire);                                                 \
        uint32_t after = atomic_load(&(ring)->head->commits);                                      \
        if (after == commits)                                                                      \
            return value;                                                                          \
        commits = after;                                                                           \
    }

static uint64_t peek_count(const struct pn_ring *ring)
{
    PEEK(ring, count)
}

static uint64_t peek_unfinished(const struct pn_ring *ring)
{
    PEEK(ring, unfinished)
}

static uint64_t peek_flags(const struct pn_ring *ring)
{
    PEEK(ring, flags)
}

static uint64_t peek_capacity(const struct pn_ring *ring)
{
    PEEK(ring, capacity)
}

uint64_t pn_ring_count(const struct pn_ring *ring)
{
    return peek_count(ring);
}

uint64_t pn_ring_unfinished(const struct pn_ring *ring)
{
    return peek_unfinished(ring);
}

uint64_t pn_ring_lost(const struct pn_ring *ring)
{
    PEEK(ring, lost)
}

uint32_t pn_ring_flags(const struct pn_ring *ring)
{
    return (uint32_t)peek_flags(ring);
}

uint64_t pn_ring_capacity(const struct pn_ring *ring)
{
    return peek_capacity(ring);
}

static int has_record(const void *at)
{
    const struct pn_ring *ring = at;
    return peek_count(ring) != 0 || peek_flags(ring) != 0;
}

static int has_room(const void *at)
{
    const struct pn_ring *ring = at;
    return peek_count(ring) < ring->head->maxsize || peek_flags(ring) != 0;
}

static int is_done(const void *at)
{
    return peek_unfinished(at) == 0;
}

/* --- the bell --- */

static void ring_bell(const struct pn_ring *ring)
{
    const uint64_t one = 1;
    while (write(ring->bell, &one, sizeof one) < 0 && errno == EINTR)
        ; /* EAGAIN: it has rung some 2^64 times */
}

static void still_bell(const struct pn_ring *ring)
{
    uint64_t rung;
    while (read(ring->bell, &rung, sizeof rung) < 0 && errno == EINTR)
        ;
}

/* Make the bell say what the state says. With the lock. */
static void put_bell_right(const struct pn_ring *ring)
{
    if (!atomic_load_explicit(&ring->head->bell_armed, memory_order_relaxed))
        return;
    still_bell(ring);
    if (current(ring)->count != 0 || current(ring)->flags != 0)
        ring_bell(ring);
}

/* --- the lock --- */

/* 0, or -EBUSY if it is taken and `now`, or -ENOSPC, ...: this process has no identity. */
static int lock(struct pn_ring *ring, int now)
{
    int result;
    do /* held for microseconds, and a wake-up may be in our hands: signals wait */
        result = pn_mutex_lock(ring->self, &ring->head->lock, now ? 0 : PN_FOREVER);
    while (result == -EINTR);
    if (result == -ETIMEDOUT)
        return -EBUSY;
    if (result == -EOWNERDEAD) { /* it died after a commit, perhaps, with these still to do */
        put_bell_right(ring);
        pn_extents_repair(ring);
        pn_users_repair(ring);
        if (current(ring)->count == 0)
            pn_ring_shrink(ring);
        return 0;
    }
    return result;
}

static void unlock(struct pn_ring *ring)
{
    pn_mutex_unlock(&ring->head->lock);
}

int pn_ring_lock(struct pn_ring *ring)
{
    return lock(ring, 0);
}

void pn_ring_unlock(struct pn_ring *ring)
{
    unlock(ring);
}

int pn_ring_open_holds(struct pn_ring *ring)
{
    int result = pn_ring_check_fd(ring);
    if (result == 0 && ring->holds == NULL && (ring->holds = pn_holds_open(ring->fd)) == NULL)
        result = -errno;
    return result;
}

const struct pn_ring_state *pn_ring_state(const struct pn_ring *ring)
{
    return current(ring);
}

/* Let go of the lock and of the place at a gate, then wake who is to be woken. */
static int finish(struct pn_ring *ring, struct pn_gate *gate, struct pn_ticket *ticket,
                  const struct pn_wake *wakes, size_t count, int result)
{
    pn_gate_leave(gate, ticket);
    unlock(ring);
    for (size_t n = 0; n < count; n++)
        pn_gate_wake(wakes[n]);
    pn_gate_left(ticket, result);
    return result;
}

/* Before a sleep: look a few more times, since who answers at once answers sooner than a sleep and
 * its wake-up take. Where that came to nothing of late it is tried now and then only. With the lock,
 * and with it again if 0 is returned. */
static int linger(struct pn_ring *ring, int (*looks)(const void *))
{
    if (ring->luck == 0 && ring->unlucky++ % SELDOM != 0)
        return 0;
    int seen = 0;
    unlock(ring);
    for (int64_t until = pn_now_ns() + LINGER_NS; !seen && pn_now_ns() < until;) {
        for (int n = 0; n < LOOK; n++)
            pn_pause();
        seen = looks(ring);
    }
    int result = lock(ring, 0);
    if (result == 0 && seen && ring->luck < MOST_LUCK)
        ring->luck++;
    else if (result == 0 && !seen && ring->luck > 0)
        ring->luck--;
    return result;
}

/* Sleep at a gate. With the lock, and with it again if 0 is returned. */
static int sleep_at(struct pn_ring *ring, struct pn_gate *gate, struct pn_ticket *ticket,
                    int64_t deadline_ns, int (*looks)(const void *))
{
    if (deadline_ns == PN_RING_NOW) {
        unlock(ring);
        return -EAGAIN;
    }
    if (!ticket->lingered &&
        (deadline_ns == PN_FOREVER || deadline_ns > pn_now_ns() + LINGER_NS)) {
        ticket->lingered = 1;
        return linger(ring, looks);
    }
    pn_gate_enter(ring->self, gate, ticket, deadline_ns);
    unlock(ring);
    int slept = pn_gate_sleep(gate, ticket, looks, ring);
    int result = lock(ring, 0);
    if (result != 0)
        return result;
    return slept == 0 || looks(ring) ? 0 : finish(ring, gate, ticket, NULL, 0, slept);
}

/* --- put and get --- */

static int put_locked(struct pn_ring *ring, unsigned char kind, const struct pn_part *parts,
                      size_t count)
{
    uint64_t size = 0, at;
    for (size_t n = 0; n < count; n++)
        size += parts[n].size;
    (void)pn_user_me(ring);
    uint64_t room = RECORD_HEAD + ((size + 7) & ~(uint64_t)7);
    struct pn_ring_state *next = pn_ring_begin(ring);
    int result = pn_ring_place(ring, next, room, &at);
    if (result == 0)
        result = pn_ring_map(ring, next->capacity);
    if (result != 0)
        return result;
    pn_ring_ready(ring, at, at + room, next->capacity);
    unsigned char *to = ring->data + at;
    uint64_t word = size << KIND_BITS | kind;
    memcpy(to, &word, RECORD_HEAD);
    to += RECORD_HEAD;
    for (size_t n = 0; n < count; n++) {
        memcpy(to, parts[n].bytes, parts[n].size);
        to += parts[n].size;
    }
    next->count++;
    next->unfinished++;
    next->puts++;
    if (kind & PN_RING_FAR) {
        uint32_t extent;
        memcpy(&extent, ring->data + at + RECORD_HEAD, sizeof extent);
        ring->head->extents[extent].put = next->puts;
    }
    pn_ring_commit(ring);
    if (next->count == 1 && atomic_load_explicit(&ring->head->bell_armed, memory_order_relaxed))
        ring_bell(ring);
    return 0;
}

int pn_ring_put_numbered(struct pn_ring *ring, unsigned char kind, const struct pn_part *parts,
                         size_t count, int64_t deadline_ns, uint64_t *ret_number)
{
    struct pn_ring_head *head = ring->head;
    struct pn_ticket ticket = {0};
    int result = lock(ring, deadline_ns == PN_RING_NOW);
    if (result != 0)
        return result;
    while (head->maxsize != 0 && current(ring)->count >= head->maxsize &&
           current(ring)->flags == 0)
        if ((result = sleep_at(ring, &head->not_full, &ticket, deadline_ns, has_room)) != 0)
            return result;
    if (current(ring)->flags != 0)
        return finish(ring, &head->not_full, &ticket, NULL, 0, -ESHUTDOWN);
    result = put_locked(ring, kind, parts, count);
    if (result != 0)
        return finish(ring, &head->not_full, &ticket, NULL, 0, result);
    if (ret_number != NULL)
        *ret_number = current(ring)->puts;
    struct pn_wake getter = pn_gate_open(&head->not_empty, 0);
    return finish(ring, &head->not_full, &ticket, &getter, 1, 0);
}

static int get_locked(struct pn_ring *ring, struct pn_record *record, int *ret_shrinks)
{
    const struct pn_ring_state *now = current(ring);
    int result = pn_ring_map(ring, now->capacity);
    if (result != 0)
        return result;
    const unsigned char *from = ring->data + now->from[0];
    uint64_t word;
    memcpy(&word, from, RECORD_HEAD);
    record->size = word >> KIND_BITS;
    record->kind = (unsigned char)word;
    if (record->size > record->room) {
        if (!record->grows)
            return -EMSGSIZE;
        unsigned char *more = realloc(record->bytes, record->size);
        if (more == NULL)
            return -ENOMEM;
        record->bytes = more;
        record->room = record->size;
    }
    memcpy(record->bytes, from + RECORD_HEAD, record->size);
    if (record->kind & PN_RING_FAR) {
        memcpy(&record->extent, record->bytes, sizeof record->extent);
        result = pn_ring_open_holds(ring);
        if (result == 0)
            result = pn_hold(ring->holds, record->extent);
        if (result != 0)
            return result;
    }
    struct pn_ring_state *next = pn_ring_begin(ring);
    pn_ring_advance(next, RECORD_HEAD + ((record->size + 7) & ~(uint64_t)7));
    next->count--;
    *ret_shrinks = pn_ring_shrinks(next);
    record->number = next->puts - next->count;
    record->user = pn_user_me(ring);
    if (record->user != NULL)
        pn_user_takes(record->user, record->number);
    pn_ring_commit(ring);
    if (next->count == 0 && next->flags == 0 &&
        atomic_load_explicit(&ring->head->bell_armed, memory_order_relaxed))
        still_bell(ring);
    return 0;
}

int pn_ring_get(struct pn_ring *ring, struct pn_record *record, int64_t deadline_ns)
{
    struct pn_ring_head *head = ring->head;
    struct pn_ticket ticket = {0};
    int shrinking = 0, result = lock(ring, deadline_ns == PN_RING_NOW);
    if (result != 0)
        return result;
    while (current(ring)->count == 0) {
        if (current(ring)->flags != 0)
            return finish(ring, &head->not_empty, &ticket, NULL, 0, -ESHUTDOWN);
        if ((result = sleep_at(ring, &head->not_empty, &ticket, deadline_ns, has_record)) != 0)
            return result;
    }
    result = get_locked(ring, record, &shrinking);
    if (result != 0)
        return finish(ring, &head->not_empty, &ticket, NULL, 0, result);
    if (shrinking)
        pn_ring_shrink(ring);
    struct pn_wake wakes[2] = {pn_gate_open(&head->not_full, 0)};
    if (current(ring)->count != 0) /* the wake-up for it may have gone with a dead process */
        wakes[1] = pn_gate_open(&head->not_empty, 0);
    return finish(ring, &head->not_empty, &ticket, wakes, 2, 0);
}

int pn_ring_poll(struct pn_ring *ring, int64_t deadline_ns)
{
    struct pn_ring_head *head = ring->head;
    struct pn_ticket ticket = {0};
    int result = lock(ring, 0);
    if (result != 0)
        return result;
    while (current(ring)->count == 0) {
        put_bell_right(ring);
        if (current(ring)->flags != 0)
            return finish(ring, &head->not_empty, &ticket, NULL, 0, -ESHUTDOWN);
        result = sleep_at(ring, &head->not_empty, &ticket, deadline_ns, has_record);
        if (result != 0)
            return result == -EAGAIN || result == -ETIMEDOUT ? 0 : result;
    }
    struct pn_wake other = {0};
    if (ticket.entered) /* it takes nothing, so the wake-up is another's */
        other = pn_gate_open(&head->not_empty, 0);
    return finish(ring, &head->not_empty, &ticket, &other, 1, 1);
}

/* --- tasks, shutdown, the bell --- */

int pn_ring_done(struct pn_ring *ring)
{
    int result = lock(ring, 0);
    if (result != 0)
        return result;
    if (current(ring)->unfinished == 0) {
        unlock(ring);
        return -ERANGE;
    }
    struct pn_wake joiners = {0};
    pn_ring_begin(ring)->unfinished--;
    pn_ring_commit(ring);
    if (current(ring)->unfinished == 0)
        joiners = pn_gate_open(&ring->head->all_done, 1);
    unlock(ring);
    pn_gate_wake(joiners);
    return 0;
}

int pn_ring_join(struct pn_ring *ring, int64_t deadline_ns)
{
    struct pn_gate *gate = &ring->head->all_done;
    struct pn_ticket ticket = {0};
    int result = lock(ring, 0);
    if (result != 0)
        return result;
    while (current(ring)->unfinished != 0)
        if ((result = sleep_at(ring, gate, &ticket, deadline_ns, is_done)) != 0)
            return result;
    struct pn_wake others = {0};
    if (ticket.entered) /* who was to wake them may be dead */
        others = pn_gate_open(gate, 1);
    return finish(ring, gate, &ticket, &others, 1, 0);
}

int pn_ring_shut(struct pn_ring *ring, int immediate, uint64_t *ret_kept, uint64_t *ret_dropped)
{
    struct pn_ring_head *head = ring->head;
    int shrinking = 0, result = lock(ring, 0);
    if (result != 0)
        return result;
    struct pn_ring_state *next = pn_ring_begin(ring);
    next->flags |= PN_RING_SHUT;
    *ret_kept = *ret_dropped = next->puts - next->count;
    if (immediate) {
        *ret_dropped = next->puts;
        next->unfinished -= next->count < next->unfinished ? next->count : next->unfinished;
        next->count = 0;
        next->stretches = 1;
        next->from[0] = next->to[0] = 0;
        shrinking = pn_ring_shrinks(next);
    }
    pn_ring_commit(ring);
    if (shrinking)
        pn_ring_shrink(ring);
    if (immediate)
        pn_extents_trim_locked(ring);
    put_bell_right(ring);
    struct pn_wake getters = pn_gate_open(&head->not_empty, 1);
    struct pn_wake putters = pn_gate_open(&head->not_full, 1), joiners = {0};
    if (current(ring)->unfinished == 0)
        joiners = pn_gate_open(&head->all_done, 1);
    unlock(ring);
    pn_gate_wake(getters);
    pn_gate_wake(putters);
    pn_gate_wake(joiners);
    return 0;
}

int pn_ring_arm(struct pn_ring *ring)
{
    if (atomic_load(&ring->head->bell_armed))
        return 0;
    int result = lock(ring, 0);
    if (result != 0)
        return result;
    atomic_store(&ring->head->bell_armed, 1);
    put_bell_right(ring);
    unlock(ring);
    return 0;
}

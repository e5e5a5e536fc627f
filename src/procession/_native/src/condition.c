#define _GNU_SOURCE
#include "condition.h"

#include "memory.h"

/* --- seats --- */

static uint32_t block_of(uint32_t number)
{
    return 31u - (uint32_t)__builtin_clz(number / PN_SEATS + 1);
}

static uint32_t seats_before(uint32_t block)
{
    return PN_SEATS * ((1u << block) - 1);
}

static struct pn_seat *seat_at(const struct pn_condition_view *view, uint32_t number)
{
    uint32_t block = block_of(number);
    if (block == 0)
        return &view->condition->seats[number];
    size_t offset = (size_t)atomic_load(&view->condition->blocks[block - 1]) * PN_CELL;
    return (struct pn_seat *)(void *)(view->memory + offset) + (number - seats_before(block));
}

static uint32_t seat_count(const struct pn_condition *condition)
{
    uint32_t grown = 0;
    while (grown < PN_SEAT_BLOCKS && atomic_load(&condition->blocks[grown]) != 0)
        grown++;
    return seats_before(grown + 1);
}

size_t pn_condition_growth(const struct pn_condition *condition)
{
    uint32_t count = seat_count(condition);
    return count == seats_before(PN_SEAT_BLOCKS + 1) ? 0 : (count + PN_SEATS) * sizeof(struct pn_seat);
}

int pn_condition_grow(struct pn_condition *condition, size_t offset, size_t size)
{
    uint32_t none = 0, block = block_of(seat_count(condition));
    return size == pn_condition_growth(condition) &&
           atomic_compare_exchange_strong(&condition->blocks[block - 1], &none,
                                          (uint32_t)(offset / PN_CELL));
}

/* Let somebody look whether it is called: each has a word of its own, so that one wakes. */
static void ring(struct pn_condition *condition, struct pn_seat *seat)
{
    atomic_fetch_add(&seat->rings, 1);
    (void)pn_wait_wake(&condition->watch, (const uint32_t *)(const void *)&seat->rings, 1);
}

/* --- with the mutex --- */

static int is_dead(const struct pn_condition_view *view, uint64_t who)
{
    return pn_owner_fate(view->self->table, who) == PN_DEAD;
}

/* The first of those who wait after a ticket; a dead one, who has no wake-up, loses its seat. */
static struct pn_seat *next_waiter(struct pn_condition_view *view, uint64_t after)
{
    uint32_t count = seat_count(view->condition);
    for (;;) {
        struct pn_seat *first = NULL;
        for (uint32_t n = 0; n < count; n++) {
            struct pn_seat *seat = seat_at(view, n);
            if (atomic_load(&seat->who) != 0 && seat->ticket > after &&
                (first == NULL || seat->ticket < first->ticket))
                first = seat;
        }
        if (first == NULL || !is_dead(view, first->who))
            return first;
        atomic_store(&first->who, 0);
    }
}

/* Carry out the record, if there is one. */
static void carry_out(struct pn_condition_view *view)
{
    struct pn_condition *condition = view->condition;
    uint32_t passing = atomic_load_explicit(&condition->passing, memory_order_acquire);
    if (passing == 0)
        return;
    atomic_store(&condition->called, atomic_load(&condition->called_to));
    atomic_store(&seat_at(view, passing - 1)->who, 0);
    atomic_store_explicit(&condition->passing, 0, memory_order_release);
}

/* Free a seat that was called, and call the next one instead. */
static void pass_on(struct pn_condition_view *view, uint32_t number)
{
    struct pn_condition *condition = view->condition;
    uint64_t called = atomic_load(&condition->called);
    struct pn_seat *heir = next_waiter(view, called);
    atomic_store(&condition->called_to, heir == NULL ? called : atomic_load(&heir->ticket));
    atomic_store_explicit(&condition->passing, number + 1, memory_order_release);
    carry_out(view);
    if (heir != NULL)
        ring(condition, heir);
}

/* Pass on what the dead have in their hands. */
static void relieve(struct pn_condition_view *view)
{
    uint32_t count = seat_count(view->condition);
    for (uint32_t n = 0; n < count; n++) {
        const struct pn_seat *seat = seat_at(view, n);
        uint64_t who = atomic_load(&seat->who);
        if (who != 0 && seat->ticket <= view->condition->called && is_dead(view, who))
            pass_on(view, n);
    }
}

static int lock(struct pn_condition_view *view, int64_t deadline_ns)
{
    int result = pn_mutex_lock(view->self, &view->condition->mutex, deadline_ns);
    if (result == -EOWNERDEAD)
        carry_out(view);
    return result == -EOWNERDEAD ? 0 : result;
}

static void unlock(struct pn_condition_view *view)
{
    pn_mutex_unlock(&view->condition->mutex);
}

/* --- */

static int free_seat(struct pn_condition_view *view, uint32_t *ret_seat)
{
    uint32_t count = seat_count(view->condition);
    for (uint32_t n = 0; n < count; n++)
        if (atomic_load(&seat_at(view, n)->who) == 0) {
            *ret_seat = n;
            return 1;
        }
    for (uint32_t n = 0; n < count; n++) {
        struct pn_seat *seat = seat_at(view, n);
        if (seat->ticket > view->condition->called && is_dead(view, seat->who)) {
            atomic_store(&seat->who, 0);
            *ret_seat = n;
            return 1;
        }
    }
    return 0;
}

int pn_condition_enter(struct pn_condition_view *view, int64_t deadline_ns, uint32_t *ret_seat)
{
    struct pn_condition *condition = view->condition;
    uint64_t me;
    int result = pn_self_owner(view->self, &me);
    if (result == 0)
        result = lock(view, deadline_ns);
    if (result != 0)
        return result;
    relieve(view); /* for those who wait already, not for us */
    if (free_seat(view, ret_seat)) {
        struct pn_seat *seat = seat_at(view, *ret_seat);
        uint64_t ticket = atomic_load(&condition->drawn) + 1;
        atomic_store(&condition->drawn, ticket); /* first: no two ever have the same */
        atomic_store(&seat->ticket, ticket);
        atomic_store(&seat->who, me);
    } else {
        result = -ENOBUFS;
    }
    unlock(view);
    return result;
}

int pn_condition_notify(struct pn_condition_view *view, uint64_t many, int64_t deadline_ns)
{
    struct pn_condition *condition = view->condition;
    int result = lock(view, deadline_ns);
    if (result != 0)
        return result;
    relieve(view);
    uint32_t waiting = 0, count = seat_count(condition);
    uint64_t called = atomic_load(&condition->called), last = called;
    for (uint32_t n = 0; n < count; n++) {
        const struct pn_seat *seat = seat_at(view, n);
        waiting += atomic_load(&seat->who) != 0 && seat->ticket > called;
    }
    const struct pn_seat *next;
    if (many >= waiting) /* all of them, the dead as well: nobody is left who would inherit */
        last = waiting != 0 ? atomic_load(&condition->drawn) : called;
    else
        while (many-- > 0 && (next = next_waiter(view, last)) != NULL)
            last = atomic_load(&next->ticket);
    if (last != called)
        atomic_store(&condition->called, last);
    for (uint32_t n = 0; n < count && last != called; n++) {
        struct pn_seat *seat = seat_at(view, n);
        if (atomic_load(&seat->who) != 0 && seat->ticket > called && seat->ticket <= last)
            ring(condition, seat);
    }
    unlock(view);
    return 0;
}

/* See to others who are called and still sit: ring again where somebody may have died before it
 * did, and hear of their deaths. Whether one is dead. */
static int see_to_called(const struct pn_condition_view *view, uint32_t mine,
                         struct pn_waiter *wait, uint64_t *ret_dying)
{
    int dead = 0;
    uint32_t count = seat_count(view->condition);
    *ret_dying = 0;
    for (uint32_t n = 0; n < count; n++) {
        struct pn_seat *seat = seat_at(view, n);
        uint64_t who = atomic_load(&seat->who);
        if (n == mine || who == 0 || seat->ticket > atomic_load(&view->condition->called))
            continue;
        enum pn_fate fate = pn_owner_fate(view->self->table, who);
        dead |= fate == PN_DEAD;
        if (fate == PN_DYING)
            *ret_dying = who;
        if (fate == PN_DEAD)
            continue;
        pn_wait_for(wait, who);
        if (wait->slept)
            ring(view->condition, seat);
    }
    return dead;
}

static int wait_called(struct pn_condition_view *view, uint32_t number, struct pn_waiter *wait)
{
    struct pn_condition *condition = view->condition;
    const struct pn_seat *seat = seat_at(view, number);
    uint64_t ticket = atomic_load(&seat->ticket), dying;
    for (int slept = 0;;) {
        uint32_t rings = atomic_load(&seat->rings);
        if (ticket <= atomic_load(&condition->called) && wait->office < 0)
            return 0;
        if (slept)
            return -EINTR;
        /* One who watches does this also before it goes, since the others sleep long. */
        wait->other_count = 0;
        int dead = see_to_called(view, number, wait, &dying);
        if (dead) {
            int result = lock(view, PN_FOREVER);
            if (result != 0)
                return result;
            relieve(view);
            unlock(view);
        }
        if (ticket <= atomic_load(&condition->called))
            return 0;
        if (dead)
            continue;
        if (dying != 0)
            pn_wait_soon(wait, dying);
        int result = pn_wait_sleep(wait, rings);
        if (result < 0)
            return result;
        slept = 1;
    }
}

void pn_condition_begin(struct pn_condition_view *view, uint32_t number, struct pn_waiter *wait,
                        int64_t deadline_ns)
{
    struct pn_seat *seat = seat_at(view, number);
    pn_wait_begin(wait, &view->condition->watch, (const uint32_t *)(const void *)&seat->rings,
                  deadline_ns);
    pn_wait_as(wait, view->self->table, atomic_load(&seat->who));
    wait->bell = &view->condition->bell;
}

int pn_condition_wait(struct pn_condition_view *view, uint32_t number, struct pn_waiter *wait)
{
    int result = wait_called(view, number, wait);
    if (result != -EINTR)
        pn_wait_end(wait, result);
    return result;
}

int pn_condition_leave(struct pn_condition_view *view, uint32_t number, enum pn_leaving how)
{
    while (lock(view, PN_FOREVER) != 0) /* -EINTR: the signal's turn is when we have left */
        ;
    struct pn_seat *seat = seat_at(view, number);
    int called = seat->ticket <= view->condition->called;
    if (called && how == PN_GIVES_UP)
        pass_on(view, number);
    else if (!called || how != PN_TIMED_OUT)
        atomic_store(&seat->who, 0);
    unlock(view);
    return called;
}

uint32_t pn_condition_count(struct pn_condition_view *view, uint32_t *ret_called)
{
    uint32_t waiting = 0, count = seat_count(view->condition);
    *ret_called = 0;
    for (uint32_t n = 0; n < count; n++) {
        const struct pn_seat *seat = seat_at(view, n);
        uint64_t who = atomic_load(&seat->who);
        if (who == 0 || is_dead(view, who))
            continue;
        if (seat->ticket <= view->condition->called)
            ++*ret_called;
        else
            waiting++;
    }
    return waiting;
}

#define _GNU_SOURCE
#include "barrier.h"

#include <sys/types.h>

#define PHASE_BITS 3

static enum pn_phase phase_of(uint32_t word)
{
    return (enum pn_phase)(word & ((1u << PHASE_BITS) - 1));
}

static const uint32_t *futex_of(const struct pn_barrier *barrier)
{
    return (const uint32_t *)(const void *)&barrier->phase;
}

static int is_dead(const struct pn_barrier_view *view, uint64_t who)
{
    return pn_owner_fate(view->self->table, who) == PN_DEAD;
}

/* --- with the mutex --- */

/* The one store, and the wake: those who wait do not want the mutex for it. */
static void change(struct pn_barrier *barrier, enum pn_phase phase)
{
    uint32_t word = atomic_load(&barrier->phase);
    atomic_store(&barrier->phase, ((word >> PHASE_BITS) + 1) << PHASE_BITS | (uint32_t)phase);
    (void)pn_wait_wake(&barrier->watch, futex_of(barrier), INT_MAX);
}

static uint32_t count_places(const struct pn_barrier *barrier)
{
    uint32_t taken = 0;
    for (uint32_t n = 0; n < barrier->parties; n++)
        taken += atomic_load(&barrier->places[n].who) != 0;
    return taken;
}

static void name(struct pn_barrier *barrier, const struct pn_place *place)
{
    atomic_store(&barrier->dead_pid, atomic_load(&place->pid));
    atomic_store(&barrier->dead, atomic_load(&place->who));
}

/* Bring in the deaths. What a death in the middle of this leaves is found again by the next one:
 * nobody dead loses its place before it is named, and the phase is changed last. */
static void settle(struct pn_barrier_view *view)
{
    struct pn_barrier *barrier = view->barrier;
    enum pn_phase phase = phase_of(atomic_load(&barrier->phase));
    uint32_t living = 0;
    if (phase == PN_FILLING || phase == PN_RESETTING) /* of another time, or of a reset */
        atomic_store(&barrier->dead, 0);
    for (uint32_t n = 0; n < barrier->parties; n++) {
        struct pn_place *place = &barrier->places[n];
        uint64_t who = atomic_load(&place->who);
        if (who == 0)
            continue;
        if (!is_dead(view, who)) {
            living++;
        } else if (phase == PN_FILLING || (phase == PN_ACTING && who == barrier->actor)) {
            name(barrier, place);
            change(barrier, PN_BROKEN);
            return;
        } else if (phase != PN_ACTING) { /* while somebody acts, the others may die later */
            if (phase == PN_DRAINING)
                name(barrier, place);
            (void)atomic_compare_exchange_strong(&place->who, &who, 0);
        }
    }
    if (living == 0 && (phase == PN_DRAINING || phase == PN_RESETTING))
        change(barrier, atomic_load(&barrier->dead) != 0 ? PN_BROKEN : PN_FILLING);
}

static int lock(struct pn_barrier_view *view)
{
    int result = pn_mutex_lock(view->self, &view->barrier->mutex, PN_FOREVER);
    if (result == -EOWNERDEAD) /* who died before its wake has changed the phase */
        (void)pn_wait_wake(&view->barrier->watch, futex_of(view->barrier), INT_MAX);
    else if (result != 0)
        return result;
    settle(view);
    return 0;
}

static void lock_at_any_rate(struct pn_barrier_view *view)
{
    while (lock(view) != 0) /* -EINTR: the signal's turn is when we are done */
        ;
}

static void unlock(struct pn_barrier_view *view)
{
    pn_mutex_unlock(&view->barrier->mutex);
}

/* --- waiting --- */

/* Whether settle() has something to do; the next sleep ends with a death that makes it so. */
static int is_stale(const struct pn_barrier_view *view, enum pn_phase phase, uint64_t me,
                    struct pn_waiter *wait)
{
    const struct pn_barrier *barrier = view->barrier;
    uint32_t living = 0, dead = 0;
    uint64_t dying = 0;
    wait->other_count = 0;
    if (phase == PN_BROKEN)
        return 0;
    for (uint32_t n = 0; n < barrier->parties; n++) {
        uint64_t who = atomic_load(&barrier->places[n].who);
        if (who == 0 || (phase == PN_ACTING && who != atomic_load(&barrier->actor)))
            continue;
        enum pn_fate fate = who == me ? PN_ALIVE : pn_owner_fate(view->self->table, who);
        if (fate == PN_DYING)
            dying = who;
        dead += fate == PN_DEAD;
        living += fate != PN_DEAD;
        if (fate != PN_DEAD && who != me)
            pn_wait_for(wait, who);
    }
    if (dying != 0)
        pn_wait_soon(wait, dying);
    return phase == PN_FILLING || phase == PN_ACTING ? dead != 0 : living == 0;
}

static void begin_wait(struct pn_barrier_view *view, uint64_t me, struct pn_waiter *wait,
                       int64_t deadline_ns)
{
    pn_wait_begin(wait, &view->barrier->watch, futex_of(view->barrier), deadline_ns);
    pn_wait_as(wait, view->self->table, me);
}

/* Wait for the phase to leave those in the mask; -EINTR also after so many sleeps. */
static int wait_for_change(struct pn_barrier_view *view, uint32_t phases, struct pn_waiter *wait,
                           int sleeps)
{
    struct pn_barrier *barrier = view->barrier;
    for (;;) {
        uint32_t word = atomic_load(&barrier->phase);
        if (!(phases & 1u << phase_of(word)))
            return 0;
        if (is_stale(view, phase_of(word), wait->me, wait)) {
            int result = lock(view);
            if (result != 0)
                return result;
            unlock(view);
            if (atomic_load(&barrier->phase) != word)
                continue;
        }
        if (sleeps-- == 0)
            return -EINTR;
        if (wait->deadline_ns != PN_FOREVER && phase_of(word) == PN_ACTING)
            wait->deadline_ns = PN_FOREVER; /* all are there: nobody is late */
        int result = pn_wait_sleep(wait, word);
        if (result < 0)
            return result;
    }
}

static void end_wait(struct pn_barrier_view *view, struct pn_waiter *wait, int result)
{
    if (wait->office >= 0) /* the others sleep long, and who should have woken them may be dead */
        (void)pn_wait_wake(&view->barrier->watch, futex_of(view->barrier), INT_MAX);
    pn_wait_end(wait, result);
}

/* The same until it has left them, without a limit. */
static int outwait(struct pn_barrier_view *view, uint32_t phases, uint64_t me)
{
    struct pn_waiter wait;
    begin_wait(view, me, &wait, PN_FOREVER);
    int result = wait_for_change(view, phases, &wait, INT_MAX);
    end_wait(view, &wait, result);
    return result;
}

#define DOOR_IS_SHUT (1u << PN_ACTING | 1u << PN_DRAINING | 1u << PN_RESETTING)

int pn_barrier_come(struct pn_barrier_view *view, int acts, uint64_t thread,
                    struct pn_visit *ret_visit)
{
    struct pn_barrier *barrier = view->barrier;
    uint64_t me;
    int result = pn_self_owner(view->self, &me);
    while (result == 0 && (result = lock(view)) == 0) {
        enum pn_phase phase = phase_of(atomic_load(&barrier->phase));
        if (phase == PN_FILLING)
            break;
        unlock(view);
        if (phase == PN_BROKEN)
            return -EPIPE;
        result = outwait(view, DOOR_IS_SHUT, me);
    }
    if (result != 0)
        return result;
    uint32_t taken = count_places(barrier), place = 0;
    while (place + 1 < barrier->parties && atomic_load(&barrier->places[place].who) != 0)
        place++; /* one is free, or it would not be filling */
    *ret_visit = (struct pn_visit){
        .place = place, .index = taken, .acts = acts && taken + 1 == barrier->parties};
    atomic_store(&barrier->places[place].pid, (uint32_t)getpid());
    atomic_store(&barrier->places[place].who, me);
    if (ret_visit->acts) {
        atomic_store(&barrier->actor, me);
        atomic_store(&barrier->actor_thread, thread);
        change(barrier, PN_ACTING);
    } else if (taken + 1 == barrier->parties) {
        change(barrier, PN_DRAINING);
    }
    unlock(view);
    return 0;
}

int pn_barrier_acted(struct pn_barrier_view *view, int failed)
{
    lock_at_any_rate(view);
    atomic_store(&view->barrier->actor_thread, 0);
    change(view->barrier, failed ? PN_BROKEN : PN_DRAINING);
    settle(view);
    unlock(view);
    return failed ? -EPIPE : 0;
}

void pn_barrier_begin(struct pn_barrier_view *view, struct pn_visit *visit, int64_t deadline_ns)
{
    uint64_t me = atomic_load(&view->barrier->places[visit->place].who);
    begin_wait(view, me, &visit->wait, deadline_ns);
}

int pn_barrier_wait(struct pn_barrier_view *view, struct pn_visit *visit)
{
    struct pn_barrier *barrier = view->barrier;
    uint32_t phases = 1u << PN_FILLING | 1u << PN_ACTING;
    int result = wait_for_change(view, phases, &visit->wait, 1);
    if (result == -ETIMEDOUT) {
        lock_at_any_rate(view);
        if (phase_of(atomic_load(&barrier->phase)) == PN_FILLING)
            change(barrier, PN_BROKEN);
        unlock(view);
        visit->wait.deadline_ns = PN_FOREVER; /* somebody may just have begun the action */
        result = wait_for_change(view, phases, &visit->wait, 1);
    }
    if (result == -EINTR)
        return result;
    end_wait(view, &visit->wait, result);
    visit->wait.watch = NULL;
    if (result != 0)
        return result;
    return phase_of(atomic_load(&barrier->phase)) == PN_DRAINING ? 0 : -EPIPE;
}

void pn_barrier_leave(struct pn_barrier_view *view, struct pn_visit *visit)
{
    struct pn_barrier *barrier = view->barrier;
    if (visit->wait.watch != NULL)
        end_wait(view, &visit->wait, -EINTR);
    atomic_store(&barrier->places[visit->place].who, 0);
    enum pn_phase phase = phase_of(atomic_load(&barrier->phase));
    if (phase == PN_FILLING || phase == PN_BROKEN || count_places(barrier) != 0)
        return;
    lock_at_any_rate(view); /* the last one opens the door; if it dies, who waits there does */
    unlock(view);
}

/* --- */

/* Lock it while nobody acts; -EALREADY: the caller does. */
static int lock_to_change(struct pn_barrier_view *view, uint64_t thread)
{
    uint64_t me;
    int result = pn_self_owner(view->self, &me);
    while (result == 0 && (result = lock(view)) == 0) {
        if (phase_of(atomic_load(&view->barrier->phase)) != PN_ACTING)
            return 0;
        int mine = atomic_load(&view->barrier->actor_thread) == thread;
        unlock(view);
        result = mine ? -EALREADY : outwait(view, 1u << PN_ACTING, me);
    }
    return result;
}

int pn_barrier_abort(struct pn_barrier_view *view, uint64_t thread)
{
    int result = lock_to_change(view, thread);
    if (result != 0)
        return result == -EALREADY ? 0 : result;
    if (phase_of(atomic_load(&view->barrier->phase)) != PN_BROKEN) /* by whom it was stays named */
        change(view->barrier, PN_BROKEN);
    unlock(view);
    return 0;
}

int pn_barrier_reset(struct pn_barrier_view *view, uint64_t thread)
{
    int result = lock_to_change(view, thread);
    if (result != 0)
        return result == -EALREADY ? 0 : result;
    enum pn_phase phase = phase_of(atomic_load(&view->barrier->phase));
    if (phase == PN_BROKEN || (phase == PN_FILLING && count_places(view->barrier) != 0)) {
        change(view->barrier, PN_RESETTING);
        settle(view); /* open at once, where nobody is to be sent away */
    }
    unlock(view);
    return 0;
}

int pn_barrier_look(struct pn_barrier_view *view, enum pn_phase *ret_phase, uint32_t *ret_waiting)
{
    uint64_t me;
    int result = pn_self_owner(view->self, &me);
    if (result == 0)
        result = lock(view);
    if (result != 0)
        return result;
    *ret_phase = phase_of(atomic_load(&view->barrier->phase));
    int waits = *ret_phase == PN_FILLING || *ret_phase == PN_ACTING;
    *ret_waiting = waits ? count_places(view->barrier) : 0;
    unlock(view);
    return 0;
}

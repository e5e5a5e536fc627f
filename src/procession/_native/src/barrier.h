/* Where so many meet before any of them goes on. All zero but `parties`: nobody is there. Bytes:
 *
 *     mutex      guards all that follows, but for leaving (mutex.h)
 *     watch      wait.h
 *     phase      enum pn_phase in the low three bits; above them a count of its changes. The futex
 *     parties    how many meet
 *     dead_pid, dead    pid and owner word (identity.h) of whose death broke it; 0: nobody's
 *     actor, actor_thread   who carries out the action: owner word, and lock.h's mix
 *     places     who: owner word of who is there, 0 where it is free; pid: of that process
 *
 * Each step is one store: to come is to take a place, to go on is to change the phase, to leave is
 * to free one's place. How many are there is how many places are taken. Deaths are brought in by
 * one function, settle(), which every next one calls and those who wait call when they see one:
 * who died before all were there breaks the barrier; who died after all had met, before it left,
 * breaks it for the next ones, once all who live have left. */
#ifndef PN_BARRIER_H
#define PN_BARRIER_H

#include "mutex.h"

enum pn_phase {
    PN_FILLING,
    PN_ACTING,    /* all are there, and one carries out the action */
    PN_DRAINING,  /* all go on; nobody comes before the last one has left */
    PN_RESETTING, /* all are sent away, likewise */
    PN_BROKEN,
};

struct pn_place {
    _Atomic uint64_t who; /* 0 */
    _Atomic uint32_t pid; /* 8 */
    uint32_t spare;       /* 12 */
};

struct pn_barrier {
    struct pn_mutex mutex;         /*  0 */
    struct pn_watch watch;         /* 24 */
    _Atomic uint32_t phase;        /* 40 */
    uint32_t parties;              /* 44 */
    _Atomic uint64_t dead;         /* 48 */
    _Atomic uint64_t actor;        /* 56 */
    _Atomic uint64_t actor_thread; /* 64 */
    _Atomic uint32_t dead_pid;     /* 72 */
    unsigned char spare[52];       /* 76 */
    struct pn_place places[];      /* 128  as many as parties */
};
_Static_assert(offsetof(struct pn_barrier, watch) == 24, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_barrier, phase) == 40, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_barrier, parties) == 44, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_barrier, dead) == 48, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_barrier, actor) == 56, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_barrier, actor_thread) == 64, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_barrier, dead_pid) == 72, "bump PN_MEMORY_FORMAT");
_Static_assert(sizeof(struct pn_barrier) == 128, "bump PN_MEMORY_FORMAT");
_Static_assert(sizeof(struct pn_place) == 16, "bump PN_MEMORY_FORMAT");

/* One process's view of it. */
struct pn_barrier_view {
    struct pn_self *self;
    struct pn_barrier *barrier;
};

struct pn_visit {
    uint32_t place, index; /* index: how many were there before */
    int acts;              /* the caller is the last one, and carries out the action */
    struct pn_waiter wait; /* its watch is NULL while there is none */
};

/* All below: 0 is done; or -errno: -EINTR, a signal came; -ENOSPC, ... of an identity. None of them
 * needs the GIL. */

/* Come in, once all who leave have left. -EPIPE: it is broken. `acts`: there is an action;
 * `thread`: the caller's mix. */
int pn_barrier_come(struct pn_barrier_view *view, int acts, uint64_t thread,
                    struct pn_visit *ret_visit);

/* The action is done. 0, or -EPIPE where it failed, which breaks the barrier. Cannot fail. */
int pn_barrier_acted(struct pn_barrier_view *view, int failed);

/* Begin a wait. */
void pn_barrier_begin(struct pn_barrier_view *view, struct pn_visit *visit, int64_t deadline_ns);

/* Wait until all are there. -EPIPE: it is broken, or was reset. Who waits too long breaks it.
 * -EINTR: a signal came, or one may have come while nobody slept: see to it, and call again. */
int pn_barrier_wait(struct pn_barrier_view *view, struct pn_visit *visit);

/* Leave, whatever came of it. Cannot fail. */
void pn_barrier_leave(struct pn_barrier_view *view, struct pn_visit *visit);

/* Break it, or send away all who wait and begin anew. While somebody carries out the action they
 * wait for the end of it; called by that one itself they are of no effect. */
int pn_barrier_abort(struct pn_barrier_view *view, uint64_t thread);
int pn_barrier_reset(struct pn_barrier_view *view, uint64_t thread);

/* The phase, with all deaths brought in, and how many wait. -EINTR. */
int pn_barrier_look(struct pn_barrier_view *view, enum pn_phase *ret_phase, uint32_t *ret_waiting);

#endif

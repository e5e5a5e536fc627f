/* Who waits for a condition, in the order of their coming. All zero: nobody does.
 *
 *     mutex      guards all that follows (mutex.h)
 *     watch      wait.h
 *     called     waiters whose tickets are up to this one are called
 *     drawn      the ticket that was drawn last
 *     called_to, passing   redo record, of one wake-up that is passed on: `called` as it will be,
 *                and the seat that becomes free + 1; 0: there is none
 *     bell       wait.h
 *     blocks     where in the memory, in units of PN_CELL, the seats are that it grew by
 *     seats      who: owner word (identity.h) of a waiter's process, 0 where it is free;
 *                ticket: the waiter's; rings: its futex, which is raised when it may be called
 *
 * A waiter sits from before it lets go of the user's lock until it has it again. To notify is to
 * raise `called`: one store, however many it calls, so that who dies over it has called all or
 * none. Who was killed is passed over. Who was killed with a wake-up in its hands sits on a ticket
 * that is called: whoever sees that passes the wake-up on to the next one. All this is looked for by
 * those who wait, at the latest by the two of them who watch (wait.h). */
#ifndef PN_CONDITION_H
#define PN_CONDITION_H

#include "mutex.h"

#define PN_SEATS 8         /* to begin with */
#define PN_SEAT_BLOCKS 13u /* to grow by, each twice as large as the one before */

struct pn_seat {
    _Atomic uint64_t who;    /* 0 */
    _Atomic uint64_t ticket; /* 8 */
    _Atomic uint32_t rings;  /* 16 */
    uint32_t spare;          /* 20 */
};
_Static_assert(sizeof(struct pn_seat) == 24, "bump PN_MEMORY_FORMAT");

struct pn_condition {
    struct pn_mutex mutex;                   /*   0 */
    struct pn_watch watch;                   /*  24 */
    _Atomic uint64_t called;                 /*  40 */
    _Atomic uint64_t drawn;                  /*  48 */
    _Atomic uint64_t called_to;              /*  56 */
    _Atomic uint32_t passing;                /*  64 */
    _Atomic uint32_t blocks[PN_SEAT_BLOCKS]; /*  68 */
    uint32_t bell;                           /* 120 */
    uint32_t spare;                          /* 124 */
    struct pn_seat seats[PN_SEATS];          /* 128 */
};
_Static_assert(offsetof(struct pn_condition, watch) == 24, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_condition, called) == 40, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_condition, drawn) == 48, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_condition, called_to) == 56, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_condition, passing) == 64, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_condition, blocks) == 68, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_condition, seats) == 128, "bump PN_MEMORY_FORMAT");
_Static_assert(sizeof(struct pn_condition) == 320, "bump PN_MEMORY_FORMAT");

/* One process's view of it. */
struct pn_condition_view {
    struct pn_self *self;
    struct pn_condition *condition;
    unsigned char *memory; /* from where its blocks are counted */
};

/* All below: 0 or more is done, negative is -errno and nothing was done. `deadline_ns` is for the
 * mutex: 0 (-ETIMEDOUT: somebody has it) or PN_FOREVER (-EINTR: a signal came). */

/* Take a seat: its number. -ENOBUFS: all are taken; pn_condition_grow() and call again. */
int pn_condition_enter(struct pn_condition_view *view, int64_t deadline_ns, uint32_t *ret_seat);

/* Bytes that it grows by next; 0: it has grown as far as it can. */
size_t pn_condition_growth(const struct pn_condition *condition);

/* Have zeroed bytes that nobody else uses as more seats; 0 when others were quicker. */
int pn_condition_grow(struct pn_condition *condition, size_t offset, size_t size);

/* Call so many of those who wait. */
int pn_condition_notify(struct pn_condition_view *view, uint64_t many, int64_t deadline_ns);

/* Begin a wait in a seat. */
void pn_condition_begin(struct pn_condition_view *view, uint32_t seat, struct pn_waiter *wait,
                        int64_t deadline_ns);

/* Wait to be called. The wait is over by 0 or -ETIMEDOUT. -EINTR: a signal came, or one may have
 * come while nobody slept: see to it, then call again with the same wait, or pn_wait_end(). */
int pn_condition_wait(struct pn_condition_view *view, uint32_t seat, struct pn_waiter *wait);

enum pn_leaving {
    PN_HAS_WAITED, /* it has been called, and has the user's lock again */
    PN_TIMED_OUT,  /* it keeps the seat, if it was called meanwhile */
    PN_GIVES_UP,   /* it hands its wake-up, if it has one, to the next */
};

/* Leave the seat: whether one was called. Cannot fail. */
int pn_condition_leave(struct pn_condition_view *view, uint32_t seat, enum pn_leaving how);

/* How many wait and are not called; how many are called, and not gone yet. */
uint32_t pn_condition_count(struct pn_condition_view *view, uint32_t *ret_called);

#endif

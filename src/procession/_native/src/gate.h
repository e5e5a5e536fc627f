/* A gate: where processes sleep until what they wait for may be there. Used beside a mutex, which
 * guards what is waited for; that no wake-up is lost to a death is the watch's doing (wait.h).
 *
 * `sleepers` is at least the number of those who sleep, so that who finds it 0 need not wake. It
 * may be more for a while: who opens the gate counts one down and wakes one, a waiter that was
 * killed stays counted until a wake finds nobody, and one whose turn went by registers anew. */
#ifndef PN_GATE_H
#define PN_GATE_H

#include <stdatomic.h>

#include "identity.h"
#include "wait.h"

struct pn_gate {
    _Atomic uint32_t turn;     /*  0  raised by every opening: futex word of the sleepers */
    uint32_t spare;            /*  4 */
    _Atomic uint64_t sleepers; /*  8  high half: registrations so far; low half: sleepers */
    struct pn_watch watch;     /* 16 */
};
_Static_assert(sizeof(struct pn_gate) == 32, "part of the ring's layout");

/* A waiter's place; zero to begin with. */
struct pn_ticket {
    int entered;
    int lingered; /* it has looked for a while before it sleeps (ring.c) */
    uint32_t turn;
    struct pn_waiter wait;
};

/* What is to be woken once the mutex is released. */
struct pn_wake {
    struct pn_gate *gate; /* NULL: nobody */
    int count;
    uint64_t sleepers;
};

/* With the mutex, which `self` has: take a place, or keep it. */
void pn_gate_enter(struct pn_self *self, struct pn_gate *gate, struct pn_ticket *ticket,
                   int64_t deadline_ns);

/* Without it: sleep until the gate was opened or `looks` says that it is worth taking the mutex.
 *
 *    0            look again, with the mutex
 *    -ETIMEDOUT   the deadline has passed
 *    -EINTR       a signal came */
int pn_gate_sleep(struct pn_gate *gate, struct pn_ticket *ticket, int (*looks)(const void *),
                  const void *at);

/* With the mutex: give the place up, if there is one. */
void pn_gate_leave(struct pn_gate *gate, struct pn_ticket *ticket);

/* Without it, after leave: let somebody else watch; and, where the wait was given up (result < 0),
 * pass on a wake-up that came too late for it. */
void pn_gate_left(struct pn_ticket *ticket, int result);

/* With the mutex: open the gate for one, or for all. */
struct pn_wake pn_gate_open(struct pn_gate *gate, int all);

/* Without it. */
void pn_gate_wake(struct pn_wake wake);

#endif

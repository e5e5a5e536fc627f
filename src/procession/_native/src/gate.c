/* Counting sleepers, and waking them. What may be counted wrong, and why it does no harm: gate.h. */
#define _GNU_SOURCE
#include "gate.h"

#define COUNT ((uint64_t)UINT32_MAX) /* the half of `sleepers` that counts them */

static const uint32_t *futex_of(const struct pn_gate *gate)
{
    return (const uint32_t *)(const void *)&gate->turn;
}

void pn_gate_enter(struct pn_self *self, struct pn_gate *gate, struct pn_ticket *ticket,
                   int64_t deadline_ns)
{
    uint32_t turn = atomic_load(&gate->turn);
    if (!ticket->entered) {
        pn_wait_begin(&ticket->wait, &gate->watch, futex_of(gate), deadline_ns);
        pn_wait_as(&ticket->wait, self->table, atomic_load(self->owner));
    } else if (ticket->turn == turn)
        return; /* nobody has counted us down */
    atomic_fetch_add(&gate->sleepers, COUNT + 2);
    ticket->entered = 1;
    ticket->turn = turn;
}

int pn_gate_sleep(struct pn_gate *gate, struct pn_ticket *ticket, int (*looks)(const void *),
                  const void *at)
{
    for (;;) {
        int result = pn_wait_sleep(&ticket->wait, ticket->turn);
        if (result < 0)
            return result;
        if (atomic_load(&gate->turn) != ticket->turn || looks(at))
            return 0;
    }
}

void pn_gate_leave(struct pn_gate *gate, struct pn_ticket *ticket)
{
    if (!ticket->entered || atomic_load(&gate->turn) != ticket->turn)
        return;
    uint64_t sleepers = atomic_load(&gate->sleepers);
    while ((sleepers & COUNT) != 0 && /* a waker that found nobody may set it to 0 at any time */
           !atomic_compare_exchange_weak(&gate->sleepers, &sleepers, sleepers - 1))
        ;
}

void pn_gate_left(struct pn_ticket *ticket, int result)
{
    if (ticket->entered)
        pn_wait_end(&ticket->wait, result);
    ticket->entered = 0;
}

struct pn_wake pn_gate_open(struct pn_gate *gate, int all)
{
    struct pn_wake it = {NULL, 0, 0};
    uint64_t sleepers = atomic_load(&gate->sleepers);
    if ((sleepers & COUNT) == 0)
        return it;
    /* first the turn: killed between the two, it has left one counted who has left */
    atomic_fetch_add(&gate->turn, 1);
    while ((sleepers & COUNT) != 0) {
        it.sleepers = all ? sleepers & ~COUNT : sleepers - 1;
        if (atomic_compare_exchange_weak(&gate->sleepers, &sleepers, it.sleepers))
            break;
    }
    it.gate = gate;
    it.count = all ? INT_MAX : 1;
    return it;
}

void pn_gate_wake(struct pn_wake it)
{
    if (it.gate == NULL || pn_wait_wake(&it.gate->watch, futex_of(it.gate), it.count) > 0 ||
        (it.sleepers & COUNT) == 0)
        return;
    /* Nobody sleeps: those still counted are dead, or come back by themselves since the turn has
     * changed. Unless somebody has registered meanwhile, which the high half shows. */
    (void)atomic_compare_exchange_strong(&it.gate->sleepers, &it.sleepers, it.sleepers & ~COUNT);
}

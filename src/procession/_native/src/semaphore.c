#define _GNU_SOURCE
#include "semaphore.h"

/* --- where the ledger's entries are --- */

static uint32_t block_of(uint32_t index) /* from PN_PERMITS on */
{
    return 31u - (uint32_t)__builtin_clz(index / PN_PERMITS);
}

/* NULL: there is no room for it yet. */
static struct pn_permits *entry_at(const struct pn_semaphore *it, uint32_t index)
{
    uintptr_t at = (uintptr_t)it;
    if (index < PN_PERMITS)
        return (struct pn_permits *)(at + offsetof(struct pn_semaphore, ledger)) + index;
    uint32_t block = block_of(index);
    size_t offset = block >= PN_PERMIT_BLOCKS
                        ? 0
                        : atomic_load_explicit(&it->blocks[block], memory_order_acquire);
    return offset == 0
               ? NULL
               : (struct pn_permits *)(at + offset * PN_CELL) + (index - (PN_PERMITS << block));
}

/* The first entry from an index on that there is room for; NULL when there are no more. */
static struct pn_permits *next_entry(const struct pn_semaphore *it, uint32_t *index)
{
    uint32_t top = PN_GET(it->top);
    struct pn_permits *entry = NULL;
    while (*index < top && (entry = entry_at(it, *index)) == NULL)
        *index = 2 * PN_PERMITS << block_of(*index);
    return *index < top ? entry : NULL;
}

uint32_t pn_semaphore_room(const struct pn_semaphore *it)
{
    uint32_t room = PN_PERMITS;
    for (uint32_t block = 0; block < PN_PERMIT_BLOCKS; block++)
        if (atomic_load(&it->blocks[block]) != 0)
            room += PN_PERMITS << block;
    return room;
}

/* --- changing it, so that a death anywhere leaves it as it was or as it shall be --- */

struct change {
    uint32_t index;
    uint64_t owner, since;
    uint32_t scoped, plain;
    uint64_t clock;
    uint32_t value, recovered;
};

static struct change begin_change(const struct pn_semaphore *it, uint32_t index)
{
    const struct pn_permits *entry = entry_at(it, index);
    return (struct change){index,
                           PN_GET(entry->owner),
                           PN_GET(entry->since),
                           PN_GET(entry->scoped),
                           PN_GET(entry->plain),
                           PN_GET(it->clock),
                           PN_GET(it->value),
                           PN_GET(it->recovered)};
}

/* Each store is a release, so that none is seen before the record was valid, or after it was not. */
#define PUT(place, value) atomic_store_explicit(&(place), value, memory_order_release)

static void carry_out(struct pn_semaphore *it)
{
    struct pn_semaphore_record *record = &it->record;
    if (!atomic_load_explicit(&record->valid, memory_order_acquire))
        return;
    uint32_t index = PN_GET(record->index);
    struct pn_permits *entry = entry_at(it, index);
    PUT(entry->owner, PN_GET(record->entry.owner));
    PUT(entry->since, PN_GET(record->entry.since));
    PUT(entry->scoped, PN_GET(record->entry.scoped));
    PUT(entry->plain, PN_GET(record->entry.plain));
    PUT(it->clock, PN_GET(record->clock));
    PUT(it->recovered, PN_GET(record->recovered));
    if (PN_GET(it->top) <= index)
        PUT(it->top, index + 1);
    PUT(it->value, PN_GET(record->value));
    PUT(record->valid, 0);
}

static void commit(struct pn_semaphore *it, const struct change *change)
{
    struct pn_semaphore_record *record = &it->record;
    PN_SET(record->index, change->index);
    PN_SET(record->entry.owner, change->owner);
    PN_SET(record->entry.since, change->since);
    PN_SET(record->entry.scoped, change->scoped);
    PN_SET(record->entry.plain, change->plain);
    PN_SET(record->clock, change->clock);
    PN_SET(record->value, change->value);
    PN_SET(record->recovered, change->recovered);
    PUT(record->valid, 1);
    carry_out(it);
}

/* Held for microseconds: signals wait. 0, or -ETIMEDOUT where it may not `wait`. */
static int lock(struct pn_self *self, struct pn_semaphore *it, int wait)
{
    int result;
    do
        result = pn_mutex_lock(self, &it->mutex, wait ? PN_FOREVER : 0);
    while (result == -EINTR);
    if (result == -EOWNERDEAD) {
        carry_out(it);
        result = 0;
    }
    return result;
}

/* --- the ledger --- */

static uint32_t permits_of(const struct pn_permits *entry)
{
    return PN_GET(entry->scoped) + PN_GET(entry->plain);
}

/* Those of an entry that come back with its owner's death. */
static uint32_t returning(const struct pn_semaphore *it, const struct pn_permits *entry)
{
    return PN_GET(entry->scoped) + (it->reclaim ? PN_GET(entry->plain) : 0);
}

/* Settle the account of one who is dead: how many permits came back. Of one that came to Python's own
 * end none do. */
static uint32_t settle(const struct pn_table *table, struct pn_semaphore *it, uint32_t index)
{
    struct change change = begin_change(it, index);
    uint32_t back = 0;
    if (!pn_owner_came_to_its_end(table, change.owner))
        back = returning(it, entry_at(it, index));
    if (back > it->bound - change.value) /* somebody has given them back for the dead */
        back = it->bound - change.value;
    change.value += back;
    change.recovered += back;
    change.scoped = change.plain = 0;
    commit(it, &change);
    return back;
}

/* Those who hold permits and live, for the sleep. */
struct living {
    uint64_t holders[PN_HEARD + 1];
    unsigned int count;
    uint64_t dying; /* one who has begun to die */
};

/* Look for one who died with permits, until one came back. */
static void ask_for_dead(const struct pn_table *table, struct pn_semaphore *it,
                         struct pn_permit_wait *wait, struct living *living)
{
    const struct pn_permits *entry;
    for (uint32_t index = 0; PN_GET(it->value) == 0 && (entry = next_entry(it, &index)) != NULL;
         index++) {
        if (returning(it, entry) == 0)
            continue;
        uint64_t owner = PN_GET(entry->owner);
        enum pn_fate fate = pn_owner_fate(table, owner);
        if (fate == PN_DEAD) {
            if (settle(table, it, index) > 0)
                wait->before = owner;
            continue;
        }
        if (fate == PN_DYING)
            living->dying = owner;
        if (living->count <= PN_HEARD)
            living->holders[living->count++] = owner;
    }
}

static void take(struct pn_semaphore *it, uint32_t index, uint64_t me, enum pn_sort sort)
{
    struct change change = begin_change(it, index);
    if (change.scoped + change.plain == 0)
        change.since = ++change.clock;
    change.owner = me;
    if (sort == PN_SCOPED)
        change.scoped++;
    else
        change.plain++;
    change.value--;
    commit(it, &change);
}

/* With the mutex: whether this process may have an entry, and that it is no dead one's. */
static int take_place(const struct pn_table *table, struct pn_semaphore *it, uint64_t me,
                      uint64_t *ret_before)
{
    uint32_t index = pn_owner_index(me);
    const struct pn_permits *entry = entry_at(it, index);
    if (entry == NULL)
        return -ENOBUFS;
    uint64_t owner = PN_GET(entry->owner);
    /* who had the slot before is dead */
    if (owner != me && permits_of(entry) != 0 && settle(table, it, index) > 0)
        *ret_before = owner;
    return 0;
}

/* --- the operations --- */

int pn_semaphore_try(struct pn_self *self, struct pn_semaphore *it, enum pn_sort sort,
                     uint64_t *ret_before)
{
    uint64_t me;
    int result = pn_self_owner(self, &me);
    if (result == 0 && PN_GET(it->value) == 0)
        result = -EAGAIN;
    if (result == 0)
        result = lock(self, it, 0);
    if (result < 0)
        return result == -ETIMEDOUT ? -EAGAIN : result;
    result = take_place(self->table, it, me, ret_before);
    if (result == 0 && PN_GET(it->value) == 0)
        result = -EAGAIN;
    if (result == 0)
        take(it, pn_owner_index(me), me, sort);
    pn_mutex_unlock(&it->mutex);
    return result;
}

int pn_semaphore_take(struct pn_self *self, struct pn_semaphore *it, enum pn_sort sort,
                      struct pn_permit_wait *wait)
{
    uint64_t me;
    int result = pn_self_owner(self, &me);
    for (int slept = 0; result == 0; slept = 1) {
        struct living living = {.count = 0};
        result = lock(self, it, 1);
        if (result < 0)
            break;
        result = take_place(self->table, it, me, &wait->before);
        if (result == 0 && PN_GET(it->value) == 0)
            ask_for_dead(self->table, it, wait, &living);
        if (result == 0 && PN_GET(it->value) > 0) {
            struct pn_wake wake = {NULL, 0, 0};
            take(it, pn_owner_index(me), me, sort);
            pn_gate_leave(&it->gate, &wait->ticket);
            if (PN_GET(it->value) > 0) /* for whose sake nobody was woken, or one who died of it */
                wake = pn_gate_open(&it->gate, 0);
            pn_mutex_unlock(&it->mutex);
            pn_gate_wake(wake);
            return 0;
        }
        if (result == 0 && wait->deadline_ns == 0)
            result = -ETIMEDOUT;
        if (result == 0 && slept)
            result = -EINTR;
        if (result == 0)
            pn_gate_enter(self, &it->gate, &wait->ticket, wait->deadline_ns);
        pn_mutex_unlock(&it->mutex);
        if (result < 0)
            break;
        for (unsigned int n = 0; n < living.count; n++)
            pn_wait_for(&wait->ticket.wait, living.holders[n]);
        if (living.dying != 0)
            pn_wait_soon(&wait->ticket.wait, living.dying);
        result = pn_wait_sleep(&wait->ticket.wait, wait->ticket.turn);
    }
    return result;
}

void pn_semaphore_end(struct pn_self *self, struct pn_semaphore *it, struct pn_permit_wait *wait,
                      int result)
{
    if (wait->ticket.entered && result < 0 && lock(self, it, 1) == 0) {
        pn_gate_leave(&it->gate, &wait->ticket);
        pn_mutex_unlock(&it->mutex);
    }
    pn_gate_left(&wait->ticket, result);
}

/* Whose account a release is on: this process's, or else of whoever has a permit longest, or else
 * nobody's (UINT32_MAX). */
static uint32_t debtor(const struct pn_semaphore *it, uint64_t me)
{
    uint32_t own = pn_owner_index(me), found = UINT32_MAX;
    const struct pn_permits *entry = entry_at(it, own), *longest = NULL;
    if (entry != NULL && PN_GET(entry->owner) == me && permits_of(entry) != 0)
        return own;
    for (uint32_t index = 0; (entry = next_entry(it, &index)) != NULL; index++)
        if (permits_of(entry) != 0 &&
            (longest == NULL || PN_GET(entry->since) < PN_GET(longest->since))) {
            longest = entry;
            found = index;
        }
    return found;
}

int pn_semaphore_release(struct pn_self *self, struct pn_semaphore *it, enum pn_sort sort, int wait)
{
    uint64_t me;
    int result = pn_self_owner(self, &me);
    if (result == 0)
        result = lock(self, it, wait);
    if (result < 0)
        return result == -ETIMEDOUT ? -EAGAIN : result;
    if (PN_GET(it->value) >= it->bound) {
        pn_mutex_unlock(&it->mutex);
        return -EPERM;
    }
    uint32_t index = debtor(it, me);
    struct change change = begin_change(it, index == UINT32_MAX ? 0 : index);
    if (index != UINT32_MAX) {
        if (change.plain == 0 || (sort == PN_SCOPED && change.scoped > 0))
            change.scoped--;
        else
            change.plain--;
    }
    change.value++;
    commit(it, &change);
    struct pn_wake wake = pn_gate_open(&it->gate, 0);
    pn_mutex_unlock(&it->mutex);
    pn_gate_wake(wake);
    return 0;
}

int pn_semaphore_leave(struct pn_self *self, struct pn_semaphore *it)
{
    uint64_t me;
    int result = pn_self_owner(self, &me);
    if (result < 0 || pn_semaphore_own(self, it) == 0)
        return result;
    result = lock(self, it, 1);
    if (result < 0)
        return result;
    struct change change = begin_change(it, pn_owner_index(me));
    if (change.owner == me) {
        change.scoped = change.plain = 0;
        commit(it, &change);
    }
    pn_mutex_unlock(&it->mutex);
    return 0;
}

uint32_t pn_semaphore_own(struct pn_self *self, struct pn_semaphore *it)
{
    uint64_t me;
    if (pn_self_owner(self, &me) < 0)
        return 0;
    const struct pn_permits *entry = entry_at(it, pn_owner_index(me));
    return entry != NULL && PN_GET(entry->owner) == me ? permits_of(entry) : 0;
}

int pn_semaphore_grow(struct pn_self *self, struct pn_semaphore *it, struct pn_memory *memory,
                      size_t memory_size, int fd)
{
    uint64_t me;
    int result = pn_self_owner(self, &me);
    if (result == 0)
        result = lock(self, it, 1); /* so that many who come at once take one block */
    if (result < 0)
        return result;
    uint32_t index = pn_owner_index(me), block = index < PN_PERMITS ? 0 : block_of(index);
    if (block >= PN_PERMIT_BLOCKS)
        result = -ENOSPC;
    else if (entry_at(it, index) == NULL) {
        size_t offset, begin = (uintptr_t)it - (uintptr_t)memory;
        result = pn_memory_take_more(memory, memory_size, fd,
                                     ((size_t)PN_PERMITS << block) * sizeof(struct pn_permits),
                                     &offset);
        if (result == 0)
            PUT(it->blocks[block], (uint32_t)((offset - begin) / PN_CELL));
    }
    pn_mutex_unlock(&it->mutex);
    return result;
}

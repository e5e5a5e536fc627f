/* This process in a table that it maps: who it is, in a word that others read.
 *
 * An owner word names a process in shared memory:
 *
 *     bit   0      somebody waits for this word to change (mutex.h)
 *     bits  1-23   slot + 1; 0: nobody
 *     bits 24-31   for the word's own use; 0 in an identity
 *     bits 32-63   generation of the slot
 *
 * A process sits in the slot that was made for it, or else takes one at its first need and is a
 * *guest*: a raw os.fork() copy, or whoever was given an object of another program. Nobody reaps a
 * guest; its slot is taken back once it is proved dead, by the next guest. The identity lies on a
 * page that fork() wipes, so that a copy is never taken for its parent. */
#ifndef PN_IDENTITY_H
#define PN_IDENTITY_H

#include "death.h"
#include "table.h"

#define PN_WAITERS 1ull
#define PN_OWNER_MASK (0xffffffff00000000ull | 0x00fffffeull)

struct pn_self {
    struct pn_table *table;
    _Atomic uint64_t *owner; /* on a page of its own; 0: not seated, as in a fresh copy */
};

static inline uint64_t pn_owner_word(uint32_t index, uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint64_t)(index + 1) << 1;
}

static inline uint32_t pn_owner_index(uint64_t owner) /* of a word that names somebody */
{
    return (uint32_t)(owner >> 1 & 0x7fffff) - 1;
}

static inline uint32_t pn_owner_generation(uint64_t owner)
{
    return (uint32_t)(owner >> 32);
}

/* Get the page for the identity in a table. 0 or -errno. */
int pn_self_open(struct pn_table *table, struct pn_self *ret_self);
void pn_self_close(struct pn_self *self);

/* Sit down in a slot, as pn_slot_enter(), and be that from now on. */
int pn_self_enter(struct pn_self *self, uint32_t index, enum pn_state state);

/* Take a guest's slot: 0, or -ENOSPC where there is none. */
int pn_self_visit(struct pn_self *self);

/* Who this process is, as an owner word; 0, or a -errno of pn_self_visit(). */
static inline int pn_self_owner(struct pn_self *self, uint64_t *ret_owner)
{
    int result = 0;
    *ret_owner = atomic_load_explicit(self->owner, memory_order_relaxed);
    if (*ret_owner == 0) {
        result = pn_self_visit(self);
        *ret_owner = atomic_load_explicit(self->owner, memory_order_relaxed);
    }
    return result;
}

/* What has become of the process that an owner word names; of nobody: PN_DEAD. */
enum pn_fate pn_owner_fate(const struct pn_table *table, uint64_t owner);

/* Whether a process said last words before it died. A slot that is another's by now cannot tell:
 * then it did not, since who says them also marks what it leaves. */
int pn_owner_came_to_its_end(const struct pn_table *table, uint64_t owner);

#endif

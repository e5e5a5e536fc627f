#define _GNU_SOURCE
#include "identity.h"

#include <pthread.h>
#include <sys/mman.h>

#define PAGE 4096
#define MOST_PAGES 256 /* that a kernel without MADV_WIPEONFORK (before 4.14) leaves to us */

/* --- where there is no MADV_WIPEONFORK --- */

static _Atomic(void *) unwiped[MOST_PAGES];

static void wipe(void)
{
    for (int n = 0; n < MOST_PAGES; n++) {
        void *page = atomic_load(&unwiped[n]);
        if (page != NULL)
            atomic_store((_Atomic uint64_t *)page, 0);
    }
}

static int wipe_by_hand(void *page)
{
    static _Atomic int registered;
    if (!atomic_exchange(&registered, 1) && pthread_atfork(NULL, NULL, wipe) != 0)
        return -ENOMEM;
    for (int n = 0; n < MOST_PAGES; n++) {
        void *empty = NULL;
        if (atomic_compare_exchange_strong(&unwiped[n], &empty, page))
            return 0;
    }
    return -ENOSPC;
}

/* --- */

int pn_self_open(struct pn_table *table, struct pn_self *ret_self)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -errno;
    int result = madvise(page, PAGE, MADV_WIPEONFORK) == 0 ? 0 : wipe_by_hand(page);
    if (result != 0) {
        (void)munmap(page, PAGE);
        return result;
    }
    ret_self->table = table;
    ret_self->owner = page;
    return 0;
}

void pn_self_close(struct pn_self *self)
{
    for (int n = 0; n < MOST_PAGES; n++) {
        void *page = self->owner;
        (void)atomic_compare_exchange_strong(&unwiped[n], &page, NULL);
    }
    (void)munmap((void *)self->owner, PAGE);
    self->owner = NULL;
}

int pn_self_enter(struct pn_self *self, uint32_t index, enum pn_state state)
{
    struct pn_slot *slot = &self->table->slots[index];
    int result = pn_slot_enter(slot, state);
    if (result == 0) {
        uint32_t generation = pn_word_generation(atomic_load(&slot->word));
        atomic_store(self->owner, pn_owner_word(index, generation));
    }
    return result;
}

static void leave(struct pn_table *table, uint32_t index, uint32_t generation)
{
    static const struct pn_end end = {0, 0, 0, 0, 0};
    (void)pn_slot_end(table, &table->slots[index], &end);
    (void)pn_table_free(table, &table->slots[index], generation);
}

/* Take back the slots of guests that are dead. Nobody else does. */
static void sweep_guests(struct pn_table *table)
{
    uint32_t top = atomic_load(&table->top);
    for (uint32_t index = 0; index < top; index++) {
        struct pn_slot *slot = &table->slots[index];
        uint64_t flags = atomic_load(&slot->flags), word = atomic_load(&slot->word);
        uint32_t generation = pn_word_generation(word);
        if (!(flags & PN_FLAG_GUEST) || flags >> 32 != generation || !pn_word_lives(word) ||
            pn_fate(table, slot, generation) != PN_DEAD)
            continue;
        /* ended by nobody's status: freed on the proof that it is dead */
        static const struct pn_end lost = {-1, PN_FLAG_LOST, 0, 0, 0};
        if (pn_slot_end_of(table, slot, generation, &lost))
            (void)pn_table_free(table, slot, generation);
    }
}

int pn_self_visit(struct pn_self *self)
{
    struct pn_table *table = self->table;
    uint32_t index, generation;
    sweep_guests(table);
    int result = pn_table_claim(table, &index, &generation);
    if (result != 0)
        return result;
    struct pn_slot *slot = &table->slots[index];
    (void)pn_slot_set_flags(slot, generation, PN_FLAG_GUEST);
    result = pn_slot_enter(slot, PN_RUNNING);
    if (result != 0) {
        leave(table, index, generation);
        return result;
    }
    /* only now may anybody's word name it: one that has no pid yet can never be proved dead */
    uint64_t nobody = 0;
    if (!atomic_compare_exchange_strong(self->owner, &nobody, pn_owner_word(index, generation))) {
        (void)pn_life_drop(slot); /* another thread was quicker */
        leave(table, index, generation);
    }
    return 0;
}

enum pn_fate pn_owner_fate(const struct pn_table *table, uint64_t owner)
{
    uint32_t index = pn_owner_index(owner);
    if (index >= table->slot_count)
        return PN_DEAD;
    return pn_fate(table, &table->slots[index], pn_owner_generation(owner));
}

int pn_owner_came_to_its_end(const struct pn_table *table, uint64_t owner)
{
    const struct pn_slot *slot = &table->slots[pn_owner_index(owner)];
    uint32_t how = atomic_load_explicit(&slot->how, memory_order_acquire);
    uint64_t word = atomic_load(&slot->word);
    return pn_word_generation(word) == pn_owner_generation(owner) && how != PN_HOW_NONE;
}

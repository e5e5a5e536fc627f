/* The table as a whole: made, mapped, slots taken and given back. Layout: format.h. */
#define _GNU_SOURCE
#include "death.h"
#include "table.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW) /* without them a stranger's ftruncate is our SIGBUS */
#define WINDOW 64 /* slots among which a small program takes turns: 44 KiB */

size_t pn_table_size(uint32_t slots)
{
    return sizeof(struct pn_table) + (size_t)slots * sizeof(struct pn_slot);
}

/* NULL with errno set when it cannot be mapped. */
static struct pn_table *map(int fd, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* a core dump of a sparse mapping allocates its holes: never dump it */
    (void)madvise(memory, size, MADV_DONTDUMP);
    return memory;
}

int pn_table_create(uint32_t slots, struct pn_table **ret_table, int *ret_fd)
{
    int result = pn_life_check();
    if (result != 0)
        return result;
    int fd = memfd_create(PN_TABLE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && fd <= STDERR_FILENO) { /* where one of 0-2 is closed, it stays closed */
        int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        result = -errno;
        (void)close(fd);
        if (higher < 0)
            return result;
        fd = higher;
    }
    if (fd < 0)
        return -errno;
    struct pn_table *table = NULL;
    unsigned char id[sizeof table->id];
    if (getrandom(id, sizeof id, 0) == sizeof id && ftruncate(fd, (off_t)pn_table_size(slots)) == 0 &&
        fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) == 0)
        table = map(fd, pn_table_size(slots));
    if (table == NULL) {
        result = -errno;
        (void)close(fd);
        return result;
    }
    table->format = PN_FORMAT;
    table->slot_size = sizeof(struct pn_slot);
    table->slot_count = slots;
    struct stat status;
    if (fstat(fd, &status) == 0)
        table->inode = (uint64_t)status.st_ino;
    memcpy(table->id, id, sizeof id);
    table->magic = PN_MAGIC;
    *ret_table = table;
    *ret_fd = fd;
    return 0;
}

int pn_table_attach(int fd, struct pn_table **ret_table)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || status.st_size < (off_t)sizeof(struct pn_table))
        return -EPROTO;
    size_t size = (size_t)status.st_size;
    struct pn_table *table = map(fd, size);
    if (table == NULL)
        return -errno;
    if (table->magic != PN_MAGIC || table->format != PN_FORMAT ||
        table->slot_size != sizeof(struct pn_slot) || pn_table_size(table->slot_count) != size) {
        (void)munmap(table, size);
        return -EPROTO;
    }
    *ret_table = table;
    return 0;
}

/* Nobody else trusts these fields while the slot is CLAIMING. */
static int clear(struct pn_slot *slot, uint32_t generation)
{
    PN_SET(slot->flags, (uint64_t)generation << 32);
    PN_SET(slot->blame, 0);
    PN_SET(slot->owner, 0);
    PN_SET(slot->start_time, 0);
    PN_SET(slot->pid, 0);
    PN_SET(slot->view, 0);
    PN_SET(slot->method, PN_METHOD_NONE);
    PN_SET(slot->how, PN_HOW_NONE);
    PN_SET(slot->exit_code, 0);
    PN_SET(slot->asked_ns, 0);
    PN_SET(slot->running_ns, 0);
    PN_SET(slot->code_ended_ns, 0);
    PN_SET(slot->joined_since_ns, 0);
    for (int place = 0; place < PN_WAITS; place++)
        PN_SET(slot->waits[place].whom, 0);
    PN_SET(slot->name[0], 0);
    PN_SET(slot->target[0], 0);
    return pn_life_init(slot);
}

/* Take this slot if it is free. 1, 0 or -errno. */
static int take(struct pn_table *table, uint32_t index, uint32_t *ret_generation)
{
    struct pn_slot *slot = &table->slots[index];
    uint64_t word = atomic_load(&slot->word);
    if (pn_word_state(word) != PN_FREE)
        return 0;
    uint32_t generation = pn_word_generation(word) + 1;
    if (generation == 0)
        generation = 1;
    if (!atomic_compare_exchange_strong(&slot->word, &word, pn_word(generation, PN_CLAIMING, 0)))
        return 0;
    /* the ending that counted has done its service; those of enders who were killed or are stopped
     * stay taken, since one who is only stopped may still write there */
    if (pn_word_ending(word) != 0)
        atomic_fetch_and(&slot->endings_taken, ~(1u << (pn_word_ending(word) - 1)));
    int result = clear(slot, generation);
    if (result != 0) {
        atomic_store(&slot->word, pn_word(generation, PN_FREE, 0));
        return result;
    }
    uint32_t top = atomic_load(&table->top);
    while (top <= index && !atomic_compare_exchange_weak(&table->top, &top, index + 1))
        ;
    atomic_fetch_add(&table->in_use, 1);
    atomic_store(&slot->word, pn_word(generation, PN_CLAIMED, 0));
    *ret_generation = generation;
    return 1;
}

int pn_table_claim(struct pn_table *table, uint32_t *ret_index, uint32_t *ret_generation)
{
    /* Slots are taken in turn among twice as many as are in use: a claim looks at two of them on
     * average, few pages are ever touched, and who still acts on a slot that was just given back
     * (ask fills fields in before it swaps the word) has time to come to an end. */
    uint32_t window = WINDOW;
    while (window < 2 * (uint64_t)atomic_load(&table->in_use) && window < table->slot_count)
        window *= 2;
    if (window > table->slot_count)
        window = table->slot_count;
    uint32_t first = atomic_load(&table->hint);
    for (uint32_t n = 0; n < table->slot_count; n++) {
        uint32_t index = n < window ? (first + n) % window : n;
        int result = take(table, index, ret_generation);
        if (result < 0)
            return result;
        if (result == 0)
            continue;
        atomic_store(&table->hint, index + 1);
        *ret_index = index;
        return 0;
    }
    return -ENOSPC;
}

int pn_table_free(struct pn_table *table, struct pn_slot *slot, uint32_t generation)
{
    uint64_t word = atomic_load(&slot->word);
    if (pn_word_generation(word) != generation || pn_word_state(word) != PN_ENDED ||
        pn_fate(table, slot, generation) != PN_DEAD)
        return 0;
    uint64_t free_word = pn_word(generation, PN_FREE, pn_word_ending(word));
    if (!atomic_compare_exchange_strong(&slot->word, &word, free_word))
        return 0;
    atomic_fetch_sub(&table->in_use, 1);
    return 1;
}

int pn_table_renew(struct pn_table *table, uint32_t index, uint32_t *ret_generation)
{
    static const struct pn_end lost = {-1, PN_FLAG_LOST, 0, 0, 0};
    struct pn_slot *slot = &table->slots[index];
    uint32_t generation = pn_word_generation(atomic_load(&slot->word));
    if (pn_slot_state(slot, generation) != PN_FREE) {
        if (pn_fate(table, slot, generation) != PN_DEAD)
            return -EBUSY;
        (void)pn_slot_end_of(table, slot, generation, &lost);
        (void)pn_table_free(table, slot, generation);
    }
    int result = take(table, index, ret_generation);
    return result > 0 ? 0 : result < 0 ? result : -EBUSY;
}

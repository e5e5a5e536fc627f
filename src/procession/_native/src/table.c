/* See format.h for the layout and table.h for what each function promises. */
#define _GNU_SOURCE
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t pn_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

size_t pn_table_size(uint32_t slots)
{
    return sizeof(struct pn_table) + (size_t)slots * sizeof(struct pn_slot);
}

static int map(int fd, size_t size, struct pn_table **ret_table)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    /* a core dump of a sparse mapping allocates its holes: never dump it */
    (void)madvise(memory, size, MADV_DONTDUMP);
    *ret_table = memory;
    return 0;
}

int pn_table_create(uint32_t slots, struct pn_table **ret_table, int *ret_fd)
{
    int fd = memfd_create(PN_TABLE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    struct pn_table *table = NULL;
    int result = 0;
    if (ftruncate(fd, (off_t)pn_table_size(slots)) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        result = -errno;
    else
        result = map(fd, pn_table_size(slots), &table);
    if (result != 0) {
        close(fd);
        return result;
    }
    table->format = PN_FORMAT;
    table->slot_size = sizeof(struct pn_slot);
    table->slot_count = slots;
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
    if (status.st_size < (off_t)sizeof(struct pn_table))
        return -EPROTO;
    struct pn_table *table = NULL;
    size_t size = (size_t)status.st_size;
    int result = map(fd, size, &table);
    if (result != 0)
        return result;
    if (table->magic != PN_MAGIC || table->format != PN_FORMAT ||
        table->slot_size != sizeof(struct pn_slot) || pn_table_size(table->slot_count) != size) {
        munmap(table, size);
        return -EPROTO;
    }
    *ret_table = table;
    return 0;
}

int pn_table_claim(struct pn_table *table, uint32_t *ret_index, uint32_t *ret_generation)
{
    uint32_t count = table->slot_count;
    uint32_t first = atomic_load_explicit(&table->hint, memory_order_relaxed);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t index = (first + n) % count;
        struct pn_slot *slot = &table->slots[index];
        uint32_t expected = PN_FREE;
        if (!atomic_compare_exchange_strong(&slot->state, &expected, PN_CLAIMED))
            continue;
        uint32_t generation = atomic_load(&slot->generation) + 1;
        if (generation == 0)
            generation = 1;
        atomic_store(&slot->generation, generation);
        atomic_store(&slot->flags, 0);
        slot->method = PN_METHOD_NONE;
        slot->owner = 0;
        slot->pid = 0;
        slot->how = PN_HOW_NONE;
        slot->start_time = 0;
        slot->exit_code = slot->wait_status = slot->killer_pid = slot->killer_signal = 0;
        slot->asked_ns = slot->running_ns = slot->ended_ns = 0;
        slot->utime_ns = slot->stime_ns = slot->max_rss_kib = 0;
        slot->name[0] = slot->target[0] = slot->text[0] = 0;
        int result = pn_life_init(slot);
        if (result != 0) {
            atomic_store(&slot->state, PN_FREE);
            return result;
        }
        /* low slots are used again first, so that few pages are ever touched */
        atomic_store_explicit(&table->hint, index + 1 == count ? 0 : index + 1,
                              memory_order_relaxed);
        uint32_t top = atomic_load(&table->top);
        while (top <= index && !atomic_compare_exchange_weak(&table->top, &top, index + 1))
            ;
        *ret_index = index;
        *ret_generation = generation;
        return 0;
    }
    return -ENOSPC;
}

int pn_slot_free(struct pn_slot *slot, uint32_t generation)
{
    if (atomic_load(&slot->generation) != generation)
        return 0;
    uint32_t expected = PN_ENDED;
    return atomic_compare_exchange_strong(&slot->state, &expected, PN_FREE);
}

int pn_slot_ask(struct pn_slot *slot, uint32_t generation)
{
    uint32_t state = atomic_load(&slot->state);
    while (state == PN_CLAIMED || state == PN_SPARE) {
        if (atomic_load(&slot->generation) != generation)
            return 0;
        if (atomic_compare_exchange_weak(&slot->state, &state, PN_ASKED))
            return 1;
    }
    return 0;
}

void pn_slot_run(struct pn_slot *slot)
{
    slot->running_ns = pn_now_ns();
    uint32_t state = atomic_load(&slot->state);
    while (state != PN_ENDED && state != PN_FREE &&
           !atomic_compare_exchange_weak(&slot->state, &state, PN_RUNNING))
        ;
}

int pn_slot_end(struct pn_table *table, struct pn_slot *slot, const struct pn_end *end)
{
    uint32_t state = atomic_load(&slot->state);
    if (state == PN_ENDED || state == PN_FREE)
        return 0;
    slot->wait_status = end->wait_status;
    slot->utime_ns = end->utime_ns;
    slot->stime_ns = end->stime_ns;
    slot->max_rss_kib = end->max_rss_kib;
    slot->ended_ns = pn_now_ns();
    atomic_fetch_or(&slot->flags, end->flags);
    while (!atomic_compare_exchange_weak_explicit(&slot->state, &state, PN_ENDED,
                                                  memory_order_acq_rel, memory_order_acquire))
        if (state == PN_ENDED || state == PN_FREE)
            return 0;
    atomic_fetch_add(&table->ended_count, 1);
    (void)syscall(SYS_futex, &slot->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    return 1;
}

int pn_slot_wait(struct pn_slot *slot, uint32_t generation, int64_t deadline_ns)
{
    for (;;) {
        uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
        if (state == PN_ENDED || state == PN_FREE || atomic_load(&slot->generation) != generation)
            return 1;
        struct timespec deadline, *limit = NULL;
        if (deadline_ns >= 0) {
            if (pn_now_ns() >= deadline_ns)
                return 0;
            deadline.tv_sec = (time_t)(deadline_ns / 1000000000);
            deadline.tv_nsec = (long)(deadline_ns % 1000000000);
            limit = &deadline;
        }
        /* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time */
        if (syscall(SYS_futex, &slot->state, FUTEX_WAIT_BITSET, state, limit, NULL,
                    FUTEX_BITSET_MATCH_ANY) != 0 &&
            errno == EINTR)
            return -EINTR;
    }
}

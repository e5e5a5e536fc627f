#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* NULL with errno set. */
static struct pn_memory *map(int fd, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return NULL;
    (void)madvise(memory, size, MADV_DONTDUMP); /* a core dump would allocate its holes */
    return memory;
}

int pn_memory_reserve(int fd, size_t offset, size_t size)
{
    while (fallocate(fd, 0, (off_t)offset, (off_t)size) != 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

int pn_memory_create(const char *name, size_t size, size_t reserved, const unsigned char *table_id,
                     struct pn_memory **ret_memory, int *ret_fd)
{
    unsigned char id[16];
    if (size < sizeof(struct pn_memory) || reserved > size || size > PTRDIFF_MAX)
        return -EINVAL;
    if (getrandom(id, sizeof id, 0) != sizeof id)
        return -errno;
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (reserved < sizeof(struct pn_memory))
        reserved = sizeof(struct pn_memory);
    int result = ftruncate(fd, (off_t)size) == 0 ? pn_memory_reserve(fd, 0, reserved) : -errno;
    struct pn_memory *memory = NULL;
    if (result == 0 && (fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) != 0 ||
                        (memory = map(fd, size)) == NULL))
        result = -errno;
    if (result != 0) {
        (void)close(fd);
        return result;
    }
    memory->format = PN_MEMORY_FORMAT;
    memcpy(memory->id, id, sizeof id);
    memcpy(memory->table_id, table_id, sizeof memory->table_id);
    atomic_store(&memory->taken, sizeof(struct pn_memory));
    memory->magic = PN_MEMORY_MAGIC;
    *ret_memory = memory;
    *ret_fd = fd;
    return 0;
}

int pn_memory_attach(int fd, struct pn_memory **ret_memory, size_t *ret_size)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS ||
        status.st_size < (off_t)sizeof(struct pn_memory))
        return -EPROTO;
    size_t size = (size_t)status.st_size;
    struct pn_memory *memory = map(fd, size);
    if (memory == NULL)
        return -errno;
    if (memory->magic != PN_MEMORY_MAGIC || memory->format != PN_MEMORY_FORMAT) {
        (void)munmap(memory, size);
        return -EPROTO;
    }
    *ret_memory = memory;
    *ret_size = size;
    return 0;
}

size_t pn_memory_take(struct pn_memory *memory, size_t memory_size, size_t size)
{
    if (size > memory_size)
        return 0;
    size = (size + PN_CELL - 1) / PN_CELL * PN_CELL;
    uint64_t taken = atomic_load(&memory->taken);
    do
        if (taken > memory_size || size > memory_size - taken)
            return 0;
    while (!atomic_compare_exchange_weak(&memory->taken, &taken, taken + size));
    return (size_t)taken;
}

int pn_memory_take_more(struct pn_memory *memory, size_t memory_size, int fd, size_t size,
                        size_t *ret_offset)
{
    size = (size + PN_CELL - 1) / PN_CELL * PN_CELL;
    size_t offset = pn_memory_take(memory, memory_size, size);
    int result = offset == 0 ? -ENOSPC : pn_memory_reserve(fd, offset, size);
    if (offset != 0 && result != 0) { /* not to use up what there is by trying again and again */
        uint64_t taken = offset + size;
        (void)atomic_compare_exchange_strong(&memory->taken, &taken, offset);
    }
    *ret_offset = offset;
    return result;
}

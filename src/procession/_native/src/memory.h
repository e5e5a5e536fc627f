/* Shared memory without a name: a sealed memfd, mapped. No Python, no allocation.
 *
 * It begins with a header of one cache line; what follows belongs to whoever made it. Offsets in
 * bytes. It is freed by the kernel with its last user, it never shrinks under anybody (SIGBUS), no
 * core dump holds it, and memory is reserved before it is touched, so that a full /dev/shm is an
 * error of the call that needed it. */
#ifndef PN_MEMORY_H
#define PN_MEMORY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PN_MEMORY_MAGIC 0x314d454d4e500a00ull
#define PN_MEMORY_FORMAT 2u
#define PN_CELL 64 /* objects of different owners never share a cache line */

struct pn_memory {
    uint64_t magic;               /*  0 */
    uint32_t format;              /*  8 */
    uint32_t spare;               /* 12 */
    unsigned char id[16];         /* 16  random: the same memory, whoever maps it */
    unsigned char table_id[16];   /* 32  of the table of processes that words in here name */
    _Atomic uint64_t taken;       /* 48  bytes given out so far, this header included */
    uint64_t spare2;              /* 56 */
};
_Static_assert(offsetof(struct pn_memory, id) == 16, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_memory, table_id) == 32, "bump PN_MEMORY_FORMAT");
_Static_assert(offsetof(struct pn_memory, taken) == 48, "bump PN_MEMORY_FORMAT");
_Static_assert(sizeof(struct pn_memory) == PN_CELL, "bump PN_MEMORY_FORMAT");

/* Make one of `size` bytes, all zero but the header, with its first `reserved` bytes reserved;
 * mapped. 0 or -errno: -ENOSPC, -ENOMEM, -EFBIG (RLIMIT_FSIZE), -EMFILE, ... */
int pn_memory_create(const char *name, size_t size, size_t reserved, const unsigned char *table_id,
                     struct pn_memory **ret_memory, int *ret_fd);

/* Map one; the descriptor stays the caller's. -EPROTO: it is none, or could shrink. */
int pn_memory_attach(int fd, struct pn_memory **ret_memory, size_t *ret_size);

/* Reserve bytes, which then cannot fail to be there. 0 or -errno, with nothing lost. */
int pn_memory_reserve(int fd, size_t offset, size_t size);

/* Take some bytes for good: their offset, a multiple of PN_CELL, or 0 when it is full. What was
 * taken by a process that was killed is only lost until the memory is freed as a whole. */
size_t pn_memory_take(struct pn_memory *memory, size_t memory_size, size_t size);

/* Take some bytes that grow an object, and reserve them. 0 or -errno: -ENOSPC, -ENOMEM, ... */
int pn_memory_take_more(struct pn_memory *memory, size_t memory_size, int fd, size_t size,
                        size_t *ret_offset);

#endif

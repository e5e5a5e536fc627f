/* Extents: where large items lie, outside of the ring, in the second half of its file.
 *
 * A record of the ring names the extent that its item lies in; whoever takes the record maps the
 * extent privately, so that nothing is copied and it may write to what it got. An extent is in use
 * as long as its record is in the ring, or somebody holds it: who is filling it, who has taken it.
 *
 * A hold is a lock (F_OFD_SETLK) on the byte of the file that has the extent's number, by a file
 * description that only this process has: the kernel takes it back with the process, however that
 * ends, and after the memory was unmapped. A fork makes the child hold what its parent holds, by a description of its own.
 *
 * The table lies behind the ring's head and is changed with its lock only. `put` is the number of
 * the put whose record names the extent: it is in the ring if puts - count < put <= puts. It is
 * written before that put is committed; where its process was killed in between, the next one who
 * takes the lock sets it back. `size` is written last and 0 first, so that a death leaves an entry
 * that is there or not. */
#ifndef PN_EXTENTS_H
#define PN_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

#ifndef PN_EXTENTS /* a driver that steps through every instruction has fewer */
#define PN_EXTENTS 256 /* large items at a time; what comes on top goes through the ring */
#endif

struct pn_extent {
    uint64_t offset; /*  0  from the file's begin */
    uint64_t size;   /*  8  bytes; 0: there is none */
    uint64_t put;    /* 16  above */
    uint64_t spare;  /* 24 */
};

/* A process's holds on the extents of one ring, and the description that they are of. */
struct pn_holds;

struct pn_ring;

/* New holds; NULL with errno set. Every user (the ring, each mapping) counts. */
struct pn_holds *pn_holds_open(int fd);
void pn_holds_keep(struct pn_holds *holds);
void pn_holds_drop(struct pn_holds *holds);

/* A new description of the same file; -1 with errno set. */
int pn_open_again(int fd);

/* 0 or -errno. */
int pn_hold(struct pn_holds *holds, uint32_t extent);
void pn_unhold(struct pn_holds *holds, uint32_t extent);

/* Map what this process holds, privately. NULL with errno set. */
void *pn_holds_map(struct pn_holds *holds, uint64_t offset, size_t size);

/* Get an extent of so many bytes, held by this process. 0 or -errno:
 *
 *   -ENOBUFS   the budget does not allow it, or there are PN_EXTENTS
 *   ...        no description, no locks: this system has no extents */
int pn_extent_reserve(struct pn_ring *ring, uint64_t size, uint32_t *ret_extent);

/* Fill it, from `at` on. 0 or -errno (-ENOSPC, -EFBIG): memory is short. */
int pn_extent_write(struct pn_ring *ring, uint32_t extent, uint64_t at, const void *bytes,
                    size_t size);

/* It is in a record now, or will never be: this process holds it no more. */
void pn_extent_release(struct pn_ring *ring, uint32_t extent);

/* Give the memory of all that nobody uses back. */
void pn_extents_trim(struct pn_ring *ring);

/* With the lock: bytes of the budget that extents leave to the ring, who needs `size` of them. */
uint64_t pn_extents_leave(struct pn_ring *ring, uint64_t size);

/* With the lock: the same as pn_extents_trim(). */
void pn_extents_trim_locked(struct pn_ring *ring);

/* With the lock, after a death inside. */
void pn_extents_repair(struct pn_ring *ring);

#endif

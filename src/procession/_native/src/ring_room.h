/* The memory of a ring, for ring.c and users.c. */
#ifndef PN_RING_ROOM_H
#define PN_RING_ROOM_H

#include "ring.h"

/* Whether the descriptor is still the data's: code that daemonises closes and reuses numbers. */
int pn_ring_check_fd(const struct pn_ring *ring);

/* With the lock: have the first `size` bytes of data mapped, beyond those that are. */
int pn_ring_map_more(struct pn_ring *ring, uint64_t size);

static inline int pn_ring_map(struct pn_ring *ring, uint64_t size)
{
    return size <= ring->mapped ? 0 : pn_ring_map_more(ring, size);
}

void pn_ring_unmap(struct pn_ring *ring);

/* With the lock: have page table entries for a piece of data that is about to be written, and for a
 * good many pages behind it. Else a fault for each page comes later, with the lock, too, and each of
 * them takes twice as long. */
void pn_ring_ready_more(struct pn_ring *ring, uint64_t from, uint64_t to, uint64_t capacity);

static inline void pn_ring_ready(struct pn_ring *ring, uint64_t from, uint64_t to,
                                 uint64_t capacity)
{
    if (ring->ready_to > capacity)
        ring->ready_to = capacity; /* it has shrunk */
    if (from < ring->ready_from || to > ring->ready_to)
        pn_ring_ready_more(ring, from, to, capacity);
}

/* Find room for `size` bytes behind the last record. 0 or -errno. */
int pn_ring_place(struct pn_ring *ring, struct pn_ring_state *next, uint64_t size,
                  uint64_t *ret_at);

/* Take the oldest record's bytes out of the stretches. */
void pn_ring_advance(struct pn_ring_state *next, uint64_t size);

/* Have a large ring that is empty shrink: 1 if pn_ring_shrink() is to be called after the commit. */
int pn_ring_shrinks(struct pn_ring_state *next);

/* Give the memory of a large ring back. After the commit of a state that is empty. */
void pn_ring_shrink(struct pn_ring *ring);

/* A copy of the current state, to be changed and committed. */
struct pn_ring_state *pn_ring_begin(struct pn_ring *ring);
void pn_ring_commit(struct pn_ring *ring);

#endif

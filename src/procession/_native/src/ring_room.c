/* The memory of a ring: made, mapped, grown, given back; where in it a record goes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "ring_room.h"
#include "users.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW) /* without them a stranger's ftruncate is our SIGBUS */
#define FIRST ((uint64_t)64 * 1024)         /* bytes of data to begin with */
#define SHRINK ((uint64_t)1024 * 1024)      /* an empty ring that is larger gives its memory back */
#define STEP ((uint64_t)16 * 1024 * 1024)   /* allocated at once: a signal undoes a step */
#define GROWTH ((uint64_t)4 * 1024 * 1024)  /* by which a ring grows at once, at most */
#define PAGE ((uint64_t)4096)
#define READY ((uint64_t)256 * 1024) /* bytes whose entries in the page table are had at once */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* --- made and mapped --- */

int pn_ring_create(struct pn_ring_head *head, uint64_t budget, uint64_t maxsize, int *ret_fd,
                   int *ret_bell)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && budget > limit.rlim_cur / 2)
        budget = limit.rlim_cur / 2;
    if (budget > INT64_MAX / 4)
        budget = INT64_MAX / 4;
    budget &= ~(PAGE - 1);
    if (budget == 0)
        return -EFBIG;
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell < 0)
        return -errno;
    int fd = memfd_create(PN_RING_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat status;
    if (fd < 0 || ftruncate(fd, (off_t)(2 * budget)) != 0 || fstat(fd, &status) != 0 ||
        fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) != 0) {
        int result = -errno;
        if (fd >= 0)
            (void)close(fd);
        (void)close(bell);
        return result;
    }
    head->format = PN_RING_FORMAT;
    head->budget = budget;
    head->maxsize = maxsize;
    head->inode = (uint64_t)status.st_ino;
    head->states[0].stretches = 1;
    atomic_store(&head->uncounted, pn_users_mark(fd) != 0);
    head->magic = PN_RING_MAGIC;
    *ret_fd = fd;
    *ret_bell = bell;
    return 0;
}

int pn_ring_check_fd(const struct pn_ring *ring)
{
    struct stat status;
    if (fstat(ring->fd, &status) != 0)
        return -errno;
    return (uint64_t)status.st_ino == ring->head->inode &&
                   (uint64_t)status.st_size == 2 * ring->head->budget
               ? 0
               : -EBADF;
}

int pn_ring_open(struct pn_self *self, struct pn_ring_head *head, int fd, int bell,
                 struct pn_ring *ret_ring)
{
    *ret_ring = (struct pn_ring){
        .self = self, .head = head, .fd = fd, .bell = bell, .user = PN_USERS};
    if (head->magic != PN_RING_MAGIC || head->format != PN_RING_FORMAT || pn_ring_check_fd(ret_ring) != 0)
        return -EPROTO;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS)
        return -EPROTO;
    int result = pn_users_add(ret_ring);
    if (result != 0)
        pn_users_remove(ret_ring);
    else if (pn_ring_lock(ret_ring) == 0) {
        (void)pn_user_me(ret_ring);
        pn_ring_unlock(ret_ring);
    }
    return result;
}

void pn_ring_unmap(struct pn_ring *ring)
{
    if (ring->data != NULL)
        (void)munmap(ring->data, ring->mapped);
    ring->data = NULL;
    ring->mapped = 0;
    ring->ready_from = ring->ready_to = 0;
}

void pn_ring_close(struct pn_ring *ring)
{
    pn_users_remove(ring);
    pn_ring_unmap(ring);
    if (ring->holds != NULL)
        pn_holds_drop(ring->holds);
    ring->holds = NULL;
}

int pn_ring_map_more(struct pn_ring *ring, uint64_t size)
{
    int result = pn_ring_check_fd(ring);
    if (result != 0)
        return result;
    uint64_t wanted = FIRST;
    while (wanted < size)
        wanted *= 2;
    if (wanted > ring->head->budget)
        wanted = ring->head->budget;
    void *data;
    for (;;) {
        data = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
        if (data != MAP_FAILED)
            break;
        if (wanted == size)
            return -errno;
        wanted = size; /* address space may be short, too (RLIMIT_AS) */
    }
    (void)madvise(data, wanted, MADV_DONTDUMP);
    unsigned char *old = ring->data;
    uint64_t old_size = ring->mapped;
    /* a thread that forks now copies one or the other, and both are right */
    ring->data = data;
    atomic_signal_fence(memory_order_seq_cst);
    ring->mapped = wanted;
    ring->ready_from = ring->ready_to = 0;
    if (old != NULL)
        (void)munmap(old, old_size);
    return 0;
}

void pn_ring_ready_more(struct pn_ring *ring, uint64_t from, uint64_t to, uint64_t capacity)
{
    from &= ~(PAGE - 1);
    to = (to + READY) & ~(READY - 1);
    if (to > capacity) /* what is behind has no memory, and is not to get any from here */
        to = capacity;
    /* where the kernel cannot (before 5.14) the faults come one by one */
    (void)madvise(ring->data + from, to - from, MADV_POPULATE_WRITE);
    if (from <= ring->ready_to && to >= ring->ready_from) {
        ring->ready_from = from < ring->ready_from ? from : ring->ready_from;
        ring->ready_to = to > ring->ready_to ? to : ring->ready_to;
    } else {
        ring->ready_from = from;
        ring->ready_to = to;
    }
}

/* --- room --- */

void pn_ring_shrink(struct pn_ring *ring)
{
    uint64_t capacity = pn_ring_state(ring)->capacity;
    if (capacity == ring->head->budget || pn_ring_check_fd(ring) != 0)
        return;
    (void)fallocate(ring->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    (off_t)capacity, (off_t)(ring->head->budget - capacity));
}

/* By how much a ring grows: in proportion, so that it seldom does; and no more than some milliseconds
 * of it at a time, since the others wait. */
static uint64_t step_from(uint64_t size)
{
    uint64_t step = (size / 4) & ~(FIRST - 1);
    return step < FIRST ? FIRST : step > GROWTH ? GROWTH : step;
}

/* Have memory for the first `size` bytes of data. */
static int grow(struct pn_ring *ring, struct pn_ring_state *next, uint64_t size)
{
    int checked = pn_ring_check_fd(ring);
    if (checked != 0)
        return checked;
    uint64_t had = next->capacity, wanted = had < FIRST ? FIRST : had;
    while (wanted < size)
        wanted += step_from(wanted);
    uint64_t most = pn_extents_leave(ring, size);
    if (size > most)
        return -ENOBUFS;
    if (wanted > most)
        wanted = most;
    for (;;) {
        uint64_t at = had;
        int result = 0;
        while (at < wanted && result == 0) {
            uint64_t step = wanted - at < STEP ? wanted - at : STEP;
            if (fallocate(ring->fd, 0, (off_t)at, (off_t)step) == 0)
                at += step;
            else if (errno != EINTR)
                result = errno == ENOSPC ? -ENOMEM : -errno; /* room in files is memory here */
        }
        if (result == 0) {
            result = pn_ring_map(ring, wanted);
            if (result == 0) {
                next->capacity = wanted;
                return 0;
            }
        }
        if (at > had) /* what it got and cannot use */
            (void)fallocate(ring->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            (off_t)had, (off_t)(at - had));
        uint64_t least = (size + PAGE - 1) & ~(PAGE - 1);
        if (wanted <= least)
            return result;
        wanted = least; /* memory is short: no more than is needed */
    }
}

int pn_ring_place(struct pn_ring *ring, struct pn_ring_state *next, uint64_t size, uint64_t *ret_at)
{
    uint32_t last = next->stretches - 1;
    uint64_t budget = ring->head->budget, end = next->to[last];
    if (last == 1 && next->from[1] == 0) { /* it went on at the front, up to the oldest record */
        if (end + size <= next->from[0]) {
            next->to[1] = end + size;
            *ret_at = end;
            return 0;
        }
        end = next->to[0];
        last = 2;
        next->stretches = 3;
        next->from[2] = next->to[2] = end;
    }
    if (end + size > next->capacity) {
        /* where the front has room for a good while it goes on there, else the ring grows */
        if (last == 0 && size <= next->from[0] &&
            (next->from[0] >= next->capacity / 2 || end + size > budget)) {
            next->stretches = 2;
            next->from[1] = 0;
            next->to[1] = size;
            *ret_at = 0;
            return 0;
        }
        if (end + size > budget)
            return -ENOBUFS;
        int result = grow(ring, next, end + size);
        if (result != 0)
            return result;
    }
    next->to[last] = end + size;
    *ret_at = end;
    return 0;
}

void pn_ring_advance(struct pn_ring_state *next, uint64_t size)
{
    next->from[0] += size;
    while (next->stretches > 1 && next->from[0] == next->to[0]) {
        for (uint32_t n = 1; n < next->stretches; n++) {
            next->from[n - 1] = next->from[n];
            next->to[n - 1] = next->to[n];
        }
        next->stretches--;
    }
    if (next->from[0] == next->to[0]) /* empty: the same few pages again, which are warm */
        next->from[0] = next->to[0] = 0;
}

int pn_ring_shrinks(struct pn_ring_state *next)
{
    if (next->count != 0 || next->capacity <= SHRINK)
        return 0;
    next->capacity = FIRST;
    return 1;
}

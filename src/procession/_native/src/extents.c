/* Extents and holds. What they are, and why a death leaves none in use: extents.h. */
#define _GNU_SOURCE
#include "extents.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring.h"

#define UNIT ((uint64_t)64 * 1024)
#define WASTE 4 /* an extent is not used for an item of less than a quarter of it */

/* --- holds --- */

struct pn_holds {
    int fd;      /* of the description */
    int map_fd;  /* of another, for mappings, which would keep this one */
    int next_fd; /* over a fork: the parent's new one; -1: there is none */
    int pinned;  /* a copy has the same description: what is held stays so until both have ended */
    size_t users;
    unsigned char held[PN_EXTENTS];
    struct pn_holds *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of this process's threads */
static struct pn_holds *all;

int pn_open_again(int fd)
{
    char path[40];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

static int set_lock(int fd, uint32_t extent, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = extent, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

/* A fork copies descriptors, not descriptions: the one there is goes to the child, and the parent
 * has taken a new one before. Where it cannot, neither ever lets go before its end. */
static void before_fork(void)
{
    (void)pthread_mutex_lock(&mutex);
    for (struct pn_holds *holds = all; holds != NULL; holds = holds->next) {
        holds->next_fd = pn_open_again(holds->fd);
        int failed = holds->next_fd < 0;
        for (uint32_t n = 0; !failed && n < PN_EXTENTS; n++)
            failed = holds->held[n] && set_lock(holds->next_fd, n, F_RDLCK) != 0;
        if (!failed)
            continue;
        holds->pinned = 1;
        if (holds->next_fd >= 0)
            (void)close(holds->next_fd);
        holds->next_fd = -1;
    }
}

static void after_fork_in_parent(void)
{
    for (struct pn_holds *holds = all; holds != NULL; holds = holds->next)
        if (holds->next_fd >= 0) {
            (void)close(holds->fd);
            holds->fd = holds->next_fd;
            holds->next_fd = -1;
        }
    (void)pthread_mutex_unlock(&mutex);
}

static void after_fork_in_child(void)
{
    for (struct pn_holds *holds = all; holds != NULL; holds = holds->next)
        if (holds->next_fd >= 0) {
            (void)close(holds->next_fd);
            holds->next_fd = -1;
        }
    (void)pthread_mutex_unlock(&mutex);
}

struct pn_holds *pn_holds_open(int fd)
{
    static int registered; /* by the mutex */
    struct pn_holds *holds = calloc(1, sizeof *holds);
    if (holds == NULL)
        return NULL;
    (void)pthread_mutex_lock(&mutex);
    int error = registered ? 0
                           : pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    registered = registered || error == 0;
    holds->next_fd = -1;
    holds->users = 1;
    holds->fd = error == 0 ? pn_open_again(fd) : -1;
    holds->map_fd = holds->fd >= 0 ? pn_open_again(fd) : -1;
    if (holds->map_fd >= 0) {
        holds->next = all;
        all = holds;
    } else {
        error = error == 0 ? errno : error;
        if (holds->fd >= 0)
            (void)close(holds->fd);
        free(holds);
        holds = NULL;
    }
    (void)pthread_mutex_unlock(&mutex);
    errno = error;
    return holds;
}

void pn_holds_keep(struct pn_holds *holds)
{
    (void)pthread_mutex_lock(&mutex);
    holds->users++;
    (void)pthread_mutex_unlock(&mutex);
}

void pn_holds_drop(struct pn_holds *holds)
{
    (void)pthread_mutex_lock(&mutex);
    if (--holds->users == 0) {
        struct pn_holds **at = &all;
        while (*at != holds)
            at = &(*at)->next;
        *at = holds->next;
        (void)close(holds->fd);
        (void)close(holds->map_fd);
        free(holds);
    }
    (void)pthread_mutex_unlock(&mutex);
}

int pn_hold(struct pn_holds *holds, uint32_t extent)
{
    (void)pthread_mutex_lock(&mutex);
    int result = set_lock(holds->fd, extent, F_RDLCK);
    if (result == 0)
        holds->held[extent] = 1;
    (void)pthread_mutex_unlock(&mutex);
    return result;
}

void pn_unhold(struct pn_holds *holds, uint32_t extent)
{
    (void)pthread_mutex_lock(&mutex);
    holds->held[extent] = 0;
    if (!holds->pinned)
        (void)set_lock(holds->fd, extent, F_UNLCK);
    (void)pthread_mutex_unlock(&mutex);
}

void *pn_holds_map(struct pn_holds *holds, uint64_t offset, size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, holds->map_fd, (off_t)offset);
    return memory == MAP_FAILED ? NULL : memory;
}

/* --- the table; with the lock --- */

static int is_held(const struct pn_ring *ring, uint32_t extent)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = extent, .l_len = 1};
    return fcntl(ring->fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

static int is_free(const struct pn_ring *ring, uint32_t extent)
{
    const struct pn_ring_state *now = pn_ring_state(ring);
    uint64_t put = ring->head->extents[extent].put;
    return (put <= now->puts - now->count || put > now->puts) && !is_held(ring, extent);
}

void pn_extents_repair(struct pn_ring *ring)
{
    for (uint32_t n = 0; n < PN_EXTENTS; n++)
        if (ring->head->extents[n].put > pn_ring_state(ring)->puts)
            ring->head->extents[n].put = 0;
}

static void set_size(struct pn_extent *extent, uint64_t size)
{
    atomic_signal_fence(memory_order_seq_cst);
    *(volatile uint64_t *)&extent->size = size;
    atomic_signal_fence(memory_order_seq_cst);
}

void pn_extents_trim_locked(struct pn_ring *ring)
{
    for (uint32_t n = 0; n < PN_EXTENTS; n++) {
        struct pn_extent *extent = &ring->head->extents[n];
        uint64_t size = extent->size;
        if (size == 0 || !is_free(ring, n))
            continue;
        set_size(extent, 0);
        (void)fallocate(ring->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)extent->offset, (off_t)size);
    }
}

static uint64_t taken(const struct pn_ring *ring)
{
    uint64_t sum = 0;
    for (uint32_t n = 0; n < PN_EXTENTS; n++)
        sum += ring->head->extents[n].size;
    return sum;
}

uint64_t pn_extents_leave(struct pn_ring *ring, uint64_t size)
{
    uint64_t budget = ring->head->budget, used = taken(ring);
    if (used != 0 && (used > budget || size > budget - used)) {
        pn_extents_trim_locked(ring);
        used = taken(ring);
    }
    return used < budget ? budget - used : 0;
}

/* Where there is a gap of so many bytes: 0 when there is none. */
static uint64_t find_gap(const struct pn_ring *ring, uint64_t size)
{
    uint64_t budget = ring->head->budget, at = budget;
    for (uint32_t n = 0; n < PN_EXTENTS; n++) {
        const struct pn_extent *other = &ring->head->extents[n];
        if (other->size != 0 && at < other->offset + other->size && other->offset < at + size) {
            at = other->offset + other->size;
            n = UINT32_MAX; /* from the first one again: they are in no order */
        }
    }
    return size <= budget && at <= 2 * budget - size ? at : 0;
}

/* An extent that fits best of those that are free, or PN_EXTENTS. */
static uint32_t find_free(const struct pn_ring *ring, uint64_t size)
{
    uint32_t best = PN_EXTENTS;
    for (uint32_t n = 0; n < PN_EXTENTS; n++) {
        uint64_t has = ring->head->extents[n].size;
        if (has >= size && has <= WASTE * size &&
            (best == PN_EXTENTS || has < ring->head->extents[best].size) && is_free(ring, n))
            best = n;
    }
    return best;
}

static uint32_t make(struct pn_ring *ring, uint64_t size)
{
    uint64_t budget = ring->head->budget, capacity = pn_ring_state(ring)->capacity;
    if (capacity + size > budget || pn_extents_leave(ring, capacity + size) < capacity + size)
        return PN_EXTENTS;
    uint32_t n = 0;
    while (n < PN_EXTENTS && (ring->head->extents[n].size != 0 || is_held(ring, n)))
        n++;
    uint64_t offset = find_gap(ring, size);
    if (n == PN_EXTENTS || offset == 0)
        return PN_EXTENTS;
    ring->head->extents[n].put = 0;
    ring->head->extents[n].offset = offset;
    set_size(&ring->head->extents[n], size);
    return n;
}

int pn_extent_reserve(struct pn_ring *ring, uint64_t size, uint32_t *ret_extent)
{
    size = (size + UNIT - 1) / UNIT * UNIT;
    int result = pn_ring_lock(ring);
    if (result != 0)
        return result;
    if (size > ring->head->budget) {
        result = -ENOBUFS;
    } else if ((result = pn_ring_open_holds(ring)) == 0) {
        uint32_t extent = find_free(ring, size);
        if (extent == PN_EXTENTS)
            extent = make(ring, size);
        result = extent == PN_EXTENTS ? -ENOBUFS : pn_hold(ring->holds, extent);
        *ret_extent = extent;
    }
    pn_ring_unlock(ring);
    return result;
}

void pn_extents_trim(struct pn_ring *ring)
{
    if (pn_ring_lock(ring) != 0)
        return;
    pn_extents_trim_locked(ring);
    pn_ring_unlock(ring);
}

/* --- what is held is nobody else's: no lock --- */

int pn_extent_write(struct pn_ring *ring, uint32_t extent, uint64_t at, const void *bytes,
                    size_t size)
{
    /* not through a mapping: each of its pages would cost a fault, and a full memory a SIGBUS */
    const unsigned char *from = bytes;
    uint64_t to = ring->head->extents[extent].offset + at;
    while (size > 0) {
        ssize_t written = pwrite(ring->fd, from, size, (off_t)to);
        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0) {
            from += written;
            to += (uint64_t)written;
            size -= (size_t)written;
        }
    }
    return 0;
}

void pn_extent_release(struct pn_ring *ring, uint32_t extent)
{
    pn_unhold(ring->holds, extent);
}

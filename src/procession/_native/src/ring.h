/* The ring of a queue: records of any size between processes that may be killed at any instruction.
 *
 * A head lies in shared memory (memory.h), the data in a sealed memfd of its own, which is sparse:
 * its first half is the ring's, `capacity` says how much of that is backed by memory so far; the
 * second half is for extents (extents.h). Each is as large as the budget of both together.
 * Growing is: allocate, then commit a larger number. Each process maps as much as it has use for.
 *
 * A record is 8 bytes (size << 8 | kind), then its bytes, then what is missing to a multiple of 8.
 * Records lie in up to three stretches of the data, read in this order:
 *
 *     one     [a, b)                    the usual case
 *     two     [a, b) [0, c)             it went on at the front, where there is room again
 *     three   [a, b) [0, c) [b', d)     and that got full, too: it goes on at the end, b' >= b
 *
 * All else that changes is a `struct pn_ring_state`, of which there are two. Who has the lock reads
 * the current one, writes the other, and commits by one store to `commits`, whose lowest bit says
 * which is current. So a death at any instruction leaves the ring as it was before or as it is
 * afterwards, and there is nothing to repair: who takes the lock over from the dead only goes on.
 * What was written of a record before its commit lies in free room.
 *
 * Without the lock a single field may be read if `commits` is the same before and after.
 *
 * The bell is an eventfd for those who wait in poll(2). Once `bell_armed`, it is readable while
 * there are records: who commits the first or takes the last sees to it before the unlock. */
#ifndef PN_RING_H
#define PN_RING_H

#include <stddef.h>
#include <stdint.h>

#include "extents.h"
#include "gate.h"
#include "mutex.h"
#include "users.h"

#define PN_RING_MAGIC 0x31474e4952534f50ull /* "POSRING1" in memory order */
#define PN_RING_FORMAT 3u
#define PN_RING_NAME "procession-queue"
#define PN_RING_STRETCHES 3

enum pn_ring_flag {
    PN_RING_SHUT = 1, /* no put any more, and no get once it is empty */
};

struct pn_ring_state {
    uint64_t from[PN_RING_STRETCHES]; /*  0  bytes from the data's begin; multiples of 8 */
    uint64_t to[PN_RING_STRETCHES];   /* 24 */
    uint32_t stretches;               /* 48  1 to 3 */
    uint32_t flags;                   /* 52  enum pn_ring_flag */
    uint64_t capacity;                /* 56  bytes of data that are backed by memory */
    uint64_t count;                   /* 64  records */
    uint64_t unfinished;              /* 72  records put and not yet reported as done */
    uint64_t puts;                    /* 80  so far */
    uint64_t lost;                    /* 88  records that died in somebody's hands (users.h) */
    uint64_t clearing;                /* 96  whose entry is to be cleared for it, + 1; 0: none */
    uint64_t spare[3];                /* 104 */
};

struct pn_ring_head {
    uint64_t magic;                  /*    0 */
    uint32_t format;                 /*    8 */
    _Atomic uint32_t bell_armed;     /*   12 */
    uint64_t budget;                 /*   16  bytes of memory at most, half the file's size */
    uint64_t maxsize;                /*   24  records at most; 0: as many as fit */
    _Atomic uint32_t uncounted;      /*   32  who has the ring is in doubt (users.h) */
    unsigned char spare[28];         /*   36 */
    struct pn_mutex lock;            /*   64 */
    unsigned char spare1[40];        /*   88 */
    _Atomic uint32_t commits;        /*  128  states[commits & 1] is current */
    unsigned char spare2[60];        /*  132 */
    struct pn_ring_state states[2];  /*  192 */
    struct pn_gate not_empty;        /*  448 */
    unsigned char spare3[32];        /*  480 */
    struct pn_gate not_full;         /*  512 */
    unsigned char spare4[32];        /*  544 */
    struct pn_gate all_done;         /*  576  unfinished is 0 */
    uint64_t inode;                  /*  608  of the data, so that a descriptor is known again */
    unsigned char spare5[24];        /*  616 */
    struct pn_user users[PN_USERS];  /*  640 */
    struct pn_extent extents[PN_EXTENTS]; /* 2688 */
};

#define PN_RING_AT(type, member, offset) \
    _Static_assert(offsetof(type, member) == (offset), #member " moved: bump PN_RING_FORMAT")
PN_RING_AT(struct pn_ring_state, from, 0);
PN_RING_AT(struct pn_ring_state, to, 24);
PN_RING_AT(struct pn_ring_state, stretches, 48);
PN_RING_AT(struct pn_ring_state, flags, 52);
PN_RING_AT(struct pn_ring_state, capacity, 56);
PN_RING_AT(struct pn_ring_state, count, 64);
PN_RING_AT(struct pn_ring_state, unfinished, 72);
PN_RING_AT(struct pn_ring_state, puts, 80);
PN_RING_AT(struct pn_ring_state, lost, 88);
PN_RING_AT(struct pn_ring_state, clearing, 96);
_Static_assert(sizeof(struct pn_ring_state) == 128, "two cache lines: bump PN_RING_FORMAT with it");
PN_RING_AT(struct pn_ring_head, magic, 0);
PN_RING_AT(struct pn_ring_head, format, 8);
PN_RING_AT(struct pn_ring_head, bell_armed, 12);
PN_RING_AT(struct pn_ring_head, budget, 16);
PN_RING_AT(struct pn_ring_head, maxsize, 24);
PN_RING_AT(struct pn_ring_head, lock, 64);
PN_RING_AT(struct pn_ring_head, commits, 128);
PN_RING_AT(struct pn_ring_head, states, 192);
PN_RING_AT(struct pn_ring_head, not_empty, 448);
PN_RING_AT(struct pn_ring_head, not_full, 512);
PN_RING_AT(struct pn_ring_head, all_done, 576);
PN_RING_AT(struct pn_ring_head, inode, 608);
PN_RING_AT(struct pn_ring_head, uncounted, 32);
PN_RING_AT(struct pn_ring_head, users, 640);
PN_RING_AT(struct pn_ring_head, extents, 640 + 32 * PN_USERS);
PN_RING_AT(struct pn_user, owner, 0);
PN_RING_AT(struct pn_user, hands, 8);
_Static_assert(sizeof(struct pn_user) == 32, "bump PN_RING_FORMAT with it");
PN_RING_AT(struct pn_extent, offset, 0);
PN_RING_AT(struct pn_extent, size, 8);
PN_RING_AT(struct pn_extent, put, 16);
_Static_assert(sizeof(struct pn_extent) == 32, "bump PN_RING_FORMAT with it");
PN_RING_AT(struct pn_gate, turn, 0);
PN_RING_AT(struct pn_gate, sleepers, 8);
PN_RING_AT(struct pn_gate, watch, 16);

/* One process's view of a ring. Copied by fork(), it goes on working. */
struct pn_ring {
    struct pn_self *self; /* this process, for the lock */
    struct pn_ring_head *head;
    unsigned char *data; /* used by who has the lock */
    uint64_t mapped;     /* bytes of data */
    uint64_t ready_from, ready_to; /* of these it has page table entries (ring_room.h) */
    int fd;
    int bell;            /* eventfd, non-blocking */
    struct pn_holds *holds; /* NULL: none were needed yet */
    uint32_t user;          /* this process's entry, perhaps (users.c) */
    unsigned int luck, unlucky; /* of those that wait, of late (ring.c); of who has the lock */
    struct pn_ring *next;   /* of this process */
    struct pn_ring_state draft; /* of the next state; of who has the lock */
};

/* Instead of a deadline: wait for no one. -EBUSY if the lock is taken, -EAGAIN where it would wait.
 * Any other deadline is for what is waited for; the lock itself is always waited for. */
#define PN_RING_NOW ((int64_t)-2)

struct pn_part {
    const void *bytes;
    size_t size;
};

/* What a get fills; `bytes` grows by realloc if it is `grows`. */
struct pn_record {
    unsigned char *bytes;
    size_t size, room;
    int grows;
    unsigned char kind;
    uint32_t extent; /* of one whose kind has PN_RING_FAR: this process holds it now */
    struct pn_user *user; /* whose hands it is in until pn_user_has(); may be NULL */
    uint64_t number;      /* which put it was, from 1 */
};

/* In a record's kind: its first four bytes are the number of the extent that its item lies in. */
#define PN_RING_FAR 0x80

/* Make a ring of a head that is all zero, and its descriptors, which are close-on-exec and the
 * caller's. 0 or -errno.
 *
 *   -EFBIG   RLIMIT_FSIZE allows not even a page of data */
int pn_ring_create(struct pn_ring_head *head, uint64_t budget, uint64_t maxsize, int *ret_fd,
                   int *ret_bell);

/* Use a ring. Head and descriptors stay the caller's, who keeps them as long. 0, -errno, or -EPROTO
 * if the descriptor is not that of its data. */
int pn_ring_open(struct pn_self *self, struct pn_ring_head *head, int fd, int bell,
                 struct pn_ring *ret_ring);

void pn_ring_close(struct pn_ring *ring);

/* Append a record; a far one's extent is held by the caller, who lets go of it in any case.
 * Deadlines are CLOCK_MONOTONIC ns; PN_FOREVER or PN_RING_NOW.
 *
 *    0           it is in, and stays in whatever becomes of the caller
 *    -EAGAIN     PN_RING_NOW, or -ETIMEDOUT: full (maxsize)
 *    -EINTR      a signal came while it waited
 *    -ESHUTDOWN  shut down
 *    -ENOBUFS    no room within the budget
 *    -ENOMEM, ...   no memory
 *
 * `ret_number`, if it is not NULL: which put it was, from 1. */
int pn_ring_put_numbered(struct pn_ring *ring, unsigned char kind, const struct pn_part *parts,
                         size_t count, int64_t deadline_ns, uint64_t *ret_number);

static inline int pn_ring_put(struct pn_ring *ring, unsigned char kind, const struct pn_part *parts,
                              size_t count, int64_t deadline_ns)
{
    return pn_ring_put_numbered(ring, kind, parts, count, deadline_ns, NULL);
}

/* Take the oldest record. As above, and
 *
 *    -EAGAIN     PN_RING_NOW, or -ETIMEDOUT: empty
 *    -ESHUTDOWN  shut down, and empty
 *    -EMSGSIZE   it is larger than the record has room for: `size` says how large */
int pn_ring_get(struct pn_ring *ring, struct pn_record *record, int64_t deadline_ns);

/* One record less to wait for. -ERANGE if all were reported already. */
int pn_ring_done(struct pn_ring *ring);

/* Wait until all are reported. 0, -ETIMEDOUT, -EINTR. */
int pn_ring_join(struct pn_ring *ring, int64_t deadline_ns);

/* Let nothing in any more; `immediate`: drop what is in it and let all who wait go. What it dropped:
 * the first `ret_kept` puts were taken before, those up to `ret_dropped` were not. */
int pn_ring_shut(struct pn_ring *ring, int immediate, uint64_t *ret_kept, uint64_t *ret_dropped);

/* Wait for a record and leave it there: 1; 0 when the deadline has passed; -EINTR; -ESHUTDOWN. */
int pn_ring_poll(struct pn_ring *ring, int64_t deadline_ns);

/* Keep the bell right from now on. */
int pn_ring_arm(struct pn_ring *ring);

/* For extents.c: the lock, what is current under it, and this process's holds. */
int pn_ring_lock(struct pn_ring *ring);
void pn_ring_unlock(struct pn_ring *ring);
int pn_ring_open_holds(struct pn_ring *ring);
const struct pn_ring_state *pn_ring_state(const struct pn_ring *ring);

uint64_t pn_ring_count(const struct pn_ring *ring);
uint64_t pn_ring_lost(const struct pn_ring *ring);
uint64_t pn_ring_unfinished(const struct pn_ring *ring);
uint32_t pn_ring_flags(const struct pn_ring *ring);
uint64_t pn_ring_capacity(const struct pn_ring *ring);

#endif

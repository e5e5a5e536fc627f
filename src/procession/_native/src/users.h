/* Users of a ring: who has it, what they have in their hands, and whether anybody is left.
 *
 * A process that opens a ring, puts or gets has an entry. Those of the dead stay, for the sake of
 * their names, until the place is needed. `hands` says what it took out and has not returned from
 * `get` with yet:
 *
 *     bits  0-47   number of the get that took the last of them; 0: none
 *     bits 48-63   how many there are before that one
 *
 * It is written before that get is committed, so a number that is higher than that of the last
 * committed get took nothing; who takes the ring's lock over from the dead sets it back.
 *
 * The entries are for reports only. Whether another process has the ring is the kernel's word: the
 * data's file description carries a lock (F_OFD_SETLK, behind all bytes of the file), and wherever
 * the ring goes (a fork, a start, a message, the guard) that description goes, too, or a copy of
 * it that has such a lock of its own; who cannot put any more has neither a descriptor nor a
 * mapping of it. To look, a process exchanges its description for a new one without that lock, asks
 * for the locks of others, and gives the new one its own. While it does, a second lock beside the
 * first tells the guard (pn_queue_is_had) that the ring is had all the same. */
#ifndef PN_USERS_H
#define PN_USERS_H

#include <stdatomic.h>
#include <stdint.h>

#ifndef PN_USERS /* a driver that steps through every instruction has fewer */
#define PN_USERS 64
#endif

struct pn_user {
    _Atomic uint64_t owner; /*  0  owner word (identity.h); 0: a free place */
    _Atomic uint64_t hands; /*  8  above */
    uint64_t spare[2];      /* 16 */
};

struct pn_ring;

/* With the lock: this process's entry; NULL when all are taken by the living. */
struct pn_user *pn_user_me(struct pn_ring *ring);

/* With the lock: `get` number so much is about to be committed. */
void pn_user_takes(struct pn_user *user, uint64_t get);

/* Without it: one item is the caller's from now on. */
void pn_user_has(struct pn_user *user);

/* With the lock, after a death inside. */
void pn_users_repair(struct pn_ring *ring);

/* Count what somebody dead had in its hands, once: how much, who it was, and the number of the get
 * that took the last of it, 0 if that is not known; 0: nothing, nobody. */
uint64_t pn_users_reap(struct pn_ring *ring, uint64_t *ret_owner, uint64_t *ret_number);

/* Whether no other process has the ring or is about to get it, and a get would wait; or, `joining`,
 * a join: 1. In doubt: 0. */
int pn_ring_is_alone(struct pn_ring *ring, int joining);

/* For the guard, which keeps descriptors that lie in items of a ring: a description of the ring's data
 * of its own, by which it is no user; -errno, -EINVAL if the one that is given carries no lock. */
int pn_queue_watch(int fd);

/* Whether anybody has the ring of such a description: 1 also in doubt. */
int pn_queue_is_had(int fd);

/* Mark the description of a new ring's data. 0 or -errno: whether anybody has it is in doubt. */
int pn_users_mark(int fd);

/* Rings of this process, which may have several of the same head. */
int pn_users_add(struct pn_ring *ring);
void pn_users_remove(struct pn_ring *ring);

#endif

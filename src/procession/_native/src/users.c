/* Users of a ring. What they are, and how it is known that nobody is left: users.h. */
#define _GNU_SOURCE
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring_room.h"

#define MARK ((off_t)1 << 61) /* behind all bytes of any file of ours */
#define LOOKING (MARK + 1)    /* who has the file, though it is without the mark for a moment */
#define PATIENCE 1000         /* gets without an entry until it is looked for again */

#define NUMBER (((uint64_t)1 << 48) - 1)
#define ONE_MORE ((uint64_t)1 << 48)

/* --- entries; with the lock --- */

static uint64_t gets(const struct pn_ring *ring)
{
    return pn_ring_state(ring)->puts - pn_ring_state(ring)->count;
}

static uint64_t in_hands(const struct pn_ring *ring, const struct pn_user *user)
{
    uint64_t hands = atomic_load(&user->hands), last = hands & NUMBER;
    return (hands >> 48) + (last != 0 && last <= gets(ring));
}

static int is_dead(const struct pn_ring *ring, const struct pn_user *user)
{
    uint64_t owner = atomic_load(&user->owner);
    return owner != 0 && pn_owner_fate(ring->self->table, owner) == PN_DEAD;
}

static void clear(struct pn_user *user)
{
    atomic_store(&user->hands, 0);
    atomic_store(&user->owner, 0);
}

/* A place: a free one, or that of somebody dead with nothing in its hands. */
static struct pn_user *find_place(struct pn_ring *ring)
{
    struct pn_user *users = ring->head->users;
    for (uint32_t n = 0; n < PN_USERS; n++)
        if (atomic_load(&users[n].owner) == 0)
            return &users[n];
    for (uint32_t n = 0; n < PN_USERS; n++)
        if (is_dead(ring, &users[n]) && in_hands(ring, &users[n]) == 0) {
            clear(&users[n]);
            return &users[n];
        }
    return NULL;
}

struct pn_user *pn_user_me(struct pn_ring *ring)
{
    struct pn_user *users = ring->head->users;
    uint64_t me = atomic_load_explicit(ring->self->owner, memory_order_relaxed) & PN_OWNER_MASK;
    if (ring->user < PN_USERS && atomic_load_explicit(&users[ring->user].owner,
                                                      memory_order_relaxed) == me)
        return &users[ring->user];
    if (ring->user > PN_USERS) {
        ring->user--;
        return NULL;
    }
    for (uint32_t n = 0; n < PN_USERS; n++)
        if (atomic_load(&users[n].owner) == me) {
            ring->user = n;
            return &users[n];
        }
    struct pn_user *user = find_place(ring);
    if (user == NULL) {
        ring->user = PN_USERS + PATIENCE;
        return NULL;
    }
    atomic_store(&user->hands, 0);
    atomic_store(&user->owner, me);
    ring->user = (uint32_t)(user - users);
    return user;
}

void pn_user_takes(struct pn_user *user, uint64_t get)
{
    uint64_t old = atomic_load_explicit(&user->hands, memory_order_relaxed), changed;
    do /* other threads return with theirs meanwhile */
        changed = (old & ~NUMBER) + ((old & NUMBER) != 0 ? ONE_MORE : 0) + (get & NUMBER);
    while (!atomic_compare_exchange_weak(&user->hands, &old, changed));
}

void pn_user_has(struct pn_user *user)
{
    uint64_t old = atomic_load_explicit(&user->hands, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&user->hands, &old,
                                         old >= ONE_MORE ? old - ONE_MORE : 0))
        ;
}

void pn_users_repair(struct pn_ring *ring)
{
    for (uint32_t n = 0; n < PN_USERS; n++) {
        struct pn_user *user = &ring->head->users[n];
        uint64_t hands = atomic_load(&user->hands);
        if ((hands & NUMBER) > gets(ring)) /* the dead was about to take it, and did not */
            atomic_store(&user->hands, 0);
    }
    if (pn_ring_state(ring)->clearing != 0) { /* counted already */
        clear(&ring->head->users[pn_ring_state(ring)->clearing - 1]);
        pn_ring_begin(ring)->clearing = 0;
        pn_ring_commit(ring);
    }
}

uint64_t pn_users_reap(struct pn_ring *ring, uint64_t *ret_owner, uint64_t *ret_number)
{
    uint64_t lost = 0;
    if (pn_ring_lock(ring) != 0)
        return 0;
    for (uint32_t n = 0; n < PN_USERS && lost == 0; n++) {
        struct pn_user *user = &ring->head->users[n];
        if (atomic_load(&user->hands) == 0 || !is_dead(ring, user))
            continue;
        lost = in_hands(ring, user);
        *ret_owner = atomic_load(&user->owner);
        uint64_t last = atomic_load(&user->hands) & NUMBER;
        *ret_number = last <= gets(ring) ? last : 0;
        struct pn_ring_state *next = pn_ring_begin(ring);
        next->lost += lost;
        next->clearing = n + 1;
        pn_ring_commit(ring);
        clear(user);
        pn_ring_begin(ring)->clearing = 0;
        pn_ring_commit(ring);
    }
    pn_ring_unlock(ring);
    return lost;
}

/* --- is anybody left? --- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of this process's threads */
static struct pn_ring *all;

static void before_fork(void)
{
    (void)pthread_mutex_lock(&mutex); /* no copy is made of a process without its mark */
}

static void after_fork(void)
{
    (void)pthread_mutex_unlock(&mutex);
}

int pn_users_add(struct pn_ring *ring)
{
    static int registered; /* by the mutex */
    (void)pthread_mutex_lock(&mutex);
    int error = registered ? 0 : pthread_atfork(before_fork, after_fork, after_fork);
    registered = registered || error == 0;
    ring->next = all;
    all = ring;
    (void)pthread_mutex_unlock(&mutex);
    return -error;
}

void pn_users_remove(struct pn_ring *ring)
{
    (void)pthread_mutex_lock(&mutex);
    struct pn_ring **at = &all;
    while (*at != NULL && *at != ring)
        at = &(*at)->next;
    if (*at == ring)
        *at = ring->next;
    (void)pthread_mutex_unlock(&mutex);
}

static int set_mark(int fd, short type, off_t at)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

/* Whether others have marked any of so many bytes: 1, 0, or -errno. */
static int others_have(int fd, off_t count)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MARK, .l_len = count};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 ? lock.l_type != F_UNLCK : -errno;
}

int pn_users_mark(int fd)
{
    return set_mark(fd, F_RDLCK, MARK);
}

int pn_queue_watch(int fd)
{
    int ours = pn_open_again(fd);
    if (ours < 0)
        return -errno;
    if (others_have(ours, 2) == 1)
        return ours;
    (void)close(ours);
    return -EINVAL;
}

int pn_queue_is_had(int fd)
{
    return others_have(fd, 2) != 0;
}

/* Let go of all that this process has of the old description, then look for others. */
static int look(struct pn_ring *ring, int fresh)
{
    if (set_mark(fresh, F_RDLCK, LOOKING) != 0)
        return 0;
    (void)pthread_mutex_lock(&mutex);
    for (struct pn_ring *it = all; it != NULL; it = it->next)
        if (it->head == ring->head)
            pn_ring_unmap(it); /* used by who has the lock, and that is us */
    int alone = dup3(fresh, ring->fd, O_CLOEXEC) >= 0 && others_have(ring->fd, 1) == 0;
    if (pn_users_mark(ring->fd) != 0)
        atomic_store(&ring->head->uncounted, 1); /* we cannot be seen any more, but by the guard */
    else
        (void)set_mark(ring->fd, F_UNLCK, LOOKING);
    (void)pthread_mutex_unlock(&mutex);
    return alone;
}

int pn_ring_is_alone(struct pn_ring *ring, int joining)
{
    int alone = 0;
    if (pn_ring_lock(ring) != 0)
        return 0;
    const struct pn_ring_state *now = pn_ring_state(ring);
    int waits = joining ? now->unfinished != 0 : now->count == 0 && now->flags == 0;
    if (waits && !atomic_load(&ring->head->uncounted) &&
        pn_ring_check_fd(ring) == 0) {
        int fresh = pn_open_again(ring->fd);
        if (fresh >= 0) {
            alone = look(ring, fresh);
            (void)close(fresh);
        }
    }
    pn_ring_unlock(ring);
    return alone;
}

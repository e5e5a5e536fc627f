/* SIGKILL at every instruction of a semaphore's operations: no permit is lost, and none is there
 * twice. argv[1]: which operation; without: all. */
#include "operations.h"

#include "semaphore.h"

#define SLOTS 64
#define PERMITS 3

static struct pn_table *table;
static struct pn_self self; /* forked copies have it, wiped */
static struct pn_semaphore *semaphore;
static struct pn_memory *memory;
static size_t memory_size;
static int memory_fd;
static pid_t waiter;

static uint64_t me(void)
{
    uint64_t owner = 0;
    CHECK(pn_self_owner(&self, &owner) == 0, "no identity");
    return owner;
}

static int grow(void)
{
    return pn_semaphore_grow(&self, semaphore, memory, memory_size, memory_fd);
}

static int acquire(enum pn_sort sort, int64_t limit)
{
    struct pn_permit_wait wait = {.deadline_ns = limit == 0 ? 0 : pn_now_ns() + limit};
    int result;
    do
        result = pn_semaphore_take(&self, semaphore, sort, &wait);
    while (result == -EINTR || (result == -ENOBUFS && grow() == 0));
    pn_semaphore_end(&self, semaphore, &wait, result);
    return result;
}

static int release(enum pn_sort sort)
{
    return pn_semaphore_release(&self, semaphore, sort, 1);
}

static void fresh_of(uint32_t permits)
{
    int fd;
    CHECK(pn_table_create(SLOTS, &table, &fd) == 0, "");
    (void)close(fd);
    CHECK(pn_self_open(table, &self) == 0, "");
    static const unsigned char id[16];
    memory_size = 64 * PN_CELL;
    CHECK(pn_memory_create("semaphores", memory_size, memory_size, id, &memory, &memory_fd) == 0, "");
    semaphore = (void *)((char *)memory + pn_memory_take(memory, memory_size, sizeof *semaphore));
    semaphore->bound = PERMITS;
    semaphore->reclaim = 1;
    atomic_store(&semaphore->value, permits);
    (void)me();
}

static void fresh(void)
{
    fresh_of(PERMITS);
}

static void clean(void)
{
    /* the thread's robust list must not lead into what is unmapped */
    CHECK(pn_life_drop(&table->slots[pn_owner_index(me())]) == 0, "");
    pn_self_close(&self);
    (void)munmap(table, pn_table_size(SLOTS));
    (void)munmap(memory, memory_size);
    (void)close(memory_fd);
}

static void know_oneself(void)
{
    (void)me();
}

/* All that are not the survivor's own are to be had, once each; then it works as it should. */
static void all_are_there(uint32_t own)
{
    uint32_t got = 0, back = 0;
    while (acquire(PN_SCOPED, own + got < PERMITS ? LIMIT : 0) == 0)
        got++;
    CHECK(own + got == PERMITS, "%u of %u; killed after %ld", own + got, PERMITS, killed_at);
    CHECK(pn_semaphore_own(&self, semaphore) == PERMITS, "killed after %ld", killed_at);
    while (release(PN_PLAIN) == 0)
        back++;
    CHECK(back == PERMITS, "%u came back", back);
    CHECK(pn_semaphore_own(&self, semaphore) == 0, "");
    CHECK(atomic_load(&semaphore->value) == PERMITS, "");
}

static void after_all(void)
{
    all_are_there(0);
}

/* --- room for more --- */

static void fresh_without_room(void)
{
    fresh();
    CHECK(acquire(PN_PLAIN, 0) == 0, ""); /* one is held by who has room */
    uint32_t index = 0, generation;
    while (index < PN_PERMITS)
        CHECK(pn_table_claim(table, &index, &generation) == 0, "");
}

static void do_grow(void)
{
    CHECK(pn_owner_index(me()) > PN_PERMITS && grow() == 0 && grow() == 0, "");
    CHECK(pn_semaphore_room(semaphore) == 2 * PN_PERMITS, "");
}

/* Another one, who has no room of its own either, may have it, or make it. */
static void be_another(void)
{
    for (int n = 0; n < PERMITS - 1; n++)
        CHECK(acquire(PN_SCOPED, LIMIT) == 0, "killed after %ld", killed_at);
    CHECK(pn_semaphore_room(semaphore) == 2 * PN_PERMITS, "");
    CHECK(release(PN_SCOPED) == 0, ""); /* the other one is taken back from the dead */
}

static void after_grow(void)
{
    join_person(start_person(be_another));
    all_are_there(1);
}

/* --- taking --- */

static void do_try(void)
{
    uint64_t before = 0;
    CHECK(pn_semaphore_try(&self, semaphore, PN_SCOPED, &before) == 0, "");
    CHECK(pn_semaphore_try(&self, semaphore, PN_PLAIN, &before) == 0, "");
}

static void do_take(void)
{
    CHECK(acquire(PN_SCOPED, LIMIT) == 0, "");
}

static void fresh_all_ours(void)
{
    fresh();
    for (int n = 0; n < PERMITS; n++)
        CHECK(acquire(PN_PLAIN, 0) == 0, "");
}

static void do_poll(void)
{
    CHECK(acquire(PN_SCOPED, 0) == -ETIMEDOUT, "");
}

static void do_wait_a_little(void)
{
    CHECK(acquire(PN_SCOPED, 100000) == -ETIMEDOUT, "");
}

static void after_all_ours(void)
{
    CHECK(pn_semaphore_own(&self, semaphore) == PERMITS, "they were taken from us");
    all_are_there(PERMITS);
}

/* --- getting back what the dead had: by a slot that is another's by now, the shortest proof --- */

static void fresh_held_by_dead(void)
{
    fresh();
    uint32_t index, generation;
    static const struct pn_end end = {9, 0, 0, 0, 0};
    CHECK(pn_table_claim(table, &index, &generation) == 0, "");
    CHECK(pn_slot_end(table, &table->slots[index], &end) == 1, "");
    CHECK(pn_table_free(table, &table->slots[index], generation) == 1, "");
    atomic_store(&semaphore->ledger[index].owner, pn_owner_word(index, generation));
    atomic_store(&semaphore->ledger[index].scoped, PERMITS - 1);
    atomic_store(&semaphore->ledger[index].plain, 1);
    atomic_store(&semaphore->top, index + 1);
    atomic_store(&semaphore->value, 0);
}

static void after_reclaim(void)
{
    all_are_there(0);
    CHECK(atomic_load(&semaphore->recovered) >= PERMITS, "not counted");
}

/* --- giving back, with one who waits --- */

static void be_waiter(void)
{
    (void)me();
    while (atomic_load(&semaphore->value) != 0) /* until the victim has them all */
        (void)sched_yield();
    CHECK(acquire(PN_SCOPED, LIMIT) == 0, "killed after %ld", killed_at);
    CHECK(release(PN_SCOPED) == 0, "");
}

static void fresh_with_waiter(void)
{
    fresh();
    waiter = start_person(be_waiter);
}

static void hold_before_waiter(void)
{
    for (int n = 0; n < PERMITS; n++)
        CHECK(acquire(n == 1 ? PN_PLAIN : PN_SCOPED, 0) == 0, "");
    wait_asleep(waiter);
}

static void do_release(void)
{
    CHECK(release(PN_SCOPED) == 0, "");
}

static void after_waiter(void)
{
    join_person(waiter);
    all_are_there(0);
}

/* A release for another one, who lives and keeps the other permits. */
static void after_foreign(void)
{
    (void)acquire(PN_PLAIN, 0); /* what it gave back for us, if it came that far */
    uint32_t own = pn_semaphore_own(&self, semaphore);
    CHECK(own == PERMITS, "%u; killed after %ld", own, killed_at);
    all_are_there(own);
}

/* --- Python's own end: either they stay taken, all of them, or they come back, all of them --- */

static void hold_two(void)
{
    CHECK(acquire(PN_SCOPED, 0) == 0 && acquire(PN_PLAIN, 0) == 0, "");
}

static void do_leave(void)
{
    CHECK(pn_semaphore_leave(&self, semaphore) == 0, "");
}

static void after_leave(void)
{
    uint32_t got = 0;
    while (acquire(PN_SCOPED, 0) == 0)
        got++;
    CHECK(got == PERMITS || got == PERMITS - 2, "%u; killed after %ld", got, killed_at);
    CHECK(pn_semaphore_own(&self, semaphore) == got, "");
}

static const struct operation operations[] = {
    {"grow", fresh_without_room, know_oneself, do_grow, after_grow, clean},
    {"try", fresh, know_oneself, do_try, after_all, clean},
    {"take", fresh, know_oneself, do_take, after_all, clean},
    {"poll", fresh_all_ours, know_oneself, do_poll, after_all_ours, clean},
    {"wait", fresh_all_ours, know_oneself, do_wait_a_little, after_all_ours, clean},
    {"reclaim", fresh_held_by_dead, know_oneself, do_take, after_reclaim, clean},
    {"release", fresh_with_waiter, hold_before_waiter, do_release, after_waiter, clean},
    {"release_foreign", fresh_all_ours, know_oneself, do_release, after_foreign, clean},
    {"leave", fresh, hold_two, do_leave, after_leave, clean},
};

int main(int count, char **arguments)
{
    return run_operations(operations, sizeof operations / sizeof operations[0], count, arguments);
}

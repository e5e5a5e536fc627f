/* SIGKILL at every instruction of the operations on locks, the core's mutex and identities.
 *
 * After each death a survivor, who was there before or comes later, must get what the dead one had
 * or wanted, be told of it where it had to be, and find nothing left over. argv[1]: which
 * operation; without, or "": all. argv[2]: only every so many instructions. */
#define _GNU_SOURCE
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "lock.h"
#include "mutex.h"
#include "stepping.h"

#define SLOTS 64
#define MOST_STEPS 40000
#define THREAD 77 /* any number for a thread */

static struct pn_table *table;
static struct pn_self self; /* forked copies have it, wiped */
static struct shared {
    struct pn_lock lock;
    struct pn_mutex mutex;
} *shared;
static long killed_at;

static uint64_t me(void)
{
    uint64_t owner = 0;
    CHECK(pn_self_owner(&self, &owner) == 0, "no identity");
    return owner;
}

static int take(int64_t limit)
{
    uint64_t before = 0, owner = me();
    struct pn_waiter wait;
    int result;
    pn_lock_begin(table, &shared->lock, owner, &wait, limit == 0 ? 0 : pn_now_ns() + limit);
    do
        result = pn_lock_take(table, &shared->lock, pn_lock_holder(owner, THREAD), 1, &wait,
                              &before);
    while (result == -EINTR);
    return result;
}

/* --- a waiter that was there before --- */

static pid_t waiter;

static int sleeps(pid_t pid)
{
    char path[64], text[16] = {0};
    (void)snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL, "%s", path);
    (void)!fread(text, 1, sizeof text - 1, file); /* nothing of one that has ended */
    (void)fclose(file);
    long number = strtol(text, NULL, 10); /* "running": 0 */
    return number == SYS_futex || number == SYS_futex_waitv;
}

static void wait_asleep(void)
{
    int64_t deadline = pn_now_ns() + LIMIT;
    while (!sleeps(waiter))
        CHECK(pn_now_ns() < deadline, "the waiter does not come to wait");
}

static void start_waiter(void)
{
    waiter = fork();
    CHECK(waiter >= 0, "");
    if (waiter != 0)
        return;
    (void)me();
    while (atomic_load(&shared->lock.word) == 0) /* until the victim has it */
        (void)sched_yield();
    int result = take(LIMIT);
    CHECK(result == PN_TAKEN || result == PN_TAKEN_OVER, "%d", result);
    CHECK(pn_lock_release(&shared->lock) == 0, "");
    _exit(0);
}

static void join_waiter(void)
{
    int status;
    CHECK(waitpid(waiter, &status, 0) == waiter, "");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the waiter: %x; killed after %ld",
          (unsigned)status, killed_at);
}

/* --- what is always the same --- */

static void fresh(void)
{
    int fd;
    CHECK(pn_table_create(SLOTS, &table, &fd) == 0, "");
    (void)close(fd);
    CHECK(pn_self_open(table, &self) == 0, "");
    memset(shared, 0, sizeof *shared);
    (void)me();
}

static void nothing(void)
{
}

static void know_oneself(void)
{
    (void)me();
}

/* Whoever comes next has it, and is told if it was taken from the dead; then it is free. */
static void next_has_it(void)
{
    uint32_t told = atomic_load(&shared->lock.recovered);
    int was_held = (atomic_load(&shared->lock.word) & PN_OWNER_MASK) != 0;
    int result = take(LIMIT);
    CHECK(result == (was_held ? PN_TAKEN_OVER : PN_TAKEN), "%d; killed after %ld", result,
          killed_at);
    CHECK(atomic_load(&shared->lock.recovered) == told + (uint32_t)was_held, "not counted");
    CHECK(pn_lock_is_mine(&shared->lock, pn_lock_holder(me(), THREAD)), "not mine");
    CHECK(take(0) == -ETIMEDOUT, "taken twice");
    CHECK(pn_lock_release(&shared->lock) == 0, "");
    CHECK(pn_lock_release(&shared->lock) == -EPERM, "released twice");
    CHECK((atomic_load(&shared->lock.word) & PN_OWNER_MASK) == 0, "");
}

/* --- the operations --- */

static void do_try(void)
{
    uint64_t owner = me();
    CHECK(pn_lock_try(&shared->lock, owner, pn_lock_holder(owner, THREAD)), "");
}

static void do_take(void)
{
    CHECK(take(LIMIT) == PN_TAKEN, "");
}

static void hold_before_waiter(void)
{
    do_try();
    wait_asleep();
}

static void fresh_with_waiter(void)
{
    fresh();
    start_waiter();
}

static void do_release(void)
{
    (void)pn_lock_release(&shared->lock);
}

static void after_waiter(void)
{
    join_waiter();
    next_has_it();
}

/* Held by a process whose slot is another's by now: the shortest proof of death. */
static void fresh_left_by_dead(void)
{
    fresh();
    uint32_t index, generation;
    static const struct pn_end end = {9, 0, 0, 0, 0};
    CHECK(pn_table_claim(table, &index, &generation) == 0, "");
    CHECK(pn_slot_end(table, &table->slots[index], &end) == 1, "");
    CHECK(pn_table_free(table, &table->slots[index], generation) == 1, "");
    atomic_store(&shared->lock.word, pn_owner_word(index, generation));
    atomic_store(&shared->mutex.word, pn_owner_word(index, generation));
}

static void do_take_over(void)
{
    CHECK(take(LIMIT) == PN_TAKEN_OVER, "");
}

static void fresh_held_by_us(void)
{
    fresh();
    do_try();
}

static void do_poll(void)
{
    CHECK(take(0) == -ETIMEDOUT, "");
}

static void do_wait_a_little(void)
{
    CHECK(take(100000) == -ETIMEDOUT, "");
}

static void after_held_by_us(void)
{
    CHECK((atomic_load(&shared->lock.word) & PN_OWNER_MASK) == me(), "it was taken from us");
    CHECK(pn_lock_release(&shared->lock) == 0, "");
    next_has_it();
}

static void hold(void)
{
    do_try();
}

static void do_leave(void)
{
    CHECK(pn_lock_leave(&shared->lock, me()), "");
}

static void after_leave(void)
{
    if (atomic_load(&shared->lock.word) & PN_LEFT) { /* it had come that far: held for good */
        uint64_t before = 0;
        struct pn_waiter wait;
        CHECK(take(0) == -ETIMEDOUT, "what was left held was taken over");
        pn_lock_begin(table, &shared->lock, me(), &wait, 0);
        CHECK(pn_lock_take(table, &shared->lock, 1, 0, &wait, &before) == PN_LEFT_HELD, "");
        CHECK(pn_lock_release(&shared->lock) == 0, "");
    }
    next_has_it();
}

static void do_mutex(void)
{
    (void)pn_mutex_lock(&self, &shared->mutex, PN_FOREVER);
    pn_mutex_unlock(&shared->mutex);
}

static void after_mutex(void)
{
    int was_held = (atomic_load(&shared->mutex.word) & PN_OWNER_MASK) != 0;
    int result = pn_mutex_lock(&self, &shared->mutex, pn_now_ns() + LIMIT);
    CHECK(result == (was_held ? -EOWNERDEAD : 0), "%d; killed after %ld", result, killed_at);
    CHECK(pn_mutex_lock(&self, &shared->mutex, 0) == -ETIMEDOUT, "locked twice");
    pn_mutex_unlock(&shared->mutex);
    CHECK(pn_mutex_lock(&self, &shared->mutex, 0) == 0, "");
    pn_mutex_unlock(&shared->mutex);
}

static void do_visit_and_take(void)
{
    do_try();
}

/* A guest is killed before or after it has a slot; the next guest gets one all the same. */
static void after_visit(void)
{
    next_has_it();
    for (int n = 0; n < 2 * SLOTS; n++) { /* more of them than there are slots */
        pid_t guest = fork();
        CHECK(guest >= 0, "");
        if (guest == 0) {
            (void)me();
            _exit(0);
        }
        int status;
        CHECK(waitpid(guest, &status, 0) == guest && status == 0, "%x", (unsigned)status);
    }
}

static const struct operation {
    const char *name;
    void (*before)(void);
    void (*prepare)(void);
    void (*act)(void);
    void (*after)(void);
    long stride; /* of the slow ones only every so many instructions, unless told otherwise */
} operations[] = {
    {"try", fresh, know_oneself, do_try, next_has_it, 1},
    {"take", fresh, know_oneself, do_take, next_has_it, 1},
    {"release", fresh_with_waiter, hold_before_waiter, do_release, after_waiter, 1},
    {"take_over", fresh_left_by_dead, know_oneself, do_take_over, next_has_it, 1},
    {"poll", fresh_held_by_us, know_oneself, do_poll, after_held_by_us, 1},
    {"wait", fresh_held_by_us, know_oneself, do_wait_a_little, after_held_by_us, 1},
    {"leave", fresh, hold, do_leave, after_leave, 1},
    {"mutex", fresh, know_oneself, do_mutex, after_mutex, 1},
    {"mutex_take_over", fresh_left_by_dead, know_oneself, do_mutex, after_mutex, 1},
    {"visit", fresh, nothing, do_visit_and_take, after_visit, 331},
};

static void run(const struct operation *operation, long stride)
{
    int survived = 0;
    long kills = 0;
    if (stride == 0)
        stride = operation->stride;
    for (killed_at = 0; !survived; killed_at += stride, kills++) {
        CHECK(killed_at < MOST_STEPS, "%s does not come to an end", operation->name);
        operation->before();
        survived = die_after(operation->prepare, operation->act, killed_at);
        operation->after();
        /* the thread's robust list must not lead into what is unmapped */
        CHECK(pn_life_drop(&table->slots[pn_owner_index(me())]) == 0, "");
        pn_self_close(&self);
        (void)munmap(table, pn_table_size(SLOTS));
    }
    (void)printf("%s: killed at %ld instructions of %ld\n", operation->name, kills - 1, killed_at);
    (void)fflush(stdout);
}

int main(int count, char **arguments)
{
    int found = 0;
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED, "");
    for (size_t n = 0; n < sizeof operations / sizeof operations[0]; n++) {
        if (count > 1 && arguments[1][0] != 0 && strcmp(arguments[1], operations[n].name) != 0)
            continue;
        found = 1;
        run(&operations[n], count > 2 ? atol(arguments[2]) : 0);
    }
    CHECK(found, "no such operation");
    return 0;
}

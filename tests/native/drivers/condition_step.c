/* SIGKILL at every instruction of a condition's operations: what was notified arrives, once, with
 * those who live, and nobody who lives waits for the dead. argv[1]: which operation; without: all.
 * argv[2]: only every so many instructions. */
#include "operations.h"

#include "condition.h"
#include "memory.h"

#define SLOTS 64
#define WAITERS 3
#define SOON (3 * SECOND) /* long before one who does not watch looks by itself */

static struct pn_table *table;
static struct pn_self self;
static struct pn_condition_view view;
static struct pn_condition *condition;
static pid_t waiters[WAITERS];
static int waiting;
static uint32_t seat; /* the victim's, or of one who is dead */

static uint64_t me(void)
{
    uint64_t owner = 0;
    CHECK(pn_self_owner(&self, &owner) == 0, "no identity");
    return owner;
}

static void know_oneself(void)
{
    (void)me();
}

static void fresh(void)
{
    int fd;
    CHECK(pn_table_create(SLOTS, &table, &fd) == 0, "");
    (void)close(fd);
    CHECK(pn_self_open(table, &self) == 0, "");
    memset(view.memory, 0, 4096);
    view.self = &self;
    know_oneself();
    waiting = 0;
}

static void clean(void)
{
    CHECK(pn_life_drop(&table->slots[pn_owner_index(me())]) == 0, "");
    pn_self_close(&self);
    (void)munmap(table, pn_table_size(SLOTS));
}

static uint64_t called(void)
{
    return atomic_load(&condition->called);
}

static uint64_t drawn(void)
{
    return atomic_load(&condition->drawn);
}

static void notify(uint64_t many)
{
    CHECK(pn_condition_notify(&view, many, PN_FOREVER) == 0, "");
}

/* --- people --- */

static int wait_in(uint32_t number, int64_t deadline_ns)
{
    struct pn_waiter wait;
    int result;
    pn_condition_begin(&view, number, &wait, deadline_ns);
    do
        result = pn_condition_wait(&view, number, &wait);
    while (result == -EINTR);
    return result;
}

static void be_waiter(void)
{
    uint32_t mine;
    CHECK(pn_condition_enter(&view, PN_FOREVER, &mine) == 0, "");
    int result = wait_in(mine, pn_now_ns() + LIMIT);
    CHECK(result == 0, "a waiter was not called: %d; killed after %ld", result, killed_at);
    CHECK(pn_condition_leave(&view, mine, PN_HAS_WAITED) == 1, "");
}

/* They wait in the order of their numbers. */
static void start_waiters(int many)
{
    for (int n = 0; n < many; n++) {
        uint64_t before = drawn();
        waiters[n] = start_person(be_waiter);
        int64_t deadline = pn_now_ns() + LIMIT;
        while (drawn() == before || sleeps_of(waiters[n]) < 0)
            CHECK(pn_now_ns() < deadline, "a waiter does not come to wait");
    }
    waiting = many;
}

/* The first so many go on, soon; the others are not called. Then all are notified, and go. */
static void only_first(int many)
{
    int64_t begun = pn_now_ns();
    for (int n = 0; n < many; n++)
        join_person(waiters[n]);
    CHECK(pn_now_ns() - begun < SOON, "a wake-up was late; killed after %ld", killed_at);
    uint32_t going;
    int left = (int)pn_condition_count(&view, &going);
    CHECK(left == waiting - many && going == 0, "%d wait, not %d; %u go; killed after %ld", left,
          waiting - many, going, killed_at);
    for (int n = many; n < waiting; n++)
        CHECK(waitpid(waiters[n], NULL, WNOHANG) == 0, "called without need; killed after %ld",
              killed_at);
    notify(UINT64_MAX);
    for (int n = many; n < waiting; n++)
        join_person(waiters[n]);
    waiting = 0;
}

/* All seats can be had again, and one who is notified is one who lives. */
static void works(void)
{
    uint32_t seats[PN_SEATS + 1];
    start_waiters(1);
    notify(1);
    only_first(1);
    for (int n = 0; n < PN_SEATS; n++)
        CHECK(pn_condition_enter(&view, PN_FOREVER, &seats[n]) == 0, "killed after %ld", killed_at);
    if (pn_condition_growth(condition) == 2 * PN_SEATS * sizeof(struct pn_seat))
        CHECK(pn_condition_enter(&view, PN_FOREVER, &seats[PN_SEATS]) == -ENOBUFS, "");
    for (int n = 0; n < PN_SEATS; n++)
        CHECK(pn_condition_leave(&view, seats[n], PN_TIMED_OUT) == 0, "");
    for (int n = 0; n < PN_SEATS; n++)
        CHECK(atomic_load(&condition->seats[n].who) == 0, "");
}

/* --- enter --- */

static void do_enter(void)
{
    CHECK(pn_condition_enter(&view, PN_FOREVER, &seat) == 0, "");
}

static void fresh_and_full(void)
{
    uint32_t unused;
    fresh();
    for (int n = 0; n < PN_SEATS; n++)
        CHECK(pn_condition_enter(&view, PN_FOREVER, &unused) == 0, "");
    CHECK(pn_condition_grow(condition, 1024, pn_condition_growth(condition)) == 1, "");
}

static void after_full(void)
{
    for (uint32_t n = 0; n < PN_SEATS; n++)
        CHECK(pn_condition_leave(&view, n, PN_TIMED_OUT) == 0, "");
    works();
}

/* --- notify --- */

static void fresh_with_waiters(void)
{
    fresh();
    start_waiters(WAITERS);
}

/* Until two of them watch, and the third sleeps long. */
static void fresh_with_idle_waiters(void)
{
    fresh_with_waiters();
    int64_t deadline = pn_now_ns() + LIMIT;
    while (atomic_load(&condition->watch.lease[0]) == 0 ||
           atomic_load(&condition->watch.lease[1]) == 0) {
        CHECK(pn_now_ns() < deadline, "nobody watches");
        (void)usleep(1000);
    }
    (void)usleep(5000); /* the third comes to that just after them */
}

static void do_notify(void)
{
    notify(1);
}

static void after_notify(void)
{
    only_first(called() == 0 ? 0 : 1);
    works();
}

static void do_notify_two(void)
{
    notify(2);
}

static void after_notify_two(void)
{
    CHECK(called() == 0 || called() == 2, "half of it");
    only_first(called() == 0 ? 0 : 2);
    works();
}

static void do_notify_all(void)
{
    notify(UINT64_MAX);
}

static void after_notify_all(void)
{
    CHECK(called() == 0 || called() == WAITERS, "half of it");
    only_first(called() == 0 ? 0 : WAITERS);
    works();
}

/* --- a waiter, who is called or not --- */

static void be_called(void)
{
    uint64_t before = called();
    do_enter();
    notify(1);
    CHECK(called() == before + 1, "");
}

/* Two wait behind the victim, who was called: ticket 1. */
static void be_called_before_others(void)
{
    CHECK(pn_condition_enter(&view, PN_FOREVER, &seat) == 0, "");
    CHECK(seat == 0, "");
    int64_t deadline = pn_now_ns() + LIMIT;
    while (drawn() < 3)
        CHECK(pn_now_ns() < deadline, "the others do not come");
    notify(1);
    CHECK(called() == 1, "");
}

static void be_waiter_behind(void)
{
    int64_t deadline = pn_now_ns() + LIMIT;
    while (drawn() < (uint64_t)waiting)
        CHECK(pn_now_ns() < deadline, "nobody comes before us");
    be_waiter();
}

static void fresh_with_two_behind(void)
{
    fresh();
    for (waiting = 1; waiting <= 2; waiting++)
        waiters[waiting - 1] = start_person(be_waiter_behind);
    waiting = 2;
}

static int has_left(void)
{
    return atomic_load(&condition->seats[0].who) == 0;
}

static void do_wait_and_leave(void)
{
    CHECK(wait_in(seat, pn_now_ns() + LIMIT) == 0, "");
    CHECK(pn_condition_leave(&view, seat, PN_HAS_WAITED) == 1, "");
}

/* Its wake-up was for it as long as it had left; else it is the next one's, and nobody else's. */
static void after_wait(void)
{
    only_first(has_left() ? (int)called() - 1 : 1);
    works();
}

static void do_give_up(void)
{
    CHECK(pn_condition_leave(&view, seat, PN_GIVES_UP) == 1, "");
}

static void after_give_up(void)
{
    only_first(1);
    works();
}

static void do_time_out(void)
{
    CHECK(wait_in(seat, 1) == -ETIMEDOUT, "");
    CHECK(pn_condition_leave(&view, seat, PN_TIMED_OUT) == 0, "");
}

static void be_before_others(void)
{
    CHECK(pn_condition_enter(&view, PN_FOREVER, &seat) == 0, "");
    int64_t deadline = pn_now_ns() + LIMIT;
    while (drawn() < 3)
        CHECK(pn_now_ns() < deadline, "the others do not come");
}

static void after_time_out(void)
{
    notify(1); /* not for who is dead */
    only_first(1);
    works();
}

/* --- what the dead left --- */

static uint64_t dead_one(void)
{
    uint32_t index, generation;
    static const struct pn_end end = {9, 0, 0, 0, 0};
    CHECK(pn_table_claim(table, &index, &generation) == 0, "");
    CHECK(pn_slot_end(table, &table->slots[index], &end) == 1, "");
    CHECK(pn_table_free(table, &table->slots[index], generation) == 1, "");
    return pn_owner_word(index, generation);
}

/* One died with a wake-up in its hands, while two others wait and see nothing of it: stopped. */
static void fresh_with_dead_called(void)
{
    fresh();
    uint64_t dead = dead_one();
    do_enter();
    start_waiters(2);
    for (int n = 0; n < 2; n++) {
        int status;
        CHECK(kill(waiters[n], SIGSTOP) == 0, "");
        CHECK(waitpid(waiters[n], &status, WUNTRACED) == waiters[n] && WIFSTOPPED(status), "");
    }
    notify(1);
    atomic_store(&condition->seats[seat].who, dead);
}

/* ... and so did the one that was passing it on, half way. */
static void fresh_with_record(void)
{
    fresh_with_dead_called();
    atomic_store(&condition->called_to, called() + 1);
    atomic_store(&condition->passing, seat + 1);
    atomic_store(&condition->called, called() + 1);
    atomic_store(&condition->mutex.word, dead_one());
}

static void do_nothing_with_it(void)
{
    notify(0);
}

static void after_dead_called(void)
{
    for (int n = 0; n < 2; n++)
        CHECK(kill(waiters[n], SIGCONT) == 0, "");
    only_first(1);
    works();
}

static const struct operation operations[] = {
    {"enter", fresh, know_oneself, do_enter, works, clean},
    {"enter_grown", fresh_and_full, know_oneself, do_enter, after_full, clean},
    {"notify", fresh_with_waiters, know_oneself, do_notify, after_notify, clean},
    {"notify_two", fresh_with_waiters, know_oneself, do_notify_two, after_notify_two, clean},
    {"notify_all", fresh_with_waiters, know_oneself, do_notify_all, after_notify_all, clean},
    {"notify_idle", fresh_with_idle_waiters, know_oneself, do_notify_all, after_notify_all, clean},
    {"wait", fresh, be_called, do_wait_and_leave, works, clean},
    {"wait_before_others", fresh_with_two_behind, be_called_before_others, do_wait_and_leave,
     after_wait, clean},
    {"give_up", fresh_with_two_behind, be_called_before_others, do_give_up, after_give_up, clean},
    {"time_out", fresh_with_two_behind, be_before_others, do_time_out, after_time_out, clean},
    {"relieve", fresh_with_dead_called, know_oneself, do_nothing_with_it, after_dead_called, clean},
    {"repair", fresh_with_record, know_oneself, do_nothing_with_it, after_dead_called, clean},
};

int main(int count, char **arguments)
{
    view.memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(view.memory != MAP_FAILED, "");
    view.condition = condition = (struct pn_condition *)(void *)view.memory;
    return run_operations(operations, sizeof operations / sizeof operations[0], count, arguments);
}

/* SIGKILL at every instruction of a barrier's operations: those who wait meet or are told that it is
 * broken, soon, all of them the same; and once it is reset it works. argv[1]: which operation;
 * without: all. argv[2]: only every so many instructions. */
#include "operations.h"

#include "barrier.h"

#define SLOTS 64
#define PARTIES 3
#define SOON (3 * SECOND) /* long before one who does not watch looks by itself */
#define BROKEN_EXIT 3

static struct pn_table *table;
static struct pn_self self;
static struct pn_barrier_view view;
static struct pn_barrier *barrier;
static pid_t waiters[PARTIES];
static int waiting;
static struct pn_visit visit;
static uint64_t *victim; /* shared: who the victim is, once it knows */

static uint64_t me(void)
{
    uint64_t owner = 0;
    CHECK(pn_self_owner(&self, &owner) == 0, "no identity");
    return owner;
}

static void know_oneself(void)
{
    *victim = me();
}

static void fresh(void)
{
    int fd;
    CHECK(pn_table_create(SLOTS, &table, &fd) == 0, "");
    (void)close(fd);
    CHECK(pn_self_open(table, &self) == 0, "");
    memset(barrier, 0, 4096);
    barrier->parties = PARTIES;
    view.self = &self;
    (void)me();
    waiting = 0;
    *victim = 0;
}

static void clean(void)
{
    CHECK(pn_life_drop(&table->slots[pn_owner_index(me())]) == 0, "");
    pn_self_close(&self);
    (void)munmap(table, pn_table_size(SLOTS));
}

static uint32_t waiting_now(enum pn_phase *ret_phase)
{
    uint32_t many;
    CHECK(pn_barrier_look(&view, ret_phase, &many) == 0, "");
    return many;
}

/* --- people --- */

static int wait_at(struct pn_visit *mine, int64_t deadline_ns)
{
    int result;
    pn_barrier_begin(&view, mine, deadline_ns);
    do
        result = pn_barrier_wait(&view, mine);
    while (result == -EINTR);
    return result;
}

static int attend(struct pn_visit *mine, int acts)
{
    int result = pn_barrier_come(&view, acts, 1, mine);
    if (result == 0) {
        if (mine->acts)
            result = pn_barrier_acted(&view, 0);
        else
            result = wait_at(mine, PN_FOREVER);
        pn_barrier_leave(&view, mine);
    }
    CHECK(result == 0 || result == -EPIPE, "%d; killed after %ld", result, killed_at);
    return result;
}

static void be_waiter(void)
{
    struct pn_visit mine;
    (void)alarm(60);
    if (attend(&mine, 0) != 0)
        _exit(BROKEN_EXIT);
}

static void start_waiters(int many)
{
    for (int n = 0; n < many; n++)
        waiters[waiting++] = start_person(be_waiter);
    int64_t deadline = pn_now_ns() + LIMIT;
    enum pn_phase phase;
    while (waiting_now(&phase) != (uint32_t)waiting)
        CHECK(pn_now_ns() < deadline, "the waiters do not come");
    for (int n = 0; n < waiting; n++)
        wait_asleep(waiters[n]);
}

/* Whether they met; they did all, or none, and soon. */
static int they_met(void)
{
    int met = 0;
    int64_t begun = pn_now_ns();
    for (int n = 0; n < waiting; n++) {
        int status;
        CHECK(waitpid(waiters[n], &status, 0) == waiters[n], "");
        CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == BROKEN_EXIT),
              "a waiter: %x; killed after %ld", (unsigned)status, killed_at);
        met += WEXITSTATUS(status) == 0;
    }
    CHECK(met == 0 || met == waiting, "some met; killed after %ld", killed_at);
    CHECK(pn_now_ns() - begun < SOON, "they were told late; killed after %ld", killed_at);
    waiting = 0;
    return met != 0;
}

static void works(void)
{
    enum pn_phase phase;
    struct pn_visit mine;
    (void)waiting_now(&phase);
    if (phase != PN_FILLING)
        CHECK(pn_barrier_reset(&view, 1) == 0, "");
    for (int acts = 0; acts < 2; acts++) {
        CHECK(waiting_now(&phase) == 0 && phase == PN_FILLING, "%d; killed after %ld", (int)phase,
              killed_at);
        CHECK(barrier->dead == 0, "");
        start_waiters(PARTIES - 1);
        CHECK(attend(&mine, acts) == 0, "it does not work; killed after %ld", killed_at);
        CHECK(mine.index == PARTIES - 1 && mine.acts == acts, "");
        CHECK(they_met(), "");
    }
}

/* If nobody who died is there, those who wait go on waiting; who wants them to end says so. */
static void end_waiting(void)
{
    enum pn_phase phase;
    if (waiting != 0 && waiting_now(&phase) == (uint32_t)waiting && phase == PN_FILLING)
        for (int n = 0; n < waiting; n++)
            CHECK(waitpid(waiters[n], NULL, WNOHANG) == 0, "sent away without need; killed after "
                  "%ld", killed_at);
    if (phase == PN_FILLING)
        CHECK(pn_barrier_abort(&view, 1) == 0, "");
}

/* Whoever is there is dead, and named; or nobody is. */
static void named_or_filling(void)
{
    enum pn_phase phase;
    (void)waiting_now(&phase);
    CHECK(phase == PN_FILLING || phase == PN_BROKEN, "%d; killed after %ld", (int)phase, killed_at);
    CHECK(phase == PN_FILLING ||
              (barrier->dead == *victim && barrier->dead_pid != 0 && *victim != 0),
          "broken by nobody; killed after %ld", killed_at);
}

/* --- coming --- */

static void fresh_with_two(void)
{
    fresh();
    start_waiters(2);
}

static void fresh_with_one(void)
{
    fresh();
    start_waiters(1);
}

static void do_come(void)
{
    CHECK(pn_barrier_come(&view, 0, 1, &visit) == 0, "");
}

static int victim_is_there(void)
{
    for (int n = 0; n < PARTIES; n++)
        if (*victim != 0 && atomic_load(&barrier->places[n].who) == *victim)
            return 1;
    return 0;
}

/* Who died there has broken it, for the one who waits and the ones who come. */
static void after_come(void)
{
    /* its place may have been freed already: then it is broken */
    if (victim_is_there() || barrier->dead == *victim) {
        CHECK(!they_met(), "");
        enum pn_phase phase;
        (void)waiting_now(&phase);
        CHECK(phase == PN_BROKEN, "%d; killed after %ld", (int)phase, killed_at);
        named_or_filling();
    } else {
        end_waiting();
        CHECK(!they_met(), "");
    }
    works();
}

static void do_attend(void)
{
    CHECK(attend(&visit, 0) == 0, "");
}

static void do_act(void)
{
    CHECK(attend(&visit, 1) == 0, "");
}

/* They have met, or were told who died; if it never came, they wait on. */
static void after_last(void)
{
    enum pn_phase phase;
    if (waiting_now(&phase) == 2 && phase == PN_FILLING)
        end_waiting();
    else if (they_met())
        named_or_filling();
    else
        CHECK(barrier->dead == *victim, "broken by nobody; killed after %ld", killed_at);
    (void)they_met();
    works();
}

static void do_fail(void)
{
    CHECK(pn_barrier_come(&view, 1, 1, &visit) == 0 && visit.acts, "");
    CHECK(pn_barrier_acted(&view, 1) == -EPIPE, "");
    pn_barrier_leave(&view, &visit);
}

static void after_fail(void)
{
    enum pn_phase phase;
    if (waiting_now(&phase) == 2 && phase == PN_FILLING)
        end_waiting();
    CHECK(!they_met(), "");
    works();
}

static void do_time_out(void)
{
    CHECK(pn_barrier_come(&view, 0, 1, &visit) == 0, "");
    CHECK(wait_at(&visit, 1) == -EPIPE, "");
    pn_barrier_leave(&view, &visit);
}

static void after_time_out(void)
{
    enum pn_phase phase;
    if (waiting_now(&phase) == 1 && phase == PN_FILLING)
        end_waiting();
    CHECK(!they_met(), "");
    works();
}

/* --- changing --- */

static void do_abort(void)
{
    CHECK(pn_barrier_abort(&view, 1) == 0, "");
}

static void do_reset(void)
{
    CHECK(pn_barrier_reset(&view, 1) == 0, "");
}

/* --- leaving --- */

/* One waits at the door while the victim, the last of three who met, has not left. */
static void be_late(void)
{
    int64_t deadline = pn_now_ns() + LIMIT;
    (void)alarm(60);
    while ((atomic_load(&barrier->phase) & 7) != PN_DRAINING)
        CHECK(pn_now_ns() < deadline, "they do not meet");
    be_waiter();
}

static void fresh_with_late(void)
{
    fresh_with_two();
    waiters[2] = start_person(be_late);
}

static void meet(void)
{
    know_oneself();
    CHECK(pn_barrier_come(&view, 0, 1, &visit) == 0 && visit.index == 2, "");
    int64_t deadline = pn_now_ns() + LIMIT;
    for (int taken = PARTIES; taken != 1 || sleeps_of(waiters[2]) < 0;) {
        CHECK(pn_now_ns() < deadline, "the others do not leave");
        taken = 0;
        for (int n = 0; n < PARTIES; n++)
            taken += atomic_load(&barrier->places[n].who) != 0;
    }
}

static void do_leave(void)
{
    pn_barrier_leave(&view, &visit);
}

static void after_leave(void)
{
    pid_t late = waiters[2];
    CHECK(they_met(), "");
    waiters[waiting++] = late;
    int64_t deadline = pn_now_ns() + SOON;
    enum pn_phase phase; /* who is late is let in, or told who died */
    while (waiting_now(&phase) == 0 && phase != PN_BROKEN)
        CHECK(pn_now_ns() < deadline, "the door stays shut; killed after %ld", killed_at);
    named_or_filling();
    if (phase == PN_FILLING)
        CHECK(pn_barrier_abort(&view, 1) == 0, "");
    CHECK(!they_met(), "");
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

/* One died there, and another one with the mutex; those who wait are stopped. */
static void fresh_with_dead(void)
{
    fresh_with_one();
    int status;
    CHECK(kill(waiters[0], SIGSTOP) == 0, "");
    CHECK(waitpid(waiters[0], &status, WUNTRACED) == waiters[0] && WIFSTOPPED(status), "");
    barrier->places[1].pid = 99;
    barrier->places[1].who = dead_one();
    barrier->mutex.word = dead_one();
}

static void do_look(void)
{
    enum pn_phase phase;
    (void)waiting_now(&phase);
}

static void after_dead(void)
{
    CHECK(kill(waiters[0], SIGCONT) == 0, "");
    CHECK(!they_met(), "");
    enum pn_phase phase;
    (void)waiting_now(&phase);
    CHECK(phase == PN_BROKEN && barrier->dead_pid == 99, "killed after %ld", killed_at);
    works();
}

static const struct operation operations[] = {
    {"come", fresh_with_one, know_oneself, do_come, after_come, clean},
    {"meet", fresh_with_two, know_oneself, do_attend, after_last, clean},
    {"act", fresh_with_two, know_oneself, do_act, after_last, clean},
    {"fail", fresh_with_two, know_oneself, do_fail, after_fail, clean},
    {"time_out", fresh_with_one, know_oneself, do_time_out, after_time_out, clean},
    {"abort", fresh_with_two, know_oneself, do_abort, after_fail, clean},
    {"reset", fresh_with_two, know_oneself, do_reset, after_fail, clean},
    {"leave", fresh_with_late, meet, do_leave, after_leave, clean},
    {"settle", fresh_with_dead, know_oneself, do_look, after_dead, clean},
};

int main(int count, char **arguments)
{
    void *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED, "");
    view.barrier = barrier = memory;
    victim = (uint64_t *)(void *)((char *)memory + 4096);
    return run_operations(operations, sizeof operations / sizeof operations[0], count, arguments);
}

/* Wakes that must come, each seen by somebody who would sleep for a minute without it.
 *
 * A *stranger* sleeps on a futex word itself, with none of wait.c's looks; who waits as one should
 * would notice a wake that is missing after a while, and so hide it. argv[1]: which check. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "barrier.h"
#include "check.h"
#include "condition.h"
#include "event.h"
#include "gate.h"
#include "lock.h"
#include "mutex.h"

#define SLOTS 32
#define WAITERS 8
#define TURNS 500
#define UNHEARD (3 * SECOND) /* nobody but who watches looks again before 4 s */

static struct pn_table *table;
static struct pn_self self;
static struct shared {
    struct pn_lock lock;
    struct pn_mutex mutex;
    struct pn_gate gate;
    struct pn_event event;
    struct pn_condition condition;
    struct pn_watch watch;
    _Atomic uint32_t word;
    _Atomic int go;
    struct pn_barrier barrier;
    struct pn_place places[2];
} *shared;

static uint64_t me(void)
{
    uint64_t owner = 0;
    CHECK(pn_self_owner(&self, &owner) == 0, "no identity");
    return owner;
}

/* --- people --- */

static int sleeps(pid_t pid)
{
    char path[64], text[32] = {0};
    (void)snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL, "%s", path);
    (void)!fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    long number = strtol(text, NULL, 10); /* "running": 0 */
    return number == SYS_futex || number == SYS_futex_waitv;
}

static pid_t start(int (*act)(void))
{
    pid_t pid = fork();
    CHECK(pid >= 0, "");
    if (pid == 0)
        _exit(act());
    return pid;
}

static pid_t start_asleep(int (*act)(void))
{
    pid_t pid = start(act);
    int64_t deadline = pn_now_ns() + LIMIT;
    while (!sleeps(pid)) {
        CHECK(pn_now_ns() < deadline, "somebody does not come to sleep");
        (void)sched_yield();
    }
    return pid;
}

static void join(pid_t pid, const char *who)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid, "");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: %x", who, (unsigned)status);
}

static void end(pid_t pid)
{
    int status;
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid, "");
}

/* --- strangers --- */

static const uint32_t *strange_word;
static uint32_t strange_value;

static int sleep_strangely(void)
{
    return pn_futex_wait(strange_word, strange_value, pn_now_ns() + LIMIT) == 0 ? 0 : 9;
}

static pid_t start_stranger(const uint32_t *word)
{
    strange_word = word;
    strange_value = *word;
    return start_asleep(sleep_strangely);
}

static void mark(_Atomic uint64_t *word)
{
    (void)atomic_fetch_or(word, PN_WAITERS);
}

static int take_and_release(void)
{
    uint64_t before, owner = me();
    struct pn_waiter wait;
    int result;
    pn_lock_begin(table, &shared->lock, owner, &wait, pn_now_ns() + LIMIT);
    do
        result = pn_lock_take(table, &shared->lock, pn_lock_holder(owner, 1), 1, &wait, &before);
    while (result == -EINTR);
    CHECK(result == PN_TAKEN || result == PN_TAKEN_OVER, "%d", result);
    while (!atomic_load(&shared->go)) /* until there are strangers */
        (void)sched_yield();
    CHECK(pn_lock_release(&shared->lock) == 0, "");
    return 0;
}

static int hold_lock(void)
{
    CHECK(pn_lock_try(&shared->lock, me(), 1), "");
    return pause();
}

/* Until there is a sentry that wants to be told when something happens. */
static void wait_resting(const struct pn_watch *watch)
{
    int64_t deadline = pn_now_ns() + LIMIT;
    while (!(atomic_load(&watch->lease[0]) & 1)) {
        CHECK(pn_now_ns() < deadline, "the sentry never rests");
        (void)usleep(1000);
    }
}

/* --- the checks --- */

static void check_release(void)
{
    CHECK(pn_lock_try(&shared->lock, me(), 1), "");
    mark(&shared->lock.word);
    pid_t stranger = start_stranger(pn_low_half(&shared->lock.word));
    CHECK(pn_lock_release(&shared->lock) == 0, "");
    join(stranger, "nobody was woken by a release");
}

static void check_unlock(void)
{
    CHECK(pn_mutex_lock(&self, &shared->mutex, PN_FOREVER) == 0, "");
    mark(&shared->mutex.word);
    pid_t stranger = start_stranger(pn_low_half(&shared->mutex.word));
    pn_mutex_unlock(&shared->mutex);
    join(stranger, "nobody was woken by an unlock");
}

static void check_gate(void)
{
    atomic_store(&shared->gate.sleepers, 1);
    pid_t stranger = start_stranger((const uint32_t *)(const void *)&shared->gate.turn);
    pn_gate_wake(pn_gate_open(&shared->gate, 0));
    join(stranger, "nobody was woken by a gate");
}

static void check_event(void)
{
    pid_t strangers[2];
    atomic_store(&shared->event.word, 2); /* somebody may sleep on it */
    for (int n = 0; n < 2; n++)
        strangers[n] = start_stranger((const uint32_t *)(const void *)&shared->event.word);
    pn_event_set(&shared->event);
    for (int n = 0; n < 2; n++)
        join(strangers[n], "not all were woken by an event");
}

/* Who waits has a word of its own. */
static void check_condition(void)
{
    struct pn_condition_view view = {&self, &shared->condition, (unsigned char *)shared};
    uint32_t seat;
    CHECK(pn_condition_enter(&view, PN_FOREVER, &seat) == 0, "");
    const _Atomic uint32_t *rings = &shared->condition.seats[seat].rings;
    pid_t stranger = start_stranger((const uint32_t *)(const void *)rings);
    CHECK(pn_condition_notify(&view, 1, PN_FOREVER) == 0, "");
    join(stranger, "nobody was woken by a condition");
}

static void check_barrier(void)
{
    struct pn_barrier_view view = {&self, &shared->barrier};
    shared->barrier.parties = 1;
    pid_t stranger = start_stranger((const uint32_t *)(const void *)&shared->barrier.phase);
    struct pn_visit visit;
    CHECK(pn_barrier_come(&view, 0, 1, &visit) == 0, "");
    join(stranger, "nobody was woken by a barrier");
    pn_barrier_leave(&view, &visit);
}

/* Of two who sleep one is woken and takes it: the other's mark must not go with the word. */
static void check_mark_stays(void)
{
    CHECK(pn_lock_try(&shared->lock, me(), 1), "");
    pid_t waiter = start_asleep(take_and_release);
    CHECK(pn_lock_release(&shared->lock) == 0, "");
    while ((atomic_load(&shared->lock.word) & PN_OWNER_MASK) == 0)
        (void)sched_yield();
    pid_t stranger = start_stranger(pn_low_half(&shared->lock.word));
    atomic_store(&shared->go, 1);
    join(waiter, "the waiter");
    join(stranger, "the mark of who slept beside the woken one was lost");
}

/* Neither may it when the lock is taken over from the dead. */
static void check_mark_stays_in_take_over(void)
{
    uint32_t index, generation;
    static const struct pn_end ended = {9, 0, 0, 0, 0};
    CHECK(pn_table_claim(table, &index, &generation) == 0, "");
    CHECK(pn_slot_end(table, &table->slots[index], &ended) == 1, "");
    CHECK(pn_table_free(table, &table->slots[index], generation) == 1, "");
    atomic_store(&shared->lock.word, pn_owner_word(index, generation) | PN_WAITERS);
    pid_t waiter = start(take_and_release);
    while (shared->lock.recovered == 0)
        (void)sched_yield();
    pid_t stranger = start_stranger(pn_low_half(&shared->lock.word));
    atomic_store(&shared->go, 1);
    join(waiter, "the waiter");
    join(stranger, "the mark of who slept beside was lost when it was taken over");
}

/* A wake-up that came with the deadline is passed on. */
static void check_given_up(void)
{
    struct pn_waiter wait;
    const uint32_t *word = (const uint32_t *)(const void *)&shared->word;
    pid_t stranger = start_stranger(word);
    pn_wait_begin(&wait, &shared->watch, word, pn_now_ns() + 1000000);
    int result;
    while ((result = pn_wait_sleep(&wait, 0)) == 0)
        ;
    CHECK(result == -ETIMEDOUT, "%d", result);
    pn_wait_end(&wait, result);
    join(stranger, "a wake-up was not passed on");
}

/* The kernel wakes one of those who sleep on a life word; that one wakes the others. */
static void check_passed_on(void)
{
    pid_t holder = start(hold_lock);
    while ((atomic_load(&shared->lock.word) & PN_OWNER_MASK) == 0)
        (void)sched_yield();
    uint32_t index = pn_owner_index(atomic_load(&shared->lock.word)), value;
    const uint32_t *life;
    atomic_store(&shared->go, 1);
    pid_t waiter = start_asleep(take_and_release);
    wait_resting(&shared->lock.watch); /* a young wait does not listen at every moment */
    CHECK(pn_life_listen(&table->slots[index], &life, &value), "");
    pid_t strangers[2];
    for (int n = 0; n < 2; n++)
        strangers[n] = start_stranger(life);
    end(holder);
    join(waiter, "the waiter");
    for (int n = 0; n < 2; n++)
        join(strangers[n], "a death was told to one only");
}

/* The kernel wakes one of those who listen, and that one may die as well: here a stranger, who passes
 * nothing on. An end that is known is told to all. */
static void check_ended(void)
{
    static const struct pn_end ended = {9, 0, 0, 0, 0};
    const uint32_t *life;
    uint32_t value;
    pid_t holder = start(hold_lock);
    while ((atomic_load(&shared->lock.word) & PN_OWNER_MASK) == 0)
        (void)sched_yield();
    struct pn_slot *slot = &table->slots[pn_owner_index(atomic_load(&shared->lock.word))];
    CHECK(pn_life_listen(slot, &life, &value), "");
    pid_t strangers[2] = {start_stranger(life), start_stranger(life)};
    end(holder);
    pid_t woken = waitpid(-1, NULL, 0);
    CHECK(woken == strangers[0] || woken == strangers[1], "%d", (int)woken);
    CHECK(pn_slot_end(table, slot, &ended) == 1, "");
    join(strangers[woken == strangers[0]], "an end was not told to who listened");
}

/* Who waits comes back after each sleep, so that a signal which came between two is seen to. */
static void check_comes_back(void)
{
    pid_t holder = start(hold_lock);
    uint64_t before, owner = me();
    struct pn_waiter wait;
    while ((atomic_load(&shared->lock.word) & PN_OWNER_MASK) == 0)
        (void)sched_yield();
    pn_lock_begin(table, &shared->lock, owner, &wait, pn_now_ns() + LIMIT);
    for (int turn = 0; turn < 3; turn++)
        CHECK(pn_lock_take(table, &shared->lock, 1, 1, &wait, &before) == -EINTR,
              "a lock's wait does not come back");
    pn_wait_end(&wait, -EINTR);
    end(holder);
}

/* --- who watches --- */

static int wait_on_word(void)
{
    struct pn_waiter wait;
    const uint32_t *word = (const uint32_t *)(const void *)&shared->word;
    uint64_t owner = me();
    pn_wait_begin(&wait, &shared->watch, word, pn_now_ns() + LIMIT);
    pn_wait_as(&wait, table, owner);
    while (atomic_load(&shared->word) == 0)
        CHECK(pn_wait_sleep(&wait, 0) == 0, "");
    pn_wait_end(&wait, 0);
    return 0;
}

static pid_t waiters[WAITERS];

/* Which of the waiters holds an office, or -1. */
static int officer(int office)
{
    uint64_t lease = atomic_load(&shared->watch.lease[office]);
    int32_t pid = (lease & 0xfffffe) == 0 ? 0 : table->slots[pn_owner_index(lease)].pid;
    for (int n = 0; n < WAITERS; n++)
        if (waiters[n] == pid && pid != 0)
            return n;
    return -1;
}

static void wait_watched(const char *when, int64_t limit)
{
    int64_t deadline = pn_now_ns() + limit;
    while (officer(0) < 0 || officer(1) < 0 || officer(0) == officer(1)) {
        CHECK(pn_now_ns() < deadline, "nobody watches %s", when);
        (void)usleep(1000);
    }
}

static void start_waiters(void)
{
    for (int n = 0; n < WAITERS; n++)
        waiters[n] = start_asleep(wait_on_word);
    wait_watched("at first", LIMIT);
}

static void wait_all_asleep(void)
{
    int64_t deadline = pn_now_ns() + LIMIT;
    for (int n = 0; n < WAITERS; n++)
        while (waiters[n] != 0 && !sleeps(waiters[n])) {
            CHECK(pn_now_ns() < deadline, "somebody does not come to sleep");
            (void)sched_yield();
        }
}

/* How many listen to who holds an office. It wakes them, so that they listen anew. */
static int listeners_of(int office)
{
    uint64_t lease = atomic_load(&shared->watch.lease[office]);
    const uint32_t *life;
    uint32_t value;
    if ((lease & 0xfffffe) == 0 || !pn_life_listen(&table->slots[pn_owner_index(lease)], &life, &value))
        return 0;
    return pn_futex_wake(life, INT_MAX);
}

/* So many at once listen to the sentry, and all of them but one to its deputy: by the time that all
 * have come back to sleep so often that none of them is young any more, or changes places. */
static void wait_listened(int others)
{
    for (int sentry = 0, deputy = 0, turn = 0; sentry < others || deputy < others - 1; turn++) {
        CHECK(turn < TURNS, "only %d and %d listen to who watches", sentry, deputy);
        (void)pn_futex_wake((const uint32_t *)(const void *)&shared->word, INT_MAX);
        wait_all_asleep();
        sentry = listeners_of(0);
        wait_all_asleep();
        deputy = listeners_of(1);
    }
}

static void end_officer(int office)
{
    int n = officer(office);
    CHECK(n >= 0, "");
    end(waiters[n]);
    waiters[n] = 0;
}

/* The word changes and nobody is woken, as when the waker was killed: who watches sees it. */
static void change_silently(void)
{
    int64_t deadline = pn_now_ns() + UNHEARD;
    atomic_store(&shared->word, 1);
    for (;;) {
        for (int n = 0; n < WAITERS; n++)
            if (waiters[n] != 0 && waitpid(waiters[n], NULL, WNOHANG) == waiters[n])
                goto seen;
        CHECK(pn_now_ns() < deadline, "a change without a wake was not seen");
        (void)usleep(1000);
    }
seen:
    for (int n = 0; n < WAITERS; n++)
        if (waiters[n] != 0)
            (void)kill(waiters[n], SIGKILL);
}

static void check_watched(void)
{
    start_waiters();
    wait_resting(&shared->watch); /* none of them is young any more */
    change_silently();
}

static void check_sentry_killed(void)
{
    start_waiters();
    end_officer(0);
    wait_watched("after the sentry's death", UNHEARD);
    change_silently();
}

/* By what the kernel has registered, not by how soon somebody takes an office. */
static void check_listened(void)
{
    start_waiters();
    wait_listened(WAITERS - 1);
    end_officer(0);
    wait_watched("after the sentry's death", LIMIT);
    wait_listened(WAITERS - 2);
    change_silently();
}

static void check_both_killed(void)
{
    start_waiters();
    for (int turn = 0; turn < 3; turn++) {
        int killed[2] = {officer(0), officer(1)};
        CHECK(killed[0] >= 0 && killed[1] >= 0, "");
        for (int n = 0; n < 2; n++)
            (void)kill(waiters[killed[n]], SIGKILL);
        for (int n = 0; n < 2; n++) {
            (void)waitpid(waiters[killed[n]], NULL, 0);
            waiters[killed[n]] = 0;
        }
        wait_watched("after both were killed", UNHEARD);
    }
    change_silently();
}

/* A sentry that looks seldom is told when something happens: here a stranger in its place. */
static void check_told(void)
{
    atomic_store(&shared->watch.lease[0], 1ull << 40 | 1);
    pid_t stranger = start_stranger(pn_low_half(&shared->watch.lease[0]));
    (void)pn_wait_wake(&shared->watch, (const uint32_t *)(const void *)&shared->word, 1);
    CHECK(atomic_load(&shared->watch.lease[0]) == 1ull << 40, "");
    join(stranger, "the sentry was not told");
}

static const struct {
    const char *name;
    void (*check)(void);
} checks[] = {
    {"release", check_release},
    {"unlock", check_unlock},
    {"gate", check_gate},
    {"event", check_event},
    {"condition", check_condition},
    {"barrier", check_barrier},
    {"mark_stays", check_mark_stays},
    {"mark_stays_in_take_over", check_mark_stays_in_take_over},
    {"given_up", check_given_up},
    {"passed_on", check_passed_on},
    {"ended", check_ended},
    {"comes_back", check_comes_back},
    {"watched", check_watched},
    {"listened", check_listened},
    {"sentry_killed", check_sentry_killed},
    {"both_killed", check_both_killed},
    {"told", check_told},
};

int main(int count, char **arguments)
{
    int found = 0, fd;
    for (size_t n = 0; n < sizeof checks / sizeof checks[0]; n++) {
        if (count > 1 && strcmp(arguments[1], checks[n].name) != 0)
            continue;
        found = 1;
        shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(shared != MAP_FAILED, "");
        CHECK(pn_table_create(SLOTS, &table, &fd) == 0, "");
        (void)close(fd);
        CHECK(pn_self_open(table, &self) == 0, "");
        pid_t pid = fork(); /* each in its own process: a life word is taken once */
        CHECK(pid >= 0, "");
        if (pid == 0) {
            checks[n].check();
            _exit(0);
        }
        join(pid, checks[n].name);
        (void)printf("%s: ok\n", checks[n].name);
        (void)fflush(stdout);
    }
    CHECK(found, "no such check");
    return 0;
}

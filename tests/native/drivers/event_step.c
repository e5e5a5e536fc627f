/* SIGKILL at every instruction of an event's operations: those who wait go on once it is set, and
 * it is always either set or not. argv[1]: which operation; without: all. */
#include "operations.h"

#include "event.h"

#define WAITERS 6

static struct pn_event *event;
static pid_t waiters[WAITERS];
static int waiting;
static uint32_t seen;

static void fresh(void)
{
    memset(event, 0, sizeof *event);
    seen = 0;
}

static int wait_until_set(int64_t limit)
{
    struct pn_waiter wait;
    int result;
    pn_event_begin(event, &wait, limit == 0 ? 0 : pn_now_ns() + limit);
    do
        result = pn_event_wait(event, seen, &wait);
    while (result == -EINTR);
    pn_wait_end(&wait, result);
    return result;
}

static void be_waiter(void)
{
    CHECK(wait_until_set(LIMIT) == 0, "it was set, and a waiter did not see it");
}

static int is_set(void)
{
    return (pn_event_look(event) & PN_EVENT_SET) != 0;
}

static void works(void)
{
    seen = pn_event_look(event);
    pid_t one = start_person(be_waiter);
    pn_event_set(event);
    join_person(one);
    CHECK(is_set(), "");
    CHECK(wait_until_set(0) == 0, "");
    pn_event_clear(event);
    CHECK(!is_set(), "");
    seen = pn_event_look(event);
    CHECK(wait_until_set(0) == -ETIMEDOUT, "");
}

/* --- set, with many who wait: two of them watch, and the others sleep for seconds --- */

static void start_waiters(int many)
{
    fresh();
    waiting = many;
    for (int n = 0; n < many; n++)
        waiters[n] = start_person(be_waiter);
    for (int n = 0; n < many; n++)
        wait_asleep(waiters[n]);
}

static void fresh_with_many(void)
{
    start_waiters(WAITERS);
    int64_t deadline = pn_now_ns() + LIMIT;
    for (int idle = 0; idle < WAITERS - 2;) { /* until all but two did not stir for two looks */
        long slept[WAITERS];
        idle = 0;
        for (int n = 0; n < WAITERS; n++)
            slept[n] = sleeps_of(waiters[n]);
        for (int looks = 0; looks < 2; looks++) {
            uint64_t lease = atomic_load(&event->watch.lease[0]);
            while (lease == atomic_load(&event->watch.lease[0])) {
                CHECK(pn_now_ns() < deadline, "nobody watches");
                (void)usleep(1000);
            }
        }
        for (int n = 0; n < WAITERS; n++)
            idle += slept[n] >= 0 && sleeps_of(waiters[n]) == slept[n];
    }
}

/* One who sees nothing of what happens until it has happened. */
static void fresh_with_one_stopped(void)
{
    int status;
    start_waiters(1);
    CHECK(kill(waiters[0], SIGSTOP) == 0, "");
    CHECK(waitpid(waiters[0], &status, WUNTRACED) == waiters[0] && WIFSTOPPED(status), "");
}

static void after_set(void);

static void after_set_and_clear(void)
{
    CHECK(kill(waiters[0], SIGCONT) == 0, "");
    after_set();
}

static void do_set(void)
{
    pn_event_set(event);
}

static void do_set_and_clear(void)
{
    pn_event_set(event);
    pn_event_clear(event);
}

/* If it was set, all are awake long before the one who sleeps for 5 s would look by itself; if not,
 * nobody is. */
static void after_set(void)
{
    if (pn_event_look(event) >> 2 == 0) {
        CHECK(!is_set(), "");
        for (int n = 0; n < waiting; n++)
            CHECK(waitpid(waiters[n], NULL, WNOHANG) == 0, "it was not set, but a waiter went on");
        pn_event_set(event);
    }
    int64_t begun = pn_now_ns();
    for (int n = 0; n < waiting; n++)
        join_person(waiters[n]);
    CHECK(pn_now_ns() - begun < 3000000000, "the wake was lost; killed after %ld", killed_at);
    works();
}

/* --- clear, and waiting --- */

static void fresh_set(void)
{
    fresh();
    pn_event_set(event);
}

static void do_clear(void)
{
    pn_event_clear(event);
}

static void do_wait_a_little(void)
{
    CHECK(wait_until_set(100000) == -ETIMEDOUT, "");
}

static void after_wait(void)
{
    CHECK(!is_set(), "a wait set it");
    works();
}

static void do_wait_set(void)
{
    CHECK(wait_until_set(LIMIT) == 0, "");
}

static void after_clear(void)
{
    works();
}

static const struct operation operations[] = {
    {"set", fresh_with_many, do_nothing, do_set, after_set, do_nothing},
    {"set_and_clear", fresh_with_one_stopped, do_nothing, do_set_and_clear, after_set_and_clear,
     do_nothing},
    {"clear", fresh_set, do_nothing, do_clear, after_clear, do_nothing},
    {"wait", fresh, do_nothing, do_wait_a_little, after_wait, do_nothing},
    {"wait_set", fresh_set, do_nothing, do_wait_set, after_clear, do_nothing},
};

int main(int count, char **arguments)
{
    event = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(event != MAP_FAILED, "");
    return run_operations(operations, sizeof operations / sizeof operations[0], count, arguments);
}

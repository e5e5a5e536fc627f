/* SIGKILL at every instruction of the operations on a slot.
 *
 * A child does one operation under ptrace; after N single steps it is killed, and the survivors'
 * promises are checked from outside; for every N until the child comes to the end. No instruction
 * is left out and chance has no part in it. argv[1]: which operation; without, or "": all.
 * argv[2]: only every so many instructions. */
#include "operations.h"

#define SLOTS 4

static struct pn_table *table;
static uint32_t at, generation; /* the slot of the process in question */
static struct pn_slot *slot;

static const struct pn_end first_end = {0x0100, 0, 11, 12, 13};
static const struct pn_end second_end = {0x0200, 0, 21, 22, 23};
static const struct pn_request request = {
    (uint64_t)3 << 32 | 2, PN_FORKSERVER, PN_FLAG_DAEMON, 1234, "a name", "a.target", 6, 8,
};

static void fresh_table(void)
{
    int fd;
    CHECK(pn_table_create(SLOTS, &table, &fd) == 0, "");
    (void)close(fd);
}

static void drop_table(void)
{
    (void)munmap(table, pn_table_size(SLOTS));
}

static void claim_one(void)
{
    fresh_table();
    CHECK(pn_table_claim(table, &at, &generation) == 0, "");
    slot = &table->slots[at];
}

/* --- waiters --- */

static pid_t waiter;

static void start_waiter(void)
{
    waiter = fork();
    CHECK(waiter >= 0, "");
    if (waiter == 0)
        _exit(pn_slot_wait(slot, generation, PN_FOREVER) == 1 ? 0 : 2);
    wait_asleep(waiter);
}

static void join_waiter(void)
{
    int64_t deadline = pn_now_ns() + LIMIT;
    int status;
    pid_t got;
    while ((got = waitpid(waiter, &status, WNOHANG)) == 0) {
        if (pn_now_ns() > deadline) {
            (void)kill(waiter, SIGKILL);
            fail(__FILE__, __LINE__, "the waiter hangs; the reaper was killed after %ld steps",
                 killed_at);
        }
        (void)sched_yield();
    }
    CHECK(got == waiter && status == 0, "%d", status);
}

/* --- the operations, and what must hold after a death in them --- */

static long ended_unwoken; /* kills between the end and the wake: the window this is about */

static void before_end(void)
{
    claim_one();
    start_waiter();
}

static void do_end(void)
{
    (void)pn_slot_end(table, slot, &first_end);
}

static void after_end(void)
{
    int was_ended = pn_slot_state(slot, generation) == PN_ENDED;
    ended_unwoken += was_ended && sleeps_of(waiter) >= 0;
    int won = pn_slot_end(table, slot, &second_end); /* the next reaper */
    CHECK(won == !was_ended, "killed after %ld steps", killed_at);
    join_waiter();
    struct pn_view view;
    pn_slot_read(slot, &view);
    const struct pn_end *counts = won ? &second_end : &first_end;
    CHECK(view.state == PN_ENDED && view.wait_status == counts->wait_status &&
              view.utime_ns == counts->utime_ns && view.stime_ns == counts->stime_ns &&
              view.max_rss_kib == counts->max_rss_kib && view.ended_ns > 0 &&
              !(view.flags & PN_FLAG_LOST),
          "killed after %ld steps: status %x", killed_at, (unsigned)view.wait_status);
    CHECK(pn_table_free(table, slot, generation) == 1, "");
}

/* All endings taken by the killed: the end is still told, its figures are lost. */
static void before_end_crowded(void)
{
    before_end();
    atomic_store(&slot->endings_taken, (1u << PN_ENDINGS) - 1);
}

static void after_end_crowded(void)
{
    (void)pn_slot_end(table, slot, &second_end);
    join_waiter();
    struct pn_view view;
    pn_slot_read(slot, &view);
    CHECK(view.state == PN_ENDED && view.wait_status == -1 && (view.flags & PN_FLAG_LOST), "");
    CHECK(pn_table_free(table, slot, generation) == 1, "");
}

static void do_claim(void)
{
    uint32_t index, got;
    (void)pn_table_claim(table, &index, &got);
}

static void after_claim(void)
{
    int seen[SLOTS] = {0}, got = 0;
    uint32_t index, number;
    for (uint32_t n = 0; n < SLOTS; n++)
        got += pn_word_state(atomic_load(&table->slots[n].word)) == PN_CLAIMED;
    CHECK(got <= 1, "");
    if (got) { /* it had come that far: its parent knows the pid and ends it */
        for (index = 0; pn_word_state(atomic_load(&table->slots[index].word)) != PN_CLAIMED;)
            index++;
        number = pn_word_generation(atomic_load(&table->slots[index].word));
        CHECK(pn_slot_end(table, &table->slots[index], &second_end) == 1, "");
        CHECK(pn_table_free(table, &table->slots[index], number) == 1, "");
    }
    for (got = 0; pn_table_claim(table, &index, &number) == 0; got++) {
        CHECK(index < SLOTS && !seen[index] && number != 0, "slot %u twice", index);
        seen[index] = 1;
    }
    CHECK(got >= SLOTS - 1, "only %d slots are left; killed after %ld steps", got, killed_at);
}

static void do_ask(void)
{
    (void)pn_slot_ask(slot, generation, &request);
}

static void after_ask(void)
{
    struct pn_view view;
    pn_slot_read(slot, &view);
    CHECK(view.state == PN_CLAIMED || view.state == PN_ASKED, "%u", (unsigned)view.state);
    if (view.state == PN_ASKED)
        CHECK(view.owner == request.owner && view.method == request.method &&
                  view.flags == request.flags && view.asked_ns == request.asked_ns &&
                  strcmp(view.name, request.name) == 0 &&
                  strcmp(view.target, request.target) == 0,
              "killed after %ld steps: asked by whom?", killed_at);
    CHECK(pn_slot_end(table, slot, &second_end) == 1, "");
    CHECK(pn_table_free(table, slot, generation) == 1, "");
}

#define LAST_WORDS "ValueError: a text that is longer than a single word"

static void do_finish(void)
{
    pn_slot_finish(slot, PN_RAISED, 1, LAST_WORDS, strlen(LAST_WORDS));
}

static void after_finish(void)
{
    struct pn_view view;
    pn_slot_read(slot, &view);
    if (view.how == PN_HOW_NONE)
        CHECK(view.exit_code == 0 && view.text[0] == 0, "killed after %ld steps", killed_at);
    else
        CHECK(view.exit_code == 1 && strcmp(view.text, LAST_WORDS) == 0,
              "killed after %ld steps: %s", killed_at, view.text);
}

static void do_take(void)
{
    (void)pn_life_take(slot);
}

static void do_drop(void)
{
    (void)pn_life_take(slot);
    (void)pn_life_drop(slot);
}

static void after_life(void)
{
    CHECK(pn_life_read(slot) != PN_LIFE_HELD, "held by the dead; killed after %ld steps",
          killed_at);
    CHECK(pn_slot_end(table, slot, &second_end) == 1, "");
    CHECK(pn_table_free(table, slot, generation) == 1, "");
    uint32_t index;
    for (int n = 0; n < SLOTS; n++) { /* whoever has the slot next has a new life */
        CHECK(pn_table_claim(table, &index, &generation) == 0, "");
        CHECK(pn_life_read(&table->slots[index]) == PN_LIFE_FREE, "");
        CHECK(pn_slot_enter(&table->slots[index], PN_SPARE) == 0, "");
        CHECK(pn_life_read(&table->slots[index]) == PN_LIFE_HELD, "");
        CHECK(pn_life_drop(&table->slots[index]) == 0, "");
    }
}

static void before_free(void)
{
    claim_one();
    CHECK(pn_slot_end(table, slot, &first_end) == 1, "");
}

static void do_free(void)
{
    (void)pn_table_free(table, slot, generation);
}

static void after_free(void)
{
    enum pn_state state = pn_slot_state(slot, generation);
    CHECK(state == PN_ENDED || state == PN_FREE, "%u", (unsigned)state);
    CHECK(pn_table_free(table, slot, generation) == (state == PN_ENDED), "");
    uint32_t index, number;
    for (int n = 0; n < SLOTS; n++)
        CHECK(pn_table_claim(table, &index, &number) == 0, "");
}

static const struct operation operations[] = {
    {"end", before_end, do_nothing, do_end, after_end, drop_table},
    {"end_crowded", before_end_crowded, do_nothing, do_end, after_end_crowded, drop_table},
    {"claim", fresh_table, do_nothing, do_claim, after_claim, drop_table},
    {"ask", claim_one, do_nothing, do_ask, after_ask, drop_table},
    {"finish", claim_one, do_nothing, do_finish, after_finish, drop_table},
    {"take", claim_one, do_nothing, do_take, after_life, drop_table},
    {"drop", claim_one, do_nothing, do_drop, after_life, drop_table},
    {"free", before_free, do_nothing, do_free, after_free, drop_table},
};

int main(int count, char **arguments)
{
    int result = run_operations(operations, sizeof operations / sizeof operations[0], count, arguments);
    if (count < 3 && (count < 2 || strcmp(arguments[1], "end") == 0)) {
        (void)printf("%ld times between the end and the wake\n", ended_unwoken);
        CHECK(ended_unwoken > 0, "the window was not met");
    }
    return result;
}

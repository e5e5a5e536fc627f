/* Races: threads over one mapping, so that a thread sanitizer sees every pair of them.
 *
 *   turns     everybody claims, uses and gives back the slots of a small table
 *   ends      three reapers end one process, three waiters wait for it, one reader looks on
 *   starts    an owner asks a spare that is being ended
 *
 * argv[1]: rounds. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "check.h"
#include "table.h"

#define SLOTS 8
#define THREADS 6

static struct pn_table *table;
static long rounds;

/* --- turns --- */

static _Atomic int users[SLOTS];
static _Atomic uint32_t stale[SLOTS]; /* a generation of each slot that is over */

static void use(uint32_t index, uint32_t generation, unsigned int number)
{
    struct pn_slot *slot = &table->slots[index];
    CHECK(atomic_fetch_add(&users[index], 1) == 0, "slot %u has two users", index);
    char name[32];
    int size = snprintf(name, sizeof name, "thread-%u", number);
    struct pn_request request = {number, PN_SPAWN,    PN_FLAG_DAEMON, 5,
                                 name,   "mod.fn",    (size_t)size,   6};
    CHECK(pn_slot_ask(slot, generation, &request) == 1, "slot %u", index);
    CHECK(pn_slot_state(slot, generation) == PN_ASKED, "slot %u", index);
    pn_slot_run(slot);
    pn_slot_finish(slot, PN_RAISED, (int32_t)number, "a text", 6);
    /* somebody who was late for the one before us */
    uint32_t old = atomic_load(&stale[index]);
    CHECK(old == 0 || old == generation || pn_slot_set_flags(slot, old, PN_FLAG_OOM) == -ESRCH,
          "slot %u took a flag for generation %u", index, old);
    CHECK(pn_table_free(table, slot, generation) == 0, "slot %u was freed alive", index);
    struct pn_end end = {(int32_t)number, 0, number, number, number};
    CHECK(pn_slot_end(table, slot, &end) == 1, "slot %u", index);
    struct pn_view view;
    pn_slot_read(slot, &view);
    CHECK(view.generation == generation && view.state == PN_ENDED && view.owner == number &&
              view.wait_status == (int32_t)number && view.flags == PN_FLAG_DAEMON &&
              view.how == PN_RAISED && strcmp(view.name, name) == 0 &&
              strcmp(view.text, "a text") == 0,
          "slot %u: state %u flags %u name %s", index, (unsigned)view.state, view.flags, view.name);
    atomic_store(&stale[index], generation);
    atomic_fetch_sub(&users[index], 1);
    CHECK(pn_table_free(table, slot, generation) == 1, "slot %u", index);
    CHECK(pn_table_free(table, slot, generation) == 0, "slot %u was freed twice", index);
}

static void *take_turns(void *argument)
{
    unsigned int number = (unsigned int)(uintptr_t)argument;
    for (long n = 0; n < rounds; n++) {
        uint32_t index, generation;
        int result = pn_table_claim(table, &index, &generation);
        if (result == -ENOSPC) {
            (void)sched_yield();
            continue;
        }
        CHECK(result == 0 && index < SLOTS && generation != 0, "%d", result);
        use(index, generation, number);
    }
    return NULL;
}

static void turns(void)
{
    pthread_t threads[THREADS];
    for (uintptr_t n = 0; n < THREADS; n++)
        CHECK(pthread_create(&threads[n], NULL, take_turns, (void *)(n + 1)) == 0, "");
    for (int n = 0; n < THREADS; n++)
        (void)pthread_join(threads[n], NULL);
    uint32_t index, generation;
    for (int n = 0; n < SLOTS; n++)
        CHECK(pn_table_claim(table, &index, &generation) == 0, "%d slots of %d are left", n, SLOTS);
    CHECK(pn_table_claim(table, &index, &generation) == -ENOSPC, "");
    for (uint32_t n = 0; n < SLOTS; n++) {
        struct pn_end end = {0};
        CHECK(pn_slot_end(table, &table->slots[n], &end) == 1, "");
        generation = pn_word_generation(atomic_load(&table->slots[n].word));
        CHECK(pn_table_free(table, &table->slots[n], generation) == 1, "");
    }
}

/* --- ends --- */

#define REAPERS 3
#define WAITERS 3

static pthread_barrier_t begin, done;
static struct pn_slot *ending;
static uint32_t ending_generation;
static _Atomic int winner;
static _Atomic int over;

static void *reap(void *argument)
{
    int number = (int)(uintptr_t)argument;
    for (long n = 0; n < rounds; n++) {
        (void)pthread_barrier_wait(&begin);
        struct pn_end end = {number, 0, number * 10, number * 100, number * 1000};
        if (pn_slot_end(table, ending, &end))
            CHECK(atomic_exchange(&winner, number) == 0, "two reapers won in round %ld", n);
        (void)pthread_barrier_wait(&done);
    }
    return NULL;
}

static void *await(void *argument)
{
    (void)argument;
    for (long n = 0; n < rounds; n++) {
        (void)pthread_barrier_wait(&begin);
        int result = pn_slot_wait(ending, ending_generation, pn_now_ns() + LIMIT);
        CHECK(result == 1, "%d in round %ld", result, n);
        CHECK(pn_slot_state(ending, ending_generation) == PN_ENDED, "in round %ld", n);
        (void)pthread_barrier_wait(&done);
    }
    return NULL;
}

static void *look_on(void *argument)
{
    (void)argument;
    while (!atomic_load(&over)) {
        struct pn_view view;
        pn_slot_read(ending, &view);
        if (view.state != PN_ENDED)
            continue;
        int32_t number = view.wait_status; /* one reaper's figures, all of them */
        CHECK(number >= 1 && number <= REAPERS && view.utime_ns == number * 10 &&
                  view.stime_ns == number * 100 && view.max_rss_kib == number * 1000 &&
                  view.ended_ns > 0 && !(view.flags & PN_FLAG_LOST),
              "figures of different reapers: %d %ld %ld %ld", number, (long)view.utime_ns,
              (long)view.stime_ns, (long)view.max_rss_kib);
    }
    return NULL;
}

static void ends(void)
{
    pthread_t threads[REAPERS + WAITERS], reader;
    uint32_t index;
    CHECK(pthread_barrier_init(&begin, NULL, REAPERS + WAITERS + 1) == 0, "");
    CHECK(pthread_barrier_init(&done, NULL, REAPERS + WAITERS + 1) == 0, "");
    ending = &table->slots[0];
    for (uintptr_t n = 0; n < REAPERS + WAITERS; n++)
        CHECK(pthread_create(&threads[n], NULL, n < REAPERS ? reap : await, (void *)(n + 1)) == 0,
              "");
    CHECK(pthread_create(&reader, NULL, look_on, NULL) == 0, "");
    uint64_t before = atomic_load(&table->ended_count);
    for (long n = 0; n < rounds; n++) {
        do { /* always the same slot, so that readers stay on it */
            CHECK(pn_table_claim(table, &index, &ending_generation) == 0, "");
            if (index != 0) {
                struct pn_end end = {0};
                (void)pn_slot_end(table, &table->slots[index], &end);
                (void)pn_table_free(table, &table->slots[index], ending_generation);
                before++;
            }
        } while (index != 0);
        atomic_store(&winner, 0);
        (void)pthread_barrier_wait(&begin);
        (void)pthread_barrier_wait(&done);
        struct pn_view view;
        pn_slot_read(ending, &view);
        CHECK(view.wait_status == atomic_load(&winner), "the figures are not the winner's");
        CHECK(atomic_load(&ending->endings_taken) == 1u << (pn_word_ending(ending->word) - 1),
              "endings %x are left", atomic_load(&ending->endings_taken));
        CHECK(pn_table_free(table, ending, ending_generation) == 1, "");
        CHECK(pn_slot_wait(ending, ending_generation, PN_FOREVER) == 1, "its end is over");
    }
    CHECK(atomic_load(&table->ended_count) - before == (uint64_t)rounds, "");
    atomic_store(&over, 1);
    for (int n = 0; n < REAPERS + WAITERS; n++)
        (void)pthread_join(threads[n], NULL);
    (void)pthread_join(reader, NULL);
}

/* --- starts --- */

static pthread_barrier_t ready, settled;
static _Atomic int asked;

static void *ask(void *argument)
{
    (void)argument;
    const struct pn_request request = {7, PN_FORKSERVER, 0, 5, "name", "target", 4, 6};
    for (long n = 0; n < rounds; n++) {
        (void)pthread_barrier_wait(&ready);
        atomic_store(&asked, pn_slot_ask(ending, ending_generation, &request));
        (void)pthread_barrier_wait(&settled);
    }
    return NULL;
}

static void starts(void)
{
    pthread_t owner;
    uint32_t index;
    CHECK(pthread_barrier_init(&ready, NULL, 2) == 0, "");
    CHECK(pthread_barrier_init(&settled, NULL, 2) == 0, "");
    CHECK(pthread_create(&owner, NULL, ask, NULL) == 0, "");
    for (long n = 0; n < rounds; n++) {
        CHECK(pn_table_claim(table, &index, &ending_generation) == 0, "");
        ending = &table->slots[index];
        (void)pthread_barrier_wait(&ready);
        struct pn_end end = {9, 0, 0, 0, 0};
        CHECK(pn_slot_end(table, ending, &end) == 1, "an ask must not win over an end");
        (void)pthread_barrier_wait(&settled);
        struct pn_view view;
        pn_slot_read(ending, &view);
        CHECK(view.state == PN_ENDED && view.wait_status == 9, "");
        CHECK(!atomic_load(&asked) || (view.owner == 7 && strcmp(view.target, "target") == 0),
              "asked, and nobody knows by whom");
        CHECK(pn_table_free(table, ending, ending_generation) == 1, "");
    }
    (void)pthread_join(owner, NULL);
}

int main(int count, char **arguments)
{
    rounds = count > 1 ? atol(arguments[1]) : 1000;
    int fd;
    CHECK(pn_table_create(SLOTS, &table, &fd) == 0, "");
    (void)close(fd);
    turns();
    ends();
    starts();
    (void)printf("%ld rounds\n", rounds);
    return 0;
}

/* SIGKILL at every instruction of what is done with a ring.
 *
 * After each death another process drains the ring and finds all records that were there before,
 * whole and in order, with or without the one in question; it then uses the ring as ever. Where
 * somebody slept at a gate, it comes to its end. argv[1]: which operation; without, or "": all.
 * argv[2]: only every so many instructions. */
#define _GNU_SOURCE
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "identity.h"
#include "operations.h"
#include "ring.h"

#define BUDGET ((uint64_t)32 * 1024 * 1024)

static struct pn_table *table;
static struct pn_self self;
static struct pn_ring ring;
static uint64_t first, next_number; /* records that are in the ring: first <= n < next_number */
static size_t last_size;
static pid_t waiter;

/* --- records that know what they are --- */

#define LARGEST ((size_t)2 * 1024 * 1024)

static unsigned char bytes[LARGEST];
static unsigned char got[LARGEST];

static void write_record(uint64_t number, size_t size)
{
    memset(bytes, (int)(number & 0xff), size);
    memcpy(bytes, &number, sizeof number);
}

static int put(uint64_t number, size_t size, int64_t deadline)
{
    write_record(number, size);
    struct pn_part part = {bytes, size};
    return pn_ring_put(&ring, 7, &part, 1, deadline);
}

static int get(uint64_t *ret_number, int64_t deadline)
{
    struct pn_record record = {.bytes = got, .room = sizeof got};
    int result = pn_ring_get(&ring, &record, deadline);
    if (result != 0)
        return result;
    if (record.user != NULL)
        pn_user_has(record.user);
    CHECK(record.kind == 7 && record.size >= 8, "killed after %ld steps", killed_at);
    memcpy(ret_number, record.bytes, 8);
    for (size_t n = 8; n < record.size; n++)
        CHECK(record.bytes[n] == (unsigned char)*ret_number, "byte %zu of %zu; killed after %ld", n,
              record.size, killed_at);
    return 0;
}

static void make_ring(uint64_t maxsize)
{
    int fd, bell;
    void *head = mmap(NULL, sizeof(struct pn_ring_head), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(head != MAP_FAILED && pn_ring_create(head, BUDGET, maxsize, &fd, &bell) == 0, "");
    CHECK(pn_ring_open(&self, head, fd, bell, &ring) == 0, "");
    first = next_number = 0;
}

static void drop_ring(void)
{
    pn_ring_close(&ring);
    (void)close(ring.fd);
    (void)close(ring.bell);
    (void)munmap(ring.head, sizeof *ring.head);
}

static void fill(int count, size_t size)
{
    for (int n = 0; n < count; n++)
        CHECK(put(next_number++, size, PN_FOREVER) == 0, "");
}

static void take(int count)
{
    uint64_t number;
    for (int n = 0; n < count; n++)
        CHECK(get(&number, PN_FOREVER) == 0 && number == first++, "");
}

static int64_t soon(void)
{
    return pn_now_ns() + LIMIT;
}

/* What is in it comes out, perhaps with one record less at the front or more at the end. */
static void drain(int less, int more)
{
    uint64_t number, count = pn_ring_count(&ring);
    uint64_t expected = next_number - first;
    CHECK(count == expected || (less && count + 1 == expected) || (more && count == expected + 1),
          "%lu records of %lu; killed after %ld steps", (unsigned long)count,
          (unsigned long)expected, killed_at);
    if (count + 1 == expected)
        first++;
    for (uint64_t n = 0; n < count; n++)
        CHECK(get(&number, soon()) == 0 && number == first + n, "record %lu is %lu; killed after %ld",
              (unsigned long)(first + n), (unsigned long)number, killed_at);
    CHECK(get(&number, PN_RING_NOW) == -EAGAIN, "");
    first += count;
    next_number = first;
}

/* It goes on being of use: over several turns around, and larger. */
static void use(void)
{
    static const size_t sizes[] = {8, 100, 20000, 9, 30000, 64};
    for (int turn = 0; turn < 2; turn++) {
        for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; n++)
            fill(1, sizes[n]);
        take(sizeof sizes / sizeof sizes[0]);
    }
}

/* --- waiters --- */

static void start_waiter(int (*wait)(void))
{
    waiter = fork();
    CHECK(waiter >= 0, "");
    if (waiter == 0)
        _exit(wait());
    wait_asleep(waiter);
}

static void join_waiter(void)
{
    int64_t deadline = soon();
    int status;
    pid_t got;
    while ((got = waitpid(waiter, &status, WNOHANG)) == 0) {
        if (pn_now_ns() > deadline) {
            (void)kill(waiter, SIGKILL);
            fail(__FILE__, __LINE__, "the waiter hangs; killed after %ld steps", killed_at);
        }
        (void)sched_yield();
    }
    CHECK(got == waiter && status == 0, "%x; killed after %ld steps", (unsigned)status, killed_at);
}

static int wait_get(void)
{
    uint64_t number;
    return get(&number, PN_FOREVER) == 0 ? 0 : 2;
}

static int wait_put(void)
{
    return put(1000, 8, PN_FOREVER) == 0 ? 0 : 2;
}

static int wait_join(void)
{
    return pn_ring_join(&ring, PN_FOREVER) == 0 ? 0 : 2;
}

/* --- the operations --- */

static void sit_down(void)
{
    uint64_t owner;
    if (pn_self_owner(&self, &owner) != 0)
        _exit(3);
    /* mapped, as in a process that uses the ring for long; what grows maps it anew */
    if (pn_ring_poll(&ring, pn_now_ns()) < 0 || pn_ring_open_holds(&ring) != 0)
        _exit(4);
    write_record(next_number, last_size);
}

static void do_put(void)
{
    struct pn_part part = {bytes, last_size};
    (void)pn_ring_put(&ring, 7, &part, 1, PN_FOREVER);
}

static void do_get(void)
{
    struct pn_record record = {.bytes = got, .room = sizeof got};
    (void)pn_ring_get(&ring, &record, PN_FOREVER);
}

static void before_put(void)
{
    make_ring(0);
    fill(3, 64);
    last_size = 64;
}

static void after_put(void)
{
    drain(0, 1);
    use();
}

static void before_put_growing(void) /* no room at the end, too little at the front */
{
    make_ring(0);
    fill(60, 1000);
    take(30);
    fill(5, 1000);
    last_size = 800;
}

static void before_put_around(void) /* it goes on at the front */
{
    make_ring(0);
    fill(60, 1000);
    take(58);
    fill(4, 1000);
    last_size = 900;
}

static void before_put_armed(void)
{
    make_ring(0);
    CHECK(pn_ring_arm(&ring) == 0, "");
    last_size = 64;
}

static void after_armed(void)
{
    uint64_t rung = 0, count = pn_ring_count(&ring);
    CHECK(pn_ring_poll(&ring, 0) == (count != 0), ""); /* whoever looks puts the bell right */
    int says = read(ring.bell, &rung, sizeof rung) == sizeof rung;
    CHECK(says == (count != 0), "the bell says %d; killed after %ld steps", says, killed_at);
    drain(1, 1);
    use();
}

static void before_get(void)
{
    make_ring(0);
    fill(3, 64);
}

static void after_get(void)
{
    uint64_t owner, number = 0, missing = next_number - first - pn_ring_count(&ring);
    CHECK(pn_users_reap(&ring, &owner, &number) == missing && pn_ring_lost(&ring) == missing,
          "%lu missing, %lu lost; killed after %ld steps", (unsigned long)missing,
          (unsigned long)pn_ring_lost(&ring), killed_at);
    CHECK(number == (missing == 0 ? 0 : next_number - pn_ring_count(&ring)),
          "put %lu was lost; killed after %ld steps", (unsigned long)number, killed_at);
    drain(1, 0);
    use();
}

static void before_get_last(void) /* which gives memory back */
{
    make_ring(0);
    fill(1, 1100 * 1024);
    fill(1, 64);
    take(1);
}

static void before_get_armed(void)
{
    make_ring(0);
    CHECK(pn_ring_arm(&ring) == 0, "");
    fill(1, 64);
}

static void before_wake_getter(void)
{
    make_ring(0);
    last_size = 64;
    start_waiter(wait_get);
}

static void after_wake_getter(void)
{
    CHECK(put(5, 64, soon()) == 0, "");
    join_waiter();
    uint64_t number;
    while (get(&number, PN_RING_NOW) == 0)
        ;
    use();
}

static void before_wake_putter(void)
{
    make_ring(1);
    fill(1, 64);
    start_waiter(wait_put);
}

static void after_wake_putter(void)
{
    uint64_t number;
    if (get(&number, soon()) == 0 && number != 1000)
        CHECK(get(&number, soon()) == 0 && number == 1000, "%lu", (unsigned long)number);
    join_waiter();
}

static void before_done(void)
{
    make_ring(0);
    fill(1, 64);
    take(1);
    start_waiter(wait_join);
}

static void do_done(void)
{
    (void)pn_ring_done(&ring);
}

static void after_done(void)
{
    int result = pn_ring_done(&ring);
    CHECK(result == 0 || result == -ERANGE, "%d", result);
    join_waiter();
    use();
}

static void before_shut(void)
{
    make_ring(0);
    fill(3, 64);
}

static void do_shut(void)
{
    uint64_t kept, dropped;
    (void)pn_ring_shut(&ring, 0, &kept, &dropped);
}

static void do_shut_at_once(void)
{
    uint64_t kept, dropped;
    (void)pn_ring_shut(&ring, 1, &kept, &dropped);
}

static void after_shut(void)
{
    uint64_t number, kept, dropped, count = pn_ring_count(&ring);
    CHECK(count == 3 || (count == 0 && pn_ring_flags(&ring) != 0 && pn_ring_unfinished(&ring) == 0),
          "%lu left; killed after %ld steps", (unsigned long)count, killed_at);
    CHECK(pn_ring_shut(&ring, 0, &kept, &dropped) == 0 && kept == dropped && kept == 3 - count, "");
    CHECK(put(9, 64, soon()) == -ESHUTDOWN, "");
    for (uint64_t n = 0; n < count; n++)
        CHECK(get(&number, soon()) == 0 && number == n, "");
    CHECK(get(&number, soon()) == -ESHUTDOWN, "");
}

/* --- extents --- */

static int put_far(uint64_t number)
{
    uint32_t extent;
    unsigned char record[16] = {0};
    int result = pn_extent_reserve(&ring, 4096, &extent);
    if (result != 0)
        return result;
    result = pn_extent_write(&ring, extent, 0, &number, sizeof number);
    memcpy(record, &extent, sizeof extent);
    struct pn_part part = {record, sizeof record};
    if (result == 0)
        result = pn_ring_put(&ring, PN_RING_FAR | 7, &part, 1, PN_FOREVER);
    pn_extent_release(&ring, extent);
    return result;
}

static int get_far(uint64_t *ret_number)
{
    struct pn_record record = {.bytes = got, .room = sizeof got};
    int result = pn_ring_get(&ring, &record, soon());
    if (result != 0)
        return result;
    uint64_t *memory = pn_holds_map(ring.holds, ring.head->extents[record.extent].offset, 4096);
    if (memory == NULL)
        return -ENOMEM;
    *ret_number = *memory;
    (void)munmap(memory, 4096);
    pn_extent_release(&ring, record.extent);
    return 0;
}

static void before_far(void)
{
    make_ring(0);
    for (uint64_t n = 0; n < 2; n++)
        CHECK(put_far(n) == 0, "");
}

static void do_put_far(void)
{
    (void)put_far(2);
}

static void do_get_far(void)
{
    uint64_t number;
    (void)get_far(&number);
}

static void after_far(void)
{
    uint64_t number, count = pn_ring_count(&ring), begin = count == 1 ? 1 : 0;
    CHECK(count >= 1 && count <= 3, "%lu; killed after %ld steps", (unsigned long)count, killed_at);
    CHECK(put_far(77) == 0, ""); /* which must not take what the others lie in */
    for (uint64_t n = 0; n < count; n++)
        CHECK(get_far(&number) == 0 && number == begin + n, "%lu; killed after %ld steps",
              (unsigned long)number, killed_at);
    CHECK(get_far(&number) == 0 && number == 77, "%lu", (unsigned long)number);
    pn_extents_trim(&ring);
    for (uint32_t n = 0; n < PN_EXTENTS; n++)
        CHECK(ring.head->extents[n].size == 0, "extent %u stays; killed after %ld steps", n,
              killed_at);
}

static const struct operation operations[] = {
    {"put", before_put, sit_down, do_put, after_put, drop_ring},
    {"put_growing", before_put_growing, sit_down, do_put, after_put, drop_ring},
    {"put_around", before_put_around, sit_down, do_put, after_put, drop_ring},
    {"put_armed", before_put_armed, sit_down, do_put, after_armed, drop_ring},
    {"get", before_get, sit_down, do_get, after_get, drop_ring},
    {"get_last", before_get_last, sit_down, do_get, after_get, drop_ring},
    {"get_armed", before_get_armed, sit_down, do_get, after_armed, drop_ring},
    {"wake_getter", before_wake_getter, sit_down, do_put, after_wake_getter, drop_ring},
    {"wake_putter", before_wake_putter, sit_down, do_get, after_wake_putter, drop_ring},
    {"done", before_done, sit_down, do_done, after_done, drop_ring},
    {"put_far", before_far, sit_down, do_put_far, after_far, drop_ring},
    {"get_far", before_far, sit_down, do_get_far, after_far, drop_ring},
    {"shut", before_shut, sit_down, do_shut, after_shut, drop_ring},
    {"shut_at_once", before_shut, sit_down, do_shut_at_once, after_shut, drop_ring},
};

int main(int count, char **arguments)
{
    int fd;
    CHECK(pn_table_create(64, &table, &fd) == 0 && pn_self_open(table, &self) == 0, "");
    return run_operations(operations, sizeof operations / sizeof operations[0], count, arguments);
}

/* The table of processes: what every process of one program maps, byte by byte.
 *
 * It lies in one sealed memfd: a header, then slots of equal size. All processes that map it have
 * the same word size and C library. Offsets are in bytes, times in nanoseconds of CLOCK_MONOTONIC.
 *
 * `word` of a slot says who has it and how far it is:
 *
 *     bits  0-3   state (enum pn_state)
 *     bits  4-7   when ENDED or FREE after it: 1 + the number of the ending that counts, 0 = none
 *     bits  8-31  the low 24 bits of the generation
 *     bits 32-63  generation: counts the uses of the slot, never 0 once it was claimed
 *
 * Every change of state is one compare-and-swap of the whole word, so nobody can change the slot of
 * a successor. The low half is the futex that waiters sleep on; it holds part of the generation so
 * that a slot which was freed, claimed and brought to the same state meanwhile still differs.
 *
 * Who writes what, and when it may be read (by a reader who sees the same word before and after):
 *
 *   from CLAIMED   the claimer           life; everything else is zero
 *   from SPARE     the process itself    pid (also its parent, who knows it first), start_time,
 *                                        view; it takes `life` if this is its first thread
 *   from ASKED     its starter           owner, method, name, target, asked_ns
 *   from RUNNING   the process itself    running_ns
 *   at any time    the process itself    text and exit_code, then `how` by a store with release:
 *                                        while `how` is 0 there are no last words
 *   at any time    anybody               flags (only with the right generation in them), blame
 *   at any time    the process itself    waits, code_ended_ns: what it is doing, for who looks on
 *   at any time    who waits for it      joined_since_ns
 *   from ENDED     its reaper            the ending that `word` names, never the others
 *
 * An ending: whoever means to end a slot takes one of its `endings` (a bit of `endings_taken`),
 * fills it in, and publishes it by swapping its number into the word together with ENDED. That swap
 * is the end: before it nothing has happened, after it everything has, and of two racers one wins.
 * One who was killed in between leaves a bit set and nothing else. Where all endings are taken, the
 * number is 0: ended, status lost.
 *
 * `life` is a robust mutex that the process's first thread holds as long as it lives. The kernel
 * marks its futex word and wakes a waiter when that thread ends or executes another program, before
 * it tears down the memory (get_robust_list(2)). Nobody ever locks it to find that out: taking a
 * dead owner's mutex would wipe the mark away.
 *
 * Nothing in here must survive the program: there is no recovery, only the rule above that a death
 * at any instruction leaves every slot in a state that the next reaper can go on from. A claimer
 * that is killed inside of claim leaves one slot CLAIMING for good.
 */
#ifndef PN_FORMAT_H
#define PN_FORMAT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PN_MAGIC 0x314e4f4953534f50ull /* "POSSION1" in memory order */
#define PN_FORMAT 4u
#define PN_TABLE_NAME "procession-table"
#define PN_ENDINGS 3 /* reapers of one process at work at once: zygote, guard, owner */
#define PN_NAME_SIZE 96 /* texts are UTF-8 and end with a zero byte */
#define PN_TARGET_SIZE 96
#define PN_TEXT_SIZE 192
#define PN_LIFE_SIZE 56
#define PN_WAIT_TAKEN UINT64_MAX /* `whom` while `since_ns` is written */
#define PN_WAITS 3 /* threads of one process whose waits are seen; those of more go unseen */

enum pn_state { PN_FREE, PN_CLAIMED, PN_SPARE, PN_ASKED, PN_RUNNING, PN_ENDED, PN_CLAIMING };
enum pn_how { PN_HOW_NONE, PN_RETURNED, PN_RAISED, PN_EXITED };
enum pn_method { PN_METHOD_NONE, PN_FORKSERVER, PN_SPAWN, PN_FORK };
enum pn_flag {
    PN_FLAG_DAEMON = 1,
    PN_FLAG_RELEASED = 2, /* its owner let go of it: the guard may free the slot once it ended */
    PN_FLAG_LOST = 4,     /* nobody could collect its wait status */
    PN_FLAG_OOM = 8,      /* a SIGKILL that goes with an out-of-memory kill of its cgroup */
    PN_FLAG_GUEST = 16,   /* took the slot by itself, and nobody reaps it: see identity.h */
};
enum pn_life { PN_LIFE_FREE, PN_LIFE_HELD, PN_LIFE_DIED };

struct pn_ending {
    _Atomic int32_t wait_status;  /*  0  as of wait(2); -1: lost */
    _Atomic uint32_t flags;       /*  4  enum pn_flag, what the reaper adds */
    _Atomic int64_t utime_ns;     /*  8  CPU time, of the process and of all it waited for */
    _Atomic int64_t stime_ns;     /* 16 */
    _Atomic int64_t max_rss_kib;  /* 24  KiB */
    _Atomic int64_t ended_ns;     /* 32 */
};

struct pn_wait {
    _Atomic uint64_t whom;    /*  0  generation << 32 | slot of the process waited for; 0: no wait */
    _Atomic int64_t since_ns; /*  8  valid with whom */
};

union pn_life_word {
    pthread_mutex_t mutex;
    unsigned char room[PN_LIFE_SIZE];
};

struct pn_slot {
    _Atomic uint64_t word;          /*   0  above; futex in its low half */
    _Atomic uint64_t flags;         /*   8  generation << 32 | mark << 8 | enum pn_flag; the mark of a
                                            forked child: 24 bits of its guard's generation */
    _Atomic uint64_t blame;         /*  16  pid << 32 | signal: who of this program sent which last */
    _Atomic uint64_t owner;         /*  24  its starter: generation << 32 | slot */
    _Atomic uint64_t start_time;    /*  32  clock ticks since boot (proc_pid_stat(5), field 22) */
    _Atomic int32_t pid;            /*  40  in the pid namespace of the program */
    _Atomic uint32_t method;        /*  44  enum pn_method */
    _Atomic uint32_t how;           /*  48  enum pn_how: its last words */
    _Atomic int32_t exit_code;      /*  52  what it meant to exit with; valid with how */
    _Atomic int64_t asked_ns;       /*  56  when its starter began */
    _Atomic int64_t running_ns;     /*  64  when its code began; 0: not yet */
    _Atomic uint32_t endings_taken; /*  72  bit n: endings[n] is somebody's */
    _Atomic uint32_t view;          /*  76  of pids and start times, see death.h; 0: unknown */
    struct pn_ending endings[PN_ENDINGS];        /*  80 */
    union pn_life_word life;                     /* 200 */
    _Atomic uint64_t name[PN_NAME_SIZE / 8];     /* 256 */
    _Atomic uint64_t target[PN_TARGET_SIZE / 8]; /* 352  what it runs: module.function */
    _Atomic uint64_t text[PN_TEXT_SIZE / 8];     /* 448  its exception in a line; valid with how */
    struct pn_wait waits[PN_WAITS];              /* 640 */
    _Atomic int64_t code_ended_ns; /* 688  when its code had ended and it began to exit; 0: not yet */
    _Atomic int64_t joined_since_ns; /* 696  when somebody began to wait for its end; 0: nobody did */
};

struct pn_table {
    uint64_t magic;               /*   0 */
    uint32_t format;              /*   8 */
    uint32_t slot_size;           /*  12  bytes */
    uint32_t slot_count;          /*  16 */
    uint32_t spare;               /*  20 */
    _Atomic uint32_t hint;        /*  24  where to look for a free slot first */
    _Atomic uint32_t top;         /*  28  no slot at or beyond this was ever claimed */
    _Atomic uint32_t in_use;      /*  32  slots in use, or a little more: the killed do not count */
    _Atomic uint32_t recorded;    /*  36  whether the guard writes a recording: tell it more */
    _Atomic uint64_t ended_count; /*  40  ends so far, or a little less: the killed do not count */
    uint64_t inode;               /*  48  of its memfd, as /proc/pid/maps shows it */
    unsigned char id[16];         /*  56  random: the same table, whoever maps it */
    _Atomic uint32_t full;        /*  72  the guard has no room for one more forked child */
    unsigned char spare2[628];    /*  76 */
    struct pn_slot slots[];       /* 704 */
};

#define PN_AT(type, member, offset) \
    _Static_assert(offsetof(type, member) == (offset), #member " moved: bump PN_FORMAT")
PN_AT(struct pn_ending, wait_status, 0);
PN_AT(struct pn_ending, flags, 4);
PN_AT(struct pn_ending, utime_ns, 8);
PN_AT(struct pn_ending, stime_ns, 16);
PN_AT(struct pn_ending, max_rss_kib, 24);
PN_AT(struct pn_ending, ended_ns, 32);
PN_AT(struct pn_slot, word, 0);
PN_AT(struct pn_slot, flags, 8);
PN_AT(struct pn_slot, blame, 16);
PN_AT(struct pn_slot, owner, 24);
PN_AT(struct pn_slot, start_time, 32);
PN_AT(struct pn_slot, pid, 40);
PN_AT(struct pn_slot, method, 44);
PN_AT(struct pn_slot, how, 48);
PN_AT(struct pn_slot, exit_code, 52);
PN_AT(struct pn_slot, asked_ns, 56);
PN_AT(struct pn_slot, running_ns, 64);
PN_AT(struct pn_slot, endings_taken, 72);
PN_AT(struct pn_slot, view, 76);
PN_AT(struct pn_slot, endings, 80);
PN_AT(struct pn_slot, life, 200);
PN_AT(struct pn_slot, name, 256);
PN_AT(struct pn_slot, target, 352);
PN_AT(struct pn_slot, text, 448);
PN_AT(struct pn_slot, waits, 640);
PN_AT(struct pn_slot, code_ended_ns, 688);
PN_AT(struct pn_slot, joined_since_ns, 696);
_Static_assert(sizeof(struct pn_slot) == 704, "a slot is 11 cache lines: bump PN_FORMAT with it");
PN_AT(struct pn_wait, whom, 0);
PN_AT(struct pn_wait, since_ns, 8);
_Static_assert(sizeof(union pn_life_word) == PN_LIFE_SIZE, "the life mutex outgrew its room");
PN_AT(struct pn_table, magic, 0);
PN_AT(struct pn_table, format, 8);
PN_AT(struct pn_table, slot_size, 12);
PN_AT(struct pn_table, slot_count, 16);
PN_AT(struct pn_table, hint, 24);
PN_AT(struct pn_table, top, 28);
PN_AT(struct pn_table, in_use, 32);
PN_AT(struct pn_table, recorded, 36);
PN_AT(struct pn_table, ended_count, 40);
PN_AT(struct pn_table, inode, 48);
PN_AT(struct pn_table, id, 56);
PN_AT(struct pn_table, full, 72);
PN_AT(struct pn_table, slots, 704);

/* A lock inside an atomic would be one more thing that a SIGKILL leaves locked. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics need locks");
_Static_assert(sizeof(void *) == 8, "32-bit systems: their futex takes another timespec");

/* What the rules above order by the word needs no order of its own. */
#define PN_GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define PN_SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

static inline uint64_t pn_word(uint32_t generation, enum pn_state state, uint32_t ending)
{
    return (uint64_t)generation << 32 | (uint64_t)(generation & 0xffffff) << 8 | ending << 4 |
           (uint32_t)state;
}

static inline enum pn_state pn_word_state(uint64_t word)
{
    return (enum pn_state)(word & 0xf);
}

static inline uint32_t pn_word_ending(uint64_t word)
{
    return (uint32_t)(word >> 4 & 0xf);
}

static inline uint32_t pn_word_generation(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/* From claim to end. */
static inline int pn_word_lives(uint64_t word)
{
    enum pn_state state = pn_word_state(word);
    return state >= PN_CLAIMED && state <= PN_RUNNING;
}

#endif

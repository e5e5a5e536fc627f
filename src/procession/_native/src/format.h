/* The table of processes: what every process of one program maps, byte by byte.
 *
 * It lies in one sealed memfd without a name: header, then slots. Whoever writes a slot:
 *
 *   claimed   the zygote (or a forking parent): generation, state
 *   spare     the process itself: pid, start_time, life
 *   asked     its starter: owner, method, name, target, asked_ns
 *   running   the process itself: running_ns, then how, exit_code, text as its last words
 *   ended     its reaper: wait_status, times, ended_ns; then `state`, by one store with release
 *
 * A slot is valid for a reader when `generation` is the one he was given, before and after he has
 * read it. `state` is a futex word: whoever waits for an end sleeps on it.
 *
 * `life` is a robust mutex that the process's first thread holds from its start on. The kernel
 * marks its futex word and wakes a waiter when that thread ends or executes another program, before
 * it tears down the memory (get_robust_list(2)): 0.1-0.4 ms after a SIGKILL at any size.
 */
#ifndef PN_FORMAT_H
#define PN_FORMAT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PN_MAGIC 0x314e4f4953534f50ull /* "POSSION1" in memory order */
#define PN_FORMAT 1u
#define PN_TABLE_NAME "procession-table"
#define PN_NAME_SIZE 96
#define PN_TEXT_SIZE 128

enum pn_state { PN_FREE, PN_CLAIMED, PN_SPARE, PN_ASKED, PN_RUNNING, PN_ENDED };
enum pn_how { PN_HOW_NONE, PN_RETURNED, PN_RAISED, PN_EXITED };
enum pn_method { PN_METHOD_NONE, PN_FORKSERVER, PN_SPAWN, PN_FORK, PN_MAIN };
enum pn_flag {
    PN_FLAG_DAEMON = 1,
    PN_FLAG_RELEASED = 2, /* its owner let go of it: the guard may free the slot once it ended */
    PN_FLAG_LOST = 4,     /* nobody could collect its wait status */
    PN_FLAG_OOM = 8,      /* a SIGKILL that goes with an out-of-memory kill of its cgroup */
};
enum pn_life { PN_LIFE_FREE, PN_LIFE_HELD, PN_LIFE_DIED };

struct pn_slot {
    _Atomic uint32_t state;      /*   0  enum pn_state; futex word */
    _Atomic uint32_t generation; /*   4  which process has this slot; never 0 once claimed */
    _Atomic uint32_t flags;      /*   8  enum pn_flag */
    uint32_t method;             /*  12  enum pn_method */
    uint64_t owner;              /*  16  its starter: generation << 32 | slot */
    int32_t pid;                 /*  24  in the pid namespace of the program */
    uint32_t how;                /*  28  enum pn_how: its own last words */
    uint64_t start_time;         /*  32  clock ticks since boot, field 22 of /proc/pid/stat */
    int32_t exit_code;           /*  40  what it meant to exit with */
    int32_t wait_status;         /*  44  as of wait(2); -1: lost */
    int32_t killer_pid;          /*  48  who of this program signalled it last */
    int32_t killer_signal;       /*  52  and with what */
    int64_t asked_ns;            /*  56  CLOCK_MONOTONIC, as all times here */
    int64_t running_ns;          /*  64 */
    int64_t ended_ns;            /*  72 */
    int64_t utime_ns;            /*  80  CPU time, of itself and of what it waited for */
    int64_t stime_ns;            /*  88 */
    int64_t max_rss_kib;         /*  96 */
    unsigned char spare1[24];    /* 104 */
    union {                      /* 128 */
        pthread_mutex_t life;
        unsigned char room[64];
    } life;
    char name[PN_NAME_SIZE];   /* 192  UTF-8, ended by a zero */
    char target[PN_NAME_SIZE]; /* 288  what it runs */
    char text[PN_TEXT_SIZE];   /* 384  its exception in a few words */
};

struct pn_table {
    uint64_t magic;               /*   0 */
    uint32_t format;              /*   8 */
    uint32_t slot_size;           /*  12  bytes */
    uint32_t slot_count;          /*  16 */
    uint32_t spare1;              /*  20 */
    _Atomic uint32_t hint;        /*  24  where to look for a free slot first */
    _Atomic uint32_t top;         /*  28  no slot at or beyond this was ever claimed */
    _Atomic uint64_t ended_count; /*  32  ends so far */
    unsigned char spare2[472];    /*  40 */
    struct pn_slot slots[];       /* 512 */
};

#define PN_AT(type, member, offset) \
    _Static_assert(offsetof(type, member) == (offset), #member " moved: bump PN_FORMAT")
PN_AT(struct pn_slot, state, 0);
PN_AT(struct pn_slot, generation, 4);
PN_AT(struct pn_slot, flags, 8);
PN_AT(struct pn_slot, method, 12);
PN_AT(struct pn_slot, owner, 16);
PN_AT(struct pn_slot, pid, 24);
PN_AT(struct pn_slot, how, 28);
PN_AT(struct pn_slot, start_time, 32);
PN_AT(struct pn_slot, exit_code, 40);
PN_AT(struct pn_slot, wait_status, 44);
PN_AT(struct pn_slot, killer_pid, 48);
PN_AT(struct pn_slot, killer_signal, 52);
PN_AT(struct pn_slot, asked_ns, 56);
PN_AT(struct pn_slot, running_ns, 64);
PN_AT(struct pn_slot, ended_ns, 72);
PN_AT(struct pn_slot, utime_ns, 80);
PN_AT(struct pn_slot, stime_ns, 88);
PN_AT(struct pn_slot, max_rss_kib, 96);
PN_AT(struct pn_slot, life, 128);
PN_AT(struct pn_slot, name, 192);
PN_AT(struct pn_slot, target, 288);
PN_AT(struct pn_slot, text, 384);
_Static_assert(sizeof(struct pn_slot) == 512, "a slot is 512 bytes: bump PN_FORMAT with it");
_Static_assert(sizeof(pthread_mutex_t) <= 64, "the life mutex outgrew its room");
PN_AT(struct pn_table, magic, 0);
PN_AT(struct pn_table, format, 8);
PN_AT(struct pn_table, slot_count, 16);
PN_AT(struct pn_table, hint, 24);
PN_AT(struct pn_table, ended_count, 32);
PN_AT(struct pn_table, slots, 512);

#endif

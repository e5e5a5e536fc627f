/* The table of processes and its slots. No Python, no allocation; negative errno is the error.
 *
 * Safe without the GIL, after fork(), and when the caller is killed at any instruction: what that
 * leaves behind is said in format.h. */
#ifndef PN_TABLE_H
#define PN_TABLE_H

#include <sys/types.h>

#include "format.h"
#include "futex.h"
#include "kernel.h"

/* --- the table (table.c) --- */

/* A table in a new memfd, mapped. 0 or -errno; the descriptor is close-on-exec.
 *
 *   -ENOTSUP   this C library's robust mutexes are not what life.c takes them for */
int pn_table_create(uint32_t slots, struct pn_table **ret_table, int *ret_fd);

/* Map a table that another process made; the descriptor stays the caller's.
 *
 *   -EBADF, ...   the descriptor cannot be mapped
 *   -EPROTO       not a table, another format, another size, or one that could shrink under us */
int pn_table_attach(int fd, struct pn_table **ret_table);

size_t pn_table_size(uint32_t slots);

/* Take a free slot: -ENOSPC when there is none. Slots that were in use lately are taken last. */
int pn_table_claim(struct pn_table *table, uint32_t *ret_index, uint32_t *ret_generation);

/* Give back the slot of a process that has ended. 1 when it was; 0 when it has not ended, when the
 * slot is another's, or when its death is not proved (death.h): a process that was given up as lost
 * goes on writing there, and a slot that is taken again is itself the proof that the one before is
 * dead. */
int pn_table_free(struct pn_table *table, struct pn_slot *slot, uint32_t generation);

/* Take this very slot, also from a process that is proved dead: 0, or -EBUSY. */
int pn_table_renew(struct pn_table *table, uint32_t index, uint32_t *ret_generation);

/* --- one process's way through its slot (slot.c) --- */

/* The calling process sits down: pid, start time, the life word if this is its first thread. Its
 * state only ever goes up. 0, or -ESRCH when the slot is free or was ended already. */
int pn_slot_enter(struct pn_slot *slot, enum pn_state state);

struct pn_request {
    uint64_t owner;
    uint32_t method, flags;
    int64_t asked_ns;
    const char *name, *target; /* bytes, cut where a UTF-8 character begins */
    size_t name_size, target_size;
};

/* SPARE or CLAIMED → ASKED: 1. 0 when it is too late: it ended, or the slot is another's. */
int pn_slot_ask(struct pn_slot *slot, uint32_t generation, const struct pn_request *request);

/* The process begins its user's code; of no effect when it was ended already. */
void pn_slot_run(struct pn_slot *slot);

/* The process's last words. Those that count are the last ones. */
void pn_slot_finish(struct pn_slot *slot, enum pn_how how, int32_t exit_code, const char *text,
                    size_t text_size);

struct pn_end {
    int32_t wait_status;
    uint32_t flags;
    int64_t utime_ns, stime_ns, max_rss_kib;
};

/* CLAIMED or SPARE → ENDED: it can be asked for no more. 1, or 0 when somebody has asked, or it does
 * not live. Nobody waits for such a slot. */
int pn_slot_withdraw(struct pn_table *table, struct pn_slot *slot, uint32_t generation);

/* Any living state → ENDED, and wake who waits. 1 for the one call that did it.
 *
 * The others wake the waiters, too: the first may have been killed before it came to that. So
 * nobody hangs as long as some reaper comes to the end of this function. */
int pn_slot_end(struct pn_table *table, struct pn_slot *slot, const struct pn_end *end);

/* The same, unless the slot is another's by now: then 0. */
int pn_slot_end_of(struct pn_table *table, struct pn_slot *slot, uint32_t generation,
                   const struct pn_end *end);

/* Set flags: all that are set then, or -ESRCH when the slot is another's. */
int64_t pn_slot_set_flags(struct pn_slot *slot, uint32_t generation, uint32_t bits);

/* Wait for the end, until deadline_ns (CLOCK_MONOTONIC, PN_FOREVER = no limit).
 *
 *   1            it has ended, or the slot has another process by now
 *   0            deadline passed
 *   -EINTR       a signal came */
int pn_slot_wait(struct pn_slot *slot, uint32_t generation, int64_t deadline_ns);

/* Say that the caller, whose slot this is, waits for another process's end: the place of the note,
 * or -EBUSY when as many of its threads wait already as there are places. */
int pn_slot_begin_wait(struct pn_table *table, struct pn_slot *slot, uint64_t whom);

/* The wait at this place is over. given_up: the one waited for, where that has not ended; else 0. */
void pn_slot_end_wait(struct pn_table *table, struct pn_slot *slot, int place, uint64_t given_up);

/* A wait as it was at one moment: 0 when there is none at this place. */
uint64_t pn_slot_read_wait(const struct pn_slot *slot, int place, int64_t *ret_since_ns);

enum pn_state pn_slot_state(const struct pn_slot *slot, uint32_t generation);

/* A slot as it was at one moment. */
struct pn_view {
    enum pn_state state;
    uint32_t generation, method, flags, how;
    int32_t pid, exit_code, wait_status, killer_pid, killer_signal;
    uint64_t start_time, owner;
    int64_t asked_ns, running_ns, ended_ns, utime_ns, stime_ns, max_rss_kib;
    char name[PN_NAME_SIZE], target[PN_TARGET_SIZE], text[PN_TEXT_SIZE];
};

void pn_slot_read(const struct pn_slot *slot, struct pn_view *ret_view);

/* --- its life word (life.c) --- */

int pn_life_init(struct pn_slot *slot);

/* Take it and keep it. 0, -EBUSY when another thread that lives has it. */
int pn_life_take(struct pn_slot *slot);

/* Put it down, before executing another program. 0, -EPERM when it is not the caller's. */
int pn_life_drop(struct pn_slot *slot);

enum pn_life pn_life_read(const struct pn_slot *slot);

/* Whether one can sleep until its holder dies, or lets go: on this word, while it has this value.
 * After that sleep, however it ended, call pn_life_heard(): the kernel wakes only one. */
int pn_life_listen(const struct pn_slot *slot, const uint32_t **ret_word, uint32_t *ret_value);
void pn_life_heard(const uint32_t *word, uint32_t value);

/* Wake all who listen, if the holder has died: whoever the kernel woke may have died as well. */
void pn_life_tell(const struct pn_slot *slot);

/* Start a thread that writes 1 to eventfd when the life word's holder has died; it ends in silence
 * when the slot goes to another process. The thread knows no Python, blocks all signals and lives
 * as long as the process: neither the mapping nor the descriptor may go before. */
int pn_life_watch(struct pn_slot *slot, int eventfd);

/* Whether this C library's robust mutexes are as life.c takes them to be. 0 or -ENOTSUP. */
int pn_life_check(void);

#endif

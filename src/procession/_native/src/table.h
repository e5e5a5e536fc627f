/* Operations on the table of processes. No Python, no allocation; negative errno is the error.
 * All are safe without the GIL, after fork(), and when killed at any instruction. */
#ifndef PN_TABLE_H
#define PN_TABLE_H

#include <sys/types.h>

#include "format.h"

/* A table in a new memfd, mapped. 0 or -errno; the descriptor is close-on-exec. */
int pn_table_create(uint32_t slots, struct pn_table **ret_table, int *ret_fd);

/* Map a table that another process made.
 *
 *   -EBADF, …   the descriptor cannot be mapped
 *   -EPROTO     not a table, another format, or too short for its own header */
int pn_table_attach(int fd, struct pn_table **ret_table);
size_t pn_table_size(uint32_t slots);

/* Take a free slot: -ENOSPC when there is none. */
int pn_table_claim(struct pn_table *table, uint32_t *ret_index, uint32_t *ret_generation);

/* Give back the slot of a process that has ended. 1 when it was, 0 when not. */
int pn_slot_free(struct pn_slot *slot, uint32_t generation);

/* SPARE or CLAIMED → ASKED. 0 when it is too late: it ended, or the slot is another's. */
int pn_slot_ask(struct pn_slot *slot, uint32_t generation);

/* The process begins its user's code. */
void pn_slot_run(struct pn_slot *slot);

struct pn_end {
    int32_t wait_status;
    int64_t utime_ns, stime_ns, max_rss_kib;
    uint32_t flags;
};

/* Any living state → ENDED, and wake who waits. 1 for the one call that did it.
 *
 * A reaper that is killed in here leaves the slot living: the fields are written first and `state`
 * last, and the next reaper (the guard after the zygote, main after both) does all of it again. So
 * there are never two at work on one slot while both live. */
int pn_slot_end(struct pn_table *table, struct pn_slot *slot, const struct pn_end *end);

/* Wait for the end, until deadline_ns (CLOCK_MONOTONIC, -1: no limit).
 *
 *   1            it has ended, or the slot has another process by now
 *   0            deadline passed
 *   -EINTR       a signal came */
int pn_slot_wait(struct pn_slot *slot, uint32_t generation, int64_t deadline_ns);

/* The life word (life.c). */
int pn_life_init(struct pn_slot *slot);
int pn_life_take(struct pn_slot *slot);
int pn_life_drop(struct pn_slot *slot);
enum pn_life pn_life_read(const struct pn_slot *slot);

/* Start a thread that writes 1 to eventfd when the life word's holder has died. */
int pn_life_watch(struct pn_slot *slot, int eventfd);

int64_t pn_now_ns(void);

#endif

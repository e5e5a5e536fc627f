/* Whether a process of the table is dead: proved, or else it lives. No Python, no allocation.
 *
 * What was taken from a process that goes on is lost for good, what waits for one that is dead only
 * waits: so all that cannot be established (no descriptor left, no /proc, another pid namespace,
 * another user behind hidepid) counts as life. Proofs of death, each of which suffices:
 *
 *   1. the slot was freed or has another generation: it is freed on one of the other proofs
 *   2. its reaper published a wait status
 *   3. its life word is not held, its pid does not exist in the pid namespace that both are in
 *   4. ... or that pid has another start time
 *   5. ... or each of its tasks is exiting, or was killed by a signal on its way out, or maps
 *      another memory than the table: it executed another program
 *
 * The life word alone proves nothing: the kernel marks it when the first thread ends, and other
 * threads may go on, for ever or for the microseconds until their SIGKILL reaches them. */
#ifndef PN_DEATH_H
#define PN_DEATH_H

#include "format.h"

enum pn_fate {
    PN_ALIVE, /* or in doubt */
    PN_DYING, /* its first thread has ended, but not all of its threads: look again soon */
    PN_DEAD,
};

enum pn_fate pn_fate(const struct pn_table *table, const struct pn_slot *slot,
                     uint32_t generation);

#endif

/* The pages that a forked process writes to: found out by one, and copied ahead of time by those that
 * follow it. No Python. */
#ifndef PN_PAGES_H
#define PN_PAGES_H

#include <stddef.h>
#include <stdint.h>

struct pn_span {
    uintptr_t first;
    size_t count;
};

/* The pages of private memory that this process has its own copy of: how many spans of them, at
 * most `room`; or -errno. Pages that no process has written to yet are among them, too, if this one
 * has. */
int pn_pages_written(struct pn_span *ret_spans, size_t room);

/* Have one's own copy of these pages now. What is no longer mapped, and what the kernel cannot do
 * (before 5.14), is left for the first write. */
void pn_pages_copy(const struct pn_span *spans, size_t count);

#endif

#define _GNU_SOURCE
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* an entry of /proc/pid/pagemap (admin-guide/mm/pagemap of the kernel's documentation) */
#define PRESENT (1ull << 63)
#define OF_A_FILE (1ull << 61)
#define EXCLUSIVE (1ull << 56)

#define AT_ONCE 512
#define MOST_PAGES 16384 /* of one mapping: a larger one is no interpreter's */

struct list {
    struct pn_span *spans;
    size_t room, count, page;
};

static void add(struct list *list, uintptr_t page)
{
    struct pn_span *last = list->count > 0 ? &list->spans[list->count - 1] : NULL;
    if (last != NULL && last->first + last->count * list->page == page)
        last->count++;
    else if (list->count < list->room)
        list->spans[list->count++] = (struct pn_span){page, 1};
}

static void look(int pagemap, uintptr_t first, uintptr_t end, struct list *list)
{
    uint64_t entries[AT_ONCE];
    for (uintptr_t at = first; at < end;) {
        size_t wanted = (end - at) / list->page;
        ssize_t got = pread(pagemap, entries, (wanted < AT_ONCE ? wanted : AT_ONCE) * 8,
                            (off_t)(at / list->page * 8));
        if (got < 8)
            return;
        for (size_t n = 0; n < (size_t)got / 8; n++, at += list->page)
            if ((entries[n] & PRESENT) && (entries[n] & EXCLUSIVE) && !(entries[n] & OF_A_FILE))
                add(list, at);
    }
}

int pn_pages_written(struct pn_span *ret_spans, size_t room)
{
    struct list list = {ret_spans, room, 0, (size_t)sysconf(_SC_PAGESIZE)};
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return -errno;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        int error = errno;
        (void)close(pagemap);
        return -error;
    }
    char line[512]; /* of a longer one the rest is no address and passed over */
    while (fgets(line, sizeof line, maps) != NULL) {
        char *rest;
        uintptr_t first = strtoull(line, &rest, 16);
        uintptr_t end = *rest == '-' ? strtoull(rest + 1, &rest, 16) : 0;
        if (end > first && (end - first) / list.page <= MOST_PAGES &&
            strncmp(rest, " rw-p", 5) == 0)
            look(pagemap, first, end, &list);
    }
    (void)fclose(maps);
    (void)close(pagemap);
    return (int)list.count;
}

void pn_pages_copy(const struct pn_span *spans, size_t count)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t n = 0; n < count; n++)
        if (madvise((void *)spans[n].first, spans[n].count * page, MADV_POPULATE_WRITE) != 0 &&
            errno == EINVAL)
            return;
}

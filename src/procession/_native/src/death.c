#define _GNU_SOURCE
#include "death.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel.h"
#include "table.h"

#define PF_EXITING 0x4u /* include/linux/sched.h; field 9 of /proc/pid/stat */
#define PF_SIGNALED 0x400u

/* Whether a task maps the table. -1: cannot be seen, or it has no memory any more. */
static int maps_table(int tasks, const char *task, uint64_t inode)
{
    char path[64], wanted[32], text[8192];
    (void)snprintf(path, sizeof path, "%.32s/maps", task);
    (void)snprintf(wanted, sizeof wanted, " %llu ", (unsigned long long)inode);
    int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t kept = 0, seen = 0;
    int found = 0;
    ssize_t got;
    while (!found && (got = read(fd, text + kept, sizeof text - 1 - kept)) > 0) {
        size_t size = kept + (size_t)got;
        seen += (size_t)got;
        text[size] = 0;
        char *line = text, *end;
        for (; !found && (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = 0;
            found = strstr(line, PN_TABLE_NAME) != NULL && strstr(line, wanted) != NULL;
        }
        kept = size - (size_t)(line - text);
        if (kept >= sizeof text / 2) /* a path of this length is not the table's */
            kept = 0;
        memmove(text, line, kept);
    }
    int failed = got < 0;
    (void)close(fd);
    if (found)
        return 1;
    return failed || seen == 0 ? -1 : 0;
}

enum task { LIVES, ENDS, ELSEWHERE };

/* What one task of the process is about. */
static enum task task_of(int tasks, const char *task, uint64_t inode)
{
    char path[64], text[1024];
    (void)snprintf(path, sizeof path, "%.32s/stat", task);
    ssize_t got = pn_read_file(tasks, path, text, sizeof text);
    if (got == -ENOENT || got == -ESRCH)
        return ENDS;
    const char *state = got > 0 ? pn_stat_field(text, 3) : NULL;
    const char *flags = got > 0 ? pn_stat_field(text, 9) : NULL;
    if (state == NULL || flags == NULL)
        return LIVES;
    if (*state == 'Z' || *state == 'X' ||
        (strtoul(flags, NULL, 10) & (PF_EXITING | PF_SIGNALED)) != 0)
        return ENDS;
    return maps_table(tasks, task, inode) == 0 ? ELSEWHERE : LIVES;
}

struct directory_entry { /* getdents64(2) */
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

/* Whether no task of the process is of any use to its former self. A task that lives may start
 * others, but it is itself in the list before them. */
static enum pn_fate all_tasks(int tasks, uint64_t inode)
{
    _Alignas(struct directory_entry) char buffer[4096];
    enum pn_fate fate = PN_DEAD;
    long got;
    while ((got = syscall(SYS_getdents64, tasks, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < got;) {
            const struct directory_entry *entry = (const void *)(buffer + at);
            at += entry->size;
            if (entry->name[0] != '.' && task_of(tasks, entry->name, inode) == LIVES)
                return PN_DYING;
        }
    }
    return got < 0 ? PN_DYING : fate;
}

static enum pn_fate fate_of_pid(int32_t pid, uint64_t start_time, uint64_t inode)
{
    if (kill(pid, 0) != 0 && errno == ESRCH)
        return PN_DEAD;
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    uint64_t now = pn_start_time(AT_FDCWD, path);
    if (now == 0)
        return PN_ALIVE;
    if (start_time != 0 && now != start_time)
        return PN_DEAD;
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    int tasks = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tasks < 0)
        return PN_ALIVE;
    enum pn_fate fate = all_tasks(tasks, inode);
    (void)close(tasks);
    return fate;
}

enum pn_fate pn_fate(const struct pn_table *table, const struct pn_slot *slot, uint32_t generation)
{
    uint64_t word = atomic_load(&slot->word);
    enum pn_state state = pn_word_state(word);
    if (pn_word_generation(word) != generation || state == PN_FREE)
        return PN_DEAD;
    uint32_t number = pn_word_ending(word);
    if (state == PN_ENDED && number != 0 && PN_GET(slot->endings[number - 1].wait_status) != -1)
        return PN_DEAD;
    enum pn_life life = pn_life_read(slot);
    int32_t pid = PN_GET(slot->pid);
    if (state == PN_ENDED && pid == 0 && life == PN_LIFE_FREE)
        return PN_DEAD; /* nobody ever sat down here */
    uint32_t view = PN_GET(slot->view);
    if (life == PN_LIFE_HELD || pid <= 0 || view == 0 || view != pn_own_view())
        return PN_ALIVE;
    enum pn_fate fate = fate_of_pid(pid, PN_GET(slot->start_time), table->inode);
    /* the first thread never took the word: nobody can tell that it is on its way out */
    if (fate == PN_DYING && life == PN_LIFE_FREE)
        return PN_ALIVE;
    return fate;
}

/* Operations that are killed at every instruction, and the survivors who look at what is left. */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#define _GNU_SOURCE
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "stepping.h"
#include "table.h"

#define MOST_STEPS 60000

struct operation {
    const char *name;
    void (*before)(void);  /* in the survivor: a fresh state, and who is there before */
    void (*prepare)(void); /* in the victim, spared */
    void (*act)(void);     /* in the victim */
    void (*after)(void);   /* in the survivor: what must hold */
    void (*clean)(void);   /* in the survivor */
};

static long killed_at; /* for messages */
static long stride = 1; /* only every so many instructions */

static inline void run_operation(const struct operation *operation)
{
    int survived = 0;
    long kills = 0;
    for (killed_at = 0; !survived; killed_at += stride, kills++) {
        CHECK(killed_at < MOST_STEPS, "%s does not come to an end", operation->name);
        operation->before();
        survived = die_after(operation->prepare, operation->act, killed_at);
        operation->after();
        operation->clean();
    }
    (void)printf("%s: killed at %ld instructions of %ld\n", operation->name, kills - 1,
                 killed_at - stride);
    (void)fflush(stdout);
}

/* The operations that are asked for: by name, or all (none, or ""); and the stride. */
static inline int run_operations(const struct operation *operations, size_t many, int count,
                                 char **arguments)
{
    int found = 0;
    if (count > 2)
        stride = atol(arguments[2]);
    for (size_t n = 0; n < many; n++) {
        if (count > 1 && arguments[1][0] != 0 && strcmp(arguments[1], operations[n].name) != 0)
            continue;
        found = 1;
        run_operation(&operations[n]);
    }
    CHECK(found, "no such operation");
    return 0;
}

static inline void do_nothing(void)
{
}

/* --- people who wait --- */

/* How often a process has gone to sleep; what it is in now is a futex, or -1. */
static inline long sleeps_of(pid_t pid)
{
    char path[64], text[4096] = {0};
    (void)snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL, "%s", path);
    (void)!fread(text, 1, sizeof text - 1, file); /* nothing of one that has ended */
    (void)fclose(file);
    long number = strtol(text, NULL, 10); /* "running": 0 */
    if (number != SYS_futex && number != SYS_futex_waitv)
        return -1;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    file = fopen(path, "r");
    CHECK(file != NULL, "%s", path);
    memset(text, 0, sizeof text);
    (void)!fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    const char *line = strstr(text, "\nvoluntary_ctxt_switches:");
    return line == NULL ? -1 : strtol(line + strlen("\nvoluntary_ctxt_switches:"), NULL, 10);
}

static inline void wait_asleep(pid_t pid)
{
    int64_t deadline = pn_now_ns() + LIMIT;
    while (sleeps_of(pid) < 0) {
        CHECK(pn_now_ns() < deadline, "the waiter does not come to wait");
        (void)sched_yield();
    }
}

/* Somebody else who does something that must come to its end. */
static inline pid_t start_person(void (*act)(void))
{
    pid_t pid = fork();
    CHECK(pid >= 0, "");
    if (pid == 0) {
        act();
        _exit(0);
    }
    return pid;
}

static inline void join_person(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid, "");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a survivor: %x; killed after %ld",
          (unsigned)status, killed_at);
}

#endif

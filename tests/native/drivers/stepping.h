/* SIGKILL after so many instructions, by ptrace. */
#ifndef STEPPING_H
#define STEPPING_H

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "check.h"

/* Do something in a child that is killed after so many single steps; `prepare` it is spared. 1 when
 * it came to its end before. */
static inline int die_after(void (*prepare)(void), void (*act)(void), long steps)
{
    pid_t child = fork();
    CHECK(child >= 0, "");
    if (child == 0) {
        prepare();
        (void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        (void)raise(SIGSTOP);
        act();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child, "");
    CHECK(WIFSTOPPED(status), "ptrace is not allowed, or preparing failed: %x", (unsigned)status);
    for (long done = 0; WIFSTOPPED(status) && done < steps; done++) {
        CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0, "");
        CHECK(waitpid(child, &status, 0) == child, "");
    }
    if (!WIFSTOPPED(status)) {
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", (unsigned)status);
        return 1;
    }
    CHECK(kill(child, SIGKILL) == 0, "");
    while (WIFSTOPPED(status))
        CHECK(waitpid(child, &status, 0) == child, "");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%x", (unsigned)status);
    return 0;
}

#endif

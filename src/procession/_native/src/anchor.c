/* See anchor.h. */
#define _GNU_SOURCE
#include "anchor.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel.h"

#define STACK_SIZE 16384 /* a few system calls, and the loader's look for each of them */

/* One for each process: a zygote has one anchor, and its forks have a stack of their own. */
static _Alignas(16) unsigned char stack[STACK_SIZE];

struct order {
    pid_t group, parent;
    int report; /* a pipe's writing end */
};

/* 0 or -errno. The parent sleeps until the pipe is closed, so that errno is the child's alone. */
static int settle(const struct order *order)
{
    (void)prctl(PR_SET_NAME, "pn-anchor", 0, 0, 0);
    int result = pn_close_all_but(&order->report, 1);
    if (result != 0)
        return result;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || setpgid(0, order->group) != 0)
        return -errno;
    return getppid() == order->parent ? 0 : -ESRCH; /* it died before the signal was asked for */
}

static int hold(void *argument)
{
    const struct order *order = argument;
    int report = order->report; /* the order is gone when the pipe is closed */
    int result = settle(order);
    (void)!write(report, &result, sizeof result);
    (void)close(report);
    while (result == 0) /* no signal but SIGKILL ends it: all are blocked */
        (void)syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
    (void)syscall(SYS_exit, 0); /* not exit(3): atexit's functions are the parent's */
    return 0;
}

/* What the child reports; -ESRCH when it was killed before it could. */
static int outcome(int pipe)
{
    int result;
    char more;
    if (read(pipe, &result, sizeof result) != sizeof result)
        return -ESRCH;
    (void)!read(pipe, &more, 1); /* it has closed its end, too */
    return result;
}

pid_t pn_anchor(pid_t group)
{
    int pipe[2];
    if (pipe2(pipe, O_CLOEXEC) != 0)
        return -errno;
    struct order order = {.group = group, .parent = getpid(), .report = pipe[1]};
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(hold, stack + STACK_SIZE, CLONE_VM | SIGCHLD, &order);
    int result = pid < 0 ? -errno : 0;
    (void)close(pipe[1]);
    if (pid > 0 && (result = outcome(pipe[0])) != 0)
        (void)waitpid(pid, NULL, 0);
    (void)close(pipe[0]);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return result == 0 ? pid : result;
}

void pn_weigh_anchor(pid_t anchor)
{
    (void)setpgid(anchor, getpgrp());
    if (kill(anchor, SIGKILL) == 0)
        while (waitpid(anchor, NULL, 0) < 0 && errno == EINTR)
            ;
}

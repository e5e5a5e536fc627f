/* See anchor.h. */
#define _GNU_SOURCE
#include "anchor.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernel.h"

#define STACK_SIZE 16384
#define LOOK_AGAIN_NS 5000000

/* One for each process: a zygote has one anchor, and its forks have a stack of their own. */
static _Alignas(16) unsigned char stack[STACK_SIZE];
static _Atomic uint32_t outcome; /* 0: not yet; 1: it holds; else an errno + 1 */

struct order {
    pid_t group, parent;
};

/* The parent sleeps until this is through, so that errno and all else is the child's alone. */
static uint32_t settle(const struct order *order)
{
    (void)prctl(PR_SET_NAME, "pn-anchor", 0, 0, 0);
    int result = pn_close_all_but(NULL, 0);
    if (result != 0)
        return (uint32_t)-result + 1;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || setpgid(0, order->group) != 0)
        return (uint32_t)errno + 1;
    return getppid() == order->parent ? 1 : ESRCH + 1;
}

static int hold(void *argument)
{
    uint32_t result = settle(argument);
    atomic_store(&outcome, result);
    (void)syscall(SYS_futex, &outcome, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    while (result == 1) /* no signal but SIGKILL ends it: all are blocked */
        (void)syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
    (void)syscall(SYS_exit, 0); /* not exit(3): atexit's functions are the parent's */
    return 0;
}

/* Killed before it could say anything, it says nothing: waited for in slices. */
static uint32_t outcome_of(pid_t pid)
{
    const struct timespec slice = {.tv_nsec = LOOK_AGAIN_NS};
    uint32_t result;
    while ((result = atomic_load(&outcome)) == 0) {
        (void)syscall(SYS_futex, &outcome, FUTEX_WAIT_PRIVATE, 0, &slice, NULL, 0);
        siginfo_t info = {.si_pid = 0};
        if (atomic_load(&outcome) == 0 &&
            waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
            return ESRCH + 1;
    }
    return result;
}

pid_t pn_anchor(pid_t group)
{
    struct order order = {.group = group, .parent = getpid()};
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before);
    atomic_store(&outcome, 0);
    pid_t pid = clone(hold, stack + STACK_SIZE, CLONE_VM | SIGCHLD, &order);
    int error = errno;
    uint32_t result = pid < 0 ? (uint32_t)error + 1 : outcome_of(pid);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    if (result == 1)
        return pid;
    if (pid > 0)
        (void)waitpid(pid, NULL, 0);
    return -(pid_t)(result - 1);
}

void pn_weigh_anchor(pid_t anchor)
{
    (void)setpgid(anchor, getpgrp());
    if (kill(anchor, SIGKILL) == 0)
        while (waitpid(anchor, NULL, 0) < 0 && errno == EINTR)
            ;
}

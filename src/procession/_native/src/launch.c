#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdalign.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int contains(const int *numbers, size_t count, int wanted)
{
    for (size_t n = 0; n < count; n++)
        if (numbers[n] == wanted)
            return 1;
    return 0;
}

int pn_spawn(const char *path, char *const *arguments, const int *keep, size_t count,
             pid_t *ret_pid)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    int error = posix_spawnattr_init(&attributes);
    if (error != 0)
        return -error;
    error = posix_spawn_file_actions_init(&actions);
    if (error != 0) {
        (void)posix_spawnattr_destroy(&attributes);
        return -error;
    }
    sigset_t all, chld;
    (void)sigfillset(&all);
    (void)sigemptyset(&chld);
    (void)sigaddset(&chld, SIGCHLD); /* ignored, it survives exec and turns waitpid into ECHILD */
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                    POSIX_SPAWN_SETPGROUP);
    (void)posix_spawnattr_setsigmask(&attributes, &all);
    (void)posix_spawnattr_setsigdefault(&attributes, &chld);
    (void)posix_spawnattr_setpgroup(&attributes, 0);
    for (int fd = 0; fd < 3 && error == 0; fd++)
        if (!contains(keep, count, fd))
            error = posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    for (size_t n = 0; n < count && error == 0; n++) /* onto itself: clears close-on-exec */
        error = posix_spawn_file_actions_adddup2(&actions, keep[n], keep[n]);
    if (error == 0)
        error = posix_spawn(ret_pid, path, &actions, &attributes, arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attributes);
    return -error;
}

struct order {
    const char *path;
    char *const *arguments;
    const int *keep;
    size_t count;
    pid_t pid;
    int result;
};

static int be_between(void *argument)
{
    struct order *order = argument;
    order->result = pn_spawn(order->path, order->arguments, order->keep, order->count, &order->pid);
    return 0; /* clone(2): ends this process by _exit */
}

int pn_spawn_detached(const char *path, char *const *arguments, const int *keep, size_t count,
                      pid_t *ret_pid)
{
    /* The process in between shares the caller's memory while the calling thread stands still, as
     * posix_spawn's own does: no page table is copied and no fork handler runs, however large main
     * is. Without an exit signal it is a "clone child": no SIGCHLD, and only __WCLONE finds it. */
    struct order order = {path, arguments, keep, count, 0, -ENOSYS};
    alignas(16) char stack[32 * 1024]; /* posix_spawn maps another one for what needs more */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* no handler of main's may run in there */
    pid_t between = clone(be_between, stack + sizeof stack, CLONE_VM | CLONE_VFORK, &order);
    int error = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (between < 0)
        return -error;
    while (waitpid(between, NULL, (int)__WCLONE) < 0 && errno == EINTR)
        ;
    *ret_pid = order.pid;
    return order.result;
}

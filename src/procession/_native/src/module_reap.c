/* How the zygote sleeps, reaps and forks. It is in here that it spends the time that others wait for:
 * what runs as C touches few pages, and each page that it shares with a child it must copy. */
#include "module.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "identity.h"
#include "kernel.h"

#define EVENTS 16

/* Tell the table of a child's end and let the kernel forget it, in this order: who is killed in
 * between leaves a zombie to the next subreaper. 1, 0 when somebody must look into it, or -1. */
static int end(struct pn_table *table, const struct pn_dead *dead, PyObject *children,
               PyObject *ended)
{
    if (WIFSIGNALED(dead->wait_status) && WTERMSIG(dead->wait_status) == SIGKILL)
        return 0; /* for want of memory, perhaps */
    PyObject *pid = PyLong_FromLong(dead->pid);
    PyObject *place = pid == NULL ? NULL : PyDict_GetItemWithError(children, pid);
    Py_ssize_t index = -1;
    unsigned int generation;
    int result = PyErr_Occurred() ? -1 : 0;
    if (place != NULL && PyArg_ParseTuple(place, "nI", &index, &generation) && index >= 0 &&
        index < table->slot_count && PyList_Append(ended, place) == 0 &&
        PyDict_DelItem(children, pid) == 0) {
        const struct pn_end it = {dead->wait_status, 0, dead->utime_ns, dead->stime_ns,
                                  dead->max_rss_kib};
        (void)pn_slot_end(table, &table->slots[index], &it);
        (void)waitpid(dead->pid, NULL, 0);
        result = 1;
    } else if (PyErr_Occurred())
        result = -1;
    Py_XDECREF(pid);
    return result;
}

/* 1 when something is left to look into, 0 when nothing is, or -1. */
static int reap(struct pn_table *table, PyObject *children, PyObject *ended)
{
    for (;;) {
        struct pn_dead dead;
        int result = pn_peek_child(&dead);
        if (result <= 0)
            return 0;
        result = end(table, &dead, children, ended);
        if (result <= 0)
            return result < 0 ? -1 : 1;
    }
}

PyObject *pn_attend(PyObject *module, PyObject *args)
{
    (void)module;
    int epoll, timeout, signals;
    PyObject *object, *children;
    struct pn_self *self;
    if (!PyArg_ParseTuple(args, "OiiiO:attend", &object, &epoll, &timeout, &signals, &children) ||
        (self = pn_self_of(object)) == NULL)
        return NULL;
    struct epoll_event events[EVENTS];
    int count;
    do /* the GIL is kept: this is for a process of one thread */
        count = epoll_wait(epoll, events, EVENTS, timeout);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    int signalled = 0, left = 0;
    for (int n = 0; n < count; n++)
        signalled |= events[n].data.fd == signals;
    PyObject *ended = PyList_New(0), *ready = PyList_New(0);
    if (ended == NULL || ready == NULL)
        goto failed;
    if (signalled) {
        char taken[4096];
        (void)!read(signals, taken, sizeof taken); /* what it says is a hint, and may be one of many */
        left = children == Py_None ? 1 : reap(self->table, children, ended);
        if (left < 0)
            goto failed;
    }
    for (int n = 0; n < count; n++) {
        if (events[n].data.fd == signals)
            continue;
        PyObject *fd = PyLong_FromLong(events[n].data.fd);
        if (fd == NULL || PyList_Append(ready, fd) != 0) {
            Py_XDECREF(fd);
            goto failed;
        }
        Py_DECREF(fd);
    }
    return Py_BuildValue("(NNO)", ready, ended, left ? Py_True : Py_False);
failed:
    Py_XDECREF(ended);
    Py_XDECREF(ready);
    return NULL;
}

/* --- forking ---------------------------------------------------------------------------------- */

struct spare {
    pid_t pid; /* 0 in the spare itself */
    uint32_t index, generation;
    int stream; /* the spare's end */
};

/* Hand an owner a spare: these three numbers (keeper_client.py unpacks them), and its stream. */
static int hand_over(int link, const struct spare *spare, int stream)
{
    const uint32_t numbers[3] = {(uint32_t)spare->pid, spare->index, spare->generation};
    struct iovec part = {(void *)numbers, sizeof numbers};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    memset(&control, 0, sizeof control);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &stream, sizeof stream);
    ssize_t sent;
    do
        sent = sendmsg(link, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

/* 0 in both processes, or -errno; `*ret_what` says what a claim that failed lacked. A spare whose
 * owner is gone is made and handed to nobody: it sees the end of its stream and goes. */
static int fork_spare(struct pn_table *table, int link, struct spare *ret, int *ret_handed,
                      const char **ret_what)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return -errno;
    int error = pn_table_claim(table, &ret->index, &ret->generation);
    if (error < 0) {
        *ret_what = error == -ENOSPC ? "the table of processes is full" : "cannot make a life word";
        goto failed;
    }
    PyOS_BeforeFork();
    ret->pid = fork();
    if (ret->pid == 0) {
        PyOS_AfterFork_Child();
        (void)close(ends[0]);
        ret->stream = ends[1];
        return 0;
    }
    error = ret->pid < 0 ? -errno : 0;
    PyOS_AfterFork_Parent();
    struct pn_slot *slot = &table->slots[ret->index];
    if (error < 0) {
        const struct pn_end nothing = {.wait_status = -1, .flags = PN_FLAG_LOST};
        (void)pn_slot_end(table, slot, &nothing);
        (void)pn_table_free(table, slot, ret->generation);
        goto failed;
    }
    atomic_store(&slot->pid, ret->pid);
    *ret_handed = hand_over(link, ret, ends[0]) == 0;
failed:
    (void)close(ends[0]);
    (void)close(ends[1]);
    return error;
}

static int note(PyObject *children, PyObject *made, const struct spare *spare)
{
    PyObject *pid = PyLong_FromLong(spare->pid);
    PyObject *place = Py_BuildValue("(II)", spare->index, spare->generation);
    int result = pid == NULL || place == NULL || PyDict_SetItem(children, pid, place) != 0 ||
                 PyList_Append(made, place) != 0;
    Py_XDECREF(pid);
    Py_XDECREF(place);
    return result ? -1 : 0;
}

static int is_readable(int fd)
{
    struct pollfd it = {.fd = fd, .events = POLLIN};
    return poll(&it, 1, 0) > 0;
}

PyObject *pn_fork_spares(PyObject *module, PyObject *args)
{
    (void)module;
    int link, count, signals, quick;
    PyObject *object, *children;
    struct pn_self *self;
    if (!PyArg_ParseTuple(args, "OiiiO!p:fork_spares", &object, &link, &count, &signals,
                          &PyDict_Type, &children, &quick) ||
        (self = pn_self_of(object)) == NULL)
        return NULL;
    PyObject *made = PyList_New(0), *ended = PyList_New(0);
    const char *what = NULL;
    int error = 0, handed = 1, left = 0;
    if (made == NULL || ended == NULL)
        goto failed;
    for (int n = 0; n < count && handed; n++) {
        if (n > 0 && is_readable(signals)) {
            char taken[4096];
            if (!quick) /* the next look at the signals is the reaper's */
                break;
            (void)!read(signals, taken, sizeof taken);
            if ((left = reap(self->table, children, ended)) < 0)
                goto failed;
            if (left)
                break;
        }
        struct spare spare;
        if ((error = fork_spare(self->table, link, &spare, &handed, &what)) < 0)
            break;
        if (spare.pid == 0) {
            Py_DECREF(made);
            Py_DECREF(ended);
            return Py_BuildValue("(IIi)", spare.index, spare.generation, spare.stream);
        }
        if (note(children, made, &spare) != 0)
            goto failed;
    }
    if (error < 0 && PyList_Size(made) == 0) {
        Py_DECREF(made);
        Py_DECREF(ended); /* nothing was reaped: that is done between two forks */
        return pn_os_error(error, what);
    }
    return Py_BuildValue("(NNO)", made, ended, left ? Py_True : Py_False);
failed:
    Py_XDECREF(made);
    Py_XDECREF(ended);
    return NULL;
}

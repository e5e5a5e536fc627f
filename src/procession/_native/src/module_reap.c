/* How the zygote sleeps, and reaps. It is in here that it spends the time that others wait for: what
 * runs as C touches few pages, and each page that it shares with a child it must copy. */
#include "module.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
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

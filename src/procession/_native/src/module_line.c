/* The class Line: one end of a worker's channel. What each method promises is said in _core.pyi. */
#define _GNU_SOURCE
#include "module.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "line.h"

#define PAGE 4096

typedef struct {
    PyObject_HEAD
    struct pn_line line;
    void *page;
    unsigned char *buffer;
    size_t room;
    ssize_t size;     /* of the packet in the buffer; -1: there is none */
    PyObject *packet; /* the same as an object, or NULL */
    int passed;       /* the descriptor that came with it, or -1 */
    int busy;         /* a thread is receiving */
} Line;

static PyObject *line_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    int fd, memory, sent, arriving;
    Py_ssize_t room;
    if (names != NULL && PyDict_Size(names) != 0)
        return PyErr_Format(PyExc_TypeError, "Line() takes no keyword arguments");
    if (!PyArg_ParseTuple(args, "iiiin:Line", &fd, &memory, &sent, &arriving, &room))
        return NULL;
    if (sent < 0 || arriving < 0 || sent >= PAGE / 8 || arriving >= PAGE / 8 || room < 1)
        return PyErr_Format(PyExc_ValueError, "no words %d and %d in a page, or no room", sent,
                            arriving);
    Line *self = (Line *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->size = self->passed = -1;
    self->room = (size_t)room;
    self->buffer = malloc(self->room);
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    self->page = page == MAP_FAILED ? NULL : page;
    if (self->buffer == NULL || self->page == NULL) {
        int error = errno;
        Py_DECREF(self);
        return pn_os_error(-error, "cannot map what a channel counts in");
    }
    (void)madvise(page, PAGE, MADV_DONTDUMP);
    self->line.fd = fd;
    self->line.sent = (_Atomic uint64_t *)page + sent;
    self->line.arriving = (_Atomic uint64_t *)page + arriving;
    self->line.luck = 1;
    return (PyObject *)self;
}

static void let_go(Line *self)
{
    if (self->passed >= 0)
        (void)close(self->passed);
    self->size = self->passed = -1;
    Py_CLEAR(self->packet);
}

static void line_dealloc(PyObject *object)
{
    Line *self = (Line *)object;
    PyTypeObject *type = Py_TYPE(object);
    let_go(self);
    if (self->page != NULL)
        (void)munmap(self->page, PAGE);
    free(self->buffer);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *line_send(PyObject *object, PyObject *args)
{
    Line *self = (Line *)object;
    Py_buffer data;
    int fd = -1;
    if (!PyArg_ParseTuple(args, "y*|i:send", &data, &fd))
        return NULL;
    int result;
    do {
        Py_BEGIN_ALLOW_THREADS
        result = pn_line_send(&self->line, data.buf, (size_t)data.len, fd);
        Py_END_ALLOW_THREADS
    } while (result == -EINTR && PyErr_CheckSignals() == 0); /* PEP 475 */
    PyBuffer_Release(&data);
    if (result == 0)
        Py_RETURN_NONE;
    return PyErr_Occurred() ? NULL : pn_os_error(result, NULL);
}

/* Fill the buffer. 0, or -errno, -EINTR with an exception. */
static int receive(Line *self, int wait)
{
    ssize_t size;
    int seen = !wait, passed;
    do {
        Py_BEGIN_ALLOW_THREADS
        if (!seen)
            seen = pn_line_linger(&self->line);
        Py_END_ALLOW_THREADS
        if (!seen && PyErr_CheckSignals() != 0) /* what came meanwhile ends no sleep */
            return -EINTR;
        Py_BEGIN_ALLOW_THREADS
        size = pn_line_receive(&self->line, self->buffer, self->room, wait ? 0 : MSG_DONTWAIT,
                               &passed);
        Py_END_ALLOW_THREADS
    } while (size == -EINTR && PyErr_CheckSignals() == 0);
    if (size < 0)
        return (int)size;
    self->size = size;
    self->passed = passed;
    return 0;
}

static PyObject *line_receive(PyObject *object, PyObject *argument)
{
    Line *self = (Line *)object;
    int wait = PyObject_IsTrue(argument);
    if (wait < 0)
        return NULL;
    if (self->size < 0) {
        int result = -EAGAIN;
        if (!self->busy) {
            self->busy = 1;
            result = receive(self, wait);
            self->busy = 0;
        }
        if (result != 0)
            return PyErr_Occurred() ? NULL : pn_os_error(result, NULL);
    }
    if (self->packet == NULL)
        self->packet = PyBytes_FromStringAndSize((const char *)self->buffer, self->size);
    return Py_XNewRef(self->packet);
}

static PyObject *line_descriptor(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(((Line *)object)->passed);
}

static PyObject *line_taken(PyObject *object, PyObject *unused)
{
    (void)unused;
    Line *self = (Line *)object;
    if (!self->busy)
        let_go(self);
    Py_RETURN_NONE;
}

static PyObject *line_is_left(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((Line *)object)->size > 0);
}

static PyObject *line_closed(PyObject *object, PyObject *unused)
{
    (void)unused;
    ((Line *)object)->line.fd = -1;
    Py_RETURN_NONE;
}

static PyMethodDef line_methods[] = {
    {"send", line_send, METH_VARARGS, NULL},
    {"receive", line_receive, METH_O, NULL},
    {"descriptor", line_descriptor, METH_NOARGS, NULL},
    {"taken", line_taken, METH_NOARGS, NULL},
    {"is_left", line_is_left, METH_NOARGS, NULL},
    {"closed", line_closed, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot line_slots[] = {
    {Py_tp_new, line_new},
    {Py_tp_dealloc, line_dealloc},
    {Py_tp_methods, line_methods},
    {0, NULL},
};

PyType_Spec pn_line_spec = {
    .name = "procession._native._core.Line",
    .basicsize = sizeof(Line),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = line_slots,
};

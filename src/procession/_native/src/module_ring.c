/* The class Ring: what a queue does, but for pickling. What each method promises is said in
 * _core.pyi. */
#define _GNU_SOURCE
#include "module_ring.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

struct pn_queue_types pn_queue_types;

#define QUICK 32768        /* bytes that are copied with the GIL held: some microseconds */

/* --- made, mapped, closed --- */

static PyObject *ring_create(PyObject *type, PyObject *args)
{
    (void)type;
    PyObject *memory;
    Py_ssize_t offset;
    unsigned long long budget, maxsize;
    struct pn_ring_head *head;
    if (!PyArg_ParseTuple(args, "OnKK:_create", &memory, &offset, &budget, &maxsize) ||
        (head = pn_memory_at(memory, offset, sizeof *head)) == NULL)
        return NULL;
    int fd, bell, result = pn_ring_create(head, budget, maxsize, &fd, &bell);
    if (result < 0)
        return pn_os_error(result, "cannot make the memory of a queue");
    return Py_BuildValue("(ii)", fd, bell);
}

static PyObject *ring_open(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    PyObject *table, *memory;
    Py_ssize_t offset;
    int fd, bell;
    struct pn_self *me;
    struct pn_ring_head *head;
    if (!PyArg_ParseTuple(args, "OOnii:_open", &table, &memory, &offset, &fd, &bell) ||
        (me = pn_self_of(table)) == NULL ||
        (head = pn_memory_at(memory, offset, sizeof *head)) == NULL)
        return NULL;
    if (self->open) {
        PyErr_SetString(PyExc_RuntimeError, "this queue is open already");
        return NULL;
    }
    int result = pn_ring_open(me, head, fd, bell, &self->ring);
    if (result == -EPROTO)
        return PyErr_Format(PyExc_ValueError,
                            "descriptor %d is no queue of this version of procession", fd);
    if (result < 0)
        return pn_os_error(result, "cannot use the memory of a queue");
    self->table = Py_NewRef(table);
    self->memory = Py_NewRef(memory);
    self->open = 1;
    self->closed = 0;
    Py_RETURN_NONE;
}

void pn_ring_close_unused(Ring *self)
{
    if (self->open && self->users == 0) {
        self->open = 0;
        pn_ring_close(&self->ring);
        Py_CLEAR(self->table);
        Py_CLEAR(self->memory);
    }
}

static int ring_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Ring *)object)->table);
    Py_VISIT(((Ring *)object)->memory);
    return 0;
}

static void ring_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    pn_ring_close_unused((Ring *)object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *ring_close(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    int release;
    if (!PyArg_ParseTuple(args, "p:_close", &release))
        return NULL;
    self->closed = 1;
    if (release)
        pn_ring_close_unused(self); /* or the last one who is inside, when it comes out */
    Py_RETURN_NONE;
}

/* --- going in and out --- */

static int refuse(Ring *self)
{
    PyObject *error = PyObject_GetAttrString((PyObject *)self, "_closed_error");
    if (error != NULL)
        PyErr_Format(error, "Queue %R is closed", (PyObject *)self);
    Py_XDECREF(error);
    return 0;
}

int pn_ring_may_ask(Ring *self)
{
    return self->open || refuse(self);
}

int pn_ring_enter(Ring *self)
{
    return (self->open && !self->closed) || refuse(self);
}

int pn_ring_deadline(PyObject *block, PyObject *timeout, int64_t *ret_deadline)
{
    int waits = block == NULL ? 1 : PyObject_IsTrue(block);
    if (waits < 0)
        return -1;
    *ret_deadline = 0;
    if (!waits)
        return 0;
    if (timeout == NULL || timeout == Py_None) {
        *ret_deadline = PN_FOREVER;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout must be a number of seconds, not nan");
        return -1;
    }
    int64_t now = pn_now_ns();
    if (seconds > 0)
        *ret_deadline = seconds > 9e9 ? INT64_MAX : now + (int64_t)(seconds * 1e9);
    return 0;
}

int64_t pn_slice_of(int64_t deadline, int64_t length)
{
    int64_t slice = pn_now_ns() + length;
    return deadline == PN_FOREVER || deadline > slice ? slice : deadline;
}

int pn_goes_on(int result, int64_t deadline)
{
    if (result != -EINTR && result != -ETIMEDOUT)
        return 0;
    if (PyErr_CheckSignals() != 0) /* PEP 475 */
        return -1;
    return result == -EINTR || deadline == PN_FOREVER || pn_now_ns() < deadline;
}

PyObject *pn_ring_raise(Ring *self, int result, PyObject *nothing)
{
    if (result == -EAGAIN || result == -ETIMEDOUT) {
        PyErr_SetNone(nothing);
        return NULL;
    }
    if (result == -ESHUTDOWN) {
        PyErr_SetNone(pn_queue_types.shut_down);
        return NULL;
    }
    if (result == -ENOBUFS)
        return PyErr_Format(PyExc_MemoryError,
                            "the item has no room in the queue within its budget of %llu bytes "
                            "(max_bytes); what is in it stays, and can be taken",
                            (unsigned long long)self->ring.head->budget);
    if (result == -ENOMEM) {
        PyErr_SetString(PyExc_MemoryError, "no memory for the item; the queue is as it was");
        return NULL;
    }
    return pn_os_error(result, "the queue cannot be used now; it is as it was");
}

/* --- put --- */

int pn_ring_put_parts(Ring *self, unsigned int kind, const struct pn_part *parts, size_t count,
                      int64_t deadline, uint64_t *ret_number)
{
    size_t size = 0;
    for (size_t n = 0; n < count; n++)
        size += parts[n].size;
    int result = -EBUSY;
    if (size <= QUICK)
        result = pn_ring_put_numbered(&self->ring, (unsigned char)kind, parts, count, PN_RING_NOW,
                                      ret_number);
    if (result != -EBUSY && result != -EAGAIN)
        return result;
    if (result == -EAGAIN && deadline == 0)
        return result;
    for (;;) {
        int64_t slice = pn_slice_of(deadline, PN_SLICE_NS);
        WITHOUT_GIL(self, result,
                    pn_ring_put_numbered(&self->ring, (unsigned char)kind, parts, count, slice,
                                         ret_number));
        int more = pn_goes_on(result, deadline);
        if (more <= 0)
            return more < 0 ? -ECANCELED : result;
    }
}

static PyObject *put_value(Ring *self, PyObject *value, int64_t deadline)
{
    if (!pn_ring_enter(self))
        return NULL;
    int result = pn_item_put(self, value, deadline);
    self->has_put |= result == 0;
    PyObject *answer = result == 0            ? Py_NewRef(Py_None)
                       : result == -ECANCELED ? NULL
                                              : pn_ring_raise(self, result, pn_queue_types.full);
    if (self->closed)
        pn_ring_close_unused(self);
    return answer;
}

/* Arguments `name`, block and timeout of a fast call; `needed` of them without a default. */
static int parse(PyObject *const *args, Py_ssize_t count, PyObject *names, const char *function,
                 const char *const *known, Py_ssize_t needed, Py_ssize_t most, PyObject **ret)
{
    if (count > most) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", function,
                     most, count);
        return 0;
    }
    for (Py_ssize_t n = 0; n < count; n++)
        ret[n] = args[n];
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    for (Py_ssize_t n = 0; n < named; n++) {
        PyObject *name = PyTuple_GetItem(names, n);
        Py_ssize_t at = 0;
        while (at < most && PyUnicode_CompareWithASCIIString(name, known[at]) != 0)
            at++;
        if (at == most || ret[at] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected or repeated argument %R",
                         function, name);
            return 0;
        }
        ret[at] = args[count + n];
    }
    for (Py_ssize_t n = 0; n < needed; n++)
        if (ret[n] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing argument '%s'", function, known[n]);
            return 0;
        }
    return 1;
}

static const char *const put_names[] = {"obj", "block", "timeout"};
static const char *const get_names[] = {"block", "timeout"};

static PyObject *ring_put(PyObject *object, PyObject *const *args, Py_ssize_t count,
                          PyObject *names)
{
    PyObject *given[3] = {NULL, NULL, NULL};
    int64_t deadline;
    if (!parse(args, count, names, "put", put_names, 1, 3, given) ||
        pn_ring_deadline(given[1], given[2], &deadline) < 0)
        return NULL;
    return put_value((Ring *)object, given[0], deadline);
}

static PyObject *ring_put_nowait(PyObject *object, PyObject *value)
{
    return put_value((Ring *)object, value, 0);
}

/* --- get --- */

int pn_ring_look_around(Ring *self, const char *method, int64_t deadline)
{
    PyObject *done =
        PyObject_CallMethod((PyObject *)self, method, "(i)", deadline == PN_FOREVER);
    Py_XDECREF(done);
    return done != NULL;
}

/* Nothing comes: so nothing is to be ready for it; and who should put may be gone. */
static int idle(Ring *self, int64_t deadline, int long_enough)
{
    if (long_enough && self->ring.holds != NULL)
        pn_extents_trim(&self->ring);
    return pn_ring_look_around(self, "_idle", deadline);
}

static PyObject *get_value(Ring *self, int64_t deadline)
{
    if (!pn_ring_enter(self))
        return NULL;
    unsigned char quick[4096];
    struct pn_record record = {.bytes = quick, .room = sizeof quick};
    int result = pn_ring_get(&self->ring, &record, PN_RING_NOW);
    if (result == -EBUSY || result == -EMSGSIZE || (result == -EAGAIN && deadline != 0)) {
        record = (struct pn_record){.grows = 1};
        int64_t length = PN_FIRST_SLICE_NS;
        int more;
        do {
            int64_t slice = pn_slice_of(deadline, length);
            length = length * 4 < PN_SLICE_NS ? length * 4 : PN_SLICE_NS;
            WITHOUT_GIL(self, result, pn_ring_get(&self->ring, &record, slice));
            more = pn_goes_on(result, deadline);
            if (more > 0 && result == -ETIMEDOUT && !idle(self, deadline, length == PN_SLICE_NS))
                more = -1;
        } while (more > 0);
        if (more < 0)
            result = -ECANCELED;
    }
    self->users++; /* what lies in the item stays while the queue is had */
    PyObject *answer = result == 0            ? pn_item_value(self, &record)
                       : result == -ECANCELED ? NULL
                                              : pn_ring_raise(self, result, pn_queue_types.empty);
    self->users--;
    if (result == 0 && record.user != NULL)
        pn_user_has(record.user);
    if (record.grows)
        free(record.bytes);
    if (self->closed)
        pn_ring_close_unused(self);
    return answer;
}

static PyObject *ring_get(PyObject *object, PyObject *const *args, Py_ssize_t count,
                          PyObject *names)
{
    PyObject *given[2] = {NULL, NULL};
    int64_t deadline;
    if (!parse(args, count, names, "get", get_names, 0, 2, given) ||
        pn_ring_deadline(given[0], given[1], &deadline) < 0)
        return NULL;
    return get_value((Ring *)object, deadline);
}

static PyObject *ring_get_nowait(PyObject *object, PyObject *unused)
{
    (void)unused;
    return get_value((Ring *)object, 0);
}

/* --- the class --- */

PyObject *pn_set_queue_types(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *empty, *full, *shut_down;
    if (!PyArg_ParseTuple(args, "OOO:set_queue_types", &empty, &full, &shut_down))
        return NULL;
    Py_XDECREF(pn_queue_types.empty);
    Py_XDECREF(pn_queue_types.full);
    Py_XDECREF(pn_queue_types.shut_down);
    pn_queue_types.empty = Py_NewRef(empty);
    pn_queue_types.full = Py_NewRef(full);
    pn_queue_types.shut_down = Py_NewRef(shut_down);
    Py_RETURN_NONE;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef ring_methods[] = {
    {"_create", ring_create, METH_VARARGS | METH_CLASS, NULL},
    {"_open", ring_open, METH_VARARGS, NULL},
    {"_close", ring_close, METH_VARARGS, NULL},
    {"put", FAST(ring_put), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"put_nowait", ring_put_nowait, METH_O, NULL},
    {"get", FAST(ring_get), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"get_nowait", ring_get_nowait, METH_NOARGS, NULL},
    {"qsize", pn_ring_qsize_method, METH_NOARGS, NULL},
    {"_wait_item", pn_ring_poll_method, METH_VARARGS, NULL},
    {"_task_done", pn_ring_task_done_method, METH_NOARGS, NULL},
    {"_join", pn_ring_join_method, METH_VARARGS, NULL},
    {"_shut", pn_ring_shut_method, METH_VARARGS, NULL},
    {"_arm", pn_ring_arm_method, METH_NOARGS, NULL},
    {"_stat", pn_ring_stat_method, METH_NOARGS, NULL},
    {"_is_alone", pn_ring_is_alone_method, METH_VARARGS, NULL},
    {"_reap", pn_ring_reap_method, METH_NOARGS, NULL},
    {"_users", pn_ring_users_method, METH_NOARGS, NULL},
    {"_has_put", pn_ring_has_put_method, METH_NOARGS, NULL},
    {"_watch", pn_ring_watch_method, METH_O | METH_STATIC, NULL},
    {"_is_had", pn_ring_is_had_method, METH_O | METH_STATIC, NULL},
    {"_is_open", pn_ring_is_open_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_methods, ring_methods},
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_traverse, ring_traverse},
    {0, NULL},
};

PyType_Spec pn_ring_spec = {
    .name = "procession._native._core.Ring",
    .basicsize = sizeof(Ring),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = ring_slots,
};

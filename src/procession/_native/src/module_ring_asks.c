/* The class Ring: what else a queue is asked, but for items: tasks, shutdown, who has it. */
#define _GNU_SOURCE
#include "module_ring.h"

#include <errno.h>

PyObject *pn_ring_poll_method(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    PyObject *timeout = NULL;
    int64_t deadline;
    int result, more;
    if (!PyArg_ParseTuple(args, "|O:_wait_item", &timeout) || !pn_ring_may_ask(self) ||
        pn_ring_deadline(NULL, timeout, &deadline) < 0)
        return NULL;
    do {
        int64_t slice = pn_slice_of(deadline, PN_SLICE_NS);
        WITHOUT_GIL(self, result, pn_ring_poll(&self->ring, slice));
        more = pn_goes_on(result == 0 ? -ETIMEDOUT : result, deadline);
    } while (more > 0);
    if (self->closed)
        pn_ring_close_unused(self);
    if (more < 0)
        return NULL;
    if (result < 0 && result != -ESHUTDOWN)
        return pn_ring_raise(self, result, pn_queue_types.empty);
    return PyBool_FromLong(result != 0); /* after a shutdown a get does not wait, either */
}

PyObject *pn_ring_task_done_method(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    if (!pn_ring_may_ask(self))
        return NULL;
    int result;
    WITHOUT_GIL(self, result, pn_ring_done(&self->ring));
    if (result == -ERANGE)
        return PyErr_Format(PyExc_ValueError, "task_done() called too many times");
    if (result < 0)
        return pn_ring_raise(self, result, pn_queue_types.empty);
    Py_RETURN_NONE;
}

PyObject *pn_ring_join_method(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    PyObject *timeout = NULL;
    int64_t deadline, length = PN_FIRST_SLICE_NS;
    int result, more;
    if (!PyArg_ParseTuple(args, "|O:_join", &timeout) || !pn_ring_may_ask(self) ||
        pn_ring_deadline(NULL, timeout, &deadline) < 0)
        return NULL;
    do {
        int64_t slice = pn_slice_of(deadline, length);
        length = length * 4 < PN_SLICE_NS ? length * 4 : PN_SLICE_NS;
        WITHOUT_GIL(self, result, pn_ring_join(&self->ring, slice));
        more = pn_goes_on(result, deadline);
        if (more > 0 && result == -ETIMEDOUT && !pn_ring_look_around(self, "_idle_in_join", deadline))
            more = -1;
    } while (more > 0);
    if (self->closed)
        pn_ring_close_unused(self);
    if (more < 0)
        return NULL;
    if (result < 0 && result != -ETIMEDOUT)
        return pn_ring_raise(self, result, pn_queue_types.empty);
    return PyBool_FromLong(result == 0);
}

PyObject *pn_ring_shut_method(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    int immediate, result;
    uint64_t kept = 0, dropped = 0;
    if (!PyArg_ParseTuple(args, "p:_shut", &immediate) || !pn_ring_may_ask(self))
        return NULL;
    WITHOUT_GIL(self, result, pn_ring_shut(&self->ring, immediate, &kept, &dropped));
    if (result < 0)
        return pn_ring_raise(self, result, pn_queue_types.empty);
    return Py_BuildValue("(KK)", (unsigned long long)kept, (unsigned long long)dropped);
}

PyObject *pn_ring_arm_method(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    if (!pn_ring_may_ask(self))
        return NULL;
    int result;
    WITHOUT_GIL(self, result, pn_ring_arm(&self->ring));
    if (result < 0)
        return pn_ring_raise(self, result, pn_queue_types.empty);
    return PyLong_FromLong(self->ring.bell);
}

PyObject *pn_ring_stat_method(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    if (!pn_ring_may_ask(self))
        return NULL;
    return Py_BuildValue("(KKIKKK)", (unsigned long long)pn_ring_count(&self->ring),
                         (unsigned long long)pn_ring_unfinished(&self->ring),
                         (unsigned int)pn_ring_flags(&self->ring),
                         (unsigned long long)pn_ring_capacity(&self->ring),
                         (unsigned long long)self->ring.head->budget,
                         (unsigned long long)pn_ring_lost(&self->ring));
}

PyObject *pn_ring_is_alone_method(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    int joining, alone;
    if (!PyArg_ParseTuple(args, "p:_is_alone", &joining) || !pn_ring_may_ask(self))
        return NULL;
    WITHOUT_GIL(self, alone, pn_ring_is_alone(&self->ring, joining));
    return PyBool_FromLong(alone);
}

PyObject *pn_ring_reap_method(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    if (!pn_ring_may_ask(self))
        return NULL;
    uint64_t lost, owner = 0, number = 0;
    WITHOUT_GIL(self, lost, pn_users_reap(&self->ring, &owner, &number));
    return lost == 0 ? Py_NewRef(Py_None)
                     : Py_BuildValue("(KIIK)", (unsigned long long)lost, pn_owner_index(owner),
                                     pn_owner_generation(owner), (unsigned long long)number);
}

PyObject *pn_ring_users_method(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    if (!pn_ring_may_ask(self))
        return NULL;
    PyObject *list = PyList_New(0);
    for (uint32_t n = 0; list != NULL && n < PN_USERS; n++) {
        uint64_t owner = atomic_load(&self->ring.head->users[n].owner);
        if (owner == 0)
            continue;
        PyObject *user =
            Py_BuildValue("(II)", pn_owner_index(owner), pn_owner_generation(owner));
        if (user == NULL || PyList_Append(list, user) != 0)
            Py_CLEAR(list);
        Py_XDECREF(user);
    }
    return list;
}

PyObject *pn_ring_is_open_method(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((Ring *)object)->open);
}

PyObject *pn_ring_has_put_method(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((Ring *)object)->has_put);
}

PyObject *pn_ring_qsize_method(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    return pn_ring_may_ask(self) ? PyLong_FromUnsignedLongLong(pn_ring_count(&self->ring)) : NULL;
}

/* --- for the guard, which has no queue --- */

PyObject *pn_ring_watch_method(PyObject *type, PyObject *fd)
{
    (void)type;
    int given = PyObject_AsFileDescriptor(fd);
    if (given < 0)
        return NULL;
    int ours = pn_queue_watch(given);
    return ours < 0 ? pn_os_error(ours, "cannot watch a queue") : PyLong_FromLong(ours);
}

PyObject *pn_ring_is_had_method(PyObject *type, PyObject *fd)
{
    (void)type;
    int ours = PyObject_AsFileDescriptor(fd);
    return ours < 0 ? NULL : PyBool_FromLong(pn_queue_is_had(ours));
}

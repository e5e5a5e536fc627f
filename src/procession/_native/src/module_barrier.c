/* The class Barrier, of which synchronize.Barrier is made. What each method promises is said in
 * _core.pyi. A wait is here from one end to the other, so that no signal handler runs between its
 * steps but where this file lets it. */
#include "module.h"

#include <errno.h>

#include "barrier.h"
#include "lock.h"

typedef struct {
    struct pn_shared head; /* told: with (is dead, slot, generation, pid); the exception to raise */
    struct pn_barrier_view view;
} Barrier;

static int is_attached(Barrier *self)
{
    return pn_shared_check(&self->head, "barrier");
}

static PyObject *barrier_attach(PyObject *object, PyObject *args)
{
    Barrier *self = (Barrier *)object;
    PyObject *memory, *table, *broken;
    Py_ssize_t offset;
    unsigned int parties;
    if (!PyArg_ParseTuple(args, "OnOIO:_attach", &memory, &offset, &table, &parties, &broken))
        return NULL;
    size_t size = sizeof(struct pn_barrier) + (size_t)parties * sizeof(struct pn_place);
    struct pn_barrier *barrier =
        pn_shared_attach(&self->head, "barrier", memory, offset, size, table, broken);
    if (barrier == NULL)
        return NULL;
    barrier->parties = parties; /* who attaches says what who made it said */
    self->view.self = self->head.self;
    self->view.barrier = barrier;
    Py_RETURN_NONE;
}

/* The mix of the calling thread. */
static uint64_t this_thread(Barrier *self)
{
    uint64_t me = 0;
    (void)pn_self_owner(self->view.self, &me); /* what fails here fails in the core, which says so */
    return pn_lock_holder(me, (uint64_t)PyThread_get_thread_ident());
}

/* Raise what came of a call; of -EINTR the signal handler's exception, if there is one: -1, else 0,
 * call again. */
static int raise_of(Barrier *self, int result)
{
    if (result == -EINTR)
        return PyErr_CheckSignals() != 0 ? -1 : 0; /* PEP 475 */
    if (result != -EPIPE) {
        (void)pn_os_error(result, "cannot wait at a barrier");
        return -1;
    }
    uint64_t dead = atomic_load(&self->view.barrier->dead);
    PyObject *error = PyObject_CallFunction(
        self->head.told, "OIII", dead != 0 ? Py_True : Py_False, pn_owner_index(dead),
        pn_owner_generation(dead), atomic_load(&self->view.barrier->dead_pid));
    if (error != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
    return -1;
}

/* --- waiting --- */

static void leave(Barrier *self, struct pn_visit *visit)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_BEGIN_ALLOW_THREADS
    pn_barrier_leave(&self->view, visit);
    Py_END_ALLOW_THREADS
    PyErr_Restore(type, value, traceback);
}

/* Carry out the action. 0, or -1 with its exception. */
static int act(Barrier *self, PyObject *action)
{
    PyObject *answer = PyObject_CallNoArgs(action), *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_BEGIN_ALLOW_THREADS
    (void)pn_barrier_acted(&self->view, answer == NULL);
    Py_END_ALLOW_THREADS
    PyErr_Restore(type, value, traceback);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

static PyObject *barrier_wait(PyObject *object, PyObject *args)
{
    Barrier *self = (Barrier *)object;
    PyObject *timeout, *action;
    int64_t deadline_ns;
    if (!is_attached(self) || !PyArg_ParseTuple(args, "OO:_wait", &timeout, &action) ||
        pn_deadline_of(timeout, &deadline_ns) < 0)
        return NULL;
    uint64_t thread = this_thread(self);
    struct pn_visit visit;
    for (;;) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = pn_barrier_come(&self->view, action != Py_None, thread, &visit);
        Py_END_ALLOW_THREADS
        if (result == 0)
            break;
        if (raise_of(self, result) < 0)
            return NULL;
    }
    int failed = visit.acts && act(self, action) < 0;
    (void)pn_deadline_of(timeout, &deadline_ns); /* it begins when one is inside */
    pn_barrier_begin(&self->view, &visit, deadline_ns);
    while (!failed) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = pn_barrier_wait(&self->view, &visit);
        Py_END_ALLOW_THREADS
        if (result == 0 || visit.acts)
            break; /* who carried out the action has met the others, whatever comes then */
        failed = raise_of(self, result) < 0;
    }
    leave(self, &visit);
    return failed ? NULL : PyLong_FromUnsignedLong(visit.index);
}

/* --- the rest --- */

static PyObject *change(Barrier *self, int (*what)(struct pn_barrier_view *, uint64_t))
{
    if (!is_attached(self))
        return NULL;
    uint64_t thread = this_thread(self);
    for (;;) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = what(&self->view, thread);
        Py_END_ALLOW_THREADS
        if (result == 0)
            Py_RETURN_NONE;
        if (raise_of(self, result) < 0)
            return NULL;
    }
}

static PyObject *barrier_abort(PyObject *object, PyObject *unused)
{
    (void)unused;
    return change((Barrier *)object, pn_barrier_abort);
}

static PyObject *barrier_reset(PyObject *object, PyObject *unused)
{
    (void)unused;
    return change((Barrier *)object, pn_barrier_reset);
}

/* 0, or -1 with an exception. */
static int look(Barrier *self, enum pn_phase *ret_phase, uint32_t *ret_waiting)
{
    if (!is_attached(self))
        return -1;
    for (;;) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = pn_barrier_look(&self->view, ret_phase, ret_waiting);
        Py_END_ALLOW_THREADS
        if (result == 0)
            return 0;
        if (raise_of(self, result) < 0)
            return -1;
    }
}

static PyObject *barrier_broken(PyObject *object, void *unused)
{
    (void)unused;
    enum pn_phase phase;
    uint32_t waiting;
    return look((Barrier *)object, &phase, &waiting) < 0 ? NULL
                                                         : PyBool_FromLong(phase == PN_BROKEN);
}

static PyObject *barrier_n_waiting(PyObject *object, void *unused)
{
    (void)unused;
    enum pn_phase phase;
    uint32_t waiting;
    return look((Barrier *)object, &phase, &waiting) < 0 ? NULL : PyLong_FromUnsignedLong(waiting);
}

static PyObject *barrier_parties(PyObject *object, void *unused)
{
    (void)unused;
    Barrier *self = (Barrier *)object;
    return is_attached(self) ? PyLong_FromUnsignedLong(self->view.barrier->parties) : NULL;
}

static PyMethodDef barrier_methods[] = {
    {"_attach", barrier_attach, METH_VARARGS, NULL},
    {"_wait", barrier_wait, METH_VARARGS, NULL},
    {"abort", barrier_abort, METH_NOARGS, NULL},
    {"reset", barrier_reset, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef barrier_attributes[] = {
    {"broken", barrier_broken, NULL, NULL, NULL},
    {"n_waiting", barrier_n_waiting, NULL, NULL, NULL},
    {"parties", barrier_parties, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot barrier_slots[] = {
    {Py_tp_methods, barrier_methods},
    {Py_tp_getset, barrier_attributes},
    {Py_tp_traverse, pn_shared_traverse},
    {Py_tp_clear, pn_shared_clear},
    {Py_tp_dealloc, pn_shared_dealloc},
    {0, NULL},
};

PyType_Spec pn_barrier_spec = {
    .name = "procession._native._core.Barrier",
    .basicsize = sizeof(Barrier),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = barrier_slots,
};

/* The class Condition, of which synchronize.Condition is made. What each method promises is said
 * in _core.pyi. A wait is here from one end to the other, so that no signal handler runs between
 * its steps but where this file lets it. The user's lock is used by its methods alone: it may be
 * ours, a standard one, or anything that behaves like one. */
#include "module.h"

#include <errno.h>
#include <limits.h>

#include "condition.h"

typedef struct {
    struct pn_shared head;
    struct pn_condition_view view; /* condition is NULL until it was attached */
    PyObject *lock, *acquire, *release;
} Condition;

static int is_attached(Condition *self)
{
    if (self->view.condition != NULL)
        return 1;
    PyErr_SetString(PyExc_RuntimeError, "the condition's __init__() was not called");
    return 0;
}

static PyObject *condition_attach(PyObject *object, PyObject *args)
{
    Condition *self = (Condition *)object;
    PyObject *memory, *table, *lock;
    Py_ssize_t offset;
    if (!PyArg_ParseTuple(args, "OnOO:_attach", &memory, &offset, &table, &lock))
        return NULL;
    PyObject *acquire = PyObject_GetAttrString(lock, "acquire");
    PyObject *release = acquire == NULL ? NULL : PyObject_GetAttrString(lock, "release");
    struct pn_condition *condition = NULL;
    if (release != NULL)
        condition = pn_shared_attach(&self->head, "condition", memory, offset, sizeof *condition,
                                     table, NULL);
    if (condition == NULL) {
        Py_XDECREF(acquire);
        Py_XDECREF(release);
        return NULL;
    }
    self->lock = Py_NewRef(lock);
    self->acquire = acquire;
    self->release = release;
    self->view.self = self->head.self;
    self->view.memory = (unsigned char *)condition - offset;
    self->view.condition = condition;
    Py_RETURN_NONE;
}

static int condition_traverse(PyObject *object, visitproc visit, void *arg)
{
    Condition *self = (Condition *)object;
    Py_VISIT(self->lock);
    Py_VISIT(self->acquire);
    Py_VISIT(self->release);
    return pn_shared_traverse(object, visit, arg);
}

static int condition_clear(PyObject *object)
{
    Condition *self = (Condition *)object;
    Py_CLEAR(self->lock);
    Py_CLEAR(self->acquire);
    Py_CLEAR(self->release);
    self->view.condition = NULL; /* of no use without its lock */
    return pn_shared_clear(object);
}

static void condition_dealloc(PyObject *object)
{
    PyObject_GC_UnTrack(object);
    (void)condition_clear(object);
    pn_shared_dealloc(object);
}

/* --- the user's lock --- */

/* How often the calling thread has it, 0 if it has not; -1 with an exception. */
static long times_held(Condition *self)
{
    PyObject *part = PyObject_GetAttrString(self->lock, "_semlock");
    PyObject *answer = part == NULL ? NULL : PyObject_CallMethod(part, "_is_mine", NULL);
    long times = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (times > 0) {
        answer = PyObject_CallMethod(part, "_count", NULL);
        times = answer == NULL ? -1 : PyLong_AsLong(answer);
        Py_XDECREF(answer);
    }
    Py_XDECREF(part);
    return times;
}

/* 0 once it is held so often, and no exception is set. An exception that came meanwhile, or before,
 * is raised once it is held: who waits has it at the end, whatever happened. The second one ends
 * the waiting. */
static int take_back(Condition *self, long times)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    while (times > 0) {
        PyObject *answer = PyObject_CallNoArgs(self->acquire);
        if (answer != NULL) {
            Py_DECREF(answer);
            times--;
        } else if (type == NULL) {
            PyErr_Fetch(&type, &value, &traceback);
        } else {
            Py_DECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
            return -1;
        }
    }
    int failed = type != NULL;
    PyErr_Restore(type, value, traceback);
    return failed ? -1 : 0;
}

/* --- waiting --- */

/* More seats. 0, or -1 with an exception. */
static int grow(Condition *self)
{
    size_t size = pn_condition_growth(self->view.condition);
    if (size == 0) {
        PyErr_SetString(PyExc_OSError, "too many wait for this condition");
        return -1;
    }
    PyObject *answer = PyObject_CallMethod(self->head.memory, "take", "n", (Py_ssize_t)size);
    size_t offset = answer == NULL ? 0 : PyLong_AsSize_t(answer);
    Py_XDECREF(answer);
    if (answer == NULL)
        return -1;
    if (offset == 0) {
        (void)pn_os_error(-ENOSPC, "no memory for so many who wait for a condition");
        return -1;
    }
    answer = PyObject_CallMethod(self->head.memory, "reserve", "nn", (Py_ssize_t)offset,
                                 (Py_ssize_t)size);
    Py_XDECREF(answer);
    if (answer == NULL)
        return -1;
    (void)pn_condition_grow(self->view.condition, offset, size);
    return 0;
}

/* 0, or -1 with an exception; the first attempt keeps the GIL and waits for nobody. */
static int enter(Condition *self, uint32_t *ret_seat)
{
    int result = pn_condition_enter(&self->view, 0, ret_seat);
    while (result != 0) {
        if (result == -ENOBUFS ? grow(self) != 0 : result == -EINTR && PyErr_CheckSignals() != 0)
            return -1;
        if (result != -ENOBUFS && result != -EINTR && result != -ETIMEDOUT) {
            (void)pn_os_error(result, "cannot wait for a condition");
            return -1;
        }
        Py_BEGIN_ALLOW_THREADS
        result = pn_condition_enter(&self->view, PN_FOREVER, ret_seat);
        Py_END_ALLOW_THREADS
    }
    return 0;
}

static int leave(Condition *self, uint32_t seat, enum pn_leaving how)
{
    int called;
    Py_BEGIN_ALLOW_THREADS
    called = pn_condition_leave(&self->view, seat, how);
    Py_END_ALLOW_THREADS
    return called;
}

/* 1 called, 0 timed out and not in the seat any more, -1 with an exception. */
static int sleep_in(Condition *self, uint32_t seat, int64_t deadline_ns)
{
    struct pn_waiter wait;
    pn_condition_begin(&self->view, seat, &wait, deadline_ns);
    for (;;) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = pn_condition_wait(&self->view, seat, &wait);
        Py_END_ALLOW_THREADS
        if (result == 0)
            return 1;
        if (result == -ETIMEDOUT)
            return leave(self, seat, PN_TIMED_OUT);
        if (result != -EINTR) {
            (void)pn_os_error(result, "cannot wait for a condition");
            return -1;
        }
        if (PyErr_CheckSignals() != 0) { /* PEP 475 */
            pn_wait_end(&wait, result);
            return -1;
        }
    }
}

static PyObject *condition_wait(PyObject *object, PyObject *args, PyObject *named)
{
    static char *names[] = {"timeout", NULL};
    Condition *self = (Condition *)object;
    PyObject *timeout = NULL;
    int64_t deadline_ns;
    if (!is_attached(self) ||
        !PyArg_ParseTupleAndKeywords(args, named, "|O:wait", names, &timeout) ||
        pn_deadline_of(timeout, &deadline_ns) < 0)
        return NULL;
    long times = times_held(self), released = 0;
    if (times == 0)
        PyErr_SetString(PyExc_AssertionError, "must acquire() condition before using wait()");
    uint32_t seat;
    if (times <= 0 || enter(self, &seat) < 0)
        return NULL;
    int called = 0;
    for (; released < times && called == 0; released++) {
        PyObject *answer = PyObject_CallNoArgs(self->release);
        if (answer == NULL) {
            called = -1;
            break;
        }
        Py_DECREF(answer);
    }
    if (called == 0)
        called = sleep_in(self, seat, deadline_ns);
    if (called < 0) { /* who gets an exception does not take a wake-up along */
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        (void)leave(self, seat, PN_GIVES_UP);
        PyErr_Restore(type, value, traceback);
        (void)take_back(self, released);
        return NULL;
    }
    int failed = take_back(self, released) < 0;
    if (called) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        (void)leave(self, seat, failed ? PN_GIVES_UP : PN_HAS_WAITED);
        PyErr_Restore(type, value, traceback);
    }
    return failed ? NULL : PyBool_FromLong(called);
}

/* --- notifying --- */

/* As many as a number says, which may be as large as it likes. 0, or -1 with an exception. */
static int parse_many(PyObject *number, uint64_t *ret_many)
{
    if (PyFloat_Check(number)) { /* the standard one takes one, too, and counts up to it */
        double value = PyFloat_AsDouble(number);
        *ret_many = value > 0 ? value < 1e9 ? (uint64_t)value : UINT64_MAX : 0;
        *ret_many += *ret_many != UINT64_MAX && (double)*ret_many < value;
        return 0;
    }
    PyObject *index = PyNumber_Index(number);
    if (index == NULL)
        return -1;
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (value == -1 && PyErr_Occurred())
        return -1;
    *ret_many = overflow > 0 ? UINT64_MAX : overflow < 0 || value < 0 ? 0 : (uint64_t)value;
    return 0;
}

static PyObject *notify(Condition *self, uint64_t many)
{
    long times = times_held(self);
    if (times == 0)
        PyErr_SetString(PyExc_AssertionError, "lock is not owned");
    if (times <= 0)
        return NULL;
    int result = pn_condition_notify(&self->view, many, 0);
    while (result != 0) {
        if (result == -EINTR && PyErr_CheckSignals() != 0)
            return NULL;
        if (result != -EINTR && result != -ETIMEDOUT)
            return pn_os_error(result, "cannot notify a condition");
        Py_BEGIN_ALLOW_THREADS
        result = pn_condition_notify(&self->view, many, PN_FOREVER);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *condition_notify(PyObject *object, PyObject *args, PyObject *named)
{
    static char *names[] = {"n", NULL};
    Condition *self = (Condition *)object;
    PyObject *number = NULL;
    uint64_t many = 1;
    if (!is_attached(self) ||
        !PyArg_ParseTupleAndKeywords(args, named, "|O:notify", names, &number) ||
        (number != NULL && parse_many(number, &many) < 0))
        return NULL;
    return notify(self, many);
}

static PyObject *condition_notify_all(PyObject *object, PyObject *unused)
{
    (void)unused;
    return is_attached((Condition *)object) ? notify((Condition *)object, UINT64_MAX) : NULL;
}

/* --- the rest --- */

static PyObject *condition_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    Condition *self = (Condition *)object;
    return is_attached(self) ? PyObject_CallNoArgs(self->acquire) : NULL;
}

static PyObject *condition_exit(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    (void)args, (void)count;
    Condition *self = (Condition *)object;
    return is_attached(self) ? PyObject_CallNoArgs(self->release) : NULL;
}

static PyObject *condition_waiters(PyObject *object, PyObject *unused)
{
    (void)unused;
    Condition *self = (Condition *)object;
    if (!is_attached(self))
        return NULL;
    uint32_t called, waiting = pn_condition_count(&self->view, &called);
    return Py_BuildValue("(II)", waiting, called);
}

static PyObject *condition_get(PyObject *object, void *offset)
{
    if (!is_attached((Condition *)object))
        return NULL;
    return Py_NewRef(*(PyObject **)(void *)((char *)object + (size_t)offset));
}

static PyMethodDef condition_methods[] = {
    {"_attach", condition_attach, METH_VARARGS, NULL},
    {"_waiters", condition_waiters, METH_NOARGS, NULL},
    {"wait", (PyCFunction)(void (*)(void))condition_wait, METH_VARARGS | METH_KEYWORDS, NULL},
    {"notify", (PyCFunction)(void (*)(void))condition_notify, METH_VARARGS | METH_KEYWORDS, NULL},
    {"notify_all", condition_notify_all, METH_NOARGS, NULL},
    {"__enter__", condition_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))condition_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef condition_attributes[] = {
    {"_lock", condition_get, NULL, NULL, (void *)offsetof(Condition, lock)},
    {"acquire", condition_get, NULL, NULL, (void *)offsetof(Condition, acquire)},
    {"release", condition_get, NULL, NULL, (void *)offsetof(Condition, release)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot condition_slots[] = {
    {Py_tp_methods, condition_methods},
    {Py_tp_getset, condition_attributes},
    {Py_tp_traverse, condition_traverse},
    {Py_tp_clear, condition_clear},
    {Py_tp_dealloc, condition_dealloc},
    {0, NULL},
};

PyType_Spec pn_condition_spec = {
    .name = "procession._native._core.Condition",
    .basicsize = sizeof(Condition),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = condition_slots,
};

/* The class Lock, of which synchronize.py's Lock and RLock are made. What each method promises is
 * said in _core.pyi. The path of an uncontended lock stays here, in C and with the GIL. */
#include "module.h"

#include <errno.h>

#include "lock.h"

typedef struct {
    struct pn_shared head; /* told: of a death, with (left, index, generation) */
    struct pn_lock *lock;
    int recursive;
} Lock;

static int is_attached(Lock *self)
{
    return pn_shared_check(&self->head, "lock");
}

static PyObject *lock_attach(PyObject *object, PyObject *args)
{
    Lock *self = (Lock *)object;
    PyObject *memory, *table, *on_death;
    Py_ssize_t offset;
    int recursive;
    if (!PyArg_ParseTuple(args, "OnOpO:_attach", &memory, &offset, &table, &recursive, &on_death))
        return NULL;
    struct pn_lock *lock =
        pn_shared_attach(&self->head, "lock", memory, offset, sizeof *lock, table, on_death);
    if (lock == NULL)
        return NULL;
    self->recursive = recursive;
    self->lock = lock;
    Py_RETURN_NONE;
}

/* Owner word and mix of the calling thread. 0, or -1 with an exception. */
static int who(Lock *self, uint64_t *ret_me, uint64_t *ret_holder)
{
    if (!is_attached(self))
        return -1;
    int result = pn_self_owner(self->head.self, ret_me);
    if (result < 0) {
        (void)pn_os_error(result, "no place for this process in the table of processes");
        return -1;
    }
    *ret_holder = pn_lock_holder(*ret_me, (uint64_t)PyThread_get_thread_ident());
    return 0;
}

/* Tell the user of a death. 0, or -1 with the exception that came of it. */
static int tell(Lock *self, int left, uint64_t owner)
{
    if (self->head.told == NULL)
        return 0;
    PyObject *answer =
        PyObject_CallFunction(self->head.told, "OII", left ? Py_True : Py_False,
                              pn_owner_index(owner), pn_owner_generation(owner));
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

/* Take it after the first attempt found it held. */
static PyObject *take(Lock *self, uint64_t me, uint64_t holder, int64_t deadline_ns)
{
    int told = deadline_ns == 0; /* who does not wait is not told what it is that one waits for */
    struct pn_waiter wait;
    pn_lock_begin(self->head.self->table, self->lock, me, &wait, deadline_ns);
    for (;;) {
        uint64_t before = 0;
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = pn_lock_take(self->head.self->table, self->lock, holder, told, &wait, &before);
        Py_END_ALLOW_THREADS
        switch (result) {
        case PN_TAKEN:
            Py_RETURN_TRUE;
        case PN_TAKEN_OVER:
            if (tell(self, 0, before) == 0)
                Py_RETURN_TRUE;
            (void)pn_lock_release(self->lock); /* who gets an exception does not have it */
            return NULL;
        case PN_LEFT_HELD:
            told = 1;
            if (tell(self, 1, before) != 0)
                return NULL;
            pn_lock_begin(self->head.self->table, self->lock, me, &wait, deadline_ns);
            break;
        case -ETIMEDOUT:
            Py_RETURN_FALSE;
        case -EINTR:
            if (PyErr_CheckSignals() != 0) { /* PEP 475 */
                pn_wait_end(&wait, result);
                return NULL;
            }
            break;
        default:
            return pn_os_error(result, "cannot wait for a lock");
        }
    }
}

int pn_deadline_of(PyObject *timeout, int64_t *ret_deadline_ns)
{
    *ret_deadline_ns = PN_FOREVER;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (seconds != seconds) {
        PyErr_SetString(PyExc_ValueError, "timeout is not a number");
        return -1;
    }
    if (seconds <= 0)
        *ret_deadline_ns = 0;
    else if (seconds < 9e9) /* longer than that is no limit: three hundred years */
        *ret_deadline_ns = pn_now_ns() + (int64_t)(seconds * 1e9);
    return 0;
}

int pn_parse_acquire(PyObject *const *args, Py_ssize_t count, PyObject *names,
                     int64_t *ret_deadline_ns)
{
    PyObject *given[2] = {NULL, NULL};
    static const char *const known[2] = {"block", "timeout"};
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    if (count + named > 2) {
        PyErr_Format(PyExc_TypeError, "acquire() takes at most 2 arguments (%zd given)",
                     count + named);
        return -1;
    }
    for (Py_ssize_t n = 0; n < count; n++)
        given[n] = args[n];
    for (Py_ssize_t n = 0; n < named; n++) {
        PyObject *name = PyTuple_GetItem(names, n);
        int at = PyUnicode_CompareWithASCIIString(name, known[0]) == 0   ? 0
                 : PyUnicode_CompareWithASCIIString(name, known[1]) == 0 ? 1
                                                                         : -1;
        if (at < 0 || given[at] != NULL) {
            PyErr_Format(PyExc_TypeError, "acquire() got an unexpected argument %R", name);
            return -1;
        }
        given[at] = args[count + n];
    }
    int block = given[0] == NULL ? 1 : PyObject_IsTrue(given[0]);
    if (block < 0 || pn_deadline_of(given[1], ret_deadline_ns) < 0)
        return -1;
    if (!block)
        *ret_deadline_ns = 0;
    return 0;
}

static PyObject *acquire(Lock *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    uint64_t me, holder;
    if (who(self, &me, &holder) < 0)
        return NULL;
    int64_t deadline_ns = PN_FOREVER;
    if ((count != 0 || names != NULL) && pn_parse_acquire(args, count, names, &deadline_ns) < 0)
        return NULL;
    if (pn_lock_try(self->lock, me, holder))
        Py_RETURN_TRUE;
    if (self->recursive && pn_lock_is_mine(self->lock, holder)) {
        atomic_fetch_add_explicit(&self->lock->count, 1, memory_order_relaxed);
        Py_RETURN_TRUE;
    }
    return take(self, me, holder, deadline_ns);
}

static PyObject *lock_acquire(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    return acquire((Lock *)object, args, count, names);
}

static PyObject *lock_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    return acquire((Lock *)object, NULL, 0, NULL);
}

static PyObject *lock_release(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lock *self = (Lock *)object;
    uint64_t me, holder;
    if (who(self, &me, &holder) < 0)
        return NULL;
    if (self->recursive) {
        if (!pn_lock_is_mine(self->lock, holder)) {
            PyErr_SetString(PyExc_AssertionError,
                            "attempt to release recursive lock not owned by thread");
            return NULL;
        }
        if (PN_GET(self->lock->count) > 1) {
            atomic_fetch_sub_explicit(&self->lock->count, 1, memory_order_relaxed);
            Py_RETURN_NONE;
        }
    }
    if (pn_lock_release(self->lock) < 0) {
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *lock_exit(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    (void)args, (void)count;
    return lock_release(object, NULL);
}

static PyObject *lock_leave(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lock *self = (Lock *)object;
    uint64_t me, holder;
    if (who(self, &me, &holder) < 0)
        return NULL;
    return PyBool_FromLong(pn_lock_leave(self->lock, me));
}

static int held(Lock *self)
{
    return (atomic_load(&self->lock->word) & PN_OWNER_MASK) != 0;
}

static PyObject *lock_is_mine(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lock *self = (Lock *)object;
    uint64_t me, holder;
    if (who(self, &me, &holder) < 0)
        return NULL;
    return PyBool_FromLong(pn_lock_is_mine(self->lock, holder));
}

static PyObject *lock_count(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lock *self = (Lock *)object;
    uint64_t me, holder;
    if (who(self, &me, &holder) < 0)
        return NULL;
    int ours = (atomic_load(&self->lock->word) & PN_OWNER_MASK) == me;
    return PyLong_FromUnsignedLong(ours ? PN_GET(self->lock->count) : 0);
}

static PyObject *lock_locked(PyObject *object, PyObject *unused)
{
    (void)unused;
    return is_attached((Lock *)object) ? PyBool_FromLong(held((Lock *)object)) : NULL;
}

static PyObject *lock_get_value(PyObject *object, PyObject *unused)
{
    (void)unused;
    return is_attached((Lock *)object) ? PyLong_FromLong(!held((Lock *)object)) : NULL;
}

static PyObject *lock_get_recovered(PyObject *object, void *unused)
{
    (void)unused;
    Lock *self = (Lock *)object;
    return is_attached(self) ? PyLong_FromUnsignedLong(atomic_load(&self->lock->recovered)) : NULL;
}

static PyMethodDef lock_methods[] = {
    {"_attach", lock_attach, METH_VARARGS, NULL},
    {"_leave", lock_leave, METH_NOARGS, NULL},
    {"acquire", (PyCFunction)(void (*)(void))lock_acquire, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"release", lock_release, METH_NOARGS, NULL},
    {"__enter__", lock_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))lock_exit, METH_FASTCALL, NULL},
    {"locked", lock_locked, METH_NOARGS, NULL},
    {"_is_zero", lock_locked, METH_NOARGS, NULL},
    {"_get_value", lock_get_value, METH_NOARGS, NULL},
    {"_is_mine", lock_is_mine, METH_NOARGS, NULL},
    {"_count", lock_count, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef lock_attributes[] = {
    {"recovered", lock_get_recovered, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_methods, lock_methods},
    {Py_tp_getset, lock_attributes},
    {Py_tp_traverse, pn_shared_traverse},
    {Py_tp_clear, pn_shared_clear},
    {Py_tp_dealloc, pn_shared_dealloc},
    {0, NULL},
};

PyType_Spec pn_lock_spec = {
    .name = "procession._native._core.Lock",
    .basicsize = sizeof(Lock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = lock_slots,
};

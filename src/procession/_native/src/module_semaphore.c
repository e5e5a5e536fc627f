/* The class Semaphore, of which synchronize.py's two are made. What each method promises is said in
 * _core.pyi. The path of a free permit stays here, in C and with the GIL. */
#include "module.h"

#include "semaphore.h"

typedef struct {
    struct pn_shared head; /* told: of a death, with (slot, generation) */
    struct pn_semaphore *semaphore;
    unsigned long taker; /* the thread that took a permit last */
} Semaphore;

static int is_attached(Semaphore *self)
{
    return pn_shared_check(&self->head, "semaphore");
}

static PyObject *semaphore_attach(PyObject *object, PyObject *args)
{
    Semaphore *self = (Semaphore *)object;
    PyObject *memory, *table, *on_death;
    Py_ssize_t offset;
    if (!PyArg_ParseTuple(args, "OnOO:_attach", &memory, &offset, &table, &on_death))
        return NULL;
    if (pn_self_of(table) == NULL)
        return NULL;
    struct pn_semaphore *semaphore = pn_shared_attach(&self->head, "semaphore", memory, offset,
                                                      sizeof *semaphore, table, on_death);
    if (semaphore == NULL)
        return NULL;
    self->semaphore = semaphore;
    Py_RETURN_NONE;
}

static PyObject *semaphore_make(PyObject *object, PyObject *args)
{
    Semaphore *self = (Semaphore *)object;
    unsigned int value, bound;
    int reclaim;
    if (!PyArg_ParseTuple(args, "IIp:_make", &value, &bound, &reclaim) || !is_attached(self))
        return NULL;
    self->semaphore->bound = bound;
    self->semaphore->reclaim = reclaim != 0;
    atomic_store(&self->semaphore->value, value);
    Py_RETURN_NONE;
}

/* Give a permit back, in whatever time it takes. As pn_semaphore_release(). */
static int release(Semaphore *self, enum pn_sort sort)
{
    int result = pn_semaphore_release(self->head.self, self->semaphore, sort, 0);
    if (result == -EAGAIN) {
        Py_BEGIN_ALLOW_THREADS
        result = pn_semaphore_release(self->head.self, self->semaphore, sort, 1);
        Py_END_ALLOW_THREADS
    }
    return result;
}

/* A permit was taken: tell the user by whose death, if any. */
static PyObject *taken(Semaphore *self, enum pn_sort sort, uint64_t before)
{
    self->taker = PyThread_get_thread_ident();
    if (before == 0)
        Py_RETURN_TRUE;
    PyObject *answer = PyObject_CallFunction(self->head.told, "II", pn_owner_index(before),
                                             pn_owner_generation(before));
    if (answer == NULL) { /* who gets an exception does not have one */
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        (void)release(self, sort);
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    Py_DECREF(answer);
    Py_RETURN_TRUE;
}

/* Have room made in the ledger for this process. 0, or -1 with an exception. */
static int grow(Semaphore *self)
{
    struct pn_memory *memory;
    size_t size;
    int result, fd = pn_memory_of(self->head.memory, &memory, &size);
    Py_BEGIN_ALLOW_THREADS
    result = fd < 0 ? fd : pn_semaphore_grow(self->head.self, self->semaphore, memory, size, fd);
    Py_END_ALLOW_THREADS
    if (result < 0)
        (void)pn_os_error(result, "no memory for so many processes at a semaphore");
    return result;
}

/* Take one after the first attempt found none. */
static PyObject *take(Semaphore *self, enum pn_sort sort, int64_t deadline_ns)
{
    struct pn_permit_wait wait = {.deadline_ns = deadline_ns};
    int result, goes_on;
    do {
        Py_BEGIN_ALLOW_THREADS
        result = pn_semaphore_take(self->head.self, self->semaphore, sort, &wait);
        Py_END_ALLOW_THREADS
        goes_on = (result == -EINTR && PyErr_CheckSignals() == 0) /* PEP 475 */
                  || (result == -ENOBUFS && grow(self) == 0);
    } while (goes_on);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_BEGIN_ALLOW_THREADS
    pn_semaphore_end(self->head.self, self->semaphore, &wait, result);
    Py_END_ALLOW_THREADS
    PyErr_Restore(type, value, traceback);
    if (result == 0)
        return taken(self, sort, wait.before);
    if (result == -EINTR || result == -ENOBUFS)
        return NULL;
    if (result == -ETIMEDOUT)
        Py_RETURN_FALSE;
    return pn_os_error(result, "cannot wait for a semaphore");
}

static PyObject *acquire(Semaphore *self, enum pn_sort sort, int64_t deadline_ns)
{
    uint64_t before = 0;
    int result = pn_semaphore_try(self->head.self, self->semaphore, sort, &before);
    if (result == 0)
        return taken(self, sort, before);
    if (result != -EAGAIN && result != -ENOBUFS)
        return pn_os_error(result, "no place for this process in the table of processes");
    return take(self, sort, deadline_ns);
}

static PyObject *semaphore_acquire(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                   PyObject *names)
{
    int64_t deadline_ns = PN_FOREVER;
    if (!is_attached((Semaphore *)object))
        return NULL;
    if ((count != 0 || names != NULL) && pn_parse_acquire(args, count, names, &deadline_ns) < 0)
        return NULL;
    return acquire((Semaphore *)object, PN_PLAIN, deadline_ns);
}

static PyObject *semaphore_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    return is_attached((Semaphore *)object) ? acquire((Semaphore *)object, PN_SCOPED, PN_FOREVER)
                                            : NULL;
}

static PyObject *released(int result)
{
    if (result == 0)
        Py_RETURN_NONE;
    if (result != -EPERM)
        return pn_os_error(result, "cannot release a semaphore");
    PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
    return NULL;
}

static PyObject *semaphore_release(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self) ? released(release(self, PN_PLAIN)) : NULL;
}

static PyObject *semaphore_exit(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    (void)args, (void)count;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self) ? released(release(self, PN_SCOPED)) : NULL;
}

static PyObject *semaphore_leave(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    if (!is_attached(self))
        return NULL;
    int result = pn_semaphore_leave(self->head.self, self->semaphore);
    if (result < 0)
        return pn_os_error(result, "cannot leave a semaphore");
    Py_RETURN_NONE;
}

static PyObject *semaphore_get_value(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self) ? PyLong_FromUnsignedLong(atomic_load(&self->semaphore->value)) : NULL;
}

static PyObject *semaphore_locked(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self) ? PyBool_FromLong(atomic_load(&self->semaphore->value) == 0) : NULL;
}

static PyObject *semaphore_count(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self)
               ? PyLong_FromUnsignedLong(pn_semaphore_own(self->head.self, self->semaphore))
               : NULL;
}

static PyObject *semaphore_is_mine(PyObject *object, PyObject *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self) ? PyBool_FromLong(self->taker == PyThread_get_thread_ident() &&
                                               pn_semaphore_own(self->head.self, self->semaphore) > 0)
                             : NULL;
}

static PyObject *semaphore_get_maxvalue(PyObject *object, void *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self) ? PyLong_FromUnsignedLong(self->semaphore->bound) : NULL;
}

static PyObject *semaphore_get_capacity(PyObject *object, void *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self) ? PyLong_FromUnsignedLong(pn_semaphore_room(self->semaphore)) : NULL;
}

static PyObject *semaphore_get_recovered(PyObject *object, void *unused)
{
    (void)unused;
    Semaphore *self = (Semaphore *)object;
    return is_attached(self) ? PyLong_FromUnsignedLong(atomic_load(&self->semaphore->recovered))
                             : NULL;
}

static PyMethodDef semaphore_methods[] = {
    {"_attach", semaphore_attach, METH_VARARGS, NULL},
    {"_make", semaphore_make, METH_VARARGS, NULL},
    {"_leave", semaphore_leave, METH_NOARGS, NULL},
    {"acquire", (PyCFunction)(void (*)(void))semaphore_acquire, METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"release", semaphore_release, METH_NOARGS, NULL},
    {"__enter__", semaphore_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))semaphore_exit, METH_FASTCALL, NULL},
    {"get_value", semaphore_get_value, METH_NOARGS, NULL},
    {"_get_value", semaphore_get_value, METH_NOARGS, NULL},
    {"locked", semaphore_locked, METH_NOARGS, NULL},
    {"_is_zero", semaphore_locked, METH_NOARGS, NULL},
    {"_is_mine", semaphore_is_mine, METH_NOARGS, NULL},
    {"_count", semaphore_count, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef semaphore_attributes[] = {
    {"recovered", semaphore_get_recovered, NULL, NULL, NULL},
    {"maxvalue", semaphore_get_maxvalue, NULL, NULL, NULL},
    {"_capacity", semaphore_get_capacity, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot semaphore_slots[] = {
    {Py_tp_methods, semaphore_methods},
    {Py_tp_getset, semaphore_attributes},
    {Py_tp_traverse, pn_shared_traverse},
    {Py_tp_clear, pn_shared_clear},
    {Py_tp_dealloc, pn_shared_dealloc},
    {0, NULL},
};

PyType_Spec pn_semaphore_spec = {
    .name = "procession._native._core.Semaphore",
    .basicsize = sizeof(Semaphore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = semaphore_slots,
};

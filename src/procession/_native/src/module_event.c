/* The class Event, of which synchronize.Event is made. What each method promises is said in
 * _core.pyi. */
#include "module.h"

#include "event.h"
#include "identity.h"

typedef struct {
    PyObject_HEAD
    struct pn_event *event; /* NULL until it was attached */
    struct pn_self *self;
    PyObject *memory, *table;
} Event;

static struct pn_event *event_of(PyObject *object)
{
    struct pn_event *event = ((Event *)object)->event;
    if (event == NULL)
        PyErr_SetString(PyExc_RuntimeError, "the event's __init__() was not called");
    return event;
}

static PyObject *event_attach(PyObject *object, PyObject *args)
{
    Event *self = (Event *)object;
    PyObject *memory, *table;
    Py_ssize_t offset;
    if (!PyArg_ParseTuple(args, "OnO:_attach", &memory, &offset, &table))
        return NULL;
    struct pn_event *event = pn_memory_at(memory, offset, sizeof *event);
    struct pn_self *me = event == NULL ? NULL : pn_self_of(table);
    if (me == NULL)
        return NULL;
    if (self->event != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the event has been attached already");
        return NULL;
    }
    self->memory = Py_NewRef(memory);
    self->table = Py_NewRef(table);
    self->self = me;
    self->event = event;
    Py_RETURN_NONE;
}

static void event_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(((Event *)object)->memory);
    Py_XDECREF(((Event *)object)->table);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *event_is_set(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct pn_event *event = event_of(object);
    return event == NULL ? NULL : PyBool_FromLong((pn_event_look(event) & PN_EVENT_SET) != 0);
}

static PyObject *event_set(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct pn_event *event = event_of(object);
    if (event == NULL)
        return NULL;
    pn_event_set(event);
    Py_RETURN_NONE;
}

static PyObject *event_clear(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct pn_event *event = event_of(object);
    if (event == NULL)
        return NULL;
    pn_event_clear(event);
    Py_RETURN_NONE;
}

static PyObject *event_wait(PyObject *object, PyObject *args, PyObject *named)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    struct pn_event *event = event_of(object);
    int64_t deadline_ns;
    if (event == NULL || !PyArg_ParseTupleAndKeywords(args, named, "|O:wait", names, &timeout) ||
        pn_deadline_of(timeout, &deadline_ns) < 0)
        return NULL;
    uint32_t seen = pn_event_look(event);
    if (seen & PN_EVENT_SET)
        Py_RETURN_TRUE;
    struct pn_waiter wait;
    struct pn_self *self = ((Event *)object)->self;
    uint64_t me;
    pn_event_begin(event, &wait, deadline_ns);
    if (deadline_ns != 0 && pn_self_owner(self, &me) == 0) /* else, with a full table, it is unheard */
        pn_wait_as(&wait, self->table, me);
    int result, raised = 0;
    do {
        Py_BEGIN_ALLOW_THREADS
        result = pn_event_wait(event, seen, &wait);
        Py_END_ALLOW_THREADS
        raised = result == -EINTR && PyErr_CheckSignals() != 0; /* PEP 475 */
    } while (result == -EINTR && !raised);
    pn_wait_end(&wait, result);
    if (raised)
        return NULL;
    if (result < 0 && result != -ETIMEDOUT)
        return pn_os_error(result, "cannot wait for an event");
    return PyBool_FromLong(result == 0);
}

static PyMethodDef event_methods[] = {
    {"_attach", event_attach, METH_VARARGS, NULL},
    {"is_set", event_is_set, METH_NOARGS, NULL},
    {"set", event_set, METH_NOARGS, NULL},
    {"clear", event_clear, METH_NOARGS, NULL},
    {"wait", (PyCFunction)(void (*)(void))event_wait, METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_methods, event_methods},
    {Py_tp_dealloc, event_dealloc},
    {0, NULL},
};

PyType_Spec pn_event_spec = {
    .name = "procession._native._core.Event",
    .basicsize = sizeof(Event),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = event_slots,
};

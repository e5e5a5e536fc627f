/* The class Table: what a process is doing, for who looks on, and life words. */
#include "module_table.h"

/* --- what it is doing, for who looks on --- */

PyObject *pn_table_begin_wait(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    unsigned long long whom;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nK:begin_wait", &index, &whom) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    int place = pn_slot_begin_wait(((Table *)object)->table, slot, whom);
    return PyLong_FromLong(place < 0 ? -1 : place);
}

PyObject *pn_table_end_wait(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    int place;
    unsigned long long given_up = 0;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "ni|K:end_wait", &index, &place, &given_up) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    if (place >= PN_WAITS)
        return PyErr_Format(PyExc_IndexError, "wait %d: a slot has %d", place, PN_WAITS);
    pn_slot_end_wait(((Table *)object)->table, slot, place, given_up);
    Py_RETURN_NONE;
}

PyObject *pn_table_waits(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "n:waits", &index) || (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    PyObject *found = PyList_New(0);
    for (int place = 0; found != NULL && place < PN_WAITS; place++) {
        int64_t since_ns;
        uint64_t whom = pn_slot_read_wait(slot, place, &since_ns);
        if (whom == 0)
            continue;
        PyObject *row = Py_BuildValue("(KL)", (unsigned long long)whom, (long long)since_ns);
        if (row == NULL || PyList_Append(found, row) != 0)
            Py_CLEAR(found);
        Py_XDECREF(row);
    }
    return found;
}

PyObject *pn_table_joined_since(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "n:joined_since", &index) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    return PyLong_FromLongLong(PN_GET(slot->joined_since_ns));
}

PyObject *pn_table_code_ended(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    long long at_ns = 0;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "n|L:code_ended", &index, &at_ns) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    if (at_ns != 0)
        atomic_store(&slot->code_ended_ns, at_ns);
    return PyLong_FromLongLong(atomic_load(&slot->code_ended_ns));
}

PyObject *pn_table_recorded(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong((long)PN_GET(((Table *)object)->table->recorded));
}

PyObject *pn_table_full(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong((long)PN_GET(((Table *)object)->table->full));
}

PyObject *pn_table_set_full(PyObject *object, PyObject *args)
{
    int on = 0;
    if (!PyArg_ParseTuple(args, "p:set_full", &on))
        return NULL;
    atomic_store(&((Table *)object)->table->full, (uint32_t)on);
    Py_RETURN_NONE;
}

PyObject *pn_table_set_recorded(PyObject *object, PyObject *args)
{
    int on;
    if (!PyArg_ParseTuple(args, "p:set_recorded", &on))
        return NULL;
    atomic_store(&((Table *)object)->table->recorded, (uint32_t)on);
    Py_RETURN_NONE;
}

/* --- life words --- */

PyObject *pn_table_life(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "n:life", &index) || (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    return PyLong_FromLong(pn_life_read(slot));
}

PyObject *pn_table_drop_life(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "n:drop_life", &index) || (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    int result = pn_life_drop(slot);
    if (result < 0)
        return pn_os_error(result, "this thread does not hold the life word");
    Py_RETURN_NONE;
}

PyObject *pn_table_watch_life(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    int eventfd;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "ni:watch_life", &index, &eventfd) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    ((Table *)object)->pinned = 1;
    int result = pn_life_watch(slot, eventfd);
    if (result < 0)
        return pn_os_error(result, "cannot start a thread that watches a life word");
    Py_RETURN_NONE;
}

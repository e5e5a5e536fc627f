/* What the classes of shared objects have in common: whose memory they are in, and who is told. */
#include "module.h"

int pn_shared_refuse(const char *what)
{
    PyErr_Format(PyExc_RuntimeError, "the %s's __init__() was not called", what);
    return 0;
}

void *pn_shared_attach(struct pn_shared *head, const char *what, PyObject *memory,
                       Py_ssize_t offset, size_t size, PyObject *table, PyObject *told)
{
    void *found = pn_memory_at(memory, offset, size);
    struct pn_self *me = found == NULL ? NULL : pn_self_of(table);
    if (me == NULL)
        return NULL;
    if (head->self != NULL) {
        PyErr_Format(PyExc_RuntimeError, "the %s has been attached already", what);
        return NULL;
    }
    head->memory = Py_NewRef(memory);
    head->table = Py_NewRef(table);
    head->told = told == Py_None ? NULL : Py_XNewRef(told);
    head->self = me;
    return found;
}

int pn_shared_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct pn_shared *)object)->told);
    return 0;
}

int pn_shared_clear(PyObject *object)
{
    Py_CLEAR(((struct pn_shared *)object)->told);
    return 0;
}

void pn_shared_dealloc(PyObject *object)
{
    struct pn_shared *head = (struct pn_shared *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(head->told);
    Py_XDECREF(head->memory);
    Py_XDECREF(head->table);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

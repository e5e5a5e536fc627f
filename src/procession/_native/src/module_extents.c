/* The classes Extent and Holds: memory of large items in Python's hands. */
#define _GNU_SOURCE
#include "module_extents.h"

#include <errno.h>
#include <sys/mman.h>

#include "extents.h"

PyObject *pn_extent_type;

/* --- an extent's memory, as long as somebody uses it --- */

typedef struct {
    PyObject_HEAD
    struct pn_holds *holds;
    uint32_t extent;
    unsigned char *bytes;
    size_t size;
} Extent;

static void extent_dealloc(PyObject *object)
{
    Extent *self = (Extent *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->bytes != NULL)
        (void)munmap(self->bytes, self->size);
    pn_unhold(self->holds, self->extent); /* only now may others write there */
    pn_holds_drop(self->holds);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static int extent_buffer(PyObject *object, Py_buffer *view, int flags)
{
    Extent *self = (Extent *)object;
    return PyBuffer_FillInfo(view, object, self->bytes, (Py_ssize_t)self->size, 0, flags);
}

static PyType_Slot extent_slots[] = {
    {Py_tp_dealloc, extent_dealloc},
    {Py_bf_getbuffer, extent_buffer},
    {0, NULL},
};

PyType_Spec pn_extent_spec = {
    .name = "procession._native._core.Extent",
    .basicsize = sizeof(Extent),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = extent_slots,
};

PyObject *pn_extent_object(struct pn_holds *holds, uint32_t extent, uint64_t offset, size_t size)
{
    PyTypeObject *type = (PyTypeObject *)pn_extent_type;
    Extent *object = (Extent *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (object == NULL) {
        pn_unhold(holds, extent);
        return NULL;
    }
    object->holds = holds;
    pn_holds_keep(holds);
    object->extent = extent;
    object->bytes = pn_holds_map(holds, offset, size);
    object->size = size;
    if (object->bytes == NULL) {
        Py_DECREF(object);
        return PyErr_NoMemory();
    }
    return (PyObject *)object;
}

void *pn_extent_bytes(PyObject *object)
{
    return ((Extent *)object)->bytes;
}

/* --- holds of a file that is no ring's --- */

typedef struct {
    PyObject_HEAD
    struct pn_holds *holds;
} Holds;

static PyObject *holds_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    int fd;
    if (names != NULL && PyDict_Size(names) != 0)
        return PyErr_Format(PyExc_TypeError, "Holds() takes no keyword arguments");
    if (!PyArg_ParseTuple(args, "i:Holds", &fd))
        return NULL;
    Holds *self = (Holds *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->holds = pn_holds_open(fd);
    if (self->holds == NULL) {
        int error = errno;
        Py_DECREF(self);
        return pn_os_error(-error, "cannot open memory once more to hold some of it");
    }
    return (PyObject *)self;
}

static void holds_dealloc(PyObject *object)
{
    Holds *self = (Holds *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->holds != NULL)
        pn_holds_drop(self->holds);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *holds_map(PyObject *object, PyObject *args)
{
    Holds *self = (Holds *)object;
    unsigned int extent;
    unsigned long long offset;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "IKn:map", &extent, &offset, &size))
        return NULL;
    if (extent >= PN_EXTENTS || size <= 0)
        return PyErr_Format(PyExc_ValueError, "no extent %u of %zd bytes", extent, size);
    int result = pn_hold(self->holds, extent);
    if (result != 0)
        return pn_os_error(result, "cannot hold memory");
    return pn_extent_object(self->holds, extent, offset, (size_t)size);
}

static PyMethodDef holds_methods[] = {
    {"map", holds_map, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot holds_slots[] = {
    {Py_tp_new, holds_new},
    {Py_tp_dealloc, holds_dealloc},
    {Py_tp_methods, holds_methods},
    {0, NULL},
};

PyType_Spec pn_holds_spec = {
    .name = "procession._native._core.Holds",
    .basicsize = sizeof(Holds),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = holds_slots,
};

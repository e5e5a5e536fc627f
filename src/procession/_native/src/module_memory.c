/* The class Memory. What each method promises is said in _core.pyi. */
#include "module.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory.h"

typedef struct {
    PyObject_HEAD
    struct pn_memory *memory;
    size_t size;
    int fd;
    dev_t device; /* whose descriptor it was: code that daemonises closes and reuses numbers */
    ino_t inode;
} Memory;

static PyObject *new_memory(PyObject *type, struct pn_memory *mapped, size_t size, int fd)
{
    struct stat status = {0};
    (void)fstat(fd, &status); /* it was mapped a moment ago */
    allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_alloc);
    Memory *self = (Memory *)allocate((PyTypeObject *)type, 0);
    if (self == NULL) {
        (void)munmap(mapped, size);
        return NULL;
    }
    self->memory = mapped;
    self->size = size;
    self->fd = fd;
    self->device = status.st_dev;
    self->inode = status.st_ino;
    return (PyObject *)self;
}

static PyObject *memory_create(PyObject *type, PyObject *args)
{
    const char *name, *table_id;
    Py_ssize_t size, reserved, id_size;
    if (!PyArg_ParseTuple(args, "sny#|n:create", &name, &size, &table_id, &id_size, &reserved))
        return NULL;
    if (PyTuple_Size(args) < 4)
        reserved = size;
    if (id_size != 16 || size < (Py_ssize_t)sizeof(struct pn_memory) || reserved < 0 ||
        reserved > size)
        return PyErr_Format(PyExc_ValueError, "a memory of %zd bytes, %zd of them reserved", size,
                            reserved);
    struct pn_memory *mapped;
    int fd, result = pn_memory_create(name, (size_t)size, (size_t)reserved,
                                      (const unsigned char *)table_id, &mapped, &fd);
    if (result < 0)
        return pn_os_error(result, "cannot make shared memory");
    PyObject *self = new_memory(type, mapped, (size_t)size, fd);
    if (self == NULL)
        (void)close(fd);
    return self;
}

static PyObject *memory_attach(PyObject *type, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i:attach", &fd))
        return NULL;
    struct pn_memory *mapped;
    size_t size;
    int result = pn_memory_attach(fd, &mapped, &size);
    if (result == -EPROTO)
        return PyErr_Format(PyExc_ValueError,
                            "descriptor %d is no shared memory of this version of procession", fd);
    if (result < 0)
        return pn_os_error(result, "cannot map shared memory");
    return new_memory(type, mapped, size, fd);
}

static int still_ours(Memory *self)
{
    struct stat status;
    return self->fd >= 0 && fstat(self->fd, &status) == 0 && status.st_dev == self->device &&
           status.st_ino == self->inode;
}

static void memory_dealloc(PyObject *object)
{
    Memory *self = (Memory *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (still_ours(self))
        (void)close(self->fd);
    (void)munmap(self->memory, self->size);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

int pn_memory_of(PyObject *object, struct pn_memory **ret_memory, size_t *ret_size)
{
    Memory *self = (Memory *)object;
    *ret_memory = self->memory;
    *ret_size = self->size;
    return still_ours(self) ? self->fd : -EBADF;
}

void *pn_memory_at(PyObject *object, Py_ssize_t offset, size_t size)
{
    if ((destructor)PyType_GetSlot(Py_TYPE(object), Py_tp_dealloc) != memory_dealloc) {
        PyErr_SetString(PyExc_TypeError, "not a shared memory");
        return NULL;
    }
    Memory *self = (Memory *)object;
    if (offset < 0 || offset % 8 != 0 || (size_t)offset > self->size ||
        size > self->size - (size_t)offset) {
        PyErr_Format(PyExc_ValueError, "no %zu bytes at %zd of %zu", size, offset, self->size);
        return NULL;
    }
    return (char *)self->memory + offset;
}

static PyObject *memory_fileno(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(still_ours((Memory *)object) ? ((Memory *)object)->fd : -1);
}

static PyObject *memory_id(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBytes_FromStringAndSize((const char *)((Memory *)object)->memory->id, 16);
}

static PyObject *memory_table_id(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBytes_FromStringAndSize((const char *)((Memory *)object)->memory->table_id, 16);
}

static PyObject *memory_take(PyObject *object, PyObject *args)
{
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "n:take", &size))
        return NULL;
    if (size < 1)
        return PyErr_Format(PyExc_ValueError, "%zd bytes cannot be taken", size);
    Memory *self = (Memory *)object;
    return PyLong_FromSize_t(pn_memory_take(self->memory, self->size, (size_t)size));
}

static PyObject *memory_reserve(PyObject *object, PyObject *args)
{
    Py_ssize_t offset, size;
    if (!PyArg_ParseTuple(args, "nn:reserve", &offset, &size))
        return NULL;
    Memory *self = (Memory *)object;
    if (offset < 0 || size < 1 || (size_t)offset > self->size ||
        (size_t)size > self->size - (size_t)offset)
        return PyErr_Format(PyExc_ValueError, "no %zd bytes at %zd of %zu", size, offset,
                            self->size);
    int result = still_ours(self) ? pn_memory_reserve(self->fd, (size_t)offset, (size_t)size)
                                  : -EBADF;
    if (result < 0)
        return pn_os_error(result, "cannot reserve shared memory");
    Py_RETURN_NONE;
}

static Py_ssize_t memory_length(PyObject *object)
{
    return (Py_ssize_t)((Memory *)object)->size;
}

static int memory_buffer(PyObject *object, Py_buffer *view, int flags)
{
    Memory *self = (Memory *)object;
    return PyBuffer_FillInfo(view, object, self->memory, (Py_ssize_t)self->size, 0, flags);
}

static PyMethodDef memory_methods[] = {
    {"create", memory_create, METH_VARARGS | METH_CLASS, NULL},
    {"attach", memory_attach, METH_VARARGS | METH_CLASS, NULL},
    {"fileno", memory_fileno, METH_NOARGS, NULL},
    {"id", memory_id, METH_NOARGS, NULL},
    {"table_id", memory_table_id, METH_NOARGS, NULL},
    {"take", memory_take, METH_VARARGS, NULL},
    {"reserve", memory_reserve, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot memory_slots[] = {
    {Py_tp_methods, memory_methods},
    {Py_tp_dealloc, memory_dealloc},
    {Py_sq_length, memory_length},
    {Py_bf_getbuffer, memory_buffer},
    {0, NULL},
};

PyType_Spec pn_memory_spec = {
    .name = "procession._native._core.Memory",
    .basicsize = sizeof(Memory),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = memory_slots,
};

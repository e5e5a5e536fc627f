/* Items as records, and records as items: plain values encoded, others pickled, large ones in
 * extents. */
#define _GNU_SOURCE
#include "module_ring.h"

#include <errno.h>
#include <string.h>

#include "codec.h"
#include "module_extents.h"

#define FAR 131072 /* bytes from which an item goes through an extent */
#define MOST_BUFFERS 200

enum kind { PLAIN, BYTES, PICKLE };

/* What this process holds, mapped; the hold is the object's, or let go of when there is none. */
static PyObject *map_extent(Ring *self, uint32_t extent, size_t size)
{
    return pn_extent_object(self->ring.holds, extent, self->ring.head->extents[extent].offset, size);
}

/* --- put --- */

/* A far record: which extent, and which parts are in it, one after the other. */
struct far {
    uint32_t extent, count;
    uint64_t sizes[MOST_BUFFERS + 1];
};

#define ROUND(size) (((size) + 63) & ~(uint64_t)63) /* parts begin where numpy likes it */

/* Put parts by an extent. -ENOTSUP: that cannot be, and the ring may do. */
static int put_far(Ring *self, enum kind kind, const struct pn_part *parts, size_t count,
                   int64_t deadline, uint64_t *ret_number)
{
    struct far far = {0, (uint32_t)count, {0}};
    uint64_t total = 0;
    int result;
    for (size_t n = 0; n < count; n++) {
        far.sizes[n] = parts[n].size;
        total += ROUND(parts[n].size);
    }
    self->users++;
    Py_BEGIN_ALLOW_THREADS
    result = pn_extent_reserve(&self->ring, total, &far.extent);
    if (result == 0) {
        uint64_t at = 0;
        for (size_t n = 0; result == 0 && n < count; n++) {
            result = pn_extent_write(&self->ring, far.extent, at, parts[n].bytes, parts[n].size);
            at += ROUND(parts[n].size);
        }
        if (result != 0)
            pn_extent_release(&self->ring, far.extent);
    }
    Py_END_ALLOW_THREADS
    self->users--;
    if (result != 0)
        return -ENOTSUP;
    struct pn_part part = {&far, offsetof(struct far, sizes) + count * sizeof far.sizes[0]};
    result = pn_ring_put_parts(self, kind | PN_RING_FAR, &part, 1, deadline, ret_number);
    pn_extent_release(&self->ring, far.extent);
    return result == -ENOBUFS ? -ENOTSUP : result; /* it left no room for the ring */
}

static int put_bytes(Ring *self, enum kind kind, PyObject *bytes, int64_t deadline,
                     uint64_t *ret_number)
{
    struct pn_part part = {PyBytes_AsString(bytes), (size_t)PyBytes_Size(bytes)};
    int result = -ENOTSUP;
    if (part.size >= FAR)
        result = put_far(self, kind, &part, 1, deadline, ret_number);
    return result == -ENOTSUP ? pn_ring_put_parts(self, kind, &part, 1, deadline, ret_number)
                              : result;
}

/* Put a pickle and its buffers: a tuple of bytes-like objects. */
static int put_buffers(Ring *self, PyObject *pieces, int64_t deadline, uint64_t *ret_number)
{
    Py_ssize_t count = PyTuple_Size(pieces), got = 0;
    int result = -ENOTSUP;
    if (count > MOST_BUFFERS)
        return result;
    Py_buffer views[MOST_BUFFERS];
    struct pn_part parts[MOST_BUFFERS];
    for (; got < count; got++) {
        if (PyObject_GetBuffer(PyTuple_GetItem(pieces, got), &views[got], PyBUF_SIMPLE) != 0)
            break;
        parts[got] = (struct pn_part){views[got].buf, (size_t)views[got].len};
    }
    result = got < count ? -ECANCELED
                         : put_far(self, PICKLE, parts, (size_t)count, deadline, ret_number);
    while (got > 0)
        PyBuffer_Release(&views[--got]);
    return result;
}

/* Have the guard told of an item for which it keeps descriptors: which put `item` was, or 0; where
 * that is NULL, that nobody will have the one of this number. Also with an exception on its way. What
 * comes up here is a signal handler's, as a rule before the first line of what is called: it is told
 * once more, and then the exception is the caller's, in the place of an earlier one: -1. */
static int tell(Ring *self, PyObject *item, uint64_t number)
{
    unsigned long long which = number;
    PyObject *type, *error, *traceback, *done = NULL;
    int result = 0;
    PyErr_Fetch(&type, &error, &traceback);
    for (int attempt = 0; attempt < 2 && done == NULL; attempt++) {
        done = item != NULL
                   ? PyObject_CallMethod((PyObject *)self, "_settle", "(OK)", item, which)
                   : PyObject_CallMethod((PyObject *)self, "_lose", "(KK)", which, which);
        if (done == NULL) {
            Py_XDECREF(type);
            Py_XDECREF(error);
            Py_XDECREF(traceback);
            PyErr_Fetch(&type, &error, &traceback);
            result = -1;
        }
    }
    Py_XDECREF(done);
    PyErr_Restore(type, error, traceback);
    return result;
}

/* Put what `_dumps` made. -ENOTSUP: only where buffers are apart. */
static int put_dumped(Ring *self, PyObject *pickle, int64_t deadline, uint64_t *ret_number)
{
    if (pickle == Py_None)
        return 0; /* it cannot be pickled, and was seen to */
    if (PyTuple_Check(pickle))
        return pn_ring_enter(self) ? put_buffers(self, pickle, deadline, ret_number) : -ECANCELED;
    if (PyBytes_Check(pickle))
        return pn_ring_enter(self) ? put_bytes(self, PICKLE, pickle, deadline, ret_number)
                                   : -ECANCELED;
    PyErr_SetString(PyExc_TypeError, "_dumps() must return bytes");
    return -ECANCELED;
}

/* Pickle is Python's code, which may do anything: nothing of the ring is held meanwhile. */
static int put_pickled(Ring *self, PyObject *value, int64_t deadline)
{
    int result = -ENOTSUP;
    for (int apart = 1; apart >= 0 && result == -ENOTSUP; apart--) {
        PyObject *dumped =
            PyObject_CallMethod((PyObject *)self, "_dumps", "(Oi)", value, apart);
        if (dumped == NULL)
            return -ECANCELED;
        if (PyList_Check(dumped) && PyList_Size(dumped) == 2) {
            uint64_t number = 0;
            result = put_dumped(self, PyList_GetItem(dumped, 0), deadline, &number);
            if (tell(self, PyList_GetItem(dumped, 1), number) < 0)
                result = -ECANCELED;
        } else
            result = put_dumped(self, dumped, deadline, NULL);
        Py_DECREF(dumped);
    }
    return result;
}

int pn_item_put(Ring *self, PyObject *value, int64_t deadline)
{
    int result = -ECANCELED; /* an exception is set */
    if (Py_TYPE(value) == &PyBytes_Type) {
        result = put_bytes(self, BYTES, value, deadline, NULL);
    } else {
        struct pn_buffer buffer;
        pn_buffer_begin(&buffer);
        int plain = pn_encode(&buffer, value);
        if (plain == 1) {
            struct pn_part part = {buffer.bytes, buffer.size};
            result = pn_ring_put_parts(self, PLAIN, &part, 1, deadline, NULL);
        }
        pn_buffer_end(&buffer);
        if (plain == 0)
            result = put_pickled(self, value, deadline);
    }
    return result;
}

/* --- get --- */

/* A slice of an extent, as a memoryview. */
static PyObject *part_of(PyObject *whole, uint64_t from, uint64_t size)
{
    PyObject *slice = NULL, *first = PyLong_FromUnsignedLongLong(from);
    PyObject *end = PyLong_FromUnsignedLongLong(from + size);
    if (first != NULL && end != NULL)
        slice = PySlice_New(first, end, NULL);
    PyObject *part = slice == NULL ? NULL : PyObject_GetItem(whole, slice);
    Py_XDECREF(slice);
    Py_XDECREF(first);
    Py_XDECREF(end);
    return part;
}

/* The value of a far record. */
static PyObject *far_value(Ring *self, const struct pn_record *record)
{
    struct far far = {0};
    memcpy(&far, record->bytes, record->size < sizeof far ? record->size : sizeof far);
    uint64_t total = 0;
    for (uint32_t n = 0; n < far.count && n <= MOST_BUFFERS; n++)
        total += ROUND(far.sizes[n]);
    PyObject *extent = map_extent(self, far.extent, total);
    if (extent == NULL)
        return NULL;
    if ((record->kind & ~PN_RING_FAR) == BYTES) {
        PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)far.sizes[0]);
        if (bytes != NULL) {
            char *to = PyBytes_AsString(bytes);
            Py_BEGIN_ALLOW_THREADS
            memcpy(to, pn_extent_bytes(extent), far.sizes[0]);
            Py_END_ALLOW_THREADS
        }
        Py_DECREF(extent);
        return bytes;
    }
    PyObject *whole = PyMemoryView_FromObject(extent), *value = NULL;
    Py_DECREF(extent);
    PyObject *pickle = whole == NULL ? NULL : part_of(whole, 0, far.sizes[0]);
    PyObject *buffers = pickle == NULL ? NULL : PyList_New(0);
    uint64_t at = ROUND(far.sizes[0]);
    for (uint32_t n = 1; buffers != NULL && n < far.count && n <= MOST_BUFFERS; n++) {
        PyObject *part = part_of(whole, at, far.sizes[n]);
        at += ROUND(far.sizes[n]);
        if (part == NULL || PyList_Append(buffers, part) != 0)
            Py_CLEAR(buffers);
        Py_XDECREF(part);
    }
    if (buffers != NULL)
        value = PyObject_CallMethod((PyObject *)self, "_loads", "(OO)", pickle, buffers);
    Py_XDECREF(buffers);
    Py_XDECREF(pickle);
    Py_XDECREF(whole);
    if (value == NULL)
        (void)tell(self, NULL, record->number); /* it could not be made of its record */
    return value;
}

PyObject *pn_item_value(Ring *self, const struct pn_record *record)
{
    if (record->kind & PN_RING_FAR)
        return far_value(self, record);
    if (record->kind == PLAIN)
        return pn_decode(record->bytes, record->size);
    PyObject *bytes =
        PyBytes_FromStringAndSize((const char *)record->bytes, (Py_ssize_t)record->size);
    if (record->kind == BYTES || bytes == NULL)
        return bytes;
    PyObject *value = PyObject_CallMethod((PyObject *)self, "_loads", "(O)", bytes);
    Py_DECREF(bytes);
    if (value == NULL)
        (void)tell(self, NULL, record->number); /* it could not be made of its record */
    return value;
}

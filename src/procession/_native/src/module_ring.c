/* The class Ring: what a queue does, but for pickling. What each method promises is said in
 * _core.pyi. */
#include "module.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "codec.h"
#include "ring.h"
#include "table.h"

#define QUICK 32768        /* bytes that are copied with the GIL held: some microseconds */
#define SLICE_NS 1000000000 /* a signal that comes just before we sleep is handled this late */

#define FAR 131072 /* bytes from which an item goes through an extent */
#define MOST_BUFFERS 200

enum kind { PLAIN, BYTES, PICKLE };

typedef struct {
    PyObject_HEAD
    struct pn_ring ring;
    PyObject *table, *memory; /* what `ring` points into */
    int open;
    int closed; /* by this process's user */
    int users;  /* threads inside without the GIL */
} Ring;

static struct {
    PyObject *empty, *full, *shut_down, *extent;
} python; /* set once by `set_queue_types` */

/* --- made, mapped, closed --- */

static PyObject *ring_create(PyObject *type, PyObject *args)
{
    (void)type;
    PyObject *memory;
    Py_ssize_t offset;
    unsigned long long budget, maxsize;
    struct pn_ring_head *head;
    if (!PyArg_ParseTuple(args, "OnKK:_create", &memory, &offset, &budget, &maxsize) ||
        (head = pn_memory_at(memory, offset, sizeof *head)) == NULL)
        return NULL;
    int fd, bell, result = pn_ring_create(head, budget, maxsize, &fd, &bell);
    if (result < 0)
        return pn_os_error(result, "cannot make the memory of a queue");
    return Py_BuildValue("(ii)", fd, bell);
}

static PyObject *ring_open(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    PyObject *table, *memory;
    Py_ssize_t offset;
    int fd, bell;
    struct pn_self *me;
    struct pn_ring_head *head;
    if (!PyArg_ParseTuple(args, "OOnii:_open", &table, &memory, &offset, &fd, &bell) ||
        (me = pn_self_of(table)) == NULL ||
        (head = pn_memory_at(memory, offset, sizeof *head)) == NULL)
        return NULL;
    if (self->open) {
        PyErr_SetString(PyExc_RuntimeError, "this queue is open already");
        return NULL;
    }
    int result = pn_ring_open(me, head, fd, bell, &self->ring);
    if (result == -EPROTO)
        return PyErr_Format(PyExc_ValueError,
                            "descriptor %d is no queue of this version of procession", fd);
    if (result < 0)
        return pn_os_error(result, "cannot use the memory of a queue");
    self->table = Py_NewRef(table);
    self->memory = Py_NewRef(memory);
    self->open = 1;
    self->closed = 0;
    Py_RETURN_NONE;
}

static void close_unused(Ring *self)
{
    if (self->open && self->users == 0) {
        self->open = 0;
        pn_ring_close(&self->ring);
        Py_CLEAR(self->table);
        Py_CLEAR(self->memory);
    }
}

static int ring_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Ring *)object)->table);
    Py_VISIT(((Ring *)object)->memory);
    return 0;
}

static void ring_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    close_unused((Ring *)object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *ring_close(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    int release;
    if (!PyArg_ParseTuple(args, "p:_close", &release))
        return NULL;
    self->closed = 1;
    if (release)
        close_unused(self); /* or the last one who is inside, when it comes out */
    Py_RETURN_NONE;
}

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

/* What this process holds, mapped; the hold is the object's, or let go of when there is none. */
static PyObject *map_extent(Ring *self, uint32_t extent, size_t size)
{
    PyTypeObject *type = (PyTypeObject *)python.extent;
    Extent *object = (Extent *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (object == NULL) {
        pn_extent_release(&self->ring, extent);
        return NULL;
    }
    object->holds = self->ring.holds;
    pn_holds_keep(object->holds);
    object->extent = extent;
    object->bytes = pn_extent_map(&self->ring, extent, size);
    object->size = size;
    if (object->bytes == NULL) {
        Py_DECREF(object);
        return PyErr_NoMemory();
    }
    return (PyObject *)object;
}

/* --- going in and out --- */

static int refuse(Ring *self)
{
    PyObject *error = PyObject_GetAttrString((PyObject *)self, "_closed_error");
    if (error != NULL)
        PyErr_Format(error, "Queue %R is closed", (PyObject *)self);
    Py_XDECREF(error);
    return 0;
}

/* Whether there is still something to ask, although its user may have closed it. */
static int is_open(Ring *self)
{
    return self->open || refuse(self);
}

/* Whether items may go in and out. */
static int enter(Ring *self)
{
    return (self->open && !self->closed) || refuse(self);
}

/* Call the core without the GIL, again after every signal. */
#define WITHOUT_GIL(self, result, call)                                                            \
    do {                                                                                           \
        (self)->users++;                                                                           \
        Py_BEGIN_ALLOW_THREADS                                                                     \
        result = call;                                                                             \
        Py_END_ALLOW_THREADS                                                                       \
        (self)->users--;                                                                           \
    } while (0)

static int64_t deadline_of(PyObject *block, PyObject *timeout, int64_t *ret_deadline)
{
    int waits = block == NULL ? 1 : PyObject_IsTrue(block);
    if (waits < 0)
        return -1;
    *ret_deadline = 0;
    if (!waits)
        return 0;
    if (timeout == NULL || timeout == Py_None) {
        *ret_deadline = PN_FOREVER;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout must be a number of seconds, not nan");
        return -1;
    }
    int64_t now = pn_now_ns();
    if (seconds > 0)
        *ret_deadline = seconds > 9e9 ? INT64_MAX : now + (int64_t)(seconds * 1e9);
    return 0;
}

/* A slice of a wait: the next look at Python's signals. */
static int64_t slice_of(int64_t deadline)
{
    int64_t slice = pn_now_ns() + SLICE_NS;
    return deadline == PN_FOREVER || deadline > slice ? slice : deadline;
}

/* 1: the wait goes on. 0: it is over. -1: a signal handler raised. */
static int goes_on(int result, int64_t deadline)
{
    if (result != -EINTR && result != -ETIMEDOUT)
        return 0;
    if (PyErr_CheckSignals() != 0) /* PEP 475 */
        return -1;
    return result == -EINTR || deadline == PN_FOREVER || pn_now_ns() < deadline;
}

static PyObject *raise(Ring *self, int result, PyObject *nothing)
{
    if (result == -EAGAIN || result == -ETIMEDOUT) {
        PyErr_SetNone(nothing);
        return NULL;
    }
    if (result == -ESHUTDOWN) {
        PyErr_SetNone(python.shut_down);
        return NULL;
    }
    if (result == -ENOBUFS)
        return PyErr_Format(PyExc_MemoryError,
                            "the item has no room in the queue within its budget of %llu bytes "
                            "(max_bytes); what is in it stays, and can be taken",
                            (unsigned long long)self->ring.head->budget);
    if (result == -ENOMEM) {
        PyErr_SetString(PyExc_MemoryError, "no memory for the item; the queue is as it was");
        return NULL;
    }
    return pn_os_error(result, "the queue cannot be used now; it is as it was");
}

/* --- put --- */

static int put_parts(Ring *self, unsigned int kind, const struct pn_part *parts, size_t count,
                     int64_t deadline)
{
    size_t size = 0;
    for (size_t n = 0; n < count; n++)
        size += parts[n].size;
    int result = -EBUSY;
    if (size <= QUICK)
        result = pn_ring_put(&self->ring, (unsigned char)kind, parts, count, PN_RING_NOW);
    if (result != -EBUSY && result != -EAGAIN)
        return result;
    if (result == -EAGAIN && deadline == 0)
        return result;
    for (;;) {
        int64_t slice = slice_of(deadline);
        WITHOUT_GIL(self, result,
                    pn_ring_put(&self->ring, (unsigned char)kind, parts, count, slice));
        int more = goes_on(result, deadline);
        if (more <= 0)
            return more < 0 ? -ECANCELED : result;
    }
}

/* A far record: which extent, and which parts are in it, one after the other. */
struct far {
    uint32_t extent, count;
    uint64_t sizes[MOST_BUFFERS + 1];
};

#define ROUND(size) (((size) + 63) & ~(uint64_t)63) /* parts begin where numpy likes it */

/* Put parts by an extent. -ENOTSUP: that cannot be, and the ring may do. */
static int put_far(Ring *self, enum kind kind, const struct pn_part *parts, size_t count,
                   int64_t deadline)
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
    result = put_parts(self, kind | PN_RING_FAR, &part, 1, deadline);
    pn_extent_release(&self->ring, far.extent);
    return result == -ENOBUFS ? -ENOTSUP : result; /* it left no room for the ring */
}

static int put_bytes(Ring *self, enum kind kind, PyObject *bytes, int64_t deadline)
{
    struct pn_part part = {PyBytes_AsString(bytes), (size_t)PyBytes_Size(bytes)};
    int result = -ENOTSUP;
    if (part.size >= FAR)
        result = put_far(self, kind, &part, 1, deadline);
    return result == -ENOTSUP ? put_parts(self, kind, &part, 1, deadline) : result;
}

/* Put a pickle and its buffers: a tuple of bytes-like objects. */
static int put_buffers(Ring *self, PyObject *pieces, int64_t deadline)
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
    result = got < count ? -ECANCELED : put_far(self, PICKLE, parts, (size_t)count, deadline);
    while (got > 0)
        PyBuffer_Release(&views[--got]);
    return result;
}

/* Pickle is Python's code, which may do anything: nothing of the ring is held meanwhile. */
static int put_pickled(Ring *self, PyObject *value, int64_t deadline)
{
    PyObject *pickle = PyObject_CallMethod((PyObject *)self, "_dumps", "(O)", value);
    int result = -ECANCELED;
    if (pickle != NULL && PyTuple_Check(pickle)) {
        if (enter(self))
            result = put_buffers(self, pickle, deadline);
        Py_DECREF(pickle);
        if (result != -ENOTSUP)
            return result;
        result = -ECANCELED;
        pickle = PyObject_CallMethod((PyObject *)self, "_dumps", "(Oi)", value, 0);
    }
    if (pickle == Py_None)
        result = 0; /* it cannot be pickled, and was seen to */
    else if (pickle != NULL && !PyBytes_Check(pickle))
        PyErr_SetString(PyExc_TypeError, "_dumps() must return bytes");
    else if (pickle != NULL && enter(self))
        result = put_bytes(self, PICKLE, pickle, deadline);
    Py_XDECREF(pickle);
    return result;
}

static PyObject *put_value(Ring *self, PyObject *value, int64_t deadline)
{
    if (!enter(self))
        return NULL;
    int result = -ECANCELED; /* an exception is set */
    if (Py_TYPE(value) == &PyBytes_Type) {
        result = put_bytes(self, BYTES, value, deadline);
    } else {
        struct pn_buffer buffer;
        pn_buffer_begin(&buffer);
        int plain = pn_encode(&buffer, value);
        if (plain == 1) {
            struct pn_part part = {buffer.bytes, buffer.size};
            result = put_parts(self, PLAIN, &part, 1, deadline);
        }
        pn_buffer_end(&buffer);
        if (plain == 0)
            result = put_pickled(self, value, deadline);
    }
    PyObject *answer = result == 0            ? Py_NewRef(Py_None)
                       : result == -ECANCELED ? NULL
                                              : raise(self, result, python.full);
    if (self->closed)
        close_unused(self);
    return answer;
}

/* Arguments `name`, block and timeout of a fast call; `needed` of them without a default. */
static int parse(PyObject *const *args, Py_ssize_t count, PyObject *names, const char *function,
                 const char *const *known, Py_ssize_t needed, Py_ssize_t most, PyObject **ret)
{
    if (count > most) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", function,
                     most, count);
        return 0;
    }
    for (Py_ssize_t n = 0; n < count; n++)
        ret[n] = args[n];
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    for (Py_ssize_t n = 0; n < named; n++) {
        PyObject *name = PyTuple_GetItem(names, n);
        Py_ssize_t at = 0;
        while (at < most && PyUnicode_CompareWithASCIIString(name, known[at]) != 0)
            at++;
        if (at == most || ret[at] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected or repeated argument %R",
                         function, name);
            return 0;
        }
        ret[at] = args[count + n];
    }
    for (Py_ssize_t n = 0; n < needed; n++)
        if (ret[n] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing argument '%s'", function, known[n]);
            return 0;
        }
    return 1;
}

static const char *const put_names[] = {"obj", "block", "timeout"};
static const char *const get_names[] = {"block", "timeout"};

static PyObject *ring_put(PyObject *object, PyObject *const *args, Py_ssize_t count,
                          PyObject *names)
{
    PyObject *given[3] = {NULL, NULL, NULL};
    int64_t deadline;
    if (!parse(args, count, names, "put", put_names, 1, 3, given) ||
        deadline_of(given[1], given[2], &deadline) < 0)
        return NULL;
    return put_value((Ring *)object, given[0], deadline);
}

static PyObject *ring_put_nowait(PyObject *object, PyObject *value)
{
    return put_value((Ring *)object, value, 0);
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
            memcpy(to, ((Extent *)extent)->bytes, far.sizes[0]);
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
    return value;
}

static PyObject *value_of(PyObject *object, const struct pn_record *record)
{
    if (record->kind & PN_RING_FAR)
        return far_value((Ring *)object, record);
    if (record->kind == PLAIN)
        return pn_decode(record->bytes, record->size);
    PyObject *bytes =
        PyBytes_FromStringAndSize((const char *)record->bytes, (Py_ssize_t)record->size);
    if (record->kind == BYTES || bytes == NULL)
        return bytes;
    PyObject *value = PyObject_CallMethod(object, "_loads", "(O)", bytes);
    Py_DECREF(bytes);
    return value;
}

static PyObject *get_value(Ring *self, int64_t deadline)
{
    if (!enter(self))
        return NULL;
    unsigned char quick[4096];
    struct pn_record record = {quick, 0, sizeof quick, 0, 0, 0};
    int result = pn_ring_get(&self->ring, &record, PN_RING_NOW);
    if (result == -EBUSY || result == -EMSGSIZE || (result == -EAGAIN && deadline != 0)) {
        record = (struct pn_record){NULL, 0, 0, 1, 0, 0};
        int more;
        do {
            int64_t slice = slice_of(deadline);
            WITHOUT_GIL(self, result, pn_ring_get(&self->ring, &record, slice));
            more = goes_on(result, deadline);
            if (more > 0 && result == -ETIMEDOUT && self->ring.holds != NULL)
                pn_extents_trim(&self->ring); /* nothing comes, so nothing is to be ready for it */
        } while (more > 0);
        if (more < 0)
            result = -ECANCELED;
    }
    PyObject *answer = result == 0            ? value_of((PyObject *)self, &record)
                       : result == -ECANCELED ? NULL
                                              : raise(self, result, python.empty);
    if (record.grows)
        free(record.bytes);
    if (self->closed)
        close_unused(self);
    return answer;
}

static PyObject *ring_get(PyObject *object, PyObject *const *args, Py_ssize_t count,
                          PyObject *names)
{
    PyObject *given[2] = {NULL, NULL};
    int64_t deadline;
    if (!parse(args, count, names, "get", get_names, 0, 2, given) ||
        deadline_of(given[0], given[1], &deadline) < 0)
        return NULL;
    return get_value((Ring *)object, deadline);
}

static PyObject *ring_get_nowait(PyObject *object, PyObject *unused)
{
    (void)unused;
    return get_value((Ring *)object, 0);
}

/* --- the rest --- */

static PyObject *ring_poll(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    PyObject *timeout = NULL;
    int64_t deadline;
    int result, more;
    if (!PyArg_ParseTuple(args, "|O:_wait_item", &timeout) || !is_open(self) ||
        deadline_of(NULL, timeout, &deadline) < 0)
        return NULL;
    do {
        int64_t slice = slice_of(deadline);
        WITHOUT_GIL(self, result, pn_ring_poll(&self->ring, slice));
        more = goes_on(result == 0 ? -ETIMEDOUT : result, deadline);
    } while (more > 0);
    if (self->closed)
        close_unused(self);
    if (more < 0)
        return NULL;
    if (result < 0 && result != -ESHUTDOWN)
        return raise(self, result, python.empty);
    return PyBool_FromLong(result != 0); /* after a shutdown a get does not wait, either */
}

static PyObject *ring_task_done(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    if (!is_open(self))
        return NULL;
    int result;
    WITHOUT_GIL(self, result, pn_ring_done(&self->ring));
    if (result == -ERANGE)
        return PyErr_Format(PyExc_ValueError, "task_done() called too many times");
    if (result < 0)
        return raise(self, result, python.empty);
    Py_RETURN_NONE;
}

static PyObject *ring_join(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    PyObject *timeout = NULL;
    int64_t deadline;
    int result, more;
    if (!PyArg_ParseTuple(args, "|O:_join", &timeout) || !is_open(self) ||
        deadline_of(NULL, timeout, &deadline) < 0)
        return NULL;
    do {
        int64_t slice = slice_of(deadline);
        WITHOUT_GIL(self, result, pn_ring_join(&self->ring, slice));
        more = goes_on(result, deadline);
    } while (more > 0);
    if (more < 0)
        return NULL;
    if (result < 0 && result != -ETIMEDOUT)
        return raise(self, result, python.empty);
    return PyBool_FromLong(result == 0);
}

static PyObject *ring_shut(PyObject *object, PyObject *args)
{
    Ring *self = (Ring *)object;
    int immediate, result;
    if (!PyArg_ParseTuple(args, "p:_shut", &immediate) || !is_open(self))
        return NULL;
    WITHOUT_GIL(self, result, pn_ring_shut(&self->ring, immediate));
    if (result < 0)
        return raise(self, result, python.empty);
    Py_RETURN_NONE;
}

static PyObject *ring_arm(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    if (!is_open(self))
        return NULL;
    int result;
    WITHOUT_GIL(self, result, pn_ring_arm(&self->ring));
    if (result < 0)
        return raise(self, result, python.empty);
    return PyLong_FromLong(self->ring.bell);
}

static PyObject *ring_stat(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    if (!is_open(self))
        return NULL;
    return Py_BuildValue("(KKIKK)", (unsigned long long)pn_ring_count(&self->ring),
                         (unsigned long long)pn_ring_unfinished(&self->ring),
                         (unsigned int)pn_ring_flags(&self->ring),
                         (unsigned long long)pn_ring_capacity(&self->ring),
                         (unsigned long long)self->ring.head->budget);
}

static PyObject *ring_is_open(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((Ring *)object)->open);
}

static PyObject *ring_qsize(PyObject *object, PyObject *unused)
{
    (void)unused;
    Ring *self = (Ring *)object;
    return is_open(self) ? PyLong_FromUnsignedLongLong(pn_ring_count(&self->ring)) : NULL;
}

PyObject *pn_set_queue_types(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *empty, *full, *shut_down, *extent;
    if (!PyArg_ParseTuple(args, "OOOO:set_queue_types", &empty, &full, &shut_down, &extent))
        return NULL;
    Py_XDECREF(python.extent);
    python.extent = Py_NewRef(extent);
    Py_XDECREF(python.empty);
    Py_XDECREF(python.full);
    Py_XDECREF(python.shut_down);
    python.empty = Py_NewRef(empty);
    python.full = Py_NewRef(full);
    python.shut_down = Py_NewRef(shut_down);
    Py_RETURN_NONE;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef ring_methods[] = {
    {"_create", ring_create, METH_VARARGS | METH_CLASS, NULL},
    {"_open", ring_open, METH_VARARGS, NULL},
    {"_close", ring_close, METH_VARARGS, NULL},
    {"put", FAST(ring_put), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"put_nowait", ring_put_nowait, METH_O, NULL},
    {"get", FAST(ring_get), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"get_nowait", ring_get_nowait, METH_NOARGS, NULL},
    {"qsize", ring_qsize, METH_NOARGS, NULL},
    {"_wait_item", ring_poll, METH_VARARGS, NULL},
    {"_task_done", ring_task_done, METH_NOARGS, NULL},
    {"_join", ring_join, METH_VARARGS, NULL},
    {"_shut", ring_shut, METH_VARARGS, NULL},
    {"_arm", ring_arm, METH_NOARGS, NULL},
    {"_stat", ring_stat, METH_NOARGS, NULL},
    {"_is_open", ring_is_open, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_methods, ring_methods},
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_traverse, ring_traverse},
    {0, NULL},
};

PyType_Spec pn_ring_spec = {
    .name = "procession._native._core.Ring",
    .basicsize = sizeof(Ring),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = ring_slots,
};

/* Python's view of the core. The only file that knows Python; limited API of 3.11. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel.h"
#include "surroundings.h"
#include "table.h"

#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

typedef struct {
    PyObject_HEAD
    struct pn_table *table;
    int fd; /* -1 once it was closed; the mapping stays as long as the process */
} Table;

static PyObject *os_error(int negative)
{
    errno = -negative;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static struct pn_slot *slot_at(Table *self, unsigned long index)
{
    if (index >= self->table->slot_count) {
        PyErr_Format(PyExc_IndexError, "slot %lu: the table has %lu", index,
                     (unsigned long)self->table->slot_count);
        return NULL;
    }
    return &self->table->slots[index];
}

static PyObject *table_new(PyTypeObject *type, struct pn_table *mapped, int fd)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Table *self = (Table *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->table = mapped;
    self->fd = fd;
    return (PyObject *)self;
}

static PyObject *table_create(PyObject *type, PyObject *args)
{
    unsigned int slots;
    if (!PyArg_ParseTuple(args, "I:create", &slots))
        return NULL;
    if (slots < 2 || slots > 1u << 22) {
        PyErr_Format(PyExc_ValueError, "a table has 2 to 4194304 slots, not %u", slots);
        return NULL;
    }
    struct pn_table *mapped;
    int fd, result = pn_table_create(slots, &mapped, &fd);
    if (result < 0)
        return os_error(result);
    return table_new((PyTypeObject *)type, mapped, fd);
}

static PyObject *table_attach(PyObject *type, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i:attach", &fd))
        return NULL;
    struct pn_table *mapped;
    int result = pn_table_attach(fd, &mapped);
    if (result == -EPROTO) {
        PyErr_Format(PyExc_ValueError,
                     "descriptor %d is no table of processes of this version of procession", fd);
        return NULL;
    }
    if (result < 0)
        return os_error(result);
    return table_new((PyTypeObject *)type, mapped, fd);
}

static void table_dealloc(PyObject *object)
{
    /* The mapping is not undone: a robust mutex in it may be this process's life word. */
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *table_fileno(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(((Table *)object)->fd);
}

static PyObject *table_close_fd(PyObject *object, PyObject *unused)
{
    (void)unused;
    Table *self = (Table *)object;
    if (self->fd >= 0) {
        close(self->fd);
        self->fd = -1;
    }
    Py_RETURN_NONE;
}

static PyObject *table_claim(PyObject *object, PyObject *unused)
{
    (void)unused;
    uint32_t index, generation;
    int result = pn_table_claim(((Table *)object)->table, &index, &generation);
    if (result == -ENOSPC) {
        PyErr_SetObject(PyExc_OSError,
                        Py_BuildValue("is", ENOSPC, "the table of processes is full"));
        return NULL;
    }
    if (result < 0)
        return os_error(result);
    return Py_BuildValue("II", index, generation);
}

static PyObject *table_enter(PyObject *object, PyObject *args)
{
    Table *self = (Table *)object;
    unsigned long index;
    unsigned int state = PN_SPARE;
    if (!PyArg_ParseTuple(args, "k|I:enter", &index, &state))
        return NULL;
    struct pn_slot *slot = slot_at(self, index);
    if (slot == NULL)
        return NULL;
    slot->pid = getpid();
    slot->start_time = pn_own_start_time();
    if (syscall(SYS_gettid) == getpid()) {
        int result = pn_life_take(slot);
        if (result < 0)
            return os_error(result);
    }
    uint32_t before = atomic_load(&slot->state);
    while (before != PN_ENDED && before < state &&
           !atomic_compare_exchange_weak(&slot->state, &before, state))
        ;
    Py_RETURN_NONE;
}

static PyObject *table_set_pid(PyObject *object, PyObject *args)
{
    unsigned long index;
    int pid;
    if (!PyArg_ParseTuple(args, "ki:set_pid", &index, &pid))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    slot->pid = pid;
    Py_RETURN_NONE;
}

/* Copy text into a slot, cut where a UTF-8 character begins. */
static void put_text(char *field, size_t room, const char *text, Py_ssize_t size)
{
    size_t length = (size_t)size < room - 1 ? (size_t)size : room - 1;
    if (length < (size_t)size)
        while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
            length--;
    memcpy(field, text, length);
    field[length] = 0;
}

static PyObject *table_ask(PyObject *object, PyObject *args)
{
    unsigned long index;
    unsigned int generation, method, flags;
    unsigned long long owner;
    long long asked_ns;
    const char *name, *target;
    Py_ssize_t name_size, target_size;
    if (!PyArg_ParseTuple(args, "kIKIILy#y#:ask", &index, &generation, &owner, &method, &flags,
                          &asked_ns, &name, &name_size, &target, &target_size))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    if (atomic_load(&slot->generation) != generation)
        Py_RETURN_FALSE;
    slot->owner = owner;
    slot->method = method;
    slot->asked_ns = asked_ns;
    put_text(slot->name, sizeof slot->name, name, name_size);
    put_text(slot->target, sizeof slot->target, target, target_size);
    atomic_fetch_or(&slot->flags, flags);
    return PyBool_FromLong(pn_slot_ask(slot, generation));
}

static PyObject *table_run(PyObject *object, PyObject *args)
{
    unsigned long index;
    if (!PyArg_ParseTuple(args, "k:run", &index))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    pn_slot_run(slot);
    Py_RETURN_NONE;
}

static PyObject *table_finish(PyObject *object, PyObject *args)
{
    unsigned long index;
    unsigned int how;
    int exit_code;
    const char *text;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "kIiy#:finish", &index, &how, &exit_code, &text, &size))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    put_text(slot->text, sizeof slot->text, text, size);
    slot->exit_code = exit_code;
    slot->how = how;
    Py_RETURN_NONE;
}

static PyObject *table_end(PyObject *object, PyObject *args)
{
    Table *self = (Table *)object;
    unsigned long index;
    int wait_status;
    long long utime_ns, stime_ns, max_rss_kib;
    unsigned int flags = 0;
    if (!PyArg_ParseTuple(args, "kiLLL|I:end", &index, &wait_status, &utime_ns, &stime_ns,
                          &max_rss_kib, &flags))
        return NULL;
    struct pn_slot *slot = slot_at(self, index);
    if (slot == NULL)
        return NULL;
    struct pn_end end = {wait_status, utime_ns, stime_ns, max_rss_kib, flags};
    return PyBool_FromLong(pn_slot_end(self->table, slot, &end));
}

static PyObject *table_blame(PyObject *object, PyObject *args)
{
    unsigned long index;
    int pid, number;
    if (!PyArg_ParseTuple(args, "kii:blame", &index, &pid, &number))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    slot->killer_pid = pid;
    slot->killer_signal = number;
    Py_RETURN_NONE;
}

static PyObject *table_set_flags(PyObject *object, PyObject *args)
{
    unsigned long index;
    unsigned int generation, bits;
    if (!PyArg_ParseTuple(args, "kII:set_flags", &index, &generation, &bits))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    if (atomic_load(&slot->generation) != generation || atomic_load(&slot->state) == PN_FREE)
        return PyLong_FromLong(-1);
    return PyLong_FromUnsignedLong(atomic_fetch_or(&slot->flags, bits) | bits);
}

static PyObject *table_wait(PyObject *object, PyObject *args)
{
    unsigned long index;
    unsigned int generation;
    long long timeout_ns;
    if (!PyArg_ParseTuple(args, "kIL:wait", &index, &generation, &timeout_ns))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    int64_t deadline = timeout_ns < 0 ? -1 : pn_now_ns() + timeout_ns;
    for (;;) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = pn_slot_wait(slot, generation, deadline);
        Py_END_ALLOW_THREADS
        if (result >= 0)
            return PyBool_FromLong(result);
        if (PyErr_CheckSignals() != 0) /* PEP 475: go on, unless a handler raised */
            return NULL;
    }
}

static PyObject *table_state(PyObject *object, PyObject *args)
{
    unsigned long index;
    unsigned int generation;
    if (!PyArg_ParseTuple(args, "kI:state", &index, &generation))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    return PyLong_FromUnsignedLong(atomic_load(&slot->generation) == generation ? state : PN_FREE);
}

static PyObject *bytes_of(const char *field, size_t room)
{
    return PyBytes_FromStringAndSize(field, (Py_ssize_t)strnlen(field, room));
}

static PyObject *table_read(PyObject *object, PyObject *args)
{
    unsigned long index;
    if (!PyArg_ParseTuple(args, "k:read", &index))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    struct pn_slot copy;
    uint32_t generation, state, flags;
    do { /* again when the slot changed hands meanwhile */
        generation = atomic_load(&slot->generation);
        state = atomic_load_explicit(&slot->state, memory_order_acquire);
        flags = atomic_load(&slot->flags);
        memcpy(&copy, slot, sizeof copy);
        atomic_thread_fence(memory_order_acquire);
    } while (generation != atomic_load(&slot->generation));
    return Py_BuildValue(
        "(IIiKKIIIiiLLLLLLiiNNN)", state, generation, copy.pid, (unsigned long long)copy.start_time,
        (unsigned long long)copy.owner, copy.method, flags, copy.how, copy.exit_code,
        copy.wait_status, (long long)copy.asked_ns, (long long)copy.running_ns,
        (long long)copy.ended_ns, (long long)copy.utime_ns, (long long)copy.stime_ns,
        (long long)copy.max_rss_kib, copy.killer_pid, copy.killer_signal,
        bytes_of(copy.name, sizeof copy.name), bytes_of(copy.target, sizeof copy.target),
        bytes_of(copy.text, sizeof copy.text));
}

static PyObject *table_free(PyObject *object, PyObject *args)
{
    Table *self = (Table *)object;
    unsigned long index;
    unsigned int generation;
    if (!PyArg_ParseTuple(args, "kI:free", &index, &generation))
        return NULL;
    struct pn_slot *slot = slot_at(self, index);
    if (slot == NULL)
        return NULL;
    int freed = pn_slot_free(slot, generation);
    if (freed && index < atomic_load(&self->table->hint))
        atomic_store(&self->table->hint, (uint32_t)index);
    return PyBool_FromLong(freed);
}

static PyObject *table_pids(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct pn_table *table = ((Table *)object)->table;
    PyObject *found = PyList_New(0);
    uint32_t top = atomic_load(&table->top);
    for (uint32_t index = 0; found != NULL && index < top; index++) {
        struct pn_slot *slot = &table->slots[index];
        uint32_t state = atomic_load(&slot->state);
        if (state == PN_FREE)
            continue;
        PyObject *row = Py_BuildValue("(IiI)", index, slot->pid, state);
        if (row == NULL || PyList_Append(found, row) != 0)
            Py_CLEAR(found);
        Py_XDECREF(row);
    }
    return found;
}

static PyObject *table_ended_count(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(atomic_load(&((Table *)object)->table->ended_count));
}

static PyObject *table_life(PyObject *object, PyObject *args)
{
    unsigned long index;
    if (!PyArg_ParseTuple(args, "k:life", &index))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    return slot == NULL ? NULL : PyLong_FromLong(pn_life_read(slot));
}

static PyObject *table_drop_life(PyObject *object, PyObject *args)
{
    unsigned long index;
    if (!PyArg_ParseTuple(args, "k:drop_life", &index))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    int result = pn_life_drop(slot);
    if (result < 0)
        return os_error(result);
    Py_RETURN_NONE;
}

static PyObject *table_watch_life(PyObject *object, PyObject *args)
{
    unsigned long index;
    int eventfd;
    if (!PyArg_ParseTuple(args, "ki:watch_life", &index, &eventfd))
        return NULL;
    struct pn_slot *slot = slot_at((Table *)object, index);
    if (slot == NULL)
        return NULL;
    int result = pn_life_watch(slot, eventfd);
    if (result < 0)
        return os_error(result);
    Py_RETURN_NONE;
}

static PyMethodDef table_methods[] = {
    {"create", table_create, METH_VARARGS | METH_CLASS, NULL},
    {"attach", table_attach, METH_VARARGS | METH_CLASS, NULL},
    {"fileno", table_fileno, METH_NOARGS, NULL},
    {"close_fd", table_close_fd, METH_NOARGS, NULL},
    {"claim", table_claim, METH_NOARGS, NULL},
    {"enter", table_enter, METH_VARARGS, NULL},
    {"set_pid", table_set_pid, METH_VARARGS, NULL},
    {"ask", table_ask, METH_VARARGS, NULL},
    {"run", table_run, METH_VARARGS, NULL},
    {"finish", table_finish, METH_VARARGS, NULL},
    {"end", table_end, METH_VARARGS, NULL},
    {"blame", table_blame, METH_VARARGS, NULL},
    {"set_flags", table_set_flags, METH_VARARGS, NULL},
    {"wait", table_wait, METH_VARARGS, NULL},
    {"state", table_state, METH_VARARGS, NULL},
    {"read", table_read, METH_VARARGS, NULL},
    {"free", table_free, METH_VARARGS, NULL},
    {"pids", table_pids, METH_NOARGS, NULL},
    {"ended_count", table_ended_count, METH_NOARGS, NULL},
    {"life", table_life, METH_VARARGS, NULL},
    {"drop_life", table_drop_life, METH_VARARGS, NULL},
    {"watch_life", table_watch_life, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_methods, table_methods},
    {Py_tp_dealloc, table_dealloc},
    {0, NULL},
};

static PyType_Spec table_spec = {
    .name = "procession._native._core.Table",
    .basicsize = sizeof(Table),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = table_slots,
};

/* --- functions ------------------------------------------------------------------------------- */

static PyObject *set_subreaper(PyObject *module, PyObject *args)
{
    (void)module;
    int on;
    if (!PyArg_ParseTuple(args, "p:set_subreaper", &on))
        return NULL;
    if (prctl(PR_SET_CHILD_SUBREAPER, (unsigned long)on, 0, 0, 0) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *get_subreaper(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    int on = 0;
    if (prctl(PR_GET_CHILD_SUBREAPER, (unsigned long)&on, 0, 0, 0) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBool_FromLong(on);
}

static PyObject *set_process_name(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    if (!PyArg_ParseTuple(args, "s:set_process_name", &name))
        return NULL;
    (void)prctl(PR_SET_NAME, name, 0, 0, 0);
    Py_RETURN_NONE;
}

static PyObject *open_signalfd(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *numbers;
    if (!PyArg_ParseTuple(args, "O:signalfd", &numbers))
        return NULL;
    sigset_t set;
    sigemptyset(&set);
    Py_ssize_t count = PySequence_Size(numbers);
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *item = PySequence_GetItem(numbers, n);
        long number = item == NULL ? -1 : PyLong_AsLong(item);
        Py_XDECREF(item);
        if (PyErr_Occurred())
            return NULL;
        if (sigaddset(&set, (int)number) != 0)
            return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (count < 0)
        return NULL;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

static PyObject *peek_child(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pn_dead dead;
    int result = pn_peek_child(&dead);
    if (result < 0)
        return os_error(result);
    if (result == 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(iiLLL)", dead.pid, dead.wait_status, (long long)dead.utime_ns,
                         (long long)dead.stime_ns, (long long)dead.max_rss_kib);
}

static PyObject *mrelease(PyObject *module, PyObject *args)
{
    (void)module;
    int pidfd;
    if (!PyArg_ParseTuple(args, "i:mrelease", &pidfd))
        return NULL;
    long result;
    Py_BEGIN_ALLOW_THREADS
    result = syscall(SYS_process_mrelease, pidfd, 0);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(result == 0 ? 0 : errno);
}

static int compare_ints(const void *a, const void *b)
{
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

#define MANY 64 /* descriptors that a keeper or a child keeps: a handful */

/* Fill `ret` with the descriptors of a sequence, sorted; their number, or -1 with an exception. */
static Py_ssize_t descriptors(PyObject *sequence, int *ret)
{
    Py_ssize_t count = PySequence_Size(sequence);
    if (count > MANY) {
        PyErr_Format(PyExc_ValueError, "at most %d descriptors", MANY);
        return -1;
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *item = PySequence_GetItem(sequence, n);
        ret[n] = item == NULL ? -1 : (int)PyLong_AsLong(item);
        Py_XDECREF(item);
        if (PyErr_Occurred())
            return -1;
        if (ret[n] < 0) {
            PyErr_Format(PyExc_ValueError, "%d is no descriptor", ret[n]);
            return -1;
        }
    }
    if (count > 0)
        qsort(ret, (size_t)count, sizeof ret[0], compare_ints);
    return count;
}

static PyObject *close_all_but(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *sequence;
    int keep[MANY];
    if (!PyArg_ParseTuple(args, "O:close_all_but", &sequence))
        return NULL;
    Py_ssize_t count = descriptors(sequence, keep);
    if (count < 0)
        return NULL;
    int result = pn_close_all_but(keep, (size_t)count);
    if (result < 0)
        return os_error(result);
    Py_RETURN_NONE;
}

static PyObject *pidfd_exit_status(PyObject *module, PyObject *args)
{
    (void)module;
    int pidfd, status;
    if (!PyArg_ParseTuple(args, "i:pidfd_exit_status", &pidfd))
        return NULL;
    if (pn_pidfd_exit_status(pidfd, &status) < 0)
        Py_RETURN_NONE;
    return PyLong_FromLong(status);
}

static PyObject *spawn_with(PyObject *args, int detached)
{
    const char *path;
    PyObject *arguments, *sequence;
    if (!PyArg_ParseTuple(args, "yOO", &path, &arguments, &sequence))
        return NULL;
    int keep[MANY];
    Py_ssize_t keep_count = descriptors(sequence, keep);
    Py_ssize_t count = keep_count < 0 ? -1 : PySequence_Size(arguments);
    if (count < 0)
        return NULL;
    char **argv = PyMem_Calloc((size_t)count + 1, sizeof *argv);
    PyObject *items = PySequence_Tuple(arguments); /* keeps the strings alive */
    PyObject *answer = NULL;
    pid_t pid = 0;
    int result;
    if (argv == NULL || items == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        argv[n] = PyBytes_AsString(PyTuple_GetItem(items, n));
        if (argv[n] == NULL)
            goto done;
    }
    result = detached ? pn_spawn_detached(path, argv, keep, (size_t)keep_count, &pid)
                      : pn_spawn(path, argv, keep, (size_t)keep_count, &pid);
    if (result < 0) {
        errno = -result;
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    } else {
        answer = PyLong_FromLong(pid);
    }
done:
    Py_XDECREF(items);
    PyMem_Free(argv);
    return answer;
}

static PyObject *spawn(PyObject *module, PyObject *args)
{
    (void)module;
    return spawn_with(args, 0);
}

static PyObject *spawn_detached(PyObject *module, PyObject *args)
{
    (void)module;
    return spawn_with(args, 1);
}

static PyObject *read_surroundings(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pn_surroundings it;
    pn_surroundings_read(&it);
    return PyBytes_FromStringAndSize((const char *)&it, sizeof it);
}

static PyObject *apply_surroundings(PyObject *module, PyObject *args)
{
    (void)module;
    const char *wanted_bytes;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "y#:apply_surroundings", &wanted_bytes, &size))
        return NULL;
    struct pn_surroundings wanted, now;
    if (size != sizeof wanted) {
        PyErr_SetString(PyExc_ValueError, "not what read_surroundings() returned");
        return NULL;
    }
    memcpy(&wanted, wanted_bytes, sizeof wanted);
    pn_surroundings_read(&now);
    pn_surroundings_apply(&wanted, &now);
    return Py_BuildValue("KKK", (unsigned long long)wanted.blocked,
                         (unsigned long long)wanted.ignored, (unsigned long long)now.ignored);
}

static PyObject *set_blocked(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long mask;
    if (!PyArg_ParseTuple(args, "K:set_blocked", &mask))
        return NULL;
    pn_set_blocked(mask);
    if (PyErr_CheckSignals() != 0) /* what had been waiting */
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *credentials(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pn_credentials it;
    pn_credentials_read(&it);
    return PyBytes_FromStringAndSize((const char *)&it, sizeof it);
}

static PyMethodDef functions[] = {
    {"set_subreaper", set_subreaper, METH_VARARGS, NULL},
    {"get_subreaper", get_subreaper, METH_NOARGS, NULL},
    {"set_process_name", set_process_name, METH_VARARGS, NULL},
    {"signalfd", open_signalfd, METH_VARARGS, NULL},
    {"peek_child", peek_child, METH_NOARGS, NULL},
    {"mrelease", mrelease, METH_VARARGS, NULL},
    {"close_all_but", close_all_but, METH_VARARGS, NULL},
    {"pidfd_exit_status", pidfd_exit_status, METH_VARARGS, NULL},
    {"spawn", spawn, METH_VARARGS, NULL},
    {"spawn_detached", spawn_detached, METH_VARARGS, NULL},
    {"read_surroundings", read_surroundings, METH_NOARGS, NULL},
    {"apply_surroundings", apply_surroundings, METH_VARARGS, NULL},
    {"set_blocked", set_blocked, METH_VARARGS, NULL},
    {"credentials", credentials, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"FREE", PN_FREE},
        {"CLAIMED", PN_CLAIMED},
        {"SPARE", PN_SPARE},
        {"ASKED", PN_ASKED},
        {"RUNNING", PN_RUNNING},
        {"ENDED", PN_ENDED},
        {"HOW_NONE", PN_HOW_NONE},
        {"RETURNED", PN_RETURNED},
        {"RAISED", PN_RAISED},
        {"EXITED", PN_EXITED},
        {"FORKSERVER", PN_FORKSERVER},
        {"SPAWN", PN_SPAWN},
        {"FORK", PN_FORK},
        {"FLAG_DAEMON", PN_FLAG_DAEMON},
        {"FLAG_RELEASED", PN_FLAG_RELEASED},
        {"FLAG_LOST", PN_FLAG_LOST},
        {"FLAG_OOM", PN_FLAG_OOM},
        {"LIFE_FREE", PN_LIFE_FREE},
        {"LIFE_HELD", PN_LIFE_HELD},
        {"LIFE_DIED", PN_LIFE_DIED},
    };
    for (size_t n = 0; n < sizeof constants / sizeof constants[0]; n++)
        if (PyModule_AddIntConstant(module, constants[n].name, constants[n].value) != 0)
            return -1;
    if (PyModule_AddStringConstant(module, "TABLE_NAME", PN_TABLE_NAME) != 0)
        return -1;
    PyObject *type = PyType_FromSpec(&table_spec);
    if (type == NULL)
        return -1;
    int result = PyModule_AddObjectRef(module, "Table", type);
    Py_DECREF(type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, fill},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "procession._native._core",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}

/* The class Table: arguments in, one call of the core, answer out. What each method promises is
 * said in _core.pyi. */
#include "module_table.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_SLOTS (1u << 22) /* the kernel's own limit of pids */
#define SLICE_NS 1000000000   /* a signal that comes just before we sleep is handled this late */

/* --- made and mapped --- */

static PyObject *new_table(PyObject *type, struct pn_table *mapped, int fd, int owned)
{
    struct stat status = {0};
    (void)fstat(fd, &status); /* it was mapped a moment ago */
    allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_alloc);
    Table *self = (Table *)allocate((PyTypeObject *)type, 0);
    int result = self == NULL ? -ENOMEM : pn_self_open(mapped, &self->self);
    if (result < 0) {
        if (self != NULL) {
            ((freefunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_free))(self);
            Py_DECREF(type);
            (void)pn_os_error(result, "no page for this process's identity");
        }
        (void)munmap(mapped, pn_table_size(mapped->slot_count));
        if (owned)
            (void)close(fd);
        return NULL;
    }
    self->table = mapped;
    self->fd = fd;
    self->owned = owned;
    self->device = status.st_dev;
    self->inode = status.st_ino;
    return (PyObject *)self;
}

static PyObject *table_create(PyObject *type, PyObject *args)
{
    unsigned long slots;
    if (!PyArg_ParseTuple(args, "k:create", &slots))
        return NULL;
    if (slots < 1 || slots > MOST_SLOTS)
        return PyErr_Format(PyExc_ValueError, "a table has 1 to %u slots, not %lu", MOST_SLOTS,
                            slots);
    struct pn_table *mapped;
    int fd, result = pn_table_create((uint32_t)slots, &mapped, &fd);
    if (result == -ENOTSUP)
        return pn_os_error(result, "this C library's robust mutexes are unknown to procession");
    if (result < 0)
        return pn_os_error(result, "cannot make a table of processes");
    return new_table(type, mapped, fd, 1);
}

static PyObject *table_attach(PyObject *type, PyObject *args)
{
    int fd;
    if (!PyArg_ParseTuple(args, "i:attach", &fd))
        return NULL;
    struct pn_table *mapped;
    int result = pn_table_attach(fd, &mapped);
    if (result == -EPROTO)
        return PyErr_Format(PyExc_ValueError,
                            "descriptor %d is no table of processes of this version of procession "
                            "(format %u)",
                            fd, PN_FORMAT);
    if (result < 0)
        return pn_os_error(result, "cannot map the table of processes");
    return new_table(type, mapped, fd, 0);
}

static int still_ours(const Table *self)
{
    struct stat status;
    return self->fd >= 0 && fstat(self->fd, &status) == 0 && status.st_dev == self->device &&
           status.st_ino == self->inode;
}

static void close_own(Table *self)
{
    if (self->owned && still_ours(self))
        (void)close(self->fd);
    self->fd = -1;
}

static void table_dealloc(PyObject *object)
{
    Table *self = (Table *)object;
    PyTypeObject *type = Py_TYPE(object);
    close_own(self);
    if (!self->pinned) {
        pn_self_close(&self->self);
        (void)munmap(self->table, pn_table_size(self->table->slot_count));
    }
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *table_fileno(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(still_ours((Table *)object) ? ((Table *)object)->fd : -1);
}

static PyObject *table_close_fd(PyObject *object, PyObject *unused)
{
    (void)unused;
    close_own((Table *)object);
    Py_RETURN_NONE;
}

struct pn_self *pn_self_of(PyObject *object)
{
    if ((destructor)PyType_GetSlot(Py_TYPE(object), Py_tp_dealloc) != table_dealloc) {
        PyErr_SetString(PyExc_TypeError, "not a table of processes");
        return NULL;
    }
    ((Table *)object)->pinned = 1;
    return &((Table *)object)->self;
}

static PyObject *table_id(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct pn_table *table = ((Table *)object)->table;
    return PyBytes_FromStringAndSize((const char *)table->id, sizeof table->id);
}

static PyObject *table_me(PyObject *object, PyObject *unused)
{
    (void)unused;
    uint64_t owner;
    int result = pn_self_owner(pn_self_of(object), &owner);
    if (result == -ENOSPC)
        return pn_os_error(result, "the table of processes is full");
    if (result < 0)
        return pn_os_error(result, "cannot sit down in the table of processes");
    return Py_BuildValue("II", pn_owner_index(owner), pn_owner_generation(owner));
}

struct pn_slot *pn_slot_at(PyObject *object, Py_ssize_t index)
{
    struct pn_table *table = ((Table *)object)->table;
    if (index >= 0 && (size_t)index < table->slot_count)
        return &table->slots[index];
    PyErr_Format(PyExc_IndexError, "slot %zd: the table has %u", index, table->slot_count);
    return NULL;
}

/* --- slots taken and given back --- */

static PyObject *table_claim(PyObject *object, PyObject *unused)
{
    (void)unused;
    uint32_t index, generation;
    int result = pn_table_claim(((Table *)object)->table, &index, &generation);
    if (result == -ENOSPC)
        return pn_os_error(result, "the table of processes is full");
    if (result < 0)
        return pn_os_error(result, "cannot make a life word");
    return Py_BuildValue("II", index, generation);
}

static PyObject *table_free(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    unsigned int generation;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nI:free", &index, &generation) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    return PyBool_FromLong(pn_table_free(((Table *)object)->table, slot, generation));
}

static PyObject *table_renew(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    uint32_t generation;
    if (!PyArg_ParseTuple(args, "n:renew", &index) || pn_slot_at(object, index) == NULL)
        return NULL;
    int result = pn_table_renew(((Table *)object)->table, (uint32_t)index, &generation);
    if (result < 0)
        return pn_os_error(result, "the slot is in use");
    return PyLong_FromUnsignedLong(generation);
}

static PyObject *table_fate(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    unsigned int generation;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nI:fate", &index, &generation) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    return PyLong_FromLong(pn_fate(((Table *)object)->table, slot, generation));
}

static PyObject *table_pids(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct pn_table *table = ((Table *)object)->table;
    PyObject *found = PyList_New(0);
    uint32_t top = atomic_load(&table->top);
    for (uint32_t index = 0; found != NULL && index < top; index++) {
        struct pn_slot *slot = &table->slots[index];
        enum pn_state state = pn_word_state(atomic_load(&slot->word));
        if (state == PN_FREE || state == PN_CLAIMING)
            continue;
        PyObject *row = Py_BuildValue("(IiI)", index, (int)atomic_load(&slot->pid), state);
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

/* --- a process's way --- */

static PyObject *table_enter(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    unsigned int state = PN_SPARE;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "n|I:enter", &index, &state) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    if (state < PN_CLAIMED || state > PN_RUNNING)
        return PyErr_Format(PyExc_ValueError, "nobody enters as state %u", state);
    ((Table *)object)->pinned = 1;
    int result = pn_self_enter(&((Table *)object)->self, (uint32_t)index, (enum pn_state)state);
    if (result == -ESRCH)
        return pn_os_error(result, "this slot of the table of processes is not claimed");
    if (result < 0)
        return pn_os_error(result, "another process lives in this slot");
    Py_RETURN_NONE;
}

static PyObject *table_set_pid(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    int pid;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "ni:set_pid", &index, &pid) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    atomic_store(&slot->pid, pid);
    Py_RETURN_NONE;
}

static PyObject *table_ask(PyObject *object, PyObject *args)
{
    Py_ssize_t index, name_size, target_size;
    unsigned int generation;
    unsigned long long owner;
    long long asked_ns;
    struct pn_request request;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nIKIILy#y#:ask", &index, &generation, &owner, &request.method,
                          &request.flags, &asked_ns, &request.name, &name_size, &request.target,
                          &target_size) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    request.owner = owner;
    request.asked_ns = asked_ns;
    request.name_size = (size_t)name_size;
    request.target_size = (size_t)target_size;
    return PyBool_FromLong(pn_slot_ask(slot, generation, &request));
}

static PyObject *table_run(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "n:run", &index) || (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    pn_slot_run(slot);
    Py_RETURN_NONE;
}

static PyObject *table_finish(PyObject *object, PyObject *args)
{
    Py_ssize_t index, size;
    unsigned int how;
    int exit_code;
    const char *text;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nIiy#:finish", &index, &how, &exit_code, &text, &size) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    if (how > PN_EXITED)
        return PyErr_Format(PyExc_ValueError, "nobody ends in way %u", how);
    pn_slot_finish(slot, (enum pn_how)how, exit_code, text, (size_t)size);
    Py_RETURN_NONE;
}

static PyObject *table_end(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    int wait_status;
    long long utime_ns, stime_ns, max_rss_kib;
    unsigned int flags = 0;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "niLLL|I:end", &index, &wait_status, &utime_ns, &stime_ns,
                          &max_rss_kib, &flags) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    struct pn_end end = {wait_status, flags, utime_ns, stime_ns, max_rss_kib};
    return PyBool_FromLong(pn_slot_end(((Table *)object)->table, slot, &end));
}

static PyObject *table_withdraw(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    unsigned int generation;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nI:withdraw", &index, &generation) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    return PyBool_FromLong(pn_slot_withdraw(((Table *)object)->table, slot, generation));
}

static PyObject *table_blame(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    int pid, number;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nii:blame", &index, &pid, &number) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    atomic_store(&slot->blame, (uint64_t)(uint32_t)pid << 32 | (uint32_t)number);
    Py_RETURN_NONE;
}

static PyObject *table_set_flags(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    unsigned int generation, bits;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nII:set_flags", &index, &generation, &bits) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    int64_t flags = pn_slot_set_flags(slot, generation, bits);
    return PyLong_FromLongLong(flags < 0 ? -1 : flags);
}

/* --- looking and waiting --- */

static PyObject *table_wait(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    unsigned int generation;
    long long timeout_ns;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nIL:wait", &index, &generation, &timeout_ns) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    int64_t now = pn_now_ns();
    int64_t deadline = timeout_ns < 0 || timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
    for (;;) {
        int result;
        int64_t slice = deadline - now < SLICE_NS ? deadline : now + SLICE_NS;
        Py_BEGIN_ALLOW_THREADS
        result = pn_slot_wait(slot, generation, slice);
        Py_END_ALLOW_THREADS
        now = pn_now_ns();
        if (result > 0 || (result == 0 && now >= deadline))
            return PyBool_FromLong(result);
        if (result < 0 && result != -EINTR)
            return pn_os_error(result, "cannot wait on the table of processes");
        if (PyErr_CheckSignals() != 0) /* PEP 475: go on, unless a handler raised */
            return NULL;
    }
}

static PyObject *table_state(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    unsigned int generation;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "nI:state", &index, &generation) ||
        (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    return PyLong_FromLong(pn_slot_state(slot, generation));
}

static PyObject *table_read(PyObject *object, PyObject *args)
{
    Py_ssize_t index;
    struct pn_slot *slot;
    if (!PyArg_ParseTuple(args, "n:read", &index) || (slot = pn_slot_at(object, index)) == NULL)
        return NULL;
    struct pn_view it;
    pn_slot_read(slot, &it);
    return Py_BuildValue(
        "(IIiKKIIIiiLLLLLLiiy#y#y#)", it.state, it.generation, it.pid,
        (unsigned long long)it.start_time, (unsigned long long)it.owner, it.method, it.flags,
        it.how, it.exit_code, it.wait_status, (long long)it.asked_ns, (long long)it.running_ns,
        (long long)it.ended_ns, (long long)it.utime_ns, (long long)it.stime_ns,
        (long long)it.max_rss_kib, it.killer_pid, it.killer_signal, it.name,
        (Py_ssize_t)strlen(it.name), it.target, (Py_ssize_t)strlen(it.target), it.text,
        (Py_ssize_t)strlen(it.text));
}

/* --- the class --- */

static PyMethodDef table_methods[] = {
    {"create", table_create, METH_VARARGS | METH_CLASS, NULL},
    {"attach", table_attach, METH_VARARGS | METH_CLASS, NULL},
    {"fileno", table_fileno, METH_NOARGS, NULL},
    {"close_fd", table_close_fd, METH_NOARGS, NULL},
    {"id", table_id, METH_NOARGS, NULL},
    {"me", table_me, METH_NOARGS, NULL},
    {"renew", table_renew, METH_VARARGS, NULL},
    {"fate", table_fate, METH_VARARGS, NULL},
    {"claim", table_claim, METH_NOARGS, NULL},
    {"free", table_free, METH_VARARGS, NULL},
    {"pids", table_pids, METH_NOARGS, NULL},
    {"ended_count", table_ended_count, METH_NOARGS, NULL},
    {"enter", table_enter, METH_VARARGS, NULL},
    {"set_pid", table_set_pid, METH_VARARGS, NULL},
    {"ask", table_ask, METH_VARARGS, NULL},
    {"run", table_run, METH_VARARGS, NULL},
    {"finish", table_finish, METH_VARARGS, NULL},
    {"end", table_end, METH_VARARGS, NULL},
    {"withdraw", table_withdraw, METH_VARARGS, NULL},
    {"blame", table_blame, METH_VARARGS, NULL},
    {"set_flags", table_set_flags, METH_VARARGS, NULL},
    {"wait", table_wait, METH_VARARGS, NULL},
    {"state", table_state, METH_VARARGS, NULL},
    {"read", table_read, METH_VARARGS, NULL},
    {"begin_wait", pn_table_begin_wait, METH_VARARGS, NULL},
    {"end_wait", pn_table_end_wait, METH_VARARGS, NULL},
    {"waits", pn_table_waits, METH_VARARGS, NULL},
    {"joined_since", pn_table_joined_since, METH_VARARGS, NULL},
    {"code_ended", pn_table_code_ended, METH_VARARGS, NULL},
    {"full", pn_table_full, METH_NOARGS, NULL},
    {"set_full", pn_table_set_full, METH_VARARGS, NULL},
    {"recorded", pn_table_recorded, METH_NOARGS, NULL},
    {"set_recorded", pn_table_set_recorded, METH_VARARGS, NULL},
    {"life", pn_table_life, METH_VARARGS, NULL},
    {"drop_life", pn_table_drop_life, METH_VARARGS, NULL},
    {"watch_life", pn_table_watch_life, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_methods, table_methods},
    {Py_tp_dealloc, table_dealloc},
    {0, NULL},
};

PyType_Spec pn_table_spec = {
    .name = "procession._native._core.Table",
    .basicsize = sizeof(Table),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = table_slots,
};

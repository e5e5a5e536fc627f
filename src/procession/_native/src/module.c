/* The module: system calls for the rooms above, and what the table's numbers mean. What each
 * function promises is said in _core.pyi. */
#include "module.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "anchor.h"
#include "kernel.h"
#include "launch.h"
#include "module_extents.h"
#include "pages.h"
#include "surroundings.h"
#include "identity.h"
#include "ring.h"

#define MANY 64 /* descriptors that a keeper or a child keeps: a handful */
#define COMM_SIZE 16 /* of the kernel, with the zero */

PyObject *pn_os_error(int negative, const char *what)
{
    PyObject *arguments =
        what == NULL ? Py_BuildValue("(is)", -negative, strerror(-negative))
                     : Py_BuildValue("(iN)", -negative,
                                     PyUnicode_FromFormat("%s: %s", strerror(-negative), what));
    if (arguments != NULL)
        PyErr_SetObject(PyExc_OSError, arguments);
    Py_XDECREF(arguments);
    return NULL;
}

/* --- this process --- */

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
    if (prctl(PR_GET_CHILD_SUBREAPER, &on, 0, 0, 0) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBool_FromLong(on);
}

static PyObject *set_death_signal(PyObject *module, PyObject *args)
{
    (void)module;
    int number;
    if (!PyArg_ParseTuple(args, "i:set_death_signal", &number))
        return NULL;
    if (prctl(PR_SET_PDEATHSIG, (unsigned long)number, 0, 0, 0) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *fork_in_vain(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    Py_RETURN_NONE;
}

static PyObject *anchor(PyObject *module, PyObject *args)
{
    (void)module;
    int group;
    if (!PyArg_ParseTuple(args, "i:anchor", &group))
        return NULL;
    pid_t pid = pn_anchor(group);
    return pid < 0 ? pn_os_error(pid, "no anchor") : PyLong_FromLong(pid);
}

static PyObject *weigh_anchor(PyObject *module, PyObject *args)
{
    (void)module;
    int pid;
    if (!PyArg_ParseTuple(args, "i:weigh_anchor", &pid))
        return NULL;
    pn_weigh_anchor(pid);
    Py_RETURN_NONE;
}

static PyObject *set_process_name(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    if (!PyArg_ParseTuple(args, "s:set_process_name", &name))
        return NULL;
    char text[COMM_SIZE] = {0};
    size_t length = strnlen(name, COMM_SIZE);
    if (length == COMM_SIZE) /* cut, but not inside of a character */
        for (length--; length > 0 && ((unsigned char)name[length] & 0xc0) == 0x80; length--)
            ;
    memcpy(text, name, length);
    (void)prctl(PR_SET_NAME, text, 0, 0, 0);
    Py_RETURN_NONE;
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

/* --- children --- */

static PyObject *peek_child(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pn_dead dead;
    int result = pn_peek_child(&dead);
    if (result < 0)
        return pn_os_error(result, NULL);
    if (result == 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(iiLLL)", dead.pid, dead.wait_status, (long long)dead.utime_ns,
                         (long long)dead.stime_ns, (long long)dead.max_rss_kib);
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

static PyObject *mrelease(PyObject *module, PyObject *args)
{
    (void)module;
    int pidfd, result;
    if (!PyArg_ParseTuple(args, "i:mrelease", &pidfd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = pn_mrelease(pidfd);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(-result);
}

/* --- lists of numbers --- */

static int compare(const void *a, const void *b)
{
    int left = *(const int *)a, right = *(const int *)b;
    return (left > right) - (left < right);
}

/* Fill `ret` with the numbers of a sequence, sorted; how many, or -1 with an exception. */
static Py_ssize_t numbers_of(PyObject *sequence, int least, int most, int *ret)
{
    Py_ssize_t count = PySequence_Size(sequence);
    if (count > MANY) {
        PyErr_Format(PyExc_ValueError, "at most %d numbers, got %zd", MANY, count);
        return -1;
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *item = PySequence_GetItem(sequence, n);
        long number = item == NULL ? -1 : PyLong_AsLong(item);
        Py_XDECREF(item);
        if (number == -1 && PyErr_Occurred())
            return -1;
        if (number < least || number > most) {
            PyErr_Format(PyExc_ValueError, "%ld is not between %d and %d", number, least, most);
            return -1;
        }
        ret[n] = (int)number;
    }
    if (count > 0)
        qsort(ret, (size_t)count, sizeof ret[0], compare);
    return count;
}

static PyObject *open_signalfd(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *sequence;
    int numbers[MANY];
    if (!PyArg_ParseTuple(args, "O:signalfd", &sequence))
        return NULL;
    Py_ssize_t count = numbers_of(sequence, 1, 64, numbers);
    if (count < 0)
        return NULL;
    sigset_t set;
    (void)sigemptyset(&set);
    for (Py_ssize_t n = 0; n < count; n++)
        if (sigaddset(&set, numbers[n]) != 0)
            return PyErr_SetFromErrno(PyExc_OSError);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

static PyObject *close_all_but(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *sequence;
    int keep[MANY];
    if (!PyArg_ParseTuple(args, "O:close_all_but", &sequence))
        return NULL;
    Py_ssize_t count = numbers_of(sequence, 0, INT_MAX, keep);
    if (count < 0)
        return NULL;
    int result = pn_close_all_but(keep, (size_t)count);
    if (result < 0)
        return pn_os_error(result, "close_range");
    Py_RETURN_NONE;
}

/* --- programs --- */

typedef int (*spawner)(const char *, char *const *, const int *, size_t, pid_t *);

static PyObject *spawn_with(PyObject *args, spawner start)
{
    PyObject *path, *sequence, *descriptors;
    if (!PyArg_ParseTuple(args, "SOO", &path, &sequence, &descriptors))
        return NULL;
    int keep[MANY];
    Py_ssize_t keep_count = numbers_of(descriptors, 0, INT_MAX, keep);
    if (keep_count < 0)
        return NULL;
    PyObject *arguments = PySequence_Tuple(sequence); /* keeps the strings alive */
    if (arguments == NULL)
        return NULL;
    PyObject *answer = NULL;
    Py_ssize_t count = PyTuple_Size(arguments);
    char **strings = PyMem_Calloc((size_t)count + 1, sizeof *strings);
    if (strings == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t n = 0; n < count; n++) /* with a zero inside: ValueError */
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(arguments, n), &strings[n], NULL) != 0)
            goto done;
    char *program;
    if (PyBytes_AsStringAndSize(path, &program, NULL) != 0)
        goto done;
    pid_t pid = 0;
    int result = start(program, strings, keep, (size_t)keep_count, &pid);
    if (result < 0) {
        errno = -result;
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    } else {
        answer = PyLong_FromLong(pid);
    }
done:
    PyMem_Free(strings);
    Py_DECREF(arguments);
    return answer;
}

static PyObject *spawn(PyObject *module, PyObject *args)
{
    (void)module;
    return spawn_with(args, pn_spawn);
}

static PyObject *spawn_detached(PyObject *module, PyObject *args)
{
    (void)module;
    return spawn_with(args, pn_spawn_detached);
}

/* --- memory that forks share --- */

#define SPANS 1024

static PyObject *written_pages(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pn_span spans[SPANS];
    int count = pn_pages_written(spans, SPANS);
    if (count < 0)
        return pn_os_error(count, NULL);
    return PyBytes_FromStringAndSize((const char *)spans, count * (Py_ssize_t)sizeof spans[0]);
}

static PyObject *copy_pages(PyObject *module, PyObject *args)
{
    (void)module;
    const char *bytes;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "y#:copy_pages", &bytes, &size))
        return NULL;
    /* as they are: a copy would be on pages of its own, and a bytes object's are aligned */
    const struct pn_span *spans = (const struct pn_span *)(const void *)bytes;
    if ((size_t)size % sizeof *spans != 0 || (uintptr_t)bytes % _Alignof(struct pn_span) != 0) {
        PyErr_SetString(PyExc_ValueError, "not what written_pages() returned");
        return NULL;
    }
    pn_pages_copy(spans, (size_t)size / sizeof *spans);
    Py_RETURN_NONE;
}

/* --- the module --- */

static PyMethodDef functions[] = {
    {"set_subreaper", set_subreaper, METH_VARARGS, NULL},
    {"get_subreaper", get_subreaper, METH_NOARGS, NULL},
    {"set_death_signal", set_death_signal, METH_VARARGS, NULL},
    {"fork_in_vain", fork_in_vain, METH_NOARGS, NULL},
    {"anchor", anchor, METH_VARARGS, NULL},
    {"weigh_anchor", weigh_anchor, METH_VARARGS, NULL},
    {"set_process_name", set_process_name, METH_VARARGS, NULL},
    {"set_blocked", set_blocked, METH_VARARGS, NULL},
    {"look", pn_module_look, METH_NOARGS, NULL},
    {"read_surroundings", pn_read_surroundings, METH_NOARGS, NULL},
    {"apply_surroundings", pn_apply_surroundings, METH_VARARGS, NULL},
    {"credentials", pn_credentials, METH_NOARGS, NULL},
    {"same_files", pn_same_files, METH_VARARGS, NULL},
    {"receive_spare", pn_receive_spare, METH_VARARGS, NULL},
    {"send_start", pn_send_start, METH_VARARGS, NULL},
    {"peek_child", peek_child, METH_NOARGS, NULL},
    {"attend", pn_attend, METH_VARARGS, NULL},
    {"fork_spares", pn_fork_spares, METH_VARARGS, NULL},
    {"pidfd_exit_status", pidfd_exit_status, METH_VARARGS, NULL},
    {"mrelease", mrelease, METH_VARARGS, NULL},
    {"signalfd", open_signalfd, METH_VARARGS, NULL},
    {"close_all_but", close_all_but, METH_VARARGS, NULL},
    {"written_pages", written_pages, METH_NOARGS, NULL},
    {"copy_pages", copy_pages, METH_VARARGS, NULL},
    {"spawn", spawn, METH_VARARGS, NULL},
    {"spawn_detached", spawn_detached, METH_VARARGS, NULL},
    {"set_queue_types", pn_set_queue_types, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

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
    {"FLAG_GUEST", PN_FLAG_GUEST},
    {"LIFE_FREE", PN_LIFE_FREE},
    {"LIFE_HELD", PN_LIFE_HELD},
    {"LIFE_DIED", PN_LIFE_DIED},
    {"RING_SIZE", sizeof(struct pn_ring_head)},
    {"EXTENTS", PN_EXTENTS},
    {"ALIVE", PN_ALIVE},
    {"DYING", PN_DYING},
    {"DEAD", PN_DEAD},
};

static const struct {
    const char *name;
    PyType_Spec *spec;
} types[] = {
    {"Table", &pn_table_spec},
    {"Memory", &pn_memory_spec},
    {"Ring", &pn_ring_spec},
    {"Lock", &pn_lock_spec},
    {"Event", &pn_event_spec},
    {"Condition", &pn_condition_spec},
    {"Barrier", &pn_barrier_spec},
    {"Semaphore", &pn_semaphore_spec},
    {"Extent", &pn_extent_spec},
    {"Holds", &pn_holds_spec},
    {"Line", &pn_line_spec},
};

static int fill(PyObject *module)
{
    for (size_t n = 0; n < sizeof constants / sizeof constants[0]; n++)
        if (PyModule_AddIntConstant(module, constants[n].name, constants[n].value) != 0)
            return -1;
    if (PyModule_AddStringConstant(module, "TABLE_NAME", PN_TABLE_NAME) != 0)
        return -1;
    for (size_t n = 0; n < sizeof types / sizeof types[0]; n++) {
        PyObject *type = PyType_FromSpec(types[n].spec);
        int result = type == NULL ? -1 : PyModule_AddObjectRef(module, types[n].name, type);
        if (result == 0 && types[n].spec == &pn_extent_spec) {
            Py_XDECREF(pn_extent_type);
            pn_extent_type = Py_NewRef(type);
        }
        Py_XDECREF(type);
        if (result != 0)
            return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, fill},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* all shared state is atomic or behind a system call */
#endif
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

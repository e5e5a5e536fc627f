/* Python's view of the core. Only module*.c include this, and so Python.h; limited API of 3.11. */
#ifndef PN_MODULE_H
#define PN_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(Py_LIMITED_API) && PY_VERSION_HEX >= 0x030D0000
/* From 3.13 on `#` means Py_ssize_t in the plain functions; built there, they would be refused by
 * 3.11 and 3.12, where those of this name mean it. All versions have both. */
PyAPI_FUNC(int) _PyArg_ParseTuple_SizeT(PyObject *, const char *, ...);
PyAPI_FUNC(PyObject *) _Py_BuildValue_SizeT(const char *, ...);
#define PyArg_ParseTuple _PyArg_ParseTuple_SizeT
#define Py_BuildValue _Py_BuildValue_SizeT
#endif

/* Raise the OSError of a negative errno; "No space left on device: the table of processes is full".
 * Always NULL. */
PyObject *pn_os_error(int negative, const char *what);

/* Table (module_table.c). */
extern PyType_Spec pn_table_spec;

struct pn_self;

/* This process in a table; TypeError and NULL when the object is none. It lives as long as the
 * object, and the table stays mapped for good: words of shared memory name who is in it. */
struct pn_self *pn_self_of(PyObject *table);

/* attend, fork_spares (module_reap.c). */
PyObject *pn_attend(PyObject *module, PyObject *args);
PyObject *pn_fork_spares(PyObject *module, PyObject *args);

/* look and the rest of a start (module_start.c). */
PyObject *pn_module_look(PyObject *module, PyObject *unused);
PyObject *pn_read_surroundings(PyObject *module, PyObject *unused);
PyObject *pn_apply_surroundings(PyObject *module, PyObject *args);
PyObject *pn_credentials(PyObject *module, PyObject *unused);
PyObject *pn_same_files(PyObject *module, PyObject *args);
PyObject *pn_receive_spare(PyObject *module, PyObject *args);
PyObject *pn_send_start(PyObject *module, PyObject *args);

/* Memory (module_memory.c). */
extern PyType_Spec pn_memory_spec;

/* `size` bytes of a memory from `offset`; TypeError, ValueError and NULL when there are none. They
 * stay mapped as long as the object lives. */
void *pn_memory_at(PyObject *memory, Py_ssize_t offset, size_t size);

/* The mapping of a memory, and its descriptor; -EBADF: the program closed that. */
struct pn_memory;
int pn_memory_of(PyObject *memory, struct pn_memory **ret_memory, size_t *ret_size);

/* What a shared object begins with (module_shared.c). */
struct pn_shared {
    PyObject_HEAD
    struct pn_self *self; /* NULL until it was attached */
    PyObject *memory, *table;
    PyObject *told; /* what is called when there is something to tell the user, or NULL */
};

/* Have it refer to them, in its constructor's stead: its bytes; NULL with an exception, where it
 * has been attached before or there are no such bytes. `told` may be None, or NULL. */
void *pn_shared_attach(struct pn_shared *head, const char *what, PyObject *memory,
                       Py_ssize_t offset, size_t size, PyObject *table, PyObject *told);

/* RuntimeError, and 0. */
int pn_shared_refuse(const char *what);

/* Whether it was attached; if not, with an exception. */
static inline int pn_shared_check(const struct pn_shared *head, const char *what)
{
    return head->self != NULL || pn_shared_refuse(what);
}

/* The slots of such a class; who has more to let go of does that first. */
int pn_shared_traverse(PyObject *object, visitproc visit, void *arg);
int pn_shared_clear(PyObject *object);
void pn_shared_dealloc(PyObject *object);

/* Ring (module_ring.c). */
extern PyType_Spec pn_ring_spec;
PyObject *pn_set_queue_types(PyObject *module, PyObject *args);

/* Extent and Holds (module_extents.c). */
extern PyType_Spec pn_extent_spec, pn_holds_spec;

/* Line (module_line.c). */
extern PyType_Spec pn_line_spec;

/* Event (module_event.c). */
extern PyType_Spec pn_event_spec;

/* Semaphore (module_semaphore.c). */
extern PyType_Spec pn_semaphore_spec;

/* Lock (module_lock.c). */
extern PyType_Spec pn_lock_spec;

/* Condition (module_condition.c). */
extern PyType_Spec pn_condition_spec;

/* Barrier (module_barrier.c). */
extern PyType_Spec pn_barrier_spec;

/* The deadline (CLOCK_MONOTONIC, PN_FOREVER, 0 = do not wait) of a timeout in seconds: None has no
 * limit, a negative one is 0. -1 with TypeError or ValueError. */
int pn_deadline_of(PyObject *timeout, int64_t *ret_deadline_ns);

/* The same of acquire(block=True, timeout=None). */
int pn_parse_acquire(PyObject *const *args, Py_ssize_t count, PyObject *names,
                     int64_t *ret_deadline_ns);

#endif

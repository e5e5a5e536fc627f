/* Python's view of the core. Only module*.c include this, and so Python.h; limited API of 3.11. */
#ifndef PN_MODULE_H
#define PN_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Raise the OSError of a negative errno; "No space left on device: the table of processes is full".
 * Always NULL. */
PyObject *pn_os_error(int negative, const char *what);

/* Table (module_table.c). */
extern PyType_Spec pn_table_spec;

struct pn_self;

/* This process in a table; TypeError and NULL when the object is none. It lives as long as the
 * object, and the table stays mapped for good: words of shared memory name who is in it. */
struct pn_self *pn_self_of(PyObject *table);

/* attend (module_reap.c). */
PyObject *pn_attend(PyObject *module, PyObject *args);

/* Memory (module_memory.c). */
extern PyType_Spec pn_memory_spec;

/* `size` bytes of a memory from `offset`; TypeError, ValueError and NULL when there are none. They
 * stay mapped as long as the object lives. */
void *pn_memory_at(PyObject *memory, Py_ssize_t offset, size_t size);

/* Ring (module_ring.c). */
extern PyType_Spec pn_ring_spec;
PyObject *pn_set_queue_types(PyObject *module, PyObject *args);

/* Extent and Holds (module_extents.c). */
extern PyType_Spec pn_extent_spec, pn_holds_spec;

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

/* The class Table, for module_table.c and module_table_asks.c. */
#ifndef PN_MODULE_TABLE_H
#define PN_MODULE_TABLE_H

#include "module.h"

#include <sys/types.h>

#include "identity.h"

typedef struct {
    PyObject_HEAD
    struct pn_table *table;
    struct pn_self self;
    int fd;     /* -1 once it was closed */
    int owned;  /* the descriptor is ours to close */
    int pinned; /* the mapping may not go: a thread's robust list or a watcher uses it */
    dev_t device; /* whose descriptor it was: code that daemonises closes and reuses numbers */
    ino_t inode;
} Table;

/* A slot of a table; IndexError and NULL where it has none of that number. */
struct pn_slot *pn_slot_at(PyObject *table, Py_ssize_t index);

/* Methods (module_table_asks.c). */
PyObject *pn_table_begin_wait(PyObject *object, PyObject *args);
PyObject *pn_table_end_wait(PyObject *object, PyObject *args);
PyObject *pn_table_waits(PyObject *object, PyObject *args);
PyObject *pn_table_joined_since(PyObject *object, PyObject *args);
PyObject *pn_table_code_ended(PyObject *object, PyObject *args);
PyObject *pn_table_recorded(PyObject *object, PyObject *unused);
PyObject *pn_table_full(PyObject *object, PyObject *unused);
PyObject *pn_table_set_full(PyObject *object, PyObject *args);
PyObject *pn_table_set_recorded(PyObject *object, PyObject *args);
PyObject *pn_table_life(PyObject *object, PyObject *args);
PyObject *pn_table_drop_life(PyObject *object, PyObject *args);
PyObject *pn_table_watch_life(PyObject *object, PyObject *args);

#endif

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

#endif

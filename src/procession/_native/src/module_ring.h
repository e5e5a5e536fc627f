/* The class Ring, for module_ring.c and module_items.c. */
#ifndef PN_MODULE_RING_H
#define PN_MODULE_RING_H

#include "module.h"
#include "ring.h"

typedef struct {
    PyObject_HEAD
    struct pn_ring ring;
    PyObject *table, *memory; /* what `ring` points into */
    int open;
    int closed; /* by this process's user */
    int has_put; /* this process has put something */
    int users;  /* threads inside without the GIL */
} Ring;

struct pn_queue_types {
    PyObject *empty, *full, *shut_down;
};
extern struct pn_queue_types pn_queue_types; /* set once by `set_queue_types` */

/* Call the core without the GIL. */
#define WITHOUT_GIL(self, result, call)                                                            \
    do {                                                                                           \
        (self)->users++;                                                                           \
        Py_BEGIN_ALLOW_THREADS                                                                     \
        result = call;                                                                             \
        Py_END_ALLOW_THREADS                                                                       \
        (self)->users--;                                                                           \
    } while (0)

/* Whether items may go in and out: 1; 0 with an exception. */
int pn_ring_enter(Ring *self);

/* Put a record. 0, or a -errno of pn_ring_put(), or -ECANCELED with an exception. */
int pn_ring_put_parts(Ring *self, unsigned int kind, const struct pn_part *parts, size_t count,
                      int64_t deadline);

/* Put a value as a record of whichever kind (module_items.c). As above. */
int pn_item_put(Ring *self, PyObject *value, int64_t deadline);

/* The value of a record; NULL with an exception. */
PyObject *pn_item_value(Ring *self, const struct pn_record *record);

#endif

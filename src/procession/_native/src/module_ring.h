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

/* Whether there is still something to ask, although its user may have closed it. As above. */
int pn_ring_may_ask(Ring *self);

/* Let go of what a closed one has once no thread is inside any more. */
void pn_ring_close_unused(Ring *self);

/* When a wait of these arguments, each of which may be NULL, is over: 0; -1 with an exception. */
int pn_ring_deadline(PyObject *block, PyObject *timeout, int64_t *ret_deadline);

#define PN_SLICE_NS 1000000000 /* a signal that comes just before we sleep is handled this late */
#define PN_FIRST_SLICE_NS 50000000 /* of a wait that looks whether anybody is left to end it */

/* A slice of a wait: the next look at Python's signals. */
int64_t pn_slice_of(int64_t deadline, int64_t length);

/* 1: the wait goes on. 0: it is over. -1: a signal handler raised. */
int pn_goes_on(int result, int64_t deadline);

/* Let Python see whether anybody is left who could end the wait: 0 if it raised. */
int pn_ring_look_around(Ring *self, const char *method, int64_t deadline);

/* Raise what a -errno of the core means; `nothing`: what -EAGAIN and -ETIMEDOUT mean. */
PyObject *pn_ring_raise(Ring *self, int result, PyObject *nothing);

/* Methods (module_ring_asks.c). */
PyObject *pn_ring_poll_method(PyObject *object, PyObject *args);
PyObject *pn_ring_task_done_method(PyObject *object, PyObject *args);
PyObject *pn_ring_join_method(PyObject *object, PyObject *args);
PyObject *pn_ring_shut_method(PyObject *object, PyObject *args);
PyObject *pn_ring_arm_method(PyObject *object, PyObject *args);
PyObject *pn_ring_stat_method(PyObject *object, PyObject *args);
PyObject *pn_ring_is_alone_method(PyObject *object, PyObject *args);
PyObject *pn_ring_reap_method(PyObject *object, PyObject *args);
PyObject *pn_ring_users_method(PyObject *object, PyObject *args);
PyObject *pn_ring_is_open_method(PyObject *object, PyObject *args);
PyObject *pn_ring_has_put_method(PyObject *object, PyObject *args);
PyObject *pn_ring_qsize_method(PyObject *object, PyObject *args);
PyObject *pn_ring_watch_method(PyObject *type, PyObject *fd);
PyObject *pn_ring_is_had_method(PyObject *type, PyObject *fd);

/* Put a record. 0, or a -errno of pn_ring_put(), or -ECANCELED with an exception. */
int pn_ring_put_parts(Ring *self, unsigned int kind, const struct pn_part *parts, size_t count,
                      int64_t deadline, uint64_t *ret_number);

/* Put a value as a record of whichever kind (module_items.c). As above. */
int pn_item_put(Ring *self, PyObject *value, int64_t deadline);

/* The value of a record; NULL with an exception. */
PyObject *pn_item_value(Ring *self, const struct pn_record *record);

#endif

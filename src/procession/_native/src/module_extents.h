/* Extents as objects, for module_items.c. */
#ifndef PN_MODULE_EXTENTS_H
#define PN_MODULE_EXTENTS_H

#include "module.h"

struct pn_holds;

extern PyObject *pn_extent_type; /* set once, when the module is made */

/* What this process holds, mapped privately; the hold is the object's, or let go of when NULL is
 * returned. */
PyObject *pn_extent_object(struct pn_holds *holds, uint32_t extent, uint64_t offset, size_t size);

/* The memory of an Extent. */
void *pn_extent_bytes(PyObject *object);

#endif

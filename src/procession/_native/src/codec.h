/* Plain values as bytes: what most items of queues are made of, faster than by pickle.
 *
 * Only values of exactly these types: None, bool, int of 64 bits, float, str, bytes, and tuple,
 * list and dict of them. Identity is kept where somebody could tell: a list or dict that is held by
 * more than the one container that it was found in is left to pickle, which knows how to send it
 * once. Nothing of this is a format for others: who reads has the same version as who wrote. */
#ifndef PN_CODEC_H
#define PN_CODEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

/* Bytes that grow; the first of them are on the caller's stack. */
struct pn_buffer {
    unsigned char *bytes;
    size_t size, room;
    int on_heap;
    unsigned char first[512];
};

static inline void pn_buffer_begin(struct pn_buffer *buffer)
{
    buffer->bytes = buffer->first;
    buffer->size = 0;
    buffer->room = sizeof buffer->first;
    buffer->on_heap = 0;
}

static inline void pn_buffer_end(struct pn_buffer *buffer)
{
    if (buffer->on_heap)
        free(buffer->bytes);
}

/* Append a value. 1; 0 when it is not one of these, and pickle's; -1 with an exception. */
int pn_encode(struct pn_buffer *buffer, PyObject *value);

/* The value; NULL with an exception. */
PyObject *pn_decode(const unsigned char *bytes, size_t size);

#endif

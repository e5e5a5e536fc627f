/* Plain values to bytes and back. What is and what is not plain: codec.h. */
#include "codec.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DEEPEST 20 /* containers in each other; what is deeper is left to pickle */

enum tag { NONE, FALSE, TRUE, SMALL, INT, FLOAT, STR, BYTES, TUPLE, LIST, DICT };

/* --- to bytes --- */

static unsigned char *extend(struct pn_buffer *buffer, size_t more)
{
    if (more > buffer->room - buffer->size) {
        size_t room = 2 * buffer->room;
        while (room - buffer->size < more)
            room *= 2;
        unsigned char *bytes = realloc(buffer->on_heap ? buffer->bytes : NULL, room);
        if (bytes == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        if (!buffer->on_heap)
            memcpy(bytes, buffer->first, buffer->size);
        buffer->bytes = bytes;
        buffer->room = room;
        buffer->on_heap = 1;
    }
    unsigned char *at = buffer->bytes + buffer->size;
    buffer->size += more;
    return at;
}

/* A tag, a size of four bytes, and bytes. */
static int put_sized(struct pn_buffer *buffer, enum tag tag, const void *bytes, size_t size,
                     size_t copied)
{
    if (size > UINT32_MAX)
        return 0;
    unsigned char *at = extend(buffer, 5 + copied);
    if (at == NULL)
        return -1;
    uint32_t number = (uint32_t)size;
    at[0] = (unsigned char)tag;
    memcpy(at + 1, &number, 4);
    if (copied != 0)
        memcpy(at + 5, bytes, copied);
    return 1;
}

static int put_word(struct pn_buffer *buffer, enum tag tag, const void *word)
{
    unsigned char *at = extend(buffer, 9);
    if (at == NULL)
        return -1;
    at[0] = (unsigned char)tag;
    memcpy(at + 1, word, 8);
    return 1;
}

static int put_int(struct pn_buffer *buffer, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0)
        return 0;
    if (number < INT8_MIN || number > INT8_MAX)
        return put_word(buffer, INT, &number);
    unsigned char *at = extend(buffer, 2);
    if (at == NULL)
        return -1;
    at[0] = SMALL;
    at[1] = (unsigned char)(signed char)number;
    return 1;
}

static int put_str(struct pn_buffer *buffer, PyObject *value)
{
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
            return -1;
        PyErr_Clear(); /* surrogates, which pickle can send */
        return 0;
    }
    return put_sized(buffer, STR, text, (size_t)size, (size_t)size);
}

/* `shared`: some container above may be found twice, so nothing that can be changed may be here. */
static int encode(struct pn_buffer *buffer, PyObject *value, int depth, int shared)
{
    if (value == Py_None || value == Py_True || value == Py_False) {
        unsigned char *at = extend(buffer, 1);
        if (at == NULL)
            return -1;
        *at = value == Py_None ? NONE : value == Py_True ? TRUE : FALSE;
        return 1;
    }
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyLong_Type)
        return put_int(buffer, value);
    if (type == &PyUnicode_Type)
        return put_str(buffer, value);
    if (type == &PyFloat_Type) {
        double number = PyFloat_AsDouble(value);
        return put_word(buffer, FLOAT, &number);
    }
    if (type == &PyBytes_Type) {
        size_t size = (size_t)PyBytes_Size(value);
        return put_sized(buffer, BYTES, PyBytes_AsString(value), size, size);
    }
    if (depth == DEEPEST)
        return 0;
    if (depth > 0 && Py_REFCNT(value) != 1) {
        if (type != &PyTuple_Type)
            return 0;
        shared = 1;
    }
    int result = 0;
    if (type == &PyTuple_Type) {
        Py_ssize_t count = PyTuple_Size(value);
        result = put_sized(buffer, TUPLE, NULL, (size_t)count, 0);
        for (Py_ssize_t n = 0; result == 1 && n < count; n++)
            result = encode(buffer, PyTuple_GetItem(value, n), depth + 1, shared);
    } else if (type == &PyList_Type && !shared) {
        Py_ssize_t count = PyList_Size(value);
        result = put_sized(buffer, LIST, NULL, (size_t)count, 0);
        for (Py_ssize_t n = 0; result == 1 && n < count; n++)
            result = encode(buffer, PyList_GetItem(value, n), depth + 1, shared);
    } else if (type == &PyDict_Type && !shared) {
        Py_ssize_t at = 0;
        PyObject *key, *content;
        result = put_sized(buffer, DICT, NULL, (size_t)PyDict_Size(value), 0);
        while (result == 1 && PyDict_Next(value, &at, &key, &content)) {
            result = encode(buffer, key, depth + 1, shared);
            if (result == 1)
                result = encode(buffer, content, depth + 1, shared);
        }
    }
    return result;
}

int pn_encode(struct pn_buffer *buffer, PyObject *value)
{
    return encode(buffer, value, 0, 0);
}

/* --- and back --- */

struct reader {
    const unsigned char *at, *end;
};

static const unsigned char *take(struct reader *reader, size_t size)
{
    const unsigned char *at = reader->at;
    if (size > (size_t)(reader->end - at)) {
        PyErr_SetString(PyExc_RuntimeError, "a record of the queue is cut short");
        return NULL;
    }
    reader->at += size;
    return at;
}

static PyObject *decode(struct reader *reader);

static PyObject *decode_items(struct reader *reader, enum tag tag, uint32_t count)
{
    if (count > (size_t)(reader->end - reader->at)) { /* each takes a byte at least */
        (void)take(reader, SIZE_MAX);
        return NULL;
    }
    PyObject *whole = tag == TUPLE  ? PyTuple_New((Py_ssize_t)count)
                      : tag == LIST ? PyList_New((Py_ssize_t)count)
                                    : PyDict_New();
    for (uint32_t n = 0; whole != NULL && n < count; n++) {
        PyObject *item = decode(reader), *content = NULL;
        int failed = item == NULL;
        if (tag == TUPLE) {
            failed = failed || PyTuple_SetItem(whole, (Py_ssize_t)n, item) != 0;
        } else if (tag == LIST) {
            failed = failed || PyList_SetItem(whole, (Py_ssize_t)n, item) != 0;
        } else {
            failed = failed || (content = decode(reader)) == NULL ||
                     PyDict_SetItem(whole, item, content) != 0;
            Py_XDECREF(item);
            Py_XDECREF(content);
        }
        if (failed)
            Py_CLEAR(whole);
    }
    return whole;
}

static PyObject *decode(struct reader *reader)
{
    const unsigned char *at = take(reader, 1);
    if (at == NULL)
        return NULL;
    enum tag tag = (enum tag)*at;
    switch (tag) {
    case NONE:
        return Py_NewRef(Py_None);
    case TRUE:
        return Py_NewRef(Py_True);
    case FALSE:
        return Py_NewRef(Py_False);
    case SMALL:
        at = take(reader, 1);
        return at == NULL ? NULL : PyLong_FromLong((signed char)*at);
    case INT:
    case FLOAT:
        if ((at = take(reader, 8)) == NULL)
            return NULL;
        if (tag == INT) {
            long long number;
            memcpy(&number, at, 8);
            return PyLong_FromLongLong(number);
        }
        double real;
        memcpy(&real, at, 8);
        return PyFloat_FromDouble(real);
    default:
        break;
    }
    uint32_t size;
    if ((at = take(reader, 4)) == NULL)
        return NULL;
    memcpy(&size, at, 4);
    if (tag == TUPLE || tag == LIST || tag == DICT)
        return decode_items(reader, tag, size);
    if ((at = take(reader, size)) == NULL)
        return NULL;
    if (tag == STR)
        return PyUnicode_FromStringAndSize((const char *)at, (Py_ssize_t)size);
    return PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)size);
}

PyObject *pn_decode(const unsigned char *bytes, size_t size)
{
    struct reader reader = {bytes, bytes + size};
    return decode(&reader);
}

/* What the drivers share. They are the C core without Python, under sanitizers or ptrace. */
#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SECOND ((int64_t)1000000000)
#define LIMIT (60 * SECOND) /* of any wait here: a hang fails, with a line that says where */

/* _exit, so that a forked child does not tell its parent's story once more. */
static inline void fail(const char *file, int line, const char *format, ...)
{
    char text[512];
    va_list values;
    va_start(values, format);
    (void)vsnprintf(text, sizeof text, format, values);
    va_end(values);
    (void)fprintf(stderr, "%s:%d: %s\n", file, line, text);
    (void)fflush(stderr);
    _exit(1);
}

#define CHECK(condition, ...)                                                                     \
    do                                                                                            \
        if (!(condition))                                                                         \
            fail(__FILE__, __LINE__, #condition " -- " __VA_ARGS__);                              \
    while (0)

#endif

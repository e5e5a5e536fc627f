/* futex(2) on words that processes share: never FUTEX_PRIVATE_FLAG. */
#ifndef PN_FUTEX_H
#define PN_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PN_FOREVER ((int64_t)-1)

/* Sleep while *word is `expected`, until deadline_ns (CLOCK_MONOTONIC, PN_FOREVER = no limit).
 * 0 after a wake or where the word differed, -EINTR, -ETIMEDOUT, or another -errno. */
static inline int pn_futex_wait(const uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    struct timespec deadline = {(time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000)};
    /* of the waits only this one takes an absolute time, and so cannot drift over interruptions */
    if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected,
                deadline_ns == PN_FOREVER ? NULL : &deadline, NULL, FUTEX_BITSET_MATCH_ANY) == 0)
        return 0;
    return errno == EAGAIN ? 0 : -errno;
}

/* Wake at most so many; how many there were. */
static inline int pn_futex_wake(const uint32_t *word, int count)
{
    return (int)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

static inline void pn_futex_wake_all(const uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#endif

/* futex(2) on words that processes share: never FUTEX_PRIVATE_FLAG. */
#ifndef PN_FUTEX_H
#define PN_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
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

#ifndef SYS_futex_waitv /* Linux 5.16, younger than the headers of some systems that we build on */
#define SYS_futex_waitv 449
#endif

struct pn_futex { /* struct futex_waitv of include/uapi/linux/futex.h */
    uint64_t expected, address;
    uint32_t flags, spare;
};

static inline struct pn_futex pn_futex_of(const uint32_t *word, uint32_t expected)
{
    return (struct pn_futex){expected, (uint64_t)(uintptr_t)word, 2 /* FUTEX_32, shared */, 0};
}

/* The same for several words: until one of them is woken. -ENOSYS or -EPERM: not on this kernel, or
 * in this sandbox. */
static inline int pn_futex_wait_any(const struct pn_futex *words, unsigned int count,
                                    int64_t deadline_ns)
{
    struct timespec deadline = {(time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000)};
    if (syscall(SYS_futex_waitv, words, count, 0, deadline_ns == PN_FOREVER ? NULL : &deadline,
                CLOCK_MONOTONIC) >= 0)
        return 0;
    return errno == EAGAIN ? 0 : -errno;
}

/* The half of a 64-bit word that is its futex: the low one. */
static inline const uint32_t *pn_low_half(const _Atomic uint64_t *word)
{
    const uint32_t *halves = (const uint32_t *)(const void *)word;
    return halves + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

/* Wake at most so many; how many there were. */
static inline int pn_futex_wake(const uint32_t *word, int count)
{
    return (int)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

/* Between two looks at a word, instead of a sleep. */
static inline void pn_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* what a pause is elsewhere: `yield` takes no time there */
#endif
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void pn_futex_wake_all(const uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#endif

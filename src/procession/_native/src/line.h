/* A line: one end of a socket that keeps message boundaries, between two processes that share a page.
 * No Python.
 *
 * The socket carries the packets, whole or not at all, and says when the other end is gone. The page
 * only says that there is one: each end counts there what it has sent, after it has. So who waits can
 * look for a while before it sleeps, at the price of no system call. A word that is behind, since its
 * writer was killed before it counted or just has not yet, costs a look in vain and nothing else. */
#ifndef PN_LINE_H
#define PN_LINE_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

struct pn_line {
    int fd;                     /* -1 once it is closed */
    _Atomic uint64_t *sent;     /* in the page: packets that this end has sent */
    _Atomic uint64_t *arriving; /* and that the other end has */
    uint64_t received;          /* packets that were taken out here */
    unsigned int luck, unlucky; /* of looks before a sleep, of late */
};

/* Send a packet, and a descriptor with it unless that is -1. 0 or -errno, -EINTR: nothing was sent. */
int pn_line_send(struct pn_line *line, const void *bytes, size_t size, int fd);

/* Before a receive that may sleep: look for a while, if that is worth it. Whether there is a packet
 * for certain. */
int pn_line_linger(struct pn_line *line);

/* Take a packet out: its size, 0 when the other end is gone, or -errno, -EAGAIN where `flags` has
 * MSG_DONTWAIT or the socket's limit was over. A descriptor that came with it, or -1. */
ssize_t pn_line_receive(struct pn_line *line, void *ret_bytes, size_t room, int flags, int *ret_fd);

#endif

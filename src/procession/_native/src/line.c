#define _GNU_SOURCE
#include "line.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "futex.h"
#include "table.h"

#define LINGER_NS 100000 /* what two sleeps and wake-ups take on a slow host, and a tiny call */
#define LOOK 4          /* pauses between two looks */
#define MOST_LUCK 8
#define SELDOM 16 /* sleeps of which one is preceded by a try all the same */

union control {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int))];
};

int pn_line_send(struct pn_line *line, const void *bytes, size_t size, int fd)
{
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    union control control;
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        control.head.cmsg_len = CMSG_LEN(sizeof fd);
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
    }
    ssize_t sent = fd < 0 ? send(line->fd, bytes, size, MSG_NOSIGNAL)
                          : sendmsg(line->fd, &message, MSG_NOSIGNAL);
    if (sent < 0)
        return -errno;
    atomic_fetch_add_explicit(line->sent, 1, memory_order_release);
    return 0;
}

static int has_packet(const struct pn_line *line)
{
    uint64_t sent = atomic_load_explicit(line->arriving, memory_order_acquire);
    return (int64_t)(sent - line->received) > 0;
}

int pn_line_linger(struct pn_line *line)
{
    if (has_packet(line))
        return 1;
    if (line->luck == 0 && line->unlucky++ % SELDOM != 0)
        return 0;
    int seen = 0;
    for (int64_t until = pn_now_ns() + LINGER_NS; !seen && pn_now_ns() < until;) {
        for (int n = 0; n < LOOK; n++)
            pn_pause();
        seen = has_packet(line);
    }
    if (seen && line->luck < MOST_LUCK)
        line->luck++;
    else if (!seen && line->luck > 0)
        line->luck--;
    return seen;
}

ssize_t pn_line_receive(struct pn_line *line, void *ret_bytes, size_t room, int flags, int *ret_fd)
{
    struct iovec part = {ret_bytes, room};
    union control control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    *ret_fd = -1;
    ssize_t size = recvmsg(line->fd, &message, flags | MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == ECONNRESET) {
        /* The other end has gone without reading all of ours. The kernel says so once, and before it
         * hands out what that end had sent. */
        message.msg_controllen = sizeof control;
        size = recvmsg(line->fd, &message, flags | MSG_CMSG_CLOEXEC);
    }
    if (size < 0)
        return errno == ECONNRESET ? 0 : -errno;
    if (size > 0)
        line->received++;
    const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof *ret_fd))
        memcpy(ret_fd, CMSG_DATA(head), sizeof *ret_fd);
    return size;
}

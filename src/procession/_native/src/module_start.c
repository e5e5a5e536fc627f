/* What a start asks of the kernel: the look at oneself, a spare out of the link, the frame to it. Each
 * is one call, since a program that starts something now and then starts it with cold caches, where
 * a look into a Python object costs as much as a system call. */
#include "module.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "look.h"

#define MOST_FDS 253  /* the kernel's SCM_MAX_FD */
#define LINK_ROOM 4096 /* a refusal's text is the longest message on a link */

/* --- looks --- */

static PyObject *bytes_of(const void *data, size_t size)
{
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
}

PyObject *pn_module_look(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pn_look it;
    int error = pn_look(&it);
    if (error != 0)
        return pn_os_error(error, NULL);
    int is_there = it.directory[0] != 0 || it.directory[1] != 0;
    return Py_BuildValue("(y#y#y#I)", &it.credentials, (Py_ssize_t)sizeof it.credentials,
                         &it.surroundings, (Py_ssize_t)sizeof it.surroundings,
                         is_there ? &it.directory : NULL, (Py_ssize_t)sizeof it.directory,
                         it.standard);
}

PyObject *pn_read_surroundings(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pn_surroundings it;
    pn_look_at_surroundings(&it);
    return bytes_of(&it, sizeof it);
}

PyObject *pn_credentials(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pn_credentials it;
    int error = pn_look_at_credentials(&it);
    return error != 0 ? pn_os_error(error, NULL) : bytes_of(&it, sizeof it);
}

PyObject *pn_apply_surroundings(PyObject *module, PyObject *args)
{
    (void)module;
    const char *bytes;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "y#:apply_surroundings", &bytes, &size))
        return NULL;
    struct pn_surroundings wanted, now;
    if (size != sizeof wanted) {
        PyErr_SetString(PyExc_ValueError, "not what read_surroundings() returned");
        return NULL;
    }
    memcpy(&wanted, bytes, sizeof wanted);
    pn_look_at_surroundings(&now);
    pn_surroundings_apply(&wanted, &now);
    return Py_BuildValue("KKK", (unsigned long long)wanted.blocked,
                         (unsigned long long)wanted.ignored, (unsigned long long)now.ignored);
}

PyObject *pn_same_files(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *inodes, *number, *inode;
    Py_ssize_t place = 0;
    if (!PyArg_ParseTuple(args, "O!:same_files", &PyDict_Type, &inodes))
        return NULL;
    int same = 1;
    while (same && PyDict_Next(inodes, &place, &number, &inode)) {
        struct stat status;
        same = fstat((int)PyLong_AsLong(number), &status) == 0 &&
               status.st_ino == PyLong_AsUnsignedLongLong(inode);
    }
    return PyErr_Occurred() ? NULL : PyBool_FromLong(same);
}

/* --- a spare --- */

/* The descriptors of a message; how many, at most `most`. */
static size_t descriptors_of(struct msghdr *message, int *ret_fds, size_t most)
{
    size_t count = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = part->cmsg_len - CMSG_LEN(0);
        if (bytes > (most - count) * sizeof ret_fds[0])
            bytes = (most - count) * sizeof ret_fds[0];
        memcpy(ret_fds + count, CMSG_DATA(part), bytes);
        count += bytes / sizeof ret_fds[0];
    }
    return count;
}

/* Where one of 0-2 is closed it stays closed: a program may open its next log file there. */
static int above_standard(int fd)
{
    if (fd >= 3)
        return fd;
    int higher = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int error = errno;
    (void)close(fd);
    return higher < 0 ? -error : higher;
}

PyObject *pn_receive_spare(PyObject *module, PyObject *args)
{
    (void)module;
    int link;
    if (!PyArg_ParseTuple(args, "i:receive_spare", &link))
        return NULL;
    char text[LINK_ROOM];
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {text, sizeof text};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        Py_RETURN_NONE;
    if (got < 0 && errno != ECONNRESET)
        return PyErr_SetFromErrno(PyExc_OSError);
    int fd = -1;
    size_t count = got < 0 ? 0 : descriptors_of(&message, &fd, 1);
    uint32_t spare[3]; /* module_reap.c: pid, index, generation */
    if (got != sizeof spare) { /* its end, or a refusal */
        if (count > 0)
            (void)close(fd);
        return PyBytes_FromStringAndSize(text, got > 0 ? got : 0);
    }
    if (count > 0)
        fd = above_standard(fd);
    if (count == 0 || fd < 0)
        return pn_os_error(-EMFILE, "no free descriptor to receive one from the keeper (ulimit -n)");
    memcpy(spare, text, sizeof spare);
    PyObject *answer = Py_BuildValue("(IIIi)", spare[0], spare[1], spare[2], fd);
    if (answer == NULL)
        (void)close(fd);
    return answer;
}

static ssize_t send_parts(int fd, const Py_buffer parts[2], const int *fds, size_t count)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(MOST_FDS * sizeof(int))];
    } control;
    struct iovec vector[2] = {{parts[0].buf, (size_t)parts[0].len},
                              {parts[1].buf, (size_t)parts[1].len}};
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = 2};
    if (count > 0) {
        size_t bytes = count * sizeof fds[0];
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(bytes);
        memset(control.bytes, 0, message.msg_controllen);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(head), fds, bytes);
    }
    ssize_t sent;
    Py_BEGIN_ALLOW_THREADS
    sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    Py_END_ALLOW_THREADS
    return sent < 0 ? -errno : sent;
}

static Py_ssize_t numbers_of(PyObject *list, int *ret)
{
    Py_ssize_t count = PyList_Size(list);
    if (count > MOST_FDS)
        PyErr_Format(PyExc_ValueError, "at most %d descriptors, got %zd", MOST_FDS, count);
    for (Py_ssize_t n = 0; n < count && !PyErr_Occurred(); n++)
        ret[n] = (int)PyLong_AsLong(PyList_GetItem(list, n));
    return PyErr_Occurred() ? -1 : count;
}

PyObject *pn_send_start(PyObject *module, PyObject *args)
{
    (void)module;
    int fd, fds[MOST_FDS];
    PyObject *list;
    Py_buffer parts[2];
    if (!PyArg_ParseTuple(args, "iy*y*O!:send_start", &fd, &parts[0], &parts[1], &PyList_Type, &list))
        return NULL;
    Py_ssize_t count = numbers_of(list, fds);
    ssize_t sent = count < 0 ? -1 : -EINTR;
    while (count >= 0 && sent == -EINTR && PyErr_CheckSignals() == 0)
        sent = send_parts(fd, parts, fds, (size_t)count);
    PyBuffer_Release(&parts[0]);
    PyBuffer_Release(&parts[1]);
    if (PyErr_Occurred())
        return NULL;
    return sent < 0 ? pn_os_error((int)sent, NULL) : PyLong_FromSsize_t(sent);
}

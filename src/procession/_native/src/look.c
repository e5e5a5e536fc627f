#define _GNU_SOURCE
#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel.h"

#define STATUS_SIZE 8192 /* 1.5 KB, and room for 1024 groups */

static int look_at_credentials(char *ret_status, struct pn_credentials *ret)
{
    ret_status[0] = 0;
    /* without /proc the descriptor is -1, and so every look into it fails */
    int self = open("/proc/thread-self/ns", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (self < 0 && pn_cannot_look(errno))
        return -errno;
    ssize_t got = pn_read_file(self, "../status", ret_status, STATUS_SIZE);
    int error = got < 0 && pn_cannot_look((int)-got) ? (int)got : 0;
    if (error == 0)
        error = pn_credentials_read(self, ret_status, ret);
    if (self >= 0)
        (void)close(self);
    return error;
}

/* The path is asked for, too: only it tells of a directory that was removed. */
static void look_at_directory(uint64_t ret[2])
{
    char path[4096];
    struct stat status;
    if (syscall(SYS_getcwd, path, sizeof path) < 0 && errno == ENOENT)
        return;
    if (stat(".", &status) == 0) {
        ret[0] = status.st_dev;
        ret[1] = status.st_ino;
    }
}

static uint32_t look_at_standard_descriptors(void)
{
    uint32_t standard = 0;
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            standard |= 1u << fd;
    return standard;
}

int pn_look(struct pn_look *ret)
{
    char status[STATUS_SIZE];
    memset(ret, 0, sizeof *ret);
    int error = look_at_credentials(status, &ret->credentials);
    if (error != 0)
        return error;
    pn_surroundings_read(status, &ret->surroundings);
    look_at_directory(ret->directory);
    ret->standard = look_at_standard_descriptors();
    return 0;
}

int pn_look_at_credentials(struct pn_credentials *ret)
{
    char status[STATUS_SIZE];
    return look_at_credentials(status, ret);
}

void pn_look_at_surroundings(struct pn_surroundings *ret)
{
    char status[STATUS_SIZE] = "";
    (void)pn_read_file(AT_FDCWD, "/proc/thread-self/status", status, sizeof status);
    pn_surroundings_read(status, ret);
}

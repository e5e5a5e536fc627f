#define _GNU_SOURCE
#include "credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel.h"

#define MOST_GROUPS 1024 /* of a longer list the count is compared */

static const char *const namespaces[PN_NAMESPACES] = {
    "ns/mnt",
    "ns/net",
    "ns/user",
    "ns/ipc",
    "ns/uts",
    "ns/cgroup",
    "ns/pid_for_children", /* one's own never changes, this does */
    "ns/time_for_children",
};

static uint64_t hash(const void *data, size_t size) /* FNV-1a */
{
    const unsigned char *bytes = data;
    uint64_t value = 0xcbf29ce484222325ull;
    for (size_t n = 0; n < size; n++)
        value = (value ^ bytes[n]) * 0x100000001b3ull;
    return value;
}

static int cannot_look(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

static int hash_file(int self, const char *path, uint64_t *ret)
{
    char text[2048];
    ssize_t got = pn_read_file(self, path, text, sizeof text);
    if (got < 0 && cannot_look((int)-got))
        return (int)got;
    *ret = got > 0 ? hash(text, (size_t)got) : 0;
    return 0;
}

/* The link's text, "mnt:[4026531841]", costs half of what stat of its target does. */
static uint64_t namespace_inode(int self, const char *path)
{
    char text[64];
    ssize_t got = readlinkat(self, path, text, sizeof text - 1);
    text[got > 0 ? got : 0] = 0;
    const char *number = strchr(text, '[');
    return number == NULL ? 0 : strtoull(number + 1, NULL, 10);
}

static int64_t read_filters(int self)
{
    char text[8192];
    ssize_t got = pn_read_file(self, "status", text, sizeof text);
    const char *line = got > 0 ? strstr(text, "\nSeccomp_filters:") : NULL;
    return line == NULL ? 0 : strtoll(line + 17, NULL, 10);
}

static uint64_t read_groups(void)
{
    gid_t groups[MOST_GROUPS];
    int count = getgroups(MOST_GROUPS, groups);
    if (count < 0)
        return (uint64_t)getgroups(0, NULL);
    return hash(groups, (size_t)count * sizeof groups[0]);
}

int pn_credentials_read(struct pn_credentials *ret)
{
    memset(ret, 0, sizeof *ret);
    /* opened once: finding the thread's folder takes most of the time of a look into it; without
     * /proc the descriptor is -1, and so every look into it fails */
    int self = open("/proc/thread-self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (self < 0 && cannot_look(errno))
        return -errno;
    (void)getresuid(&ret->uid[0], &ret->uid[1], &ret->uid[2]);
    (void)getresgid(&ret->gid[0], &ret->gid[1], &ret->gid[2]);
    ret->groups = read_groups();
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    (void)syscall(SYS_capget, &header, ret->capabilities);
    ret->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    ret->seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
    if (ret->seccomp > 0)
        ret->filters = read_filters(self);
    ret->session = getsid(0);
    for (int n = 0; n < PN_NAMESPACES; n++)
        ret->namespaces[n] = namespace_inode(self, namespaces[n]);
    struct stat status;
    if (stat("/", &status) == 0) {
        ret->root[0] = status.st_dev;
        ret->root[1] = status.st_ino;
    }
    int error = hash_file(self, "cgroup", &ret->cgroup);
    if (error == 0)
        error = hash_file(self, "attr/current", &ret->label);
    if (self >= 0)
        (void)close(self);
    return error;
}

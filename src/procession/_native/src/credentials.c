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

/* younger than the headers of some systems that we build on */
#ifndef SYS_lsm_get_self_attr
#define SYS_lsm_get_self_attr 459
#endif
#ifndef LSM_ATTR_CURRENT
#define LSM_ATTR_CURRENT 100
#endif

#define MOST_GROUPS 1024 /* of a longer list the count is compared */

static const char *const namespaces[PN_NAMESPACES] = {
    "user", /* USER */
    "mnt",
    "net",
    "ipc",
    "uts",
    "cgroup",
    "pid_for_children", /* one's own never changes, this does */
    "time_for_children",
};

static uint64_t hash(const void *data, size_t size) /* FNV-1a */
{
    const unsigned char *bytes = data;
    uint64_t value = 0xcbf29ce484222325ull;
    for (size_t n = 0; n < size; n++)
        value = (value ^ bytes[n]) * 0x100000001b3ull;
    return value;
}

int pn_cannot_look(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

static int hash_file(int self, const char *path, uint64_t *ret)
{
    char text[2048];
    ssize_t got = pn_read_file(self, path, text, sizeof text);
    if (got < 0 && pn_cannot_look((int)-got))
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

#define USER 0
#define ADMIN (1u << CAP_SYS_ADMIN)

/* Who may not administer its user namespace stays in all the others as long as it stays in that
 * one: without the capability among the permitted ones nobody changes them, nor gets it but by being
 * executed. So most programs need only one of the eight links (2 us each, 5 with cold caches). Of the
 * calling thread: others may have had more rights. */
static void read_namespaces(int self, int may_change, uint64_t ret[PN_NAMESPACES])
{
    static _Thread_local struct {
        pid_t thread; /* another one in a forked copy; 0 where it could have changed since */
        uint64_t namespaces[PN_NAMESPACES];
    } seen;
    pid_t thread = (pid_t)syscall(SYS_gettid);
    ret[USER] = namespace_inode(self, namespaces[USER]);
    if (!may_change && ret[USER] != 0 && seen.thread == thread &&
        seen.namespaces[USER] == ret[USER]) {
        memcpy(ret, seen.namespaces, sizeof seen.namespaces);
        return;
    }
    for (int n = USER + 1; n < PN_NAMESPACES; n++)
        ret[n] = namespace_inode(self, namespaces[n]);
    seen.thread = may_change ? 0 : thread;
    memcpy(seen.namespaces, ret, sizeof seen.namespaces);
}

static uint64_t read_field(const char *status, const char *name, int base)
{
    const char *line = strstr(status, name);
    return line == NULL ? 0 : strtoull(line + strlen(name), NULL, base);
}

/* The security modules' own words in one call, from Linux 6.8 on: a file takes three, and 7 us. */
static int read_label(int self, uint64_t *ret)
{
    char text[2048];
    uint32_t size = sizeof text;
    long got = syscall(SYS_lsm_get_self_attr, LSM_ATTR_CURRENT, text, &size, 0);
    if (got < 0 && errno == ENOMEM)
        return -ENOMEM;
    if (got < 0 && errno != EOPNOTSUPP) /* an older kernel, a sandbox, a label of great length */
        return hash_file(self, "../attr/current", ret);
    *ret = got > 0 ? hash(text, size) : 0;
    return 0;
}

static uint64_t read_groups(void)
{
    gid_t groups[MOST_GROUPS];
    int count = getgroups(MOST_GROUPS, groups);
    if (count < 0)
        return (uint64_t)getgroups(0, NULL);
    return hash(groups, (size_t)count * sizeof groups[0]);
}

int pn_credentials_read(int self, const char *status, struct pn_credentials *ret)
{
    memset(ret, 0, sizeof *ret);
    (void)getresuid(&ret->uid[0], &ret->uid[1], &ret->uid[2]);
    (void)getresgid(&ret->gid[0], &ret->gid[1], &ret->gid[2]);
    ret->groups = read_groups();
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    if (syscall(SYS_capget, &header, ret->capabilities) != 0)
        ret->capabilities[1] = UINT32_MAX; /* a sandbox that does not tell */
    ret->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    ret->seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
    ret->securebits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
    ret->session = getsid(0);
    /* permitted, not effective: that one is given up and taken back at will */
    read_namespaces(self, (ret->capabilities[1] & ADMIN) != 0, ret->namespaces);
    struct stat root;
    if (stat("/", &root) == 0) {
        ret->root[0] = root.st_dev;
        ret->root[1] = root.st_ino;
    }
    ret->bounding = read_field(status, "\nCapBnd:", 16);
    ret->ambient = read_field(status, "\nCapAmb:", 16);
    ret->filters = (int64_t)read_field(status, "\nSeccomp_filters:", 10);
    int error = hash_file(self, "../cgroup", &ret->cgroup);
    return error == 0 ? read_label(self, &ret->label) : error;
}

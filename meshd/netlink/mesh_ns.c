#include "meshd/netlink/mesh_ns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "common/util/dir.h"

int mesh_ns_dir(const char *dir, struct err *e)
{
    int r = dir_own(dir, 0755, e);
    if (r < 0)
        return r;
    if (mount("", dir, "none", MS_SHARED, NULL) == 0)
        return 0;
    if (errno != EINVAL) /* EINVAL: not a mount yet */
        return err_errno(e, errno, "share mount %s", dir);
    if (mount(dir, dir, "none", MS_BIND, NULL) < 0 || mount("", dir, "none", MS_SHARED, NULL) < 0)
        return err_errno(e, errno, "make %s a shared mount", dir);
    return 0;
}

bool mesh_ns_pinned(const char *path)
{
    struct statfs fs;
    return statfs(path, &fs) == 0 && fs.f_type == NSFS_MAGIC;
}

int mesh_ns_unpin(const char *path, struct err *e)
{
    while (umount2(path, MNT_DETACH) == 0)
        ;
    if (errno != EINVAL && errno != ENOENT)
        return err_errno(e, errno, "unmount %s", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_errno(e, errno, "remove %s", path);
    return 0;
}

static int netns_pin(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (fd < 0)
        return err_errno(e, errno, "make %s", path);
    close(fd);
    if (mount("/proc/thread-self/ns/net", path, "none", MS_BIND, NULL) < 0)
        return err_errno(e, errno, "pin network namespace at %s", path);
    return 0;
}

int mesh_ns_self(void)
{
    return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

int mesh_ns_make(const char *path, struct err *e)
{
    if (unshare(CLONE_NEWNET) < 0)
        return err_errno(e, errno, "make network namespace");
    return netns_pin(path, e);
}

int mesh_ns_enter(const char *path, struct err *e)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        return err_errno(e, errno, "enter network namespace %s", path);
    return 0;
}

void mesh_ns_back(int fd)
{
    CHECK(setns(fd, CLONE_NEWNET) == 0);
}

int mesh_ns_sysctl(const char *path, const char *value, struct err *e)
{
    char file[512], now[256];
    size_t n = strlen(value);
    if (snprintf(file, sizeof file, "/proc/sys/%s", path) >= (int)sizeof file)
        return err_set(e, ERR_INVALID, "sysctl %.100s...: name too long", path);
    _cleanup_(closep) int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "sysctl %s", path);
    ssize_t len = pread(fd, now, sizeof now, 0);
    if (len > 0 && (size_t)len == n + 1 && memcmp(now, value, n) == 0)
        return 0;
    if (pwrite(fd, value, n, 0) != (ssize_t)n)
        return err_errno(e, errno, "sysctl %s = %s", path, value);
    return 0;
}

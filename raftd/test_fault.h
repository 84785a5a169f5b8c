/*
 * test_fault.h - a process that dies before, or in the middle of, its n-th call that changes a file. For one test
 * program each: it defines libc's own functions, and the program's symbols come before libc's for all libraries.
 */
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static long fault_at, fault_count;
static bool fault_torn; /* half of the write happens */
static bool fault_armed;

static bool is_file(int fd)
{
    struct stat st;
    return syscall(SYS_fstat, fd, &st) == 0 && S_ISREG(st.st_mode);
}

static bool fault(void)
{
    return fault_armed && fault_at != 0 && __atomic_add_fetch(&fault_count, 1, __ATOMIC_SEQ_CST) == fault_at;
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        syscall(SYS_pause);
}

/* The declarations of libc, without its checked variants. */
ssize_t pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t pwrite64(int fd, const void *p, size_t n, off_t at);
ssize_t write(int fd, const void *p, size_t n);
ssize_t writev(int fd, const struct iovec *v, int n);
int fsync(int fd);
int fdatasync(int fd);
int ftruncate(int fd, off_t n);
int fallocate(int fd, int mode, off_t at, off_t n);
int rename(const char *a, const char *b);
int renameat(int da, const char *a, int db, const char *b);
int unlink(const char *path);
int unlinkat(int dir, const char *path, int flags);
int mkdir(const char *path, mode_t mode);
int rmdir(const char *path);

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (fault()) {
        if (fault_torn)
            syscall(SYS_pwrite64, fd, p, n / 2, at);
        die();
    }
    return syscall(SYS_pwrite64, fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
    return pwrite(fd, p, n, at);
}

ssize_t write(int fd, const void *p, size_t n)
{
    if (is_file(fd) && fault()) {
        if (fault_torn)
            syscall(SYS_write, fd, p, n / 2);
        die();
    }
    return syscall(SYS_write, fd, p, n);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    if (is_file(fd) && fault()) {
        if (fault_torn)
            syscall(SYS_writev, fd, v, (n + 1) / 2);
        die();
    }
    return syscall(SYS_writev, fd, v, n);
}

#define BEFORE(call)                                                                                                   \
    do {                                                                                                               \
        if (fault())                                                                                                   \
            die();                                                                                                     \
        return (int)(call);                                                                                            \
    } while (0)

int fsync(int fd)
{
    BEFORE(syscall(SYS_fsync, fd));
}

int fdatasync(int fd)
{
    BEFORE(syscall(SYS_fdatasync, fd));
}

int ftruncate(int fd, off_t n)
{
    BEFORE(syscall(SYS_ftruncate, fd, n));
}

int rename(const char *a, const char *b)
{
    BEFORE(syscall(SYS_rename, a, b));
}

int renameat(int da, const char *a, int db, const char *b)
{
    BEFORE(syscall(SYS_renameat, da, a, db, b));
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    BEFORE(syscall(SYS_fallocate, fd, mode, at, n));
}

int unlink(const char *path)
{
    BEFORE(syscall(SYS_unlink, path));
}

int unlinkat(int dir, const char *path, int flags)
{
    BEFORE(syscall(SYS_unlinkat, dir, path, flags));
}

int mkdir(const char *path, mode_t mode)
{
    BEFORE(syscall(SYS_mkdir, path, mode));
}

int rmdir(const char *path)
{
    BEFORE(syscall(SYS_rmdir, path));
}

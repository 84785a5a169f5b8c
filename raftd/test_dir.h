/* test_dir.h - a scratch folder for each test, and files in it by name. For tests only. */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char test_dir[256];

static inline void test_tree_remove(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL) {
        unlink(path);
        return;
    }
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        char sub[600];
        if (strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0)
            continue;
        snprintf(sub, sizeof sub, "%s/%s", path, f->d_name);
        test_tree_remove(sub);
    }
    closedir(d);
    rmdir(path);
}

static inline int test_dir_make(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    snprintf(test_dir, sizeof test_dir, "%.200s/raftd-test-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(test_dir) == NULL ? -1 : 0;
}

static inline int test_dir_remove(void **state)
{
    (void)state;
    test_tree_remove(test_dir);
    return 0;
}

static inline void test_path(char path[512], const char *name)
{
    snprintf(path, 512, "%s/%s", test_dir, name);
}

static inline size_t test_read(const char *name, char *p, size_t cap)
{
    char path[512];
    test_path(path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, p, cap);
    assert_true(n >= 0 && (size_t)n < cap);
    close(fd);
    return (size_t)n;
}

static inline void test_write(const char *name, const char *p, size_t n)
{
    char path[512];
    test_path(path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), n);
    close(fd);
}

static inline void test_remove(const char *name)
{
    char path[512];
    test_path(path, name);
    assert_int_equal(unlink(path), 0);
}

static inline bool test_missing(const char *name)
{
    char path[512];
    test_path(path, name);
    return access(path, F_OK) < 0 && errno == ENOENT;
}

/* volumes.c - see volumes.h. */
#include "agentd/volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agentd/fsutil.h"
#include "common/util/cleanup.h"
#include "common/util/id.h"

bool volume_name_ok(struct str name)
{
    if (name.n < 2 || name.n > 255)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && (i == 0 || (c != '_' && c != '.' && c != '-')))
            return false;
    }
    return true;
}

void volume_anonymous_name(char name[65])
{
    uint8_t b[32];
    random_bytes(b, sizeof b);
    for (size_t i = 0; i < sizeof b; i++)
        snprintf(name + 2 * i, 3, "%02x", b[i]);
}

static int write_labels(const char *dir, const struct strmap *labels, struct err *e)
{
    char path[VOLUME_PATH_MAX];
    _cleanup_(buf_done) struct buf b = BUF_INIT;
    buf_putc(&b, '{');
    for (size_t i = 0; labels && i < labels->n; i++) {
        if (i)
            buf_putc(&b, ',');
        buf_json_str(&b, labels->v[i].key);
        buf_putc(&b, ':');
        buf_json_str(&b, labels->v[i].val);
    }
    buf_puts(&b, "}\n");
    snprintf(path, sizeof path, "%s/labels.json", dir);
    return fs_write(path, buf_str(&b), 0600, e);
}

int volume_name_check(struct str name, struct err *e)
{
    if (name.n == 1)
        return err_set(e, ERR_INVALID,
                       "create " STR_FMT
                       ": volume name is too short, names should be at least two alphanumeric characters",
                       STR_ARG(name));
    if (!volume_name_ok(name))
        return err_set(e, ERR_INVALID,
                       "create " STR_FMT ": \"" STR_FMT "\" includes invalid characters for a local volume name, only "
                       "\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use "
                       "absolute path",
                       STR_ARG(name), STR_ARG(name));
    return 0;
}

/* ".../_data" or ".../_data/" to ".../filling" */
static void mark_path(const char *path, char mark[VOLUME_PATH_MAX])
{
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/')
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    snprintf(mark, VOLUME_PATH_MAX, "%.*sfilling", (int)n, path);
}

int volume_ensure(const char *state_dir, struct str name, const struct strmap *labels, char path[VOLUME_PATH_MAX],
                  bool *ret_empty, struct err *e)
{
    char dir[VOLUME_PATH_MAX - 8];
    if (volume_name_check(name, e) < 0)
        return -e->code;
    if (snprintf(dir, sizeof dir, "%s/volumes/" STR_FMT, state_dir, STR_ARG(name)) >= (int)sizeof dir)
        return err_set(e, ERR_INVALID, "volume path is too long");
    snprintf(path, VOLUME_PATH_MAX, "%s/_data", dir);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int r = fs_mkdirs(dir, 0711, e);
        if (r == 0)
            r = write_labels(dir, labels, e);
        if (r == 0 && mkdir(path, 0755) < 0 && errno != EEXIST)
            r = err_errno(e, errno, "make volume %s", path);
        if (r < 0)
            return r;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return err_errno(e, errno, "open volume %s", path);
    }
    char mark[VOLUME_PATH_MAX];
    mark_path(path, mark);
    *ret_empty = fs_empty_dir(fd) || access(mark, F_OK) == 0;
    return 0;
}

int volume_fill_begin(const char *path, struct err *e)
{
    char mark[VOLUME_PATH_MAX];
    mark_path(path, mark);
    return fs_write(mark, STR(""), 0600, e);
}

void volume_fill_done(const char *path)
{
    char mark[VOLUME_PATH_MAX];
    mark_path(path, mark);
    (void)unlink(mark);
}

void volume_remove(const char *state_dir, const char *name)
{
    char dir[VOLUME_PATH_MAX];
    snprintf(dir, sizeof dir, "%s/volumes/%s", state_dir, name);
    fs_remove_tree(dir);
}

int volume_copy_plan(int rootfs_fd, const char *target, const char *volume_path, int *ret_fd, struct err *e)
{
    struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                            .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    struct stat st;
    _cleanup_(closep) int fd = (int)syscall(SYS_openat2, rootfs_fd, target, &how, sizeof how);
    if (fd < 0 || fstat(fd, &st) < 0)
        return 0; /* the image has nothing there */
    if (chown(volume_path, st.st_uid, st.st_gid) < 0 || chmod(volume_path, st.st_mode & 07777) < 0)
        return err_errno(e, errno, "volume %s", volume_path);
    if (fs_empty_dir(dup(fd)))
        return 0;
    *ret_fd = TAKE_FD(fd);
    return 1;
}

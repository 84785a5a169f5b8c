/* fsutil.c - see fsutil.h. */
#include "agentd/fsutil.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/util/cleanup.h"

int fs_mkdirs(const char *path, mode_t mode, struct err *e)
{
    char p[4096];
    if (snprintf(p, sizeof p, "%s", path) >= (int)sizeof p)
        return err_set(e, ERR_INVALID, "make folder: path is too long");
    for (char *s = p + 1;; s++) {
        if (*s != '/' && *s != '\0')
            continue;
        char c = *s;
        *s = '\0';
        if (mkdir(p, c ? 0755 : mode) < 0 && errno != EEXIST)
            return err_errno(e, errno, "make folder %s", p);
        *s = c;
        if (!c)
            return 0;
    }
}

void fs_watch_read(int fd, fs_watch_fn *fn, void *arg)
{
    char chunk[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) > 0)
        for (char *p = chunk; p < chunk + n; p += sizeof(struct inotify_event) + ((struct inotify_event *)p)->len)
            fn(arg, (struct inotify_event *)p);
}

static int slurp(int fd, size_t max, struct buf *out)
{
    char chunk[8192];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) > 0) {
        if (out->n + (size_t)n > max)
            return -EFBIG;
        buf_put(out, chunk, (size_t)n);
    }
    return n < 0 ? -errno : out->failed ? -ENOMEM : 0;
}

int fs_read(const char *path, size_t max, struct buf *out, struct err *e)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r = fd < 0 ? -errno : slurp(fd, max, out);
    if (r == -ENOENT)
        return err_set(e, ERR_NOT_FOUND, "read %s: %s", path, strerror(ENOENT));
    return r < 0 ? err_errno(e, -r, "read %s", path) : 0;
}

/* "a\\040b" to "a b" in place, as /proc writes paths */
static void unescape(char *s)
{
    char *o = s;
    for (; *s; s++) {
        bool oct =
            s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7';
        *o++ = oct ? (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0')) : *s;
        s += oct ? 3 : 0;
    }
    *o = '\0';
}

/* "36 35 98:0 /root /mnt/point rw,noatime shared:1 master:2 - ext3 ...": proc(5) */
static char *mount_line(char *line, const char **ret_kind)
{
    char *save = NULL, *word = strtok_r(line, " ", &save), *point = NULL;
    *ret_kind = "private";
    for (int i = 0; word && strcmp(word, "-") != 0; i++, word = strtok_r(NULL, " ", &save)) {
        if (i == 4)
            point = word;
        if (i > 5 && strncmp(word, "shared:", 7) == 0)
            *ret_kind = "shared";
        else if (i > 5 && strncmp(word, "master:", 7) == 0 && strcmp(*ret_kind, "shared") != 0)
            *ret_kind = "slave";
    }
    if (point)
        unescape(point);
    return point;
}

int fs_mount_of(const char *path, char *point, char *kind, struct err *e)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    char *line, *save = NULL;
    size_t best = 0;
    int r = fs_read("/proc/self/mountinfo", 16u << 20, &text, e);
    if (r < 0)
        return r;
    for (line = strtok_r((char *)(uintptr_t)buf_cstr(&text), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *how, *p = mount_line(line, &how);
        size_t n = p ? strlen(p) : 0;
        bool root = n == 1, on = n > 0 && (root || (strncmp(path, p, n) == 0 && (path[n] == '/' || path[n] == '\0')));
        if (!on || n < best || n > 4096)
            continue; /* of two on one point, the later one is seen */
        best = n;
        memcpy(point, p, n + 1);
        memcpy(kind, how, strlen(how) + 1);
    }
    return best ? 0 : err_set(e, ERR_NOT_FOUND, "no mount holds %s", path);
}

int fs_open_at(int dir, const char *path)
{
    struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    struct stat st;
    char again[40];
    _cleanup_(closep) int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
    int r = open(again, O_RDONLY | O_CLOEXEC);
    return r < 0 ? -errno : r;
}

int fs_read_at(int dir, const char *path, size_t max, struct buf *out)
{
    _cleanup_(closep) int fd = fs_open_at(dir, path);
    return fd < 0 ? fd : slurp(fd, max, out);
}

int fs_open_beneath(int dir, const char *path)
{
    struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
    int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    return fd < 0 ? -errno : fd;
}

static int write_fd(int fd, struct str text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -errno;
        text = (struct str){ text.p + n, text.n - (size_t)n };
    }
    return 0;
}

int fs_write(const char *path, struct str text, mode_t mode, struct err *e)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    int r = fd < 0 ? -errno : write_fd(fd, text);
    return r < 0 ? err_errno(e, -r, "write %s", path) : 0;
}

int fs_write_atomic(const char *path, struct str text, mode_t mode, struct err *e)
{
    char tmp[4096];
    if (snprintf(tmp, sizeof tmp, "%s.new", path) >= (int)sizeof tmp)
        return err_set(e, ERR_INVALID, "write: path is too long");
    _cleanup_(closep) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    int r = fd < 0 ? -errno : write_fd(fd, text);
    if (r == 0 && (fdatasync(fd) < 0 || rename(tmp, path) < 0))
        r = -errno;
    if (r < 0) {
        unlink(tmp);
        return err_errno(e, -r, "write %s", path);
    }
    return 0;
}

bool fs_empty_dir(int fd)
{
    struct dirent *d;
    bool empty = true;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return false;
    }
    while (empty && (d = readdir(dir)))
        empty = strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
    closedir(dir);
    return empty;
}

static int rm_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type == FTW_DP || type == FTW_D)
        (void)rmdir(path);
    else
        (void)unlink(path);
    return 0;
}

void fs_remove_tree(const char *path)
{
    (void)nftw(path, rm_entry, 16, FTW_PHYS | FTW_DEPTH | FTW_MOUNT);
}

static size_t counted, count_stop;

static int count_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)st;
    (void)type;
    (void)ftw;
    return ++counted >= count_stop;
}

size_t fs_count_entries(const char *path, size_t stop_at)
{
    counted = 0;
    count_stop = stop_at;
    (void)nftw(path, count_entry, 16, FTW_PHYS | FTW_MOUNT);
    return counted;
}

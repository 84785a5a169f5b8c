/* fsutil.h - the few file operations that several parts of agentd need. */
#pragma once

#include <stdbool.h>
#include <sys/inotify.h>
#include <sys/types.h>

#include "common/util/err.h"
#include "common/util/str.h"

int fs_mkdirs(const char *path, mode_t mode, struct err *e); /* with parents; existing is fine */
int fs_read(const char *path, size_t max, struct buf *out, struct err *e);
/* fs_open_at - a regular file inside dir as a root, whatever links are in there. Anything else is refused without being
 * opened: a FIFO would block, and a device may do things. Returns a descriptor or -errno. */
int fs_open_at(int dir, const char *path);
/* fs_open_beneath - O_PATH; -errno when a symbolic link or ".." is in the way. */
int fs_open_beneath(int dir, const char *path);
int fs_read_at(int dir, const char *path, size_t max, struct buf *out); /* inside dir as a root; 0 or -errno */
int fs_write(const char *path, struct str text, mode_t mode, struct err *e);
int fs_write_atomic(const char *path, struct str text, mode_t mode, struct err *e); /* synced, then renamed */
bool fs_empty_dir(int fd);                                                          /* takes fd */
/* fs_mount_of - which mount @path (real, absolute) lies on: its mount point (at least 4097 bytes), and "shared",
 * "slave" or "private" in kind (at least 8 bytes). */
int fs_mount_of(const char *path, char *point, char *kind, struct err *e);
/* fs_watch_read - every event that is waiting in a non-blocking inotify descriptor. */
typedef void fs_watch_fn(void *arg, const struct inotify_event *ev);
void fs_watch_read(int fd, fs_watch_fn *fn, void *arg);
void fs_remove_tree(const char *path);                     /* best effort, stays on one file system; for small trees */
size_t fs_count_entries(const char *path, size_t stop_at); /* files below path, up to stop_at */

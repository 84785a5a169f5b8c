/* fsutil.h - the few file operations that several parts of agentd need. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/util/err.h"
#include "common/util/str.h"

int fs_mkdirs(const char *path, mode_t mode, struct err *e); /* with parents; existing is fine */
int fs_read(const char *path, size_t max, struct buf *out, struct err *e);
int fs_read_at(int dir, const char *path, size_t max, struct buf *out); /* inside dir as a root; 0 or -errno */
int fs_write(const char *path, struct str text, mode_t mode, struct err *e);
int fs_write_atomic(const char *path, struct str text, mode_t mode, struct err *e); /* synced, then renamed */
bool fs_empty_dir(int fd);                                                          /* takes fd */
void fs_remove_tree(const char *path);                     /* best effort, stays on one file system; for small trees */
size_t fs_count_entries(const char *path, size_t stop_at); /* files below path, up to stop_at */

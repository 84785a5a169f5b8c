/* dir.h - folders of our own inside a folder that others may write to, too. */
#pragma once

#include <sys/stat.h>

#include "common/util/err.h"

/*
 * dir_own - makes sure that @path is a folder that only we (or root) can change.
 *
 * The run and state folders are writable by the group of all daemons, so that each can make its sockets. Any of them
 * may therefore have put a folder or a symbolic link of its own where we are going to keep ours. What is there already
 * is taken over only when its owner is this process's user or root, and nobody else may write to it.
 *
 * Returns 0, or -ERR_DENIED when it is somebody else's.
 */
int dir_own(const char *path, mode_t mode, struct err *e);

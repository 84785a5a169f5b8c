/*
 * mesh_ns.h - network namespaces: pins that keep them, going in and coming back, what is set inside.
 *
 * A namespace without processes lives as long as a bind mount of it: its pin, a file in a folder of the run folder. An
 * open socket of a namespace keeps it, too: close it before unpinning.
 */
#pragma once

#include <stdbool.h>

#include "common/util/err.h"

/* mesh_ns_dir - prepares a folder for pins: its own shared mount, so that pins show in other mount namespaces. */
int mesh_ns_dir(const char *dir, struct err *e);
bool mesh_ns_pinned(const char *path);
int mesh_ns_unpin(const char *path, struct err *e); /* not there: fine */

/* mesh_ns_self - a descriptor of the calling thread's namespace, or -1 with errno. */
int mesh_ns_self(void);

/* mesh_ns_make - the calling thread moves into a new namespace, pinned at `path` (which must not exist). */
int mesh_ns_make(const char *path, struct err *e);

/* mesh_ns_enter - the calling thread moves into the pinned namespace; mesh_ns_back() takes it back. Anything that fails
 * to come back would serve the wrong namespace from then on: it aborts. */
int mesh_ns_enter(const char *path, struct err *e);
void mesh_ns_back(int fd);

/* mesh_ns_sysctl - writes one value below /proc/sys, in the thread's namespace, unless it reads so already. */
int mesh_ns_sysctl(const char *path, const char *value, struct err *e);

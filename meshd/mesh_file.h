/*
 * mesh_file.h - one small file per sandbox under <run>/mesh/, from which a restarted meshd knows what it had answered.
 *
 * A file is written when all of the sandbox is made, and removed before any of it is taken away: what the kernel has
 * and no file names is left over from a crash. Each is replaced by rename, so it is whole or old, never half.
 */
#pragma once

#include "common/proto/msg_meshd.h"
#include "meshd/mesh_core.h"

/* mesh_ports_in - checked ports of a message as the core has them; given, malloc'd. -ERR_INVALID names the field. */
int mesh_ports_in(const struct list *in, struct mesh_publish **ret, size_t *ret_n, struct err *e);

/* mesh_ports_out - back; allocated in the arena; false when it is full. */
bool mesh_ports_out(const struct mesh_sandbox *sb, struct arena *a, struct list *ret);

/* A sandbox as bytes. Decoding gives sb->ports (malloc'd); *ret_subnet has prefix 0 unless there is an address. */
void mesh_record_encode(const struct mesh_sandbox *sb, struct mesh_subnet subnet, struct arena *a, struct buf *out);
int mesh_record_decode(struct str in, struct arena *a, struct mesh_sandbox *ret, struct mesh_subnet *ret_subnet,
                       struct err *e);

int mesh_file_save(const char *dir, const struct mesh_sandbox *sb, struct mesh_subnet subnet, struct err *e);
int mesh_file_remove(const char *dir, const char *task, struct err *e); /* not there: fine */

/* mesh_file_each - calls fn for every file, decoded; one that is damaged comes as NULL with the reason. fn takes
 * sb->ports. */
typedef void mesh_file_fn(void *arg, const char *name, struct mesh_sandbox *sb, struct mesh_subnet subnet,
                          const struct err *e);
int mesh_file_each(const char *dir, mesh_file_fn *fn, void *arg, struct err *e);

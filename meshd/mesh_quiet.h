/*
 * mesh_quiet.h - waiting until nobody is connected to a task any more: sock_diag in its namespace, a few looks a little
 * apart.
 *
 * What counts are connections that others have made to it: TCP and SCTP on a local port that it listens on, from an
 * address that is not its own, in any state in which something may still come or go. A connection may be on its way
 * when the last node has taken the task out, so one look is not enough. UDP has nothing to wait for.
 */
#pragma once

#include <stdint.h>

#include "common/util/err.h"

/* mesh_quiet_look - how many there are now, in the namespace pinned at @pin; the calling thread is back in @back_ns
 * afterwards. */
int mesh_quiet_look(const char *pin, int back_ns, uint64_t *ret_connections, struct err *e);

/* mesh_quiet_listening - the TCP ports that somebody listens on there, a bit each. */
int mesh_quiet_listening(const char *pin, int back_ns, uint8_t ret[65536 / 8], struct err *e);

#define MESH_QUIET_LOOKS 3u
#define MESH_QUIET_GAP_MS 20u
#define MESH_QUIET_MAX_MS                                                                                              \
    200u /* between looks while there are connections: a look reads all of the machine's sockets */

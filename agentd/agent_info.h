/* agent_info.h - what this host is and has: the node's description, as Docker spells it. */
#pragma once

#include "common/util/err.h"
#include "common/util/str.h"

struct host_info {
    char hostname[256], arch[65], os[16];
    uint64_t ncpu, mem_bytes;
};
void host_info_read(struct host_info *ret);

/* host_settings_check - what the configuration adds to the description: labels and generic resources. 0 or
 * -ERR_INVALID. */
int host_settings_check(struct err *e);

/* host_description - the Node.Description map (msgpack). */
void host_description(const struct host_info *h, struct buf *out);

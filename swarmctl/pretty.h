/* pretty.h - "inspect --pretty". */
#pragma once

#include <jansson.h>

#include "common/util/str.h"

/* networks: id -> name of those the service is attached to; now_ns: for "3 seconds ago" */
void pretty_service(struct buf *b, json_t *service, json_t *networks, int64_t now_ns);
void pretty_node(struct buf *b, json_t *node);

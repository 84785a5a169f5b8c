/* pretty.h - "inspect --pretty". */
#pragma once

#include <jansson.h>

#include "common/util/str.h"

/* networks: id -> name of those the service is attached to */
void pretty_service(struct buf *b, json_t *service, json_t *networks);
void pretty_node(struct buf *b, json_t *node);

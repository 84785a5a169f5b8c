/* info.h - the server part of "info". */
#pragma once

#include <jansson.h>

#include "common/util/str.h"

void info_print(struct buf *b, json_t *info);

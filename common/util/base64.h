/* base64.h - RFC 4648 §4: the standard alphabet, with padding. */
#pragma once

#include <stdbool.h>

#include "common/util/str.h"

/* base64_put - appended to out. */
void base64_put(struct buf *out, struct str s);

/* base64_take - appended to out; false when text is malformed (also: spaces, missing padding) or out is full. */
bool base64_take(struct str text, struct buf *out);

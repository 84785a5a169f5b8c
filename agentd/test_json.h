/* test_json.h - JSON text as msgpack, without a table: what tests write as assignments. For tests only. */
#pragma once

#include <jansson.h>

#include "common/proto/mp.h"

static inline void test_json_pack(struct buf *b, json_t *j)
{
    size_t i;
    json_t *v;
    const char *k;
    if (json_is_object(j)) {
        mp_map(b, json_object_size(j));
        json_object_foreach (j, k, v) {
            mp_cstr(b, k);
            test_json_pack(b, v);
        }
    } else if (json_is_array(j)) {
        mp_array(b, json_array_size(j));
        json_array_foreach (j, i, v)
            test_json_pack(b, v);
    } else if (json_is_string(j)) {
        mp_cstr(b, json_string_value(j));
    } else if (json_is_integer(j)) {
        mp_i64(b, json_integer_value(j));
    } else {
        mp_bool(b, json_is_true(j));
    }
}

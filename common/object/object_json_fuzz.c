/*
 * object_json_fuzz.c - client text: refusing is fine; what is accepted must pack, come back, and be stable from then
 * on. The first byte picks the type.
 */
#include <stdlib.h>

#include "common/object/object.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct obj_type *const types[] = {
    &obj_service_spec, &obj_node_spec, &obj_cluster_spec, &obj_network_spec, &obj_secret_spec,
    &obj_config_spec,  &obj_service,   &obj_task,         &obj_node,         &obj_swarm_init,
};
#define TYPES (sizeof types / sizeof types[0])

/* pack_and_write - the document as its reader will see it. */
static void pack_and_write(const struct obj_type *t, json_t *doc, struct buf *mp, struct buf *text)
{
    struct err e = ERR_INIT;
    CHECK(obj_pack(t, doc, mp, &e) == 0);
    CHECK(mp_valid(buf_str(mp)));
    CHECK(obj_write_json(t, buf_str(mp), text, &e) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = ERR_INIT;
    struct buf mp = BUF_INIT, text = BUF_INIT, mp2 = BUF_INIT, text2 = BUF_INIT;
    json_t *doc = NULL, *again = NULL;
    if (size < 1)
        return 0;
    const struct obj_type *t = types[data[0] % TYPES];
    if (obj_parse(t, (struct str){ (const char *)data + 1, size - 1 }, &doc, &e) < 0) {
        CHECK(e.code != 0 && e.msg[0] != 0);
        return 0;
    }
    pack_and_write(t, doc, &mp, &text);
    CHECK(obj_unpack(t, buf_str(&mp), &again, &e) == 0);
    pack_and_write(t, again, &mp2, &text2);
    CHECK(str_eq(buf_str(&text), buf_str(&text2)));
    CHECK(!obj_diff(t, again, again, NULL, NULL));
    CHECK(obj_defaults(t, doc, &e) == 0);
    (void)obj_diff(t, doc, again, NULL, NULL);
    json_decref(doc);
    json_decref(again);
    buf_done(&mp);
    buf_done(&text);
    buf_done(&mp2);
    buf_done(&text2);
    return 0;
}

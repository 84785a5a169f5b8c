/* Every message of every daemon: what decodes must encode, decode again, and come out the same. */
#include <stdlib.h>

#include "common/proto/msg_agentd.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/proto/msg_meshd.h"
#include "common/proto/msg_raftd.h"
#include "common/util/check.h"

static const struct op *const ops[] = {
    &op_raftd_txn,        &op_raftd_bootstrap,  &op_raftd_status,     &op_disp_session,
    &op_disp_assignments, &op_disp_status,      &op_disp_network,     &op_disp_link,
    &op_agent_logs,       &op_agent_image_load, &op_agent_image_list, &op_agent_image_inspect,
    &op_agent_image_pull, &op_agent_image_tag,  &op_agent_info,       &op_agent_image_remove,
    &op_mesh_up,          &op_mesh_ready,       &op_mesh_down,        &op_mesh_list,
    &op_agent_containers, &op_agent_volumes,    &op_mesh_quiet,
};

static void round_trip(const struct field *table, size_t size, struct str in, enum fields_mode mode)
{
    struct arena a;
    struct err e = ERR_INIT;
    struct buf b1 = { 0 }, b2 = { 0 };
    arena_init(&a, 8u << 20);
    void *x = arena_alloc(&a, size), *y = arena_alloc(&a, size);
    CHECK(x && y);
    if (fields_decode(x, table, size, in, mode, &a, &e) == 0) {
        fields_encode(x, table, &b1);
        CHECK(!b1.failed);
        CHECK(fields_decode(y, table, size, buf_str(&b1), FIELDS_VIEW, &a, &e) == 0);
        fields_encode(y, table, &b2);
        CHECK(str_eq(buf_str(&b1), buf_str(&b2)));
    }
    buf_done(&b1);
    buf_done(&b2);
    arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf json = { .limit = 1u << 20 };
    struct str out;
    if (size < 1)
        return 0;
    struct str in = { (const char *)data + 1, size - 1 };
    const struct op *op = ops[data[0] % (sizeof ops / sizeof ops[0])]; /* NOLINT(bugprone-sizeof-expression) */
    enum fields_mode mode = data[0] & 0x80 ? FIELDS_VIEW : FIELDS_STRICT;
    round_trip(op->req, op->req_size, in, mode);
    round_trip(op->rep, op->rep_size, in, mode);
    mp_to_json(&json, in);
    mp_path(in, "Spec.Mode.Replicated.Replicas", &out);
    struct buf packed = { .limit = 1u << 20 }, again = { .limit = 1u << 20 };
    CHECK((mp_pack(&packed, in) == 0) == mp_valid(in));
    if (mp_valid(in) && !json.failed && !packed.failed) { /* smaller, and reads the same */
        CHECK(packed.n <= in.n);
        mp_to_json(&again, buf_str(&packed));
        CHECK(str_eq(buf_str(&json), buf_str(&again)));
    }
    buf_done(&packed);
    buf_done(&again);
    buf_done(&json);
    return 0;
}

#include "gatewayd/gw_wire.h"

#include "gatewayd/gw_state.h"

const struct field gw_hello_fields[] = {
    FIELD_U64(struct gw_hello, Version, 1, UINT32_MAX),
    FIELD_STR(struct gw_hello, Node, 0, 64),
    FIELD_STR(struct gw_hello, Addr, 0, 300),
    FIELD_STR(struct gw_hello, Software, 0, 64),
    FIELD_STR(struct gw_hello, Instance, 0, 64),
    FIELD_U64(struct gw_hello, Turn, 0, UINT64_MAX),
    FIELD_END,
};
static const struct field from_fields[] = {
    FIELD_STR(struct rpc_from, node, 0, 64),
    FIELD_STR(struct rpc_from, role, 1, 16),
    FIELD_STR(struct rpc_from, svc, 0, 32),
    FIELD_STR(struct rpc_from, addr, 0, 64),
    FIELD_END,
};
const struct field gw_request_fields[] = {
    FIELD_STR(struct gw_request_msg, To, 1, 64),
    FIELD_STR(struct gw_request_msg, Svc, 1, 32),
    FIELD_STR(struct gw_request_msg, Op, 1, 64),
    FIELD_STR(struct gw_request_msg, By, 0, 32),
    FIELD_U64(struct gw_request_msg, Ttl, 0, UINT32_MAX),
    FIELD_PTR(struct gw_request_msg, From, from_fields, struct rpc_from),
    FIELD_RAW_REQ(struct gw_request_msg, Body),
    FIELD_END,
};
const struct field gw_reply_fields[] = {
    FIELD_U64(struct gw_reply_msg, Code, 0, ERR_CODE_COUNT - 1),
    FIELD_STR(struct gw_reply_msg, Msg, 0, 4096),
    FIELD_RAW(struct gw_reply_msg, Body),
    FIELD_END,
};
static const struct field manager_fields[] = {
    FIELD_STR(struct gw_manager, NodeID, 0, 64),
    FIELD_STR(struct gw_manager, Addr, 1, 300),
    FIELD_END,
};
const struct field gw_control_fields[] = {
    FIELD_STR(struct gw_control, Kind, 1, 16),
    FIELD_STR(struct gw_control, Text, 0, 1024),
    FIELD_U64(struct gw_control, Code, 0, UINT32_MAX),
    FIELD_U64(struct gw_control, Rev, 0, UINT64_MAX),
    FIELD_LIST(struct gw_control, Managers, manager_fields, struct gw_manager, GW_MANAGERS_MAX),
    FIELD_STR(struct gw_control, Trust, 0, 65536),
    FIELD_END,
};

int gw_wire_decode(void *out, const struct field *table, size_t size, struct str in, struct arena *a, struct err *e)
{
    int r = fields_decode(out, table, size, in, FIELDS_VIEW, a, e);
    return r < 0 ? r : fields_check(out, table, e);
}

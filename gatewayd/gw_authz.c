#include "gatewayd/gw_authz.h"

#include "common/proto/msg_agentd.h"
#include "common/proto/msg_cad.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/proto/msg_raftd.h"

#define NONE (1u << RPC_NOBODY)
#define WORKER (1u << RPC_WORKER)
#define MANAGER (1u << RPC_MANAGER)

const struct gw_rule gw_rules[] = {
    { "cad", &op_cad_root, NONE | WORKER | MANAGER, NULL, false },
    { "cad", &op_cad_issue, NONE | WORKER | MANAGER, "gatewayd", false },
    { "cad", &op_cad_rotate, MANAGER, "apid", false },
    { "dispatcherd", &op_disp_session, WORKER | MANAGER, "agentd", false },
    { "dispatcherd", &op_disp_assignments, WORKER | MANAGER, "agentd", false },
    { "dispatcherd", &op_disp_status, WORKER | MANAGER, "agentd", false },
    { "dispatcherd", &op_disp_payload, WORKER | MANAGER, "agentd", false },
    { "dispatcherd", &op_disp_usage, WORKER | MANAGER, "agentd", false },
    { "dispatcherd", &op_disp_network, WORKER | MANAGER, "meshd", false },
    { "raftd", &op_raftd_member_add, MANAGER, "raftd", true },
    { "raftd", &op_raftd_member_remove, MANAGER, "raftd apid", true },
    { "raftd", &op_raftd_forward, MANAGER, "raftd", false },
    { "raftd", &op_raftd_barrier, MANAGER, "raftd", false },
    { "raftd", &op_raftd_members, MANAGER, "raftd apid cad", false },
    { "raftd", &op_raftd_status, MANAGER, "raftd apid", false },
    { "agentd", &op_agent_logs, MANAGER, "apid", false },
    { "agentd", &op_agent_info, MANAGER, "apid", false },
    { "agentd", &op_agent_containers, MANAGER, "apid", false },
    { "agentd", &op_agent_volumes, MANAGER, "apid", false },
    { 0 },
};

const char *gw_role_name(enum rpc_role role)
{
    static const char *const names[] = {
        [RPC_LOCAL] = "local", [RPC_NOBODY] = "none", [RPC_WORKER] = "worker", [RPC_MANAGER] = "manager"
    };
    return names[role];
}

enum rpc_role gw_role_by_name(struct str name)
{
    return str_is(name, "manager") ? RPC_MANAGER : str_is(name, "worker") ? RPC_WORKER : RPC_NOBODY;
}

static bool listed(const char *words, struct str word)
{
    while (words && *words) {
        size_t n = strcspn(words, " ");
        if (n == word.n && memcmp(words, word.p, n) == 0)
            return true;
        words += n + (words[n] == ' ');
    }
    return false;
}

static const struct gw_rule *find_rule(struct str svc, struct str op)
{
    for (const struct gw_rule *r = gw_rules; r->svc; r++) {
        if (str_is(svc, r->svc) && str_is(op, r->op->name))
            return r;
    }
    return NULL;
}

int gw_authz(const struct rpc_origin *from, struct str svc, struct str op, struct str body, struct err *e)
{
    const struct gw_rule *r = find_rule(svc, op);
    struct str node;
    if (!r || from->role == RPC_LOCAL || !(r->roles & 1u << from->role))
        return err_set(e, ERR_DENIED, STR_FMT "." STR_FMT ": not for nodes with role %s", STR_ARG(svc), STR_ARG(op),
                       gw_role_name(from->role));
    if (from->role == RPC_MANAGER && r->askers && !listed(r->askers, from->svc))
        return err_set(e, ERR_DENIED, STR_FMT "." STR_FMT ": only for %s, not for " STR_FMT, STR_ARG(svc), STR_ARG(op),
                       r->askers, STR_ARG(from->svc));
    if (!r->self)
        return 0;
    if (!mp_get_str(body, "NodeID", &node))
        return err_set(e, ERR_INVALID, STR_FMT "." STR_FMT ": NodeID is missing", STR_ARG(svc), STR_ARG(op));
    if (!str_eq(node, from->node))
        return err_set(e, ERR_DENIED, STR_FMT "." STR_FMT ": a node may ask for itself only", STR_ARG(svc),
                       STR_ARG(op));
    return 0;
}

struct str gw_authz_root(struct str svc, struct str op)
{
    const struct gw_rule *r = find_rule(svc, op);
    if (!r || !r->askers)
        return STR("root");
    return (struct str){ r->askers, strcspn(r->askers, " ") };
}

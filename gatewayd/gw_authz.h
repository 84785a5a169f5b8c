/*
 * gw_authz.h - who may ask what of a daemon of another node: one table. What is not in it is refused before any daemon
 * sees it. Pure.
 */
#pragma once

#include "common/daemon/rpc.h"

struct gw_rule {
    const char *svc;
    const struct op *op;
    unsigned roles; /* bits of 1u << enum rpc_role */
    const char
        *askers; /* daemons of a manager, "apid raftd"; NULL: any. What a worker says of itself is not looked at */
    bool self;   /* the body's NodeID must be the asker's */
};
extern const struct gw_rule gw_rules[]; /* ends with svc NULL */

/* gw_authz - may the origin ask this? 0; -ERR_DENIED, saying who asked for what; -ERR_INVALID for a body without NodeID
 * where one is needed. */
int gw_authz(const struct rpc_origin *from, struct str svc, struct str op, struct str body, struct err *e);

/* gw_authz_root - whom a daemon that runs as root stands for when it asks this: the first that may. "root": nobody. */
struct str gw_authz_root(struct str svc, struct str op);

const char *gw_role_name(enum rpc_role role);   /* "none", "worker", "manager" */
enum rpc_role gw_role_by_name(struct str name); /* RPC_NOBODY when unknown */

/*
 * gw_shell.h - what the parts of gatewayd know of each other. One process is one node; the state is the modules' own.
 */
#pragma once

#include "common/daemon/daemon.h"
#include "gatewayd/gw_link.h"

/* ---- gw_shell.c: start, stop, probes, Raft's datagrams ---- */
int gw_shell_start(struct err *e);
void gw_shell_stop(void);
void gw_shell_status(struct buf *out);
void gw_shell_metrics(struct buf *out);
void gw_probe_links(const char *args, struct buf *out);
void gw_probe_identity(const char *args, struct buf *out);
void gw_probe_requests(const char *args, struct buf *out);
void gw_probe_rules(const char *args, struct buf *out);
extern const struct route gw_routes[];
extern struct gw_net gw_net;

/* gw_daemon_of - which daemon runs as this user: "apid", ..., "root"; "": none of ours. */
const char *gw_daemon_of(uid_t uid);
/* gw_client - requests to a daemon of this host; NULL for what we have no business with. */
struct rpc_client *gw_client(struct str daemon);
/* gw_shell_node_link - a node is connected, or not any more. */
void gw_shell_node_link(struct gw_link *l, bool up);
/* gw_shell_raft_link - for raftd alone: a connected node became a manager, or is none any more. */
void gw_shell_raft_link(struct gw_link *l, bool up);
void gw_shell_refused(const struct rpc_origin *from, const struct err *why);

/* ---- gw_hub.c: which link leads to which node; dialling managers ---- */
int gw_hub_init(struct err *e);
void gw_hub_done(void);
struct gw_link *gw_hub_link(struct str node); /* NULL: none */
struct gw_link *gw_hub_any_manager(void);     /* the one that worked last, first */
void gw_hub_worked(struct gw_link *l);        /* a request through this manager was answered */
void gw_hub_failed(struct gw_link *l);        /* it could not help: prefer another one */
int gw_hub_admit(void *arg, struct gw_link *l, struct err *e);
void gw_hub_up(void *arg, struct gw_link *l, const struct gw_hello *hello);
void gw_hub_down(void *arg, struct gw_link *l, bool was_up, const struct err *why);
/* gw_hub_managers - whom to dial: after the identity or the known managers changed. */
void gw_hub_managers(void);
void gw_hub_redial(void); /* new links with the new certificate; the old ones are drained */
void gw_hub_redial_one(struct gw_link *l);
void gw_hub_close_all(const struct err *why);
unsigned gw_hub_nodes(enum rpc_role role); /* how many are connected */

/* ---- gw_swarm.c: what this manager's store says ---- */
int gw_swarm_init(struct err *e);
void gw_swarm_done(void);
struct gw_swarm_view {
    bool initialized; /* this host's raftd is in a group */
    bool leader;      /* and leads */
    bool current;     /* there is a leader: what the map lacks does not exist */
    uint64_t revision;
    char node_id[GW_ID_MAX], cluster_id[GW_ID_MAX], leader_id[GW_ID_MAX];
};
const struct gw_swarm_view *gw_swarm(void);
/* gw_swarm_alone_ms - since when no leader is known, gw_now_ms(); 0: one is. */
uint64_t gw_swarm_alone_ms(void);
/* gw_swarm_admit - what the store says of a peer: lowers *role, or refuses. */
int gw_swarm_admit(const char *node, enum rpc_role *role, struct err *e);
/* gw_swarm_again - this node's identity has changed: the store is seen with other eyes. */
void gw_swarm_again(void);
/* gw_swarm_check - a link against the store: may ask for a new certificate, or close it. */
void gw_swarm_check(struct gw_link *l);
/* gw_swarm_tell - sends a peer what it should know, once. */
void gw_swarm_tell(struct gw_link *l);

/* ---- gw_ident.c: who this node is ---- */
int gw_ident_init(struct err *e);
void gw_ident_done(void);
struct gw_ident {
    enum gw_ident_state { GW_INACTIVE, GW_PENDING, GW_ACTIVE, GW_ERROR, GW_LOCKED } state;
    uint64_t seq;
    char error[480];
    char listen[ADDR_TEXT_MAX], advertise[ADDR_TEXT_MAX], data_path[ADDR_HOST_MAX];
    uint64_t data_path_port;
    struct gw_credentials cred; /* state GW_ACTIVE: whole */
    struct gw_tls_ctx *ctx;     /* NULL: no certificate, or an expired one */
    struct {
        char node[GW_ID_MAX], addr[ADDR_TEXT_MAX];
        uint8_t key[GW_DIGEST_BYTES]; /* digest of the one that its certificate had when it was last seen, and valid */
        bool has_key;
    } managers[GW_MANAGERS_MAX];
    size_t nmanagers;
    bool managers_told; /* by a manager: the list is whole */
};
const struct gw_ident *gw_ident(void);
enum rpc_role gw_ident_role(void); /* RPC_NOBODY without certificate */
/* gw_ident_store_changed - the store may have become (un)initialised. */
void gw_ident_store_changed(void);
/* gw_ident_swarm - the managers there are, and the roots to trust, at store revision @rev; older news are ignored. */
void gw_ident_swarm(const struct gw_manager *m, size_t n, struct str trust, uint64_t rev);
/* gw_ident_renew - soon; @all_nodes: every node does, so not all at the same moment. */
void gw_ident_renew(const char *why, bool all_nodes);
/* gw_ident_renew_by_proof - nobody takes our certificate: its root is trusted no more, or it is too old for the clocks
 * of others. */
void gw_ident_renew_by_proof(void);
void gw_ident_join_up(struct gw_link *l);
void gw_ident_join_down(struct gw_link *l, const struct err *why);
extern char gw_join_cookie; /* l->cookie of links that a join dialled is its address */
/* gw_ident_leader - whether there is one, or whether it is this node, has changed. */
void gw_ident_leader(void);
/* gw_ident_grace - this manager has seen no leader for a while: others whose certificates have expired may take part in
 * electing one. */
bool gw_ident_grace(void);
bool gw_ident_knows_key(const char *node, X509 *cert); /* of a manager: the one that it had when it was last seen */
void gw_ident_saw(const struct gw_link *l);
/* gw_ident_open - of a locked node: reads the key with @seal. -ERR_DENIED: it is not the one. */
int gw_ident_open(const struct gw_seal *seal, struct err *e);
/* gw_ident_reseal - writes the key anew, sealed like this. */
int gw_ident_reseal(const struct gw_seal *seal, struct err *e);
void gw_ident_decided(void); /* it is known whether the node is locked */
void gw_ident_on_identity(struct rpc_call *c, const void *req);
void gw_ident_on_setup(struct rpc_call *c, const void *req);
void gw_ident_on_join(struct rpc_call *c, const void *req);
void gw_ident_on_leave(struct rpc_call *c, const void *req);
void gw_ident_on_unlock(struct rpc_call *c, const void *req);
void gw_ident_json(struct buf *out);

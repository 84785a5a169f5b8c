/* cad_shell.c - see cad_shell.h. */
#include "cad/cad_shell.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cad/cad_pass.h"
#include "cad/outside_http.h"
#include "cad/outside_text.h"
#include "common/proto/msg_raftd.h"
#include "common/util/check.h"

#define REMOVE_TIMEOUT_MS 30000u
#define SECURE_HEAP 65536

struct cad_conf cad_conf;

static struct cad_keeper keeper;
static struct controller *controller;
static struct rpc_client *raftd;
static struct outside_http *http;

/* ---- answers ---- */

static void call_issued(void *call, const struct cad_issue_reply *rep)
{
    rpc_reply(call, rep);
}

static void call_failed(void *call, const struct err *e)
{
    rpc_fail_err(call, e);
}

static void call_rotated(void *call)
{
    rpc_reply(call, NULL);
}

/* ---- asking others ---- */

static void on_removed(void *arg, const void *rep, const struct err *e)
{
    char *id = arg;

    (void)rep;
    cad_member_removed(&keeper, str_from(id), e, clock_wall().ns);
    free(id);
}

static void remove_member(struct str id)
{
    char *copy = str_dup(id);
    struct raftd_member_remove req = { .NodeID = str_from(copy) };

    rpc_send(raftd, &op_raftd_member_remove, &req, REMOVE_TIMEOUT_MS, on_removed, copy);
}

static void try_next(struct cad_outside *job);

static void on_answered(void *arg, struct str body, const struct err *e)
{
    struct cad_outside *job = arg;

    if (e->code != 0 && e->code != ERR_UNAVAILABLE && ++job->at < job->nurls) {
        log_warn("%s: trying the next one", e->msg);
        try_next(job);
        return;
    }
    cad_outside_answer(job, body, e);
}

static void try_next(struct cad_outside *job)
{
    char cert[CONF_TEXT_MAX + 64], key[CONF_TEXT_MAX + 64];
    struct outside_post p = { .url = job->url[job->at],
                              .body = buf_str(&job->body),
                              .trust = buf_str(&job->trust),
                              .timeout_ms = (unsigned)cad_conf.external_ms,
                              .answer_max = OUTSIDE_ANSWER_MAX };

    if (cad_conf.external_cert[0]) {
        p.cert = cad_conf.external_cert;
        p.key = cad_conf.external_key[0] ? cad_conf.external_key : cad_conf.external_cert;
    } else {
        snprintf(cert, sizeof cert, "%s/certificates/swarm-node.crt", daemon_state_dir());
        snprintf(key, sizeof key, "%s/certificates/swarm-node.key", daemon_state_dir());
        if (access(cert, R_OK) == 0 && access(key, R_OK) == 0) {
            p.cert = cert;
            p.key = key;
        }
    }
    outside_post(http, &p, on_answered, job);
}

static const struct cad_calls calls = { .issued = call_issued,
                                        .rotated = call_rotated,
                                        .failed = call_failed,
                                        .random = random_bytes,
                                        .remove_member = remove_member,
                                        .ask_outside = try_next };

/* ---- requests ---- */

static void on_root(struct rpc_call *c, const void *req)
{
    struct cad_root_reply rep = { 0 };
    struct err e = ERR_INIT;

    (void)req;
    if (cad_get_root(controller_store(controller), rpc_arena(c), &rep, &e) < 0)
        rpc_fail_err(c, &e);
    else
        rpc_reply(c, &rep);
}

static void on_issue(struct rpc_call *c, const void *req)
{
    struct rpc_origin from = rpc_origin(c);

    /* Of this host only gatewayd gets this node's certificate; for other nodes it is gatewayd that says who they are.
     */
    if (from.role == RPC_LOCAL && !rpc_permit(c, daemon_user("gatewayd"), "gatewayd"))
        return;
    cad_ask_issue(&keeper, c, req, &from, clock_wall().ns);
}

/* of_manager - apid of this host, or of another manager. */
static bool of_manager(struct rpc_call *c)
{
    enum rpc_role role = rpc_origin(c).role;

    if (role == RPC_LOCAL || role == RPC_MANAGER)
        return rpc_permit(c, daemon_user("apid"), "apid");
    rpc_fail(c, ERR_DENIED, "only managers may ask for this");
    return false;
}

static void on_tokens(struct rpc_call *c, const void *req)
{
    struct cad_tokens_reply rep = { .Worker = { 0 } };
    struct err e = ERR_INIT;

    (void)req;
    if (!of_manager(c))
        return;
    if (cad_get_tokens(controller_store(controller), rpc_arena(c), &rep, &e) < 0)
        rpc_fail_err(c, &e);
    else
        rpc_reply(c, &rep);
}

static void on_rotate(struct rpc_call *c, const void *req)
{
    if (of_manager(c))
        cad_ask_rotate(&keeper, c, req);
}

static void on_unlock_key(struct rpc_call *c, const void *req)
{
    struct cad_unlock_key_reply rep = { .Key = { 0 } };
    struct err e = ERR_INIT;

    (void)req;
    bool gatewayd = rpc_origin(c).role == RPC_LOCAL && rpc_peer_uid(c) == daemon_user("gatewayd");
    if (!gatewayd && !of_manager(c)) /* gatewayd: it seals the node's key with it */
        return;
    if (cad_get_unlock_key(controller_store(controller), rpc_arena(c), &rep, &e) < 0)
        rpc_fail_err(c, &e);
    else
        rpc_reply(c, &rep);
}

const struct route cad_routes[] = {
    { &op_cad_root, on_root },     { &op_cad_issue, on_issue },           { &op_cad_tokens, on_tokens },
    { &op_cad_rotate, on_rotate }, { &op_cad_unlock_key, on_unlock_key }, { 0 },
};

/* ---- the process ---- */

int cad_start(struct err *e)
{
    (void)CRYPTO_secure_malloc_init(SECURE_HEAP, 32); /* private keys are kept out of swap, if the limits allow it */
    cad_keeper_init(&keeper, &calls);
    keeper.limits.rotation_ns = (int64_t)cad_conf.rotation_ms * 1000000;
    keeper.limits.per_second = (unsigned)cad_conf.unnamed_per_s;
    keeper.limits.network_keys_ns = (int64_t)cad_conf.network_keys_ms * 1000000;
    keeper.tokens = keeper.limits.per_second;
    http = outside_http_new(daemon_loop());
    int r = rpc_client_open(&raftd, daemon_loop(), daemon_run_dir(), "raftd", e);
    if (r == 0)
        r = controller_open(&controller, daemon_loop(), daemon_run_dir(), &cad_ops, &keeper, e);
    keeper.controller = controller;
    return r;
}

void cad_stop(void)
{
    http = outside_http_free(http);
    raftd = rpc_client_free(raftd);
    cad_keeper_done(&keeper);
    controller = controller_free(controller);
}

/* ---- probes ---- */

void cad_probe_roles(const char *args, struct buf *out)
{
    struct str id;
    bool first = true;

    (void)args;
    buf_putc(out, '[');
    for (struct table_pos pos = { 0 }; table_next(&keeper.roles.pending, &pos, &id, NULL); first = false) {
        const char *why = table_get(&keeper.role_errs, id);
        buf_puts(out, first ? "{\"node\":" : ",{\"node\":");
        buf_json_str(out, id);
        buf_printf(out, ",\"removing\":%s,\"failures\":%u,\"why\":",
                   keeper.role_core.removing.p && str_eq(keeper.role_core.removing, id) ? "true" : "false",
                   role_tries(&keeper.role_core, id));
        buf_json_str(out, str_from(why));
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

void cad_probe_rotation(const char *args, struct buf *out)
{
    struct str id;
    bool first = true;

    (void)args;
    buf_puts(out, "{\"behind\":[");
    for (struct table_pos pos = { 0 }; table_next(&keeper.behind, &pos, &id, NULL); first = false) {
        if (!first)
            buf_putc(out, ',');
        buf_json_str(out, id);
    }
    buf_printf(out, "],\"asking_external_ca\":%u}", keeper.asking);
}

void cad_status(struct buf *out)
{
    controller_status(controller, out);
    buf_printf(out, ",\"roots_made\":%" PRIu64 ",\"tokens_made\":%" PRIu64 ",\"issued\":%" PRIu64 ",\"waiting\":%u",
               keeper.roots_made, keeper.tokens_made, keeper.issued, keeper.nqueue);
}

void cad_metrics(struct buf *out)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = { { "tokens_made", keeper.tokens_made },
                { "certificates_issued", keeper.issued },
                { "requests_refused", keeper.refused },
                { "requests_limited", keeper.limited },
                { "external_ca_questions", keeper.asked },
                { "members_removed", keeper.removals },
                { "network_keys_made", keeper.network_keys_made } };

    controller_metrics(controller, out);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_printf(out, "# TYPE microswarm_cad_%s_total counter\nmicroswarm_cad_%s_total %" PRIu64 "\n", all[i].name,
                   all[i].name, all[i].value);
}

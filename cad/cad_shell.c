/* cad_shell.c - see cad_shell.h. */
#include "cad/cad_shell.h"

#include <inttypes.h>

#include "cad/cad_pass.h"

static struct cad_keeper keeper;
static struct controller *controller;

/* ---- answers ---- */

static void call_issued(void *call, const struct cad_issue_reply *rep)
{
    rpc_reply(call, rep);
}

static void call_failed(void *call, const struct err *e)
{
    rpc_fail_err(call, e);
}

static const struct cad_calls calls = { .issued = call_issued, .failed = call_failed, .random = random_bytes };

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

static void on_unlock_key(struct rpc_call *c, const void *req)
{
    struct cad_unlock_key_reply rep = { .Key = { 0 } };
    struct err e = ERR_INIT;

    (void)req;
    if (!of_manager(c))
        return;
    if (cad_get_unlock_key(controller_store(controller), rpc_arena(c), &rep, &e) < 0)
        rpc_fail_err(c, &e);
    else
        rpc_reply(c, &rep);
}

const struct route cad_routes[] = {
    { &op_cad_root, on_root },
    { &op_cad_issue, on_issue },
    { &op_cad_tokens, on_tokens },
    { &op_cad_unlock_key, on_unlock_key },
    { 0 },
};

/* ---- the process ---- */

int cad_start(struct err *e)
{
    cad_keeper_init(&keeper, &calls);
    int r = controller_open(&controller, daemon_loop(), daemon_run_dir(), &cad_ops, &keeper, e);
    keeper.controller = controller;
    return r;
}

void cad_stop(void)
{
    cad_keeper_done(&keeper);
    controller = controller_free(controller);
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
                { "requests_limited", keeper.limited } };

    controller_metrics(controller, out);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_printf(out, "# TYPE microswarm_cad_%s_total counter\nmicroswarm_cad_%s_total %" PRIu64 "\n", all[i].name,
                   all[i].name, all[i].value);
}

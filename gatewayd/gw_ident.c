/*
 * gw_ident.c - who this node is: addresses, key and certificate, joining, leaving, renewing.
 *
 * Level-triggered: what is to be done follows from what is on disk (gw_state.h) and what the store says. An attempt
 * that fails is made again later; one thing is asked for at a time.
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#include "common/proto/msg_cad.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "gatewayd/gw_authz.h"
#include "gatewayd/gw_lock.h"
#include "gatewayd/gw_route.h"
#include "gatewayd/gw_shell.h"

#define ASK_MS 10000u
#define RETRY_FIRST_MS 20u
#define RETRY_MAX_MS 5000u
#define RENEW_RETRY_MAX_MS 3600000u
#define JOIN_PATIENCE_MS 20000u /* Docker's */
#define LISTEN_RETRY_MS 1000u
#define POLLS_MAX 64u
#define SOON_SPREAD_MS 500u
#define UNDECIDED_WAIT_MS 3000u
#define GRACE_AFTER_MS 5000u /* without a leader; an election takes two seconds */

static const char already[] =
    "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
static const char join_timeout[] =
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "
    "\"docker info\" command to see the current swarm status of your node.";

char gw_join_cookie;

struct poll {
    struct rpc_call *call;
    uint64_t seq, until_ms;
};

static struct {
    struct gw_ident id;
    struct gw_state state;
    sd_event_source *timer, *poll_timer;
    struct poll polls[POLLS_MAX];
    size_t npolls;
    bool listening;
    uint64_t listen_retry_ms;
    uint64_t swarm_rev; /* of the newest managers list */
    bool grace;         /* our certificate has expired, and is shown to managers all the same */
    uint64_t grace_end_ms;

    /* what is being asked for: the first certificate (init), one by token (join), or a new one (renew) */
    enum { ASK_NOTHING, ASK_ENROL, ASK_JOIN, ASK_RENEW } ask;
    bool in_flight;
    uint64_t generation; /* answers to older questions are thrown away */
    uint64_t next_ms, backoff_ms;
    int64_t renew_at_s; /* unix seconds; 0: never */
    bool renew_now, renew_changed, by_proof;
    uint64_t renews;
    EVP_PKEY *new_key;
    struct buf csr;

    struct {
        struct buf token; /* secret */
        char remote[GW_MANAGERS_MAX][ADDR_TEXT_MAX];
        size_t nremote, at;
        char availability[17];
        struct rpc_call *call; /* NULL: nobody waits any more */
        uint64_t patience_ms;
        struct gw_link *link;
        struct gw_tls_ctx *ctx;
        struct buf root;
        char why[480]; /* the last trouble */
        bool background;
    } join;
} me;

const struct gw_ident *gw_ident(void)
{
    return &me.id;
}

enum rpc_role gw_ident_role(void)
{
    return me.id.cred.cert ? me.id.cred.info.role : RPC_NOBODY;
}

static int64_t now_s(void)
{
    return clock_wall().ns / 1000000000;
}

/* ---- long polls ---- */

static const char *state_name(void)
{
    static const char *const names[] = { "inactive", "pending", "active", "error", "locked" };
    return names[me.id.state];
}

static void answer_poll(struct rpc_call *c)
{
    struct gw_manager m[GW_MANAGERS_MAX];
    struct buf subject = BUF_INIT, key = BUF_INIT;
    const struct gw_credentials *cr = &me.id.cred;
    for (size_t i = 0; i < me.id.nmanagers; i++)
        m[i] = (struct gw_manager){ str_from(me.id.managers[i].node), str_from(me.id.managers[i].addr) };
    struct gw_identity_reply r = { .Seq = me.id.seq,
                                   .State = str_from(state_name()),
                                   .Error = str_from(me.id.error),
                                   .ListenAddr = str_from(me.id.listen),
                                   .AdvertiseAddr = str_from(me.id.advertise),
                                   .DataPathAddr = str_from(me.id.data_path),
                                   .Managers = { m, me.id.nmanagers } };
    if (cr->cert) {
        (void)gw_cert_issuer(cr->cert, cr->rest, buf_str(&cr->trust), &subject, &key);
        r.NodeID = str_from(cr->info.node);
        r.ClusterID = str_from(cr->info.cluster);
        r.Role = str_from(gw_role_name(cr->info.role));
        r.TrustRoot = buf_str(&cr->trust);
        r.CertIssuerSubject = buf_str(&subject);
        r.CertIssuerPublicKey = buf_str(&key);
        r.CertNotAfter = cr->info.not_after * 1000000000;
    }
    rpc_reply(c, &r);
    buf_done(&subject);
    buf_done(&key);
}

static void answer_polls(void)
{
    uint64_t now = gw_now_ms(), at = UINT64_MAX;
    size_t kept = 0;
    for (size_t i = 0; i < me.npolls; i++) {
        struct poll *p = &me.polls[i];
        if ((p->seq < me.id.seq && !gw_lock_undecided()) || p->until_ms <= now) {
            answer_poll(p->call);
            continue;
        }
        at = p->until_ms < at ? p->until_ms : at;
        me.polls[kept++] = *p;
    }
    me.npolls = kept;
    if (at != UINT64_MAX)
        (void)sd_event_source_set_time(me.poll_timer, at * 1000);
    (void)sd_event_source_set_enabled(me.poll_timer, at == UINT64_MAX ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
}

static int on_poll_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    (void)s, (void)usec, (void)arg;
    answer_polls();
    return 0;
}

void gw_ident_on_identity(struct rpc_call *c, const void *req)
{
    const struct gw_identity *q = req;
    if (gw_lock_undecided() && me.npolls < POLLS_MAX) { /* a restart of this daemon alone locks nobody out */
        me.polls[me.npolls++] = (struct poll){ c, 0, gw_now_ms() + UNDECIDED_WAIT_MS };
        answer_polls();
        return;
    }
    if (q->Seq < me.id.seq || q->WaitMs == 0 || me.npolls == POLLS_MAX) {
        answer_poll(c);
        return;
    }
    me.polls[me.npolls++] = (struct poll){ c, q->Seq, gw_now_ms() + q->WaitMs };
    answer_polls();
}

static void changed(void)
{
    me.id.seq++;
    answer_polls();
}

static void new_certificate(void)
{
    changed();
    gw_swarm_again();
}

/* ---- state ---- */

static void work_at(uint64_t at_ms)
{
    uint64_t armed = UINT64_MAX;
    int on = SD_EVENT_OFF;
    (void)sd_event_source_get_enabled(me.timer, &on);
    if (on != SD_EVENT_OFF)
        (void)sd_event_source_get_time(me.timer, &armed);
    if (at_ms == UINT64_MAX || (on != SD_EVENT_OFF && armed <= at_ms * 1000))
        return;
    (void)sd_event_source_set_time(me.timer, at_ms * 1000);
    (void)sd_event_source_set_enabled(me.timer, SD_EVENT_ONESHOT);
}

static int save_node(struct err *e)
{
    struct gw_manager m[GW_MANAGERS_MAX];
    struct gw_known_key keys[GW_MANAGERS_MAX];
    size_t nkeys = 0;
    for (size_t i = 0; i < me.id.nmanagers; i++)
        m[i] = (struct gw_manager){ str_from(me.id.managers[i].node), str_from(me.id.managers[i].addr) };
    for (size_t i = 0; i < me.id.nmanagers; i++) {
        if (me.id.managers[i].has_key)
            keys[nkeys++] = (struct gw_known_key){ str_from(me.id.managers[i].node),
                                                   { (const char *)me.id.managers[i].key, GW_DIGEST_BYTES } };
    }
    struct gw_node_file f = { .ListenAddr = str_from(me.id.listen),
                              .AdvertiseAddr = str_from(me.id.advertise),
                              .DataPathAddr = str_from(me.id.data_path),
                              .DataPathPort = me.id.data_path_port,
                              .NodeID = str_from(me.id.cred.info.node),
                              .ClusterID = str_from(me.id.cred.info.cluster),
                              .Managers = { m, me.id.nmanagers },
                              .Keys = { keys, nkeys } };
    return gw_state_save_node(&me.state, &f, e);
}

/* ---- the keys of managers ---- */

static void know_key(struct str node, const void *digest)
{
    for (size_t i = 0; i < me.id.nmanagers; i++) {
        if (!node.n || !str_is(node, me.id.managers[i].node))
            continue;
        memcpy(me.id.managers[i].key, digest, GW_DIGEST_BYTES);
        me.id.managers[i].has_key = true;
    }
}

static bool key_of(X509 *cert, uint8_t ret[GW_DIGEST_BYTES])
{
    unsigned n = GW_DIGEST_BYTES;
    return X509_pubkey_digest(cert, EVP_sha256(), ret, &n) == 1 && n == GW_DIGEST_BYTES;
}

bool gw_ident_knows_key(const char *node, X509 *cert)
{
    uint8_t key[GW_DIGEST_BYTES];
    for (size_t i = 0; i < me.id.nmanagers; i++) {
        if (strcmp(me.id.managers[i].node, node) == 0)
            return me.id.managers[i].has_key && key_of(cert, key) &&
                   memcmp(key, me.id.managers[i].key, sizeof key) == 0;
    }
    return false;
}

void gw_ident_saw(const struct gw_link *l)
{
    uint8_t key[GW_DIGEST_BYTES];
    struct err e = ERR_INIT;
    if (l->grace || l->role != RPC_MANAGER || gw_ident_role() != RPC_MANAGER ||
        gw_ident_knows_key(l->peer.node, l->cert) || !key_of(l->cert, key))
        return;
    know_key(str_from(l->peer.node), key);
    if (gw_ident_knows_key(l->peer.node, l->cert) && save_node(&e) < 0)
        log_error("%s", e.msg);
}

static void set_managers(const struct gw_manager *m, size_t n)
{
    struct gw_ident old = me.id;
    me.id.nmanagers = 0;
    for (size_t i = 0; i < n && me.id.nmanagers < GW_MANAGERS_MAX; i++) {
        size_t k = me.id.nmanagers;
        me.id.managers[k].has_key = false;
        if (str_copy(me.id.managers[k].node, sizeof me.id.managers[k].node, m[i].NodeID) &&
            str_copy(me.id.managers[k].addr, sizeof me.id.managers[k].addr, m[i].Addr))
            me.id.nmanagers++;
    }
    for (size_t i = 0; i < old.nmanagers; i++) {
        if (old.managers[i].has_key)
            know_key(str_from(old.managers[i].node), old.managers[i].key);
    }
}

/* The listening socket follows the role: managers listen. */
static void listen_or_not(void)
{
    struct host_port a;
    struct err e = ERR_INIT;
    int fd = -1;
    bool want = me.id.listen[0] && me.id.ctx && gw_ident_role() == RPC_MANAGER;
    if (want == me.listening)
        return;
    if (!want) {
        (void)gw_net_listen(&gw_net, -1, &e);
        me.listening = false;
        return;
    }
    if (addr_parse(str_from(me.id.listen), SWARM_PORT, &a, &e) < 0 || gw_net_bind(&a, &fd, &e) < 0 ||
        gw_net_listen(&gw_net, fd, &e) < 0) {
        if (me.listen_retry_ms == 0)
            log_error("%s: trying again", e.msg);
        me.listen_retry_ms = gw_now_ms() + LISTEN_RETRY_MS;
        work_at(me.listen_retry_ms);
        return;
    }
    me.listen_retry_ms = 0;
    me.listening = true;
    log_info("listening addr=%s", me.id.listen);
}

/* The credentials have changed: TLS, listening, links, and when to renew follow. */
static void adopt(struct gw_credentials *c)
{
    struct err e = ERR_INIT;
    uint64_t random;
    bool had = me.id.ctx != NULL;
    if (&me.id.cred != c) {
        gw_credentials_done(&me.id.cred);
        me.id.cred = *c;
        *c = (struct gw_credentials){ .key = NULL };
    }
    me.id.ctx = gw_tls_ctx_unref(me.id.ctx);
    if (me.id.cred.info.not_after > now_s() && gw_tls_ctx_new(&me.id.ctx, &me.id.cred, &e) < 0)
        log_error("certificate: %s", e.msg);
    gw_net.hello.Node = str_from(me.id.cred.info.node);
    gw_net.hello.Addr = str_from(me.id.advertise);
    gw_net_identity(&gw_net, me.id.ctx, gw_ident_role());
    random_bytes(&random, sizeof random);
    me.renew_at_s = gw_renew_at(&me.id.cred.info, random);
    me.renew_now = me.renew_changed = me.by_proof = me.grace = false;
    me.id.state = GW_ACTIVE;
    me.id.error[0] = '\0';
    listen_or_not();
    if (had)
        gw_hub_redial();
    gw_hub_managers();
    gw_lock_look();
    work_at(gw_now_ms());
}

static void forget_question(void)
{
    me.ask = ASK_NOTHING;
    me.in_flight = false;
    me.generation++;
    me.backoff_ms = 0;
    me.next_ms = 0;
    EVP_PKEY_free(me.new_key);
    me.new_key = NULL;
    buf_done(&me.csr);
    if (me.join.link) {
        struct err e = ERR_INIT;
        struct gw_link *l = me.join.link;
        err_set(&e, ERR_OK, "done");
        me.join.link = NULL;
        l->cookie = NULL;
        gw_link_close(l, &e);
    }
    me.join.ctx = gw_tls_ctx_unref(me.join.ctx);
    buf_done(&me.join.root);
}

static void forget_join(void)
{
    gw_secret_done(&me.join.token);
    me.join.nremote = me.join.at = 0;
    me.join.why[0] = '\0';
    me.join.background = false;
}

/* A new key and a request for it, kept until a certificate comes: one that was issued but got lost fits it still. */
static int prepare_key(struct err *e)
{
    int r = 0;
    if (me.new_key)
        return 0;
    r = gw_key_new(&me.new_key, e);
    if (r == 0)
        r = gw_csr(me.new_key, &me.csr, e);
    if (r == 0)
        r = gw_state_save_key(&me.state, me.new_key, gw_lock_seal(), e);
    if (r < 0) {
        EVP_PKEY_free(me.new_key);
        me.new_key = NULL;
        buf_done(&me.csr);
    }
    return r;
}

static void try_again(uint64_t max_ms)
{
    me.in_flight = false;
    me.backoff_ms = me.backoff_ms ? me.backoff_ms * 2 : RETRY_FIRST_MS;
    if (me.backoff_ms > max_ms)
        me.backoff_ms = max_ms;
    me.next_ms = gw_now_ms() + me.backoff_ms;
    work_at(me.next_ms);
}

/* What cad issued; -1: it is not usable. */
static int take_certificate(const struct cad_issue_reply *rep, struct err *e)
{
    struct gw_credentials c = { .key = NULL };
    int r = gw_credentials_make(&c, rep->Chain, rep->TrustRoot, me.new_key, e);
    if (r == 0 && (!str_is(rep->NodeID, c.info.node) || !str_is(rep->ClusterID, c.info.cluster)))
        r = err_set(e, ERR_INVALID, "the certificate is for another node");
    if (r == 0 && me.id.cred.cert &&
        (strcmp(c.info.node, me.id.cred.info.node) != 0 || strcmp(c.info.cluster, me.id.cred.info.cluster) != 0))
        r = err_set(e, ERR_INVALID, "the certificate is for node %s", c.info.node);
    if (r == 0)
        r = gw_cert_verify(c.cert, c.rest, rep->TrustRoot, now_s(), e);
    if (r < 0)
        (void)err_wrap(e, "certificate from the swarm");
    if (r == 0 && c.info.role != RPC_MANAGER) /* a worker's key is not sealed, and its store's key is going */
        r = gw_state_save_key(&me.state, me.new_key, NULL, e);
    if (r == 0)
        r = gw_state_save_credentials(&me.state, rep->Chain, rep->TrustRoot, e);
    if (r < 0) {
        gw_credentials_done(&c);
        return r;
    }
    log_info("certificate node=%s role=%s not_after=%" PRId64, c.info.node, gw_role_name(c.info.role),
             c.info.not_after);
    adopt(&c);
    return save_node(e);
}

/* ---- the first certificate, from this host's cad ---- */

static void on_enrolled(void *arg, const void *rep, const struct err *err)
{
    struct err e = *err;
    if (me.ask != ASK_ENROL || (uintptr_t)arg != me.generation)
        return;
    if (rep && take_certificate(rep, &e) == 0) {
        forget_question();
        new_certificate();
        return;
    }
    if (me.backoff_ms == 0)
        log_info("no certificate yet: %s", e.msg);
    try_again(RETRY_MAX_MS);
}

static void enrol(void)
{
    struct err e = ERR_INIT;
    struct rpc_client *cad = gw_client(STR("cad"));
    if (prepare_key(&e) < 0 || !cad) {
        log_error("certificate: %s", e.msg);
        try_again(RETRY_MAX_MS);
        return;
    }
    me.in_flight = true;
    struct cad_issue q = { .CSR = buf_str(&me.csr) };
    rpc_send(cad, &op_cad_issue, &q, ASK_MS, on_enrolled, (void *)(uintptr_t)me.generation);
}

/* ---- renewing ---- */

static bool expired(void)
{
    return me.id.cred.cert && me.id.cred.info.not_after <= now_s();
}

static int decode_reply(void *rep, const struct op *op, int code, struct str msg, struct str body, struct arena *a,
                        struct err *e)
{
    if (code != ERR_OK)
        return err_set(e, code, STR_FMT, STR_ARG(msg));
    return fields_decode(rep, op->rep, op->rep_size, body, FIELDS_VIEW, a, e);
}

static void on_renewed(void *arg, int code, struct str msg, struct str body)
{
    struct cad_issue_reply rep;
    struct arena a;
    struct err e = ERR_INIT;
    if (me.ask != ASK_RENEW || (uintptr_t)arg != me.generation)
        return;
    arena_init(&a, 1u << 20);
    if (decode_reply(&rep, &op_cad_issue, code, msg, body, &a, &e) == 0 && take_certificate(&rep, &e) == 0) {
        me.renews++;
        forget_question();
        new_certificate();
    } else {
        log_warn("no new certificate: %s", e.msg);
        if (me.join.link) { /* another manager next time */
            struct gw_link *l = me.join.link;
            me.join.link = NULL;
            l->cookie = NULL;
            gw_link_close(l, &e);
        }
        try_again(RENEW_RETRY_MAX_MS / (me.renew_changed || expired() ? 720 : 1));
    }
    arena_done(&a);
}

static void put_pem(X509 *x, struct buf *out)
{
    (void)x;
    struct str chain = buf_str(&me.id.cred.chain), end = STR("-----END CERTIFICATE-----");
    const char *p = memmem(chain.p, chain.n, end.p, end.n);
    buf_put(out, chain.p, p ? (size_t)(p - chain.p) + end.n : chain.n);
    buf_putc(out, '\n');
}

static void dial_next(void);

static void renew(void)
{
    struct err e = ERR_INIT;
    struct cad_issue q = { .Token = { NULL, 0 } };
    if (prepare_key(&e) < 0) {
        log_error("renewing the certificate: %s", e.msg);
        try_again(RETRY_MAX_MS);
        return;
    }
    q.CSR = buf_str(&me.csr);
    bool links = !expired() && (!me.by_proof || gw_hub_nodes(RPC_MANAGER) > 0);
    if (links || gw_swarm()->leader) {
        me.in_flight = true;
        gw_route_ask(NULL, "leader", "cad", &op_cad_issue, &q, ASK_MS, on_renewed, (void *)(uintptr_t)me.generation);
        return;
    }
    if (!me.join.link) { /* links can't be had: as a node without a certificate, with a proof of the old key */
        if (!me.join.ctx && gw_tls_ctx_anonymous(&me.join.ctx, &me.id.cred, &e) < 0) {
            log_error("renewing the certificate: %s", e.msg);
            try_again(RETRY_MAX_MS);
            return;
        }
        me.join.nremote = 0;
        for (size_t i = 0; i < me.id.nmanagers; i++) {
            if (strcmp(me.id.managers[i].node, me.id.cred.info.node) != 0)
                memcpy(me.join.remote[me.join.nremote++], me.id.managers[i].addr, ADDR_TEXT_MAX);
        }
        dial_next();
        return;
    }
    struct buf proof = BUF_INIT, old = BUF_INIT;
    put_pem(me.id.cred.cert, &old);
    if (gw_proof(me.id.cred.key, buf_str(&me.csr), &proof, &e) < 0) {
        log_error("renewing the certificate: %s", e.msg);
        try_again(RETRY_MAX_MS);
    } else {
        q.OldCert = buf_str(&old);
        q.Proof = buf_str(&proof);
        me.in_flight = true;
        gw_route_ask(me.join.link, "leader", "cad", &op_cad_issue, &q, ASK_MS, on_renewed,
                     (void *)(uintptr_t)me.generation);
    }
    buf_done(&proof);
    buf_done(&old);
}

void gw_ident_renew(const char *why, bool all_nodes)
{
    if (!me.id.cred.cert || me.renew_now)
        return;
    uint32_t spread;
    random_bytes(&spread, sizeof spread);
    log_info("renewing the certificate: %s", why);
    me.renew_now = me.renew_changed = true;
    if (me.ask == ASK_NOTHING)
        me.next_ms = 0;
    work_at(gw_now_ms() + (all_nodes ? spread % SOON_SPREAD_MS : 0));
}

void gw_ident_renew_by_proof(void)
{
    if (me.by_proof || !me.id.cred.cert)
        return;
    me.by_proof = true;
    if (me.ask == ASK_RENEW && !me.in_flight)
        me.next_ms = 0;
    gw_ident_renew("no manager takes the one we have", false);
    work_at(gw_now_ms());
}

/* ---- joining ---- */

static void give_up_join(const struct err *e)
{
    struct rpc_call *c = me.join.call;
    struct err ignored = ERR_INIT;
    bool background = me.join.background;
    me.join.call = NULL;
    forget_question();
    forget_join();
    if (gw_state_forget(&me.state, &ignored) < 0)
        log_warn("%s", ignored.msg);
    me.id.listen[0] = me.id.advertise[0] = me.id.data_path[0] = '\0';
    me.id.state = background ? GW_ERROR : GW_INACTIVE;
    me.id.error[0] = '\0';
    if (background)
        (void)str_copy(me.id.error, sizeof me.id.error, str_from(e->msg));
    log_warn("joining failed: %s", e->msg);
    changed();
    if (c)
        rpc_fail_err(c, e);
}

static void join_trouble(const struct err *e)
{
    struct gw_link *l = me.join.link;
    if (strcmp(me.join.why, e->msg) != 0)
        log_info("joining: %s", e->msg);
    if (me.ask == ASK_JOIN && strcmp(me.id.error, e->msg) != 0) {
        (void)str_copy(me.id.error, sizeof me.id.error, str_from(e->msg));
        changed();
    }
    (void)str_copy(me.join.why, sizeof me.join.why, str_from(e->msg));
    if (l) {
        me.join.link = NULL;
        l->cookie = NULL;
        gw_link_close(l, e);
    }
    me.join.at++;
    try_again(RETRY_MAX_MS);
}

/* The reasons that another attempt would not change. */
static bool is_final(int code)
{
    return code == ERR_INVALID || code == ERR_UNAUTHORIZED || code == ERR_DENIED || code == ERR_PRECONDITION ||
           code == ERR_CONFLICT || code == ERR_TOO_BIG || code == ERR_UNIMPLEMENTED;
}

static void on_joined(void *arg, int code, struct str msg, struct str body)
{
    struct cad_issue_reply rep;
    struct arena a;
    struct err e = ERR_INIT;
    if (me.ask != ASK_JOIN || (uintptr_t)arg != me.generation)
        return;
    arena_init(&a, 1u << 20);
    if (decode_reply(&rep, &op_cad_issue, code, msg, body, &a, &e) < 0) {
        if (is_final(e.code))
            give_up_join(&e);
        else
            join_trouble(&e);
    } else if (take_certificate(&rep, &e) < 0) {
        give_up_join(&e);
    } else {
        struct rpc_call *c = me.join.call;
        struct gw_join_reply ok = { str_from(me.id.cred.info.node), str_from(me.id.cred.info.cluster),
                                    str_from(gw_role_name(me.id.cred.info.role)) };
        me.join.call = NULL;
        forget_question();
        forget_join();
        new_certificate();
        if (c)
            rpc_reply(c, &ok);
    }
    arena_done(&a);
}

/* The digest in the token proves the root, the root proves whom we talk to: only then the token is told. */
static int check_manager(struct gw_link *l, struct str root, struct err *e)
{
    uint8_t want[GW_DIGEST_BYTES], have[GW_DIGEST_BYTES];
    char hex[2 * GW_DIGEST_BYTES + 1];
    CHECK(gw_token_digest(buf_str(&me.join.token), want));
    gw_digest(root, have);
    if (CRYPTO_memcmp(want, have, sizeof want) != 0) {
        for (size_t i = 0; i < GW_DIGEST_BYTES; i++)
            snprintf(hex + 2 * i, 3, "%02x", want[i]);
        return err_set(e, ERR_INVALID, "remote CA does not match fingerprint. Expected: %s", hex);
    }
    int r = gw_cert_verify(l->cert, gw_tls_peer_chain(l->tls), root, now_s(), e);
    if (r == 0)
        return 0;
    (void)err_wrap(e, "the certificate of %s", l->dial_addr);
    int64_t now = now_s();
    if (now < l->peer.not_before || now > l->peer.not_after) /* the root is the swarm's, so it is not that */
        err_set(e, ERR_UNAUTHORIZED, "the certificate of %s is not valid now: are the clocks of both hosts right?",
                l->dial_addr);
    return r;
}

static void ask_certificate(struct gw_link *l)
{
    struct err e = ERR_INIT;
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    struct host_port a = { .port = SWARM_PORT };
    if (!me.id.advertise[0]) { /* what the manager sees us as, unless there is a translation between */
        (void)addr_parse(str_from(me.id.listen), SWARM_PORT, &a, &e);
        if (getsockname(l->fd, (struct sockaddr *)&sa, &len) == 0)
            gw_addr_host_of(&sa, a.host);
        addr_text(&a, me.id.advertise);
    }
    if (me.id.nmanagers == 0 || strcmp(me.id.managers[0].addr, l->dial_addr) != 0) {
        struct gw_manager m = { str_from(l->peer.node), str_from(l->dial_addr) };
        set_managers(&m, 1);
    }
    if (prepare_key(&e) < 0) {
        join_trouble(&e);
        return;
    }
    struct cad_issue q = { .CSR = buf_str(&me.csr),
                           .Token = buf_str(&me.join.token),
                           .Availability = str_from(me.join.availability) };
    gw_route_ask(l, "leader", "cad", &op_cad_issue, &q, ASK_MS, on_joined, (void *)(uintptr_t)me.generation);
}

static void on_root(void *arg, int code, struct str msg, struct str body)
{
    struct cad_root_reply rep;
    struct arena a;
    struct err e = ERR_INIT;
    struct gw_link *l = me.join.link;
    if (me.ask != ASK_JOIN || (uintptr_t)arg != me.generation || !l)
        return;
    arena_init(&a, 1u << 20);
    if (decode_reply(&rep, &op_cad_root, code, msg, body, &a, &e) < 0)
        join_trouble(&e);
    else if (check_manager(l, rep.Cert, &e) == 0)
        ask_certificate(l);
    else
        give_up_join(&e);
    arena_done(&a);
}

void gw_ident_join_up(struct gw_link *l)
{
    struct cad_empty q = { 0 };
    if (l != me.join.link)
        return;
    if (me.ask == ASK_RENEW) {
        renew();
        return;
    }
    gw_route_ask(l, "leader", "cad", &op_cad_root, &q, ASK_MS, on_root, (void *)(uintptr_t)me.generation);
}

void gw_ident_join_down(struct gw_link *l, const struct err *why)
{
    struct err e = ERR_INIT;
    if (l != me.join.link)
        return;
    me.join.link = NULL;
    err_set(&e, ERR_UNAVAILABLE, "%s: %s", l->dial_addr, why->msg);
    if (me.ask == ASK_NOTHING)
        return;
    me.generation++; /* answers to what was asked over it are not waited for */
    join_trouble(&e);
}

/* Names are looked up here and nowhere else: blocking, but this node has no links then that could suffer. */
static int resolve(const char *text, struct host_port *ret, struct err *e)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found;
    int r = addr_parse(str_from(text), SWARM_PORT, ret, e);
    if (r < 0 || addr_is_ip(ret->host))
        return r;
    r = getaddrinfo(ret->host, NULL, &hints, &found);
    if (r != 0)
        return err_set(e, ERR_UNAVAILABLE, "%s: %s", text, gai_strerror(r));
    struct sockaddr_storage sa = { 0 };
    memcpy(&sa, found->ai_addr, found->ai_addrlen < sizeof sa ? found->ai_addrlen : sizeof sa);
    gw_addr_host_of(&sa, ret->host);
    freeaddrinfo(found);
    return 0;
}

static void dial_next(void)
{
    struct host_port a;
    struct err e = ERR_INIT;
    me.in_flight = true;
    if (me.join.nremote == 0)
        err_set(&e, ERR_UNAVAILABLE, "no manager is known");
    else if (resolve(me.join.remote[me.join.at % me.join.nremote], &a, &e) == 0)
        (void)gw_net_dial(&gw_net, me.join.ctx, RPC_NOBODY, &a, &gw_join_cookie, &me.join.link, &e);
    if (!me.join.link)
        join_trouble(&e);
}

static void join(void)
{
    struct err e = ERR_INIT;
    if (!me.join.ctx && gw_tls_ctx_new(&me.join.ctx, NULL, &e) < 0) {
        join_trouble(&e);
        return;
    }
    dial_next();
}

/* ---- what is to be done ---- */

static void decide(void)
{
    if (me.ask == ASK_JOIN || me.id.state == GW_LOCKED)
        return;
    bool store = gw_swarm()->initialized;
    int want = !me.id.cred.cert ? (store && me.id.listen[0] ? ASK_ENROL : ASK_NOTHING)
               : me.renew_now || (me.renew_at_s && me.renew_at_s <= now_s()) ? ASK_RENEW
                                                                             : ASK_NOTHING;
    if (want == (int)me.ask)
        return;
    forget_question();
    me.ask = (typeof(me.ask))want;
}

static void arm_renewal(void)
{
    int64_t left = me.renew_at_s - now_s(), ends = me.id.cred.info.not_after - now_s();
    if (!me.id.cred.cert || !me.renew_at_s)
        return;
    if (me.ask == ASK_RENEW || ends < left)
        left = ends;
    if (left <= 0 && (!me.id.ctx || me.grace))
        return;
    if (left > 3600)
        left = 3600; /* wall time may be set */
    work_at(gw_now_ms() + (left > 0 ? (uint64_t)left * 1000 : 0) + 1);
}

/* ---- expired, and without a leader ---- */

bool gw_ident_grace(void)
{
    uint64_t since = gw_swarm_alone_ms();
    return gw_ident_role() == RPC_MANAGER && since != 0 && gw_now_ms() - since >= GRACE_AFTER_MS;
}

static void grace_begin(void)
{
    struct err e = ERR_INIT;
    if (gw_tls_ctx_new(&me.id.ctx, &me.id.cred, &e) < 0) {
        log_error("certificate: %s", e.msg);
        return;
    }
    log_warn(
        "the certificate has expired and no manager leads: going on with it for Raft alone, towards managers whose "
        "keys are known, until there is a leader who renews it node=%s expired=%" PRId64,
        me.id.cred.info.node, me.id.cred.info.not_after);
    me.grace = true;
    me.grace_end_ms = 0;
    gw_net_identity(&gw_net, me.id.ctx, gw_ident_role());
    listen_or_not();
    gw_hub_managers();
}

/* An expired certificate of a manager is shown while there is no leader, and a little longer: Raft has to go on until
 * the new one is there. */
static void look_at_grace(uint64_t now)
{
    uint64_t since = gw_swarm_alone_ms();
    if (!expired() || gw_ident_role() != RPC_MANAGER)
        return;
    if (since != 0 && !me.grace) {
        if (gw_ident_grace())
            grace_begin();
        else
            work_at(since + GRACE_AFTER_MS);
    } else if (since != 0) {
        me.grace_end_ms = 0;
    } else if (me.grace && me.grace_end_ms == 0) {
        me.grace_end_ms = now + GW_GRACE_MS;
        work_at(me.grace_end_ms);
    } else if (me.grace && me.grace_end_ms <= now) {
        me.grace = false;
    }
}

void gw_ident_leader(void)
{
    if (!expired())
        return;
    if (gw_swarm()->leader) /* our own cad can renew it */
        forget_question();
    me.next_ms = 0;
    work_at(gw_now_ms());
}

static int on_work(sd_event_source *s, uint64_t usec, void *arg)
{
    uint64_t now = gw_now_ms();
    struct err e = ERR_INIT;
    (void)s, (void)usec, (void)arg;
    look_at_grace(now);
    if (me.id.ctx && expired() && !me.grace) {
        log_warn("the certificate has expired node=%s", me.id.cred.info.node);
        err_set(&e, ERR_UNAUTHORIZED, "our certificate has expired");
        me.id.ctx = gw_tls_ctx_unref(me.id.ctx);
        gw_net_identity(&gw_net, NULL, gw_ident_role());
        gw_hub_managers();
        gw_hub_close_all(&e);
        listen_or_not();
        forget_question();
    }
    if (me.join.call && me.join.patience_ms <= now) {
        struct rpc_call *c = me.join.call;
        me.join.call = NULL;
        me.join.background = true;
        rpc_fail(c, ERR_TIMEOUT, "%s", join_timeout);
    }
    if (me.join.call)
        work_at(me.join.patience_ms);
    if (me.listen_retry_ms) {
        if (me.listen_retry_ms <= now)
            listen_or_not();
        else
            work_at(me.listen_retry_ms);
    }
    decide();
    arm_renewal();
    if (me.ask == ASK_NOTHING || me.in_flight)
        return 0;
    if (me.next_ms > now) {
        work_at(me.next_ms);
        return 0;
    }
    if (me.ask == ASK_ENROL)
        enrol();
    else if (me.ask == ASK_RENEW)
        renew();
    else
        join();
    return 0;
}

void gw_ident_store_changed(void)
{
    if (me.id.state == GW_INACTIVE && me.id.listen[0] && gw_swarm()->initialized) {
        me.id.state = GW_PENDING;
        changed();
    }
    me.next_ms = 0;
    gw_lock_look();
    work_at(gw_now_ms());
}

static bool same_managers(const struct gw_manager *m, size_t n)
{
    if (n != me.id.nmanagers)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!str_is(m[i].NodeID, me.id.managers[i].node) || !str_is(m[i].Addr, me.id.managers[i].addr))
            return false;
    }
    return true;
}

void gw_ident_swarm(const struct gw_manager *m, size_t n, struct str trust, uint64_t rev)
{
    struct err e = ERR_INIT;
    struct gw_credentials c = { .key = NULL };
    bool news = false;
    if (!me.id.cred.cert || rev < me.swarm_rev)
        return; /* a manager that is behind */
    me.swarm_rev = rev;
    if (n > 0 && (!same_managers(m, n) || !me.id.managers_told)) {
        me.id.managers_told = true;
        set_managers(m, n);
        if (save_node(&e) < 0)
            log_error("%s", e.msg);
        for (size_t i = 0; i < n; i++) {
            struct gw_link *l = gw_hub_link(m[i].NodeID);
            if (l)
                gw_ident_saw(l);
        }
        gw_hub_managers();
        news = true;
    }
    if (trust.n > 0 && !str_eq(trust, buf_str(&me.id.cred.trust))) {
        if (gw_credentials_make(&c, buf_str(&me.id.cred.chain), trust, me.id.cred.key, &e) < 0) {
            /* Ours is of a root that is trusted no more: with the new roots we could still ask for a new one. */
            log_warn("new roots do not cover our certificate: %s", e.msg);
            gw_ident_renew("its root is trusted no more", true);
        } else if (gw_state_save_trust(&me.state, trust, &e) < 0) {
            log_error("%s", e.msg);
            gw_credentials_done(&c);
        } else {
            bool renew_now = me.renew_now, renew_changed = me.renew_changed;
            int64_t at = me.renew_at_s;
            log_info("trusting the swarm's new roots");
            gw_credentials_done(&me.id.cred);
            me.id.cred = c;
            me.id.ctx = gw_tls_ctx_unref(me.id.ctx);
            if (gw_tls_ctx_new(&me.id.ctx, &me.id.cred, &e) < 0)
                log_error("certificate: %s", e.msg);
            gw_net_identity(&gw_net, me.id.ctx, gw_ident_role());
            gw_net.hello.Node = str_from(me.id.cred.info.node);
            me.renew_now = renew_now;
            me.renew_changed = renew_changed;
            me.renew_at_s = at;
            news = true;
        }
    }
    if (news)
        changed();
}

/* ---- requests of apid ---- */

static int get_addrs(struct gw_addrs *ret, struct str l, struct str a, struct str d, bool may_wait, struct err *e)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) < 0)
        return err_errno(e, errno, "look at the interfaces");
    int r = gw_addrs_resolve(ret, l, a, d, all, may_wait, e);
    if (r == 0 && ret->advertise.host[0] && !addr_is_ours(all, ret->advertise.host))
        log_warn("advertise address %s is not this host's: other nodes must be able to reach it", ret->advertise.host);
    freeifaddrs(all);
    return r;
}

static void keep_addrs(const struct gw_addrs *a)
{
    addr_text(&a->listen, me.id.listen);
    me.id.advertise[0] = '\0';
    if (a->advertise.host[0])
        addr_text(&a->advertise, me.id.advertise);
    (void)str_copy(me.id.data_path, sizeof me.id.data_path, str_from(a->data_path));
}

static bool only_apid(struct rpc_call *c)
{
    return rpc_permit(c, daemon_user("apid"), "apid");
}

void gw_ident_on_setup(struct rpc_call *c, const void *req)
{
    const struct gw_setup *q = req;
    struct gw_addrs a = { .data_path = "" };
    struct err e = ERR_INIT;
    char before[ADDR_TEXT_MAX];
    int fd = -1;
    if (!only_apid(c))
        return;
    if (me.ask == ASK_JOIN || me.id.state == GW_LOCKED) {
        rpc_fail(c, ERR_UNAVAILABLE, "%s", already);
        return;
    }
    int r = get_addrs(&a, q->ListenAddr, q->AdvertiseAddr, q->DataPathAddr, false, &e);
    (void)str_copy(before, sizeof before, str_from(me.id.listen));
    if (r == 0) {
        char text[ADDR_TEXT_MAX];
        addr_text(&a.listen, text);
        if (!me.listening || strcmp(text, before) != 0)
            r = gw_net_bind(&a.listen, &fd, &e);
        if (fd >= 0)
            close(fd);
    }
    if (r < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    keep_addrs(&a);
    me.id.data_path_port = q->DataPathPort;
    if (save_node(&e) < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    gw_net.hello.Addr = str_from(me.id.advertise);
    if (me.listening && strcmp(before, me.id.listen) != 0) {
        (void)gw_net_listen(&gw_net, -1, &e);
        me.listening = false;
        listen_or_not();
    }
    if (me.id.state != GW_ACTIVE)
        me.id.state = GW_PENDING;
    me.id.error[0] = '\0';
    changed();
    struct gw_setup_reply rep = { str_from(me.id.listen), str_from(me.id.advertise), str_from(me.id.data_path) };
    rpc_reply(c, &rep);
    work_at(gw_now_ms());
}

static int take_join(const struct gw_join *q, struct err *e)
{
    uint8_t digest[GW_DIGEST_BYTES];
    struct host_port a;
    struct gw_addrs addrs = { .data_path = "" };
    if (q->RemoteAddrs.n == 0)
        return err_set(e, ERR_INVALID, "at least 1 RemoteAddr is required to join");
    if (!gw_token_digest(q->Token, digest))
        return err_set(e, ERR_INVALID, "invalid join token");
    for (size_t i = 0; i < q->RemoteAddrs.n; i++) {
        if (addr_parse(q->RemoteAddrs.v[i], SWARM_PORT, &a, e) < 0 || a.port == 0)
            return err_set(e, ERR_INVALID, "invalid remote address \"" STR_FMT "\"", STR_ARG(q->RemoteAddrs.v[i]));
    }
    int r = get_addrs(&addrs, q->ListenAddr, q->AdvertiseAddr, q->DataPathAddr, true, e);
    if (r < 0)
        return r;
    forget_question();
    forget_join();
    keep_addrs(&addrs);
    for (size_t i = 0; i < q->RemoteAddrs.n && i < GW_MANAGERS_MAX; i++)
        (void)str_copy(me.join.remote[me.join.nremote++], ADDR_TEXT_MAX, q->RemoteAddrs.v[i]);
    buf_put(&me.join.token, q->Token.p, q->Token.n);
    (void)str_copy(me.join.availability, sizeof me.join.availability, q->Availability);
    return 0;
}

void gw_ident_on_join(struct rpc_call *c, const void *req)
{
    struct err e = ERR_INIT;
    if (!only_apid(c))
        return;
    if (me.id.cred.cert || me.ask == ASK_JOIN || me.id.state == GW_LOCKED || gw_swarm()->initialized) {
        rpc_fail(c, ERR_UNAVAILABLE, "%s", already);
        return;
    }
    if (take_join(req, &e) < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    me.ask = ASK_JOIN;
    me.join.call = c;
    me.join.patience_ms = gw_now_ms() + JOIN_PATIENCE_MS;
    me.id.state = GW_PENDING;
    me.id.error[0] = '\0';
    changed();
    work_at(gw_now_ms());
}

void gw_ident_on_leave(struct rpc_call *c, const void *req)
{
    struct err e = ERR_INIT;
    (void)req;
    if (!only_apid(c))
        return;
    if (gw_state_forget(&me.state, &e) < 0) {
        rpc_fail_err(c, &e);
        return;
    }
    struct rpc_call *joining = me.join.call;
    me.join.call = NULL;
    forget_question();
    forget_join();
    gw_lock_forget();
    gw_credentials_done(&me.id.cred);
    me.id.ctx = gw_tls_ctx_unref(me.id.ctx);
    uint64_t seq = me.id.seq;
    me.id = (struct gw_ident){ .state = GW_INACTIVE, .seq = seq };
    me.renew_at_s = 0;
    me.renew_now = me.renew_changed = me.grace = false;
    me.swarm_rev = 0;
    gw_net_identity(&gw_net, NULL, RPC_NOBODY);
    gw_net.hello.Node = gw_net.hello.Addr = (struct str){ NULL, 0 };
    listen_or_not();
    gw_hub_managers();
    err_set(&e, ERR_UNAVAILABLE, "the node has left the swarm");
    gw_hub_close_all(&e);
    log_info("left the swarm");
    if (joining)
        rpc_fail(joining, ERR_UNAVAILABLE, "the node was told to leave while it was joining");
    changed();
    rpc_reply(c, NULL);
}

void gw_ident_on_unlock(struct rpc_call *c, const void *req)
{
    if (only_apid(c))
        gw_lock_unlock(c, ((const struct gw_unlock *)req)->Key);
}

void gw_ident_decided(void)
{
    answer_polls();
}

int gw_ident_open(const struct gw_seal *seal, struct err *e)
{
    struct gw_credentials c = { .key = NULL };
    bool sealed;
    if (me.id.state != GW_LOCKED)
        return 0;
    int r = gw_state_load_credentials(&me.state, seal, &c, &sealed, e);
    if (r < 0)
        return r;
    adopt(&c);
    new_certificate();
    return 0;
}

int gw_ident_reseal(const struct gw_seal *seal, struct err *e)
{
    if (!me.id.cred.key)
        return err_set(e, ERR_UNAVAILABLE, "this node has no key");
    return gw_state_reseal(&me.state, me.id.cred.key, me.new_key, seal, e);
}

void gw_ident_json(struct buf *out)
{
    const struct gw_credentials *c = &me.id.cred;
    static const char *const asks[] = { "", "first certificate", "join", "new certificate" };
    buf_printf(out, "{\"state\":\"%s\",\"seq\":%" PRIu64 ",\"error\":", state_name(), me.id.seq);
    buf_json_str(out, str_from(me.id.error));
    buf_printf(out, ",\"node\":\"%s\",\"cluster\":\"%s\",\"role\":\"%s\"", c->info.node, c->info.cluster,
               c->cert ? gw_role_name(c->info.role) : "");
    buf_printf(out,
               ",\"not_before\":%" PRId64 ",\"not_after\":%" PRId64 ",\"renew_at\":%" PRId64 ",\"renewed\":%" PRIu64,
               c->info.not_before, c->info.not_after, c->cert ? me.renew_at_s : 0, me.renews);
    buf_puts(out, ",\"listen\":");
    buf_json_str(out, str_from(me.id.listen));
    buf_printf(out, ",\"listening\":%s,\"advertise\":", me.listening ? "true" : "false");
    buf_json_str(out, str_from(me.id.advertise));
    gw_lock_json(out);
    buf_printf(out, ",\"asking\":\"%s\",\"trouble\":", asks[me.ask]);
    buf_json_str(out, str_from(me.join.why));
    buf_puts(out, ",\"managers\":[");
    for (size_t i = 0; i < me.id.nmanagers; i++) {
        buf_printf(out, "%s{\"node\":\"%s\",\"addr\":", i ? "," : "", me.id.managers[i].node);
        buf_json_str(out, str_from(me.id.managers[i].addr));
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

/* ---- */

static int load(struct err *e)
{
    struct gw_node_file f;
    struct gw_credentials c = { .key = NULL };
    struct buf bytes = BUF_INIT;
    struct arena a;
    arena_init(&a, 1u << 20);
    int r = gw_state_load_node(&me.state, &bytes, e);
    if (r == 0)
        r = gw_node_file_read(&f, buf_str(&bytes), &a, e);
    if (r == 0) {
        (void)str_copy(me.id.listen, sizeof me.id.listen, f.ListenAddr);
        (void)str_copy(me.id.advertise, sizeof me.id.advertise, f.AdvertiseAddr);
        (void)str_copy(me.id.data_path, sizeof me.id.data_path, f.DataPathAddr);
        me.id.data_path_port = f.DataPathPort;
        set_managers(f.Managers.v, f.Managers.n);
        const struct gw_known_key *keys = f.Keys.v;
        for (size_t i = 0; i < f.Keys.n; i++)
            know_key(keys[i].NodeID, keys[i].Digest.p);
    }
    buf_done(&bytes);
    arena_done(&a);
    if (r < 0 && r != -ERR_NOT_FOUND)
        return r;
    bool sealed = false;
    r = gw_state_load_credentials(&me.state, NULL, &c, &sealed, e);
    if (r == -ERR_DENIED) {
        me.id.state = GW_LOCKED;
        gw_lock_found(true);
        return 0;
    }
    if (r == 0)
        adopt(&c);
    return r == -ERR_NOT_FOUND ? 0 : r;
}

int gw_ident_init(struct err *e)
{
    me.id.seq = 1;
    gw_tls_expired_ok = gw_ident_grace;
    int r = gw_state_open(&me.state, daemon_state_dir(), e);
    if (r == 0)
        r = gw_lock_init(e);
    if (r < 0)
        return r;
    r = sd_event_add_time(daemon_loop(), &me.timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_work, NULL);
    if (r >= 0)
        r = sd_event_source_set_enabled(me.timer, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_time(daemon_loop(), &me.poll_timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_poll_timer, NULL);
    if (r >= 0)
        r = sd_event_source_set_enabled(me.poll_timer, SD_EVENT_OFF);
    return r < 0 ? err_errno(e, -r, "event sources") : load(e);
}

void gw_ident_done(void)
{
    forget_question();
    forget_join();
    gw_lock_done();
    gw_credentials_done(&me.id.cred);
    me.id.ctx = gw_tls_ctx_unref(me.id.ctx);
    me.timer = sd_event_source_disable_unref(me.timer);
    me.poll_timer = sd_event_source_disable_unref(me.poll_timer);
}

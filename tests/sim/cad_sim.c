/*
 * cad_sim - cad's core with nodes of a swarm, in one process and in simulated time.
 *
 * Real: cad's controller with all its cryptography, raftd's state machine and authority table, the store library.
 * Simulated: time, the log, the Raft group, nodes with their keys, users, an external CA. First the rules one by one,
 * then chance: cad killed at any moment, transactions and answers lost, users who change their minds. After every step
 * nodes must believe each other; in the end, when faults have stopped, roles, roots and tokens must be as declared.
 *
 *   cad_sim [SEED [RUNS]]     a failure prints the seed that replays it
 */
#include <inttypes.h>
#include <jansson.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cad/ca_root.h"
#include "cad/ca_token.h"
#include "cad/cad_netkeys.h"
#include "cad/cad_pass.h"
#include "common/daemon/log.h"
#include "common/util/check.h"
#include "raftd/authority.h"
#include "raftd/entry.h"
#include "raftd/sm.h"

#define SECOND 1000000000ll
#define NODES 8
#define SELF "simulatednode"
#define CLUSTER "simulatedcluster"

struct node {             /* one host with its gatewayd */
    char id[CAD_ID_SIZE]; /* "": not joined */
    EVP_PKEY *key, *next; /* of the certificate; of a request under way */
    struct buf chain, trust;
    bool manager, removed, asking;
    unsigned answers;
};

struct call {
    struct call *link;
    struct node *node; /* NULL: another root is asked for */
    uint64_t gen;
    struct cad_issue issue;
    struct cad_rotate rotate;
    struct arena arena;
    bool answered;
};

struct event {
    struct event *link;
    int64_t at;
    enum { TURN, DUE, APPLY, REPLY, REMOVE, OUTSIDE } type;
    uint64_t gen;
    struct buf bytes;
    struct err result;
    uint64_t revision;
    rpc_done_fn *done;
    void *done_arg;
    char id[CAD_ID_SIZE];
    uint64_t groups;
    struct cad_outside *job;
};

static struct world {
    uint64_t seed, rng, index, term, gen, arm;
    int64_t now;
    struct sm *sm;
    struct store *store;
    char dir[64];
    struct cad_keeper keeper;
    struct controller *cad; /* NULL: dead */
    struct event *events;
    struct call *calls;
    struct node nodes[NODES];
    char member[NODES + 1][CAD_ID_SIZE];
    unsigned nmembers;
    bool faults, fail_removal, outside_down;
    struct err last; /* of the last refused call */
    struct ca_root outside_root;
    uint64_t removals, kills, txns;
    uint64_t groups, decided_at; /* changes of the group; how many there had been when a transaction was decided on */
} world;

/* ---- chance and time ---- */

static uint64_t draw(void)
{
    uint64_t z = (world.rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint64_t below(uint64_t n)
{
    return draw() % n;
}

static bool chance(unsigned percent)
{
    return below(100) < percent;
}

static void some_random(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = (uint8_t)draw();
}

static struct event *schedule(int64_t in_ns, int type)
{
    struct event *e = calloc(1, sizeof *e), **at = &world.events;
    CHECK(e != NULL);
    e->at = world.now + in_ns;
    e->type = (__typeof__(e->type))type;
    e->gen = world.gen;
    while (*at && (*at)->at <= e->at)
        at = &(*at)->link;
    e->link = *at;
    *at = e;
    return e;
}

/* ---- the store ---- */

static void wake(void)
{
    if (world.cad)
        schedule((int64_t)below(300000), TURN);
}

static void commit(struct raft_log_entry le, struct err *result, uint64_t *revision)
{
    struct err e = ERR_INIT;
    CHECK(sm_begin(world.sm, &e) == 0);
    CHECK(sm_apply(world.sm, &le, result, revision, &e) == 0);
    CHECK(sm_commit(world.sm, &e) == 0);
    wake();
}

static void must(struct err *e, bool ok)
{
    if (!ok)
        printf("cad_sim: %s\n", e->msg);
    CHECK(ok);
}

static void check_change(const struct txn_change *ch);

static uint64_t apply(unsigned who, struct list requires, struct list changes, uint64_t term, struct err *result)
{
    struct entry en = { .At = world.now, .By = STR("sim"), .Term = term, .Requires = requires, .Changes = changes };
    const struct txn_change *ch = changes.v;
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    uint64_t revision = 0;
    *result = (struct err)ERR_INIT;
    must(&e, entry_check(&en, &e) == 0);
    for (size_t i = 0; i < changes.n; i++) {
        must(&e, authority_check(who, &ch[i], &e) == 0);
        check_change(&ch[i]);
    }
    entry_encode(&en, &b);
    commit((struct raft_log_entry){ ++world.index, world.term, RAFT_ENTRY_DATA, buf_str(&b) }, result, &revision);
    buf_done(&b);
    world.txns++;
    return revision;
}

static void write_members(void)
{
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    uint64_t revision;
    world.groups++;
    mp_array(&b, world.nmembers);
    for (unsigned i = 0; i < world.nmembers; i++) {
        mp_map(&b, 4);
        mp_kv_u64(&b, "RaftID", i + 1);
        mp_kv_cstr(&b, "NodeID", world.member[i]);
        mp_kv_cstr(&b, "Addr", "10.0.0.1:2377");
        mp_kv_bool(&b, "Learner", false);
    }
    commit((struct raft_log_entry){ ++world.index, world.term, RAFT_ENTRY_MEMBERS, buf_str(&b) }, &e, &revision);
    buf_done(&b);
}

static bool is_member(const char *id)
{
    for (unsigned i = 0; i < world.nmembers; i++)
        if (strcmp(world.member[i], id) == 0)
            return true;
    return false;
}

static void join_group(const char *id)
{
    if (is_member(id) || world.nmembers > NODES)
        return;
    (void)str_copy(world.member[world.nmembers++], CAD_ID_SIZE, str_from(id));
    write_members();
}

static void leave_group(const char *id)
{
    for (unsigned i = 0; i < world.nmembers; i++)
        if (strcmp(world.member[i], id) == 0) {
            memmove(world.member[i], world.member[i + 1], sizeof world.member[0] * (world.nmembers - i - 1));
            world.nmembers--;
            write_members();
            return;
        }
}

/* a look into the store */
static struct buf *look(enum kind kind, const char *id)
{
    static struct buf b[8];
    static unsigned n;
    struct err e;
    n = (n + 1) % 8;
    buf_clear(&b[n]);
    if (sm_get(world.sm, kind, str_from(id), &b[n], &e) < 0)
        buf_clear(&b[n]);
    return &b[n];
}

static struct str at(struct buf *doc, const char *path)
{
    return cad_text_at(buf_str(doc), path);
}

static struct str cluster_text(const char *path)
{
    return at(look(KIND_CLUSTER, CLUSTER), path);
}

static bool rotating(void)
{
    bool yes = false;
    (void)mp_get_bool(buf_str(look(KIND_CLUSTER, CLUSTER)), "RootRotationInProgress", &yes);
    return yes;
}

/* check_change - a manager's role goes only after its seat in the group; no token and no key stands where all can read.
 */
static void check_change(const struct txn_change *ch)
{
    char id[CAD_ID_SIZE];
    struct str role;
    if (!kind_info[kind_by_name(ch->Kind.p, ch->Kind.n)].secret && ch->Doc.n > 0)
        CHECK(!memmem(ch->Doc.p, ch->Doc.n, "SWMTKN-", 7) && !memmem(ch->Doc.p, ch->Doc.n, "SWMKEY-", 7) &&
              !memmem(ch->Doc.p, ch->Doc.n, "PRIVATE", 7));
    if (!str_is(ch->Kind, "node") || !str_is(ch->Op, "update") || !mp_get_str(ch->Doc, "Role", &role) ||
        !str_is(role, "worker") || !str_copy(id, sizeof id, ch->ID))
        return;
    if (str_is(at(look(KIND_NODE, id), "Role"), "manager") && world.decided_at == world.groups)
        CHECK(!is_member(id)); /* unless it came in between: then it goes again */
}

/* ---- cad ---- */

static struct wall_ns io_now(void *arg)
{
    (void)arg;
    return (struct wall_ns){ world.now };
}

static void io_send(void *arg, struct txn *txn, rpc_done_fn *done, void *done_arg)
{
    struct raftd_txn req = { .Term = txn->term,
                             .Requires = { txn->req, txn->nreq },
                             .Changes = { txn->chg, txn->nchg } };
    struct event *e = schedule(200000 + (int64_t)below(2000000), APPLY);
    (void)arg;
    CHECK(!txn->failed);
    fields_encode(&req, op_raftd_txn.req, &e->bytes);
    e->done = done;
    e->done_arg = done_arg;
    e->groups = world.groups;
}

static void io_arm(void *arg, int64_t at_ns)
{
    (void)arg;
    world.arm++;
    if (at_ns != CONTROLLER_NEVER)
        schedule(at_ns > world.now + 50000 ? at_ns - world.now : 50000, DUE)->revision = world.arm;
}

static void io_kick(void *arg)
{
    (void)arg;
    schedule(0, TURN);
}

static void take_certificate(struct node *n, const struct cad_issue_reply *rep);

static struct call *end_call(void *call)
{
    struct call *c = call;
    CHECK(!c->answered);
    c->answered = true;
    if (c->node)
        c->node->asking = false;
    return c;
}

static void on_issued(void *call, const struct cad_issue_reply *rep)
{
    struct call *c = end_call(call);
    if (world.faults && chance(10)) /* the answer is lost */
        return;
    take_certificate(c->node, rep);
}

static void on_rotated(void *call)
{
    end_call(call);
    world.last = (struct err)ERR_INIT;
}

static void on_failed(void *call, const struct err *e)
{
    end_call(call);
    world.last = *e;
}

static void on_remove_member(struct str id)
{
    struct event *e = schedule((int64_t)below(50000000), REMOVE);
    (void)str_copy(e->id, sizeof e->id, id);
    world.removals++;
}

static void on_ask_outside(struct cad_outside *job)
{
    schedule((int64_t)below(20000000), OUTSIDE)->job = job;
}

static const struct cad_calls calls = { .issued = on_issued,
                                        .rotated = on_rotated,
                                        .failed = on_failed,
                                        .random = some_random,
                                        .remove_member = on_remove_member,
                                        .ask_outside = on_ask_outside };

static void start_cad(void)
{
    struct controller_io io = { NULL, io_now, io_send, io_arm, io_kick };
    world.gen++;
    cad_keeper_init(&world.keeper, &calls);
    world.keeper.limits.rotation_ns = 3600 * SECOND;
    world.keeper.limits.per_second = 100000;
    world.cad = controller_new(world.store, &io, &cad_ops, &world.keeper);
    world.keeper.controller = world.cad;
    schedule(0, TURN);
}

static void kill_cad(void)
{
    world.kills++;
    cad_keeper_done(&world.keeper);
    world.cad = controller_free(world.cad);
    world.gen++;
    for (struct call *c = world.calls; c; c = c->link)
        if (!c->answered) { /* its connection broke */
            c->answered = true;
            if (c->node)
                c->node->asking = false;
        }
}

/* ---- the external CA: signs as CFSSL does ---- */

static X509 *read_cert(struct str pem)
{
    BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
    BIO_free(b);
    CHECK(x != NULL);
    return x;
}

static void outside_answers(struct cad_outside *job)
{
    struct buf cert = BUF_INIT, body = BUF_INIT;
    struct err e = ERR_INIT, none = ERR_INIT;
    json_t *q = json_loadb(job->body.p, job->body.n, 0, NULL), *subject;
    CHECK(q != NULL && job->nurls > 0);
    const char *csr = json_string_value(json_object_get(q, "certificate_request"));
    subject = json_object_get(q, "subject");
    struct ca_leaf l = { .cluster_id = STR(CLUSTER), .now_s = world.now / SECOND, .life_s = 86400 };
    if (world.outside_down) {
        err_set(&e, ERR_IO, "no connection");
        cad_outside_answer(job, STR(""), &e);
    } else if (subject) {
        l.node_id = str_from(json_string_value(json_object_get(subject, "CN")));
        l.manager = strcmp(json_string_value(json_array_get(json_object_get(q, "hosts"), 0)), "swarm-manager") == 0;
        must(&e, ca_sign(buf_str(&world.outside_root.cert_pem), buf_str(&world.outside_root.key_pem), str_from(csr), &l,
                         &cert, &e) == 0);
        buf_puts(&body, "{\"success\":true,\"errors\":[],\"messages\":[],\"result\":{\"certificate\":");
        buf_json_str(&body, buf_str(&cert));
        buf_puts(&body, "}}");
        cad_outside_answer(job, buf_str(&body), &none);
    } else {
        cad_outside_answer(job, STR("{\"success\":false,\"errors\":[{\"code\":1,\"message\":\"no profile CA\"}]}"),
                           &none);
    }
    json_decref(q);
    buf_done(&cert);
    buf_done(&body);
}

/* ---- the loop ---- */

static void on_apply(struct event *e)
{
    struct raftd_txn req;
    struct arena a;
    struct event *r = schedule((int64_t)below(1000000), REPLY);
    arena_init(&a, 64u << 20);
    if (world.faults && chance(3)) {
        err_set(&r->result, ERR_UNAVAILABLE, "lost");
    } else {
        struct err why = ERR_INIT;
        must(&why, fields_decode(&req, op_raftd_txn.req, sizeof req, buf_str(&e->bytes), FIELDS_STRICT, &a, &why) == 0);
        world.decided_at = e->groups;
        r->revision = apply(1u << WHO_CAD, req.Requires, req.Changes, req.Term, &r->result);
        if (world.faults && chance(3))
            err_set(&r->result, ERR_TIMEOUT, "no answer");
    }
    r->gen = e->gen;
    r->done = e->done;
    r->done_arg = e->done_arg;
    arena_done(&a);
}

static void on_reply(struct event *e)
{
    struct raftd_txn_reply rep = { e->revision };
    if (e->gen == world.gen)
        e->done(e->done_arg, e->result.code ? NULL : &rep, &e->result);
}

static void on_remove(struct event *e)
{
    struct err r = ERR_INIT;
    if (world.fail_removal || (world.nmembers == 1 && is_member(e->id)))
        err_set(&r, ERR_PRECONDITION, "this would result in a loss of quorum");
    else if (strcmp(e->id, SELF) == 0)
        err_set(&r, ERR_UNAVAILABLE, "handing over");
    else if (world.faults && chance(20))
        err_set(&r, ERR_UNAVAILABLE, "lost");
    else
        leave_group(e->id);
    if (r.code == 0 && world.faults && chance(20))
        err_set(&r, ERR_TIMEOUT, "no answer");
    if (e->gen == world.gen && world.cad)
        cad_member_removed(&world.keeper, str_from(e->id), &r, world.now);
}

static bool step(void)
{
    struct event *e = world.events;
    if (!e)
        return false;
    world.events = e->link;
    if (e->at > world.now) /* else a test slept through it */
        world.now = e->at;
    if (e->type == TURN && world.cad && e->gen == world.gen)
        controller_turn(world.cad);
    else if (e->type == DUE && world.cad && e->gen == world.gen && e->revision == world.arm)
        controller_due(world.cad);
    else if (e->type == APPLY)
        on_apply(e);
    else if (e->type == REPLY)
        on_reply(e);
    else if (e->type == REMOVE)
        on_remove(e);
    else if (e->type == OUTSIDE && e->gen != world.gen)
        cad_outside_free(e->job);
    else if (e->type == OUTSIDE)
        outside_answers(e->job);
    buf_done(&e->bytes);
    free(e);
    return true;
}

/* run_for - everything that happens until then. */
static void run_for(int64_t ns)
{
    int64_t end = world.now + ns;
    while (world.events && world.events->at <= end)
        step();
    world.now = end;
}

/* ---- users ---- */

static int user(const char *op, enum kind kind, const char *id, struct buf *doc)
{
    struct txn_change ch = { str_from(op), str_from(kind_info[kind].name), str_from(id), buf_str(doc) };
    struct err e;
    apply(1u << WHO_APID, (struct list){ 0 }, (struct list){ &ch, 1 }, 0, &e);
    buf_done(doc);
    return e.code;
}

static int want_role(const char *id, bool manager)
{
    struct buf b = BUF_INIT;
    mp_map(&b, 1);
    mp_cstr(&b, "Spec");
    mp_map(&b, 2);
    mp_kv_cstr(&b, "Role", manager ? "manager" : "worker");
    mp_kv_cstr(&b, "Availability", "active");
    return user("update", KIND_NODE, id, &b);
}

static void want_epochs(uint64_t worker, uint64_t manager)
{
    struct buf b = BUF_INIT;
    mp_map(&b, 1);
    mp_cstr(&b, "TokenEpoch");
    mp_map(&b, 2);
    mp_kv_u64(&b, "Worker", worker);
    mp_kv_u64(&b, "Manager", manager);
    CHECK(user("update", KIND_CLUSTER, CLUSTER, &b) == 0);
}

/* external "current": an external CA without a certificate, which means the root in use. */
static void want_spec(bool lock, struct str external)
{
    struct buf b = BUF_INIT;
    mp_map(&b, 1);
    mp_cstr(&b, "Spec");
    mp_map(&b, 2);
    mp_cstr(&b, "EncryptionConfig");
    mp_map(&b, 1);
    mp_kv_bool(&b, "AutoLockManagers", lock);
    mp_cstr(&b, "CAConfig");
    mp_map(&b, 1 + (external.n > 0));
    mp_kv_i64(&b, "NodeCertExpiry", 86400 * SECOND);
    if (external.n > 0) {
        mp_cstr(&b, "ExternalCAs");
        mp_array(&b, 1);
        mp_map(&b, 3);
        mp_kv_cstr(&b, "Protocol", "cfssl");
        mp_kv_cstr(&b, "URL", "https://ca.example/sign");
        mp_kv_str(&b, "CACert", str_is(external, "current") ? STR("") : external);
    }
    CHECK(user("update", KIND_CLUSTER, CLUSTER, &b) == 0);
}

static void want_unlock_epoch(uint64_t n)
{
    struct buf b = BUF_INIT;
    mp_map(&b, 1);
    mp_kv_u64(&b, "UnlockKeyEpoch", n);
    CHECK(user("update", KIND_CLUSTER, CLUSTER, &b) == 0);
}

/* ---- nodes ---- */

static struct call *new_call(struct node *n)
{
    struct call *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    arena_init(&c->arena, 1 << 20);
    c->node = n;
    c->gen = world.gen;
    c->link = world.calls;
    world.calls = c;
    if (n)
        n->asking = true;
    return c;
}

static struct str make_csr(struct arena *a, EVP_PKEY *key)
{
    X509_REQ *q = X509_REQ_new();
    BIO *b = BIO_new(BIO_s_mem());
    char *p;
    CHECK(q && b && X509_REQ_set_pubkey(q, key) == 1 && X509_REQ_sign(q, key, EVP_sha256()) > 0 &&
          PEM_write_bio_X509_REQ(b, q) == 1);
    long n = BIO_get_mem_data(b, &p);
    struct str csr = arena_str(a, (struct str){ p, (size_t)n });
    BIO_free(b);
    X509_REQ_free(q);
    return csr;
}

static struct str first_cert(struct str chain)
{
    const char *end = memmem(chain.p, chain.n, "-----END CERTIFICATE-----\n", 26);
    CHECK(end != NULL);
    return (struct str){ chain.p, (size_t)(end - chain.p) + 26 };
}

/* believes - does whoever trusts `trust` take the chain for a manager's or worker's, to the letter of RFC 5280? */
static bool believes(struct str trust, struct str chain, const char *host)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    STACK_OF(X509) *more = sk_X509_new_null();
    X509 *leaf, *x, *root = read_cert(trust);
    BIO *b = BIO_new_mem_buf(chain.p, (int)chain.n);
    leaf = PEM_read_bio_X509(b, NULL, NULL, NULL);
    CHECK(store && ctx && more && leaf && X509_STORE_add_cert(store, root) == 1);
    while ((x = PEM_read_bio_X509(b, NULL, NULL, NULL)))
        sk_X509_push(more, x);
    ERR_clear_error();
    CHECK(X509_STORE_CTX_init(ctx, store, leaf, more) == 1);
    X509_VERIFY_PARAM *p = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(p, world.now / SECOND);
    X509_VERIFY_PARAM_set_flags(p, X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE);
    X509_VERIFY_PARAM_set1_host(p, host, 0);
    X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER);
    bool ok = X509_verify_cert(ctx) == 1;
    if (!ok && world.last.code == 0)
        err_set(&world.last, ERR_INVALID, "%s", X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    sk_X509_pop_free(more, X509_free);
    X509_free(leaf);
    X509_free(root);
    BIO_free(b);
    return ok;
}

static void take_certificate(struct node *n, const struct cad_issue_reply *rep)
{
    struct ca_info i = { .cn = "" };
    struct err e = ERR_INIT;
    world.last = e;
    must(&e, ca_info(first_cert(rep->Chain), &i, &e) == 0);
    CHECK(str_is(rep->NodeID, i.cn) && str_is(STR(CLUSTER), i.org));
    CHECK(strcmp(i.unit, str_is(rep->Role, "manager") ? "swarm-manager" : "swarm-worker") == 0);
    X509 *x = read_cert(first_cert(rep->Chain));
    CHECK(X509_check_private_key(x, n->next) == 1);
    X509_free(x);
    must(&world.last, believes(rep->TrustRoot, rep->Chain, i.cn));
    CHECK(n->id[0] == 0 || str_is(rep->NodeID, n->id));
    EVP_PKEY_free(n->key);
    n->key = n->next;
    n->next = NULL;
    n->manager = str_is(rep->Role, "manager");
    n->answers++;
    (void)str_copy(n->id, sizeof n->id, rep->NodeID);
    buf_clear(&n->chain);
    buf_put(&n->chain, rep->Chain.p, rep->Chain.n);
    buf_clear(&n->trust);
    buf_put(&n->trust, rep->TrustRoot.p, rep->TrustRoot.n);
    ca_info_done(&i);
}

static void need_key(struct node *n)
{
    if (!n->next)
        n->next = EVP_EC_gen("P-256");
}

static struct call *ask_csr(struct node *n)
{
    struct call *c = new_call(n);
    need_key(n);
    c->issue.CSR = make_csr(&c->arena, n->next);
    return c;
}

static void send(struct call *c, enum rpc_role role, const char *id)
{
    struct rpc_origin from = { role, str_from(id), STR("gatewayd"), STR("10.0.0.9") };
    cad_ask_issue(&world.keeper, c, &c->issue, &from, world.now);
}

static void join(struct node *n, const char *role)
{
    struct call *c = ask_csr(n);
    c->issue.Token = arena_str(&c->arena, at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), role));
    send(c, RPC_NOBODY, "");
}

static void join_with(struct node *n, struct str token)
{
    struct call *c = ask_csr(n);
    c->issue.Token = arena_str(&c->arena, token);
    send(c, RPC_NOBODY, "");
}

static void renew(struct node *n)
{
    send(ask_csr(n), n->manager ? RPC_MANAGER : RPC_WORKER, n->id);
}

static struct call *proof_call(struct node *n, struct str old, EVP_PKEY *key)
{
    struct call *c = ask_csr(n);
    EVP_MD_CTX *m = EVP_MD_CTX_new();
    size_t len = 200;
    unsigned char *sig = arena_alloc(&c->arena, len);
    CHECK(m && sig && EVP_DigestSignInit(m, NULL, EVP_sha256(), NULL, key) == 1 &&
          EVP_DigestSign(m, sig, &len, (const unsigned char *)c->issue.CSR.p, c->issue.CSR.n) == 1);
    EVP_MD_CTX_free(m);
    c->issue.OldCert = arena_str(&c->arena, old);
    c->issue.Proof = (struct str){ (char *)sig, len };
    return c;
}

static void prove(struct node *n)
{
    send(proof_call(n, first_cert(buf_str(&n->chain)), n->key), RPC_NOBODY, "");
}

static void rotate(struct str cert, struct str key)
{
    struct call *c = new_call(NULL);
    c->rotate.SigningCACert = arena_str(&c->arena, cert);
    c->rotate.SigningCAKey = arena_str(&c->arena, key);
    if (world.cad)
        cad_ask_rotate(&world.keeper, c, &c->rotate);
}

/* ---- one world ---- */

static void put_node(const char *id, const char *role)
{
    struct buf b = BUF_INIT;
    struct err e;
    mp_map(&b, 3);
    mp_kv_cstr(&b, "ID", id);
    mp_cstr(&b, "Spec");
    mp_map(&b, 1);
    mp_kv_cstr(&b, "Role", role);
    mp_cstr(&b, "Status");
    mp_map(&b, 1);
    mp_kv_cstr(&b, "State", "ready");
    struct txn_change ch = { STR("create"), STR("node"), str_from(id), buf_str(&b) };
    apply(1u << WHO_CAD, (struct list){ 0 }, (struct list){ &ch, 1 }, 0, &e);
    CHECK(e.code == 0);
    buf_done(&b);
}

/* as raftd bootstraps it; @tokens: as an older version left it, in the cluster object */
static void put_cluster(void)
{
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    uint64_t revision;
    mp_map(&b, 3);
    mp_kv_cstr(&b, "ID", CLUSTER);
    mp_cstr(&b, "TokenEpoch");
    mp_map(&b, 2);
    mp_kv_u64(&b, "Worker", 1);
    mp_kv_u64(&b, "Manager", 1);
    mp_cstr(&b, "Spec");
    mp_map(&b, 0);
    struct txn_change ch = { STR("create"), STR("cluster"), STR(CLUSTER), buf_str(&b) };
    struct entry en = { .At = world.now, .By = STR("sim"), .Changes = { &ch, 1 } };
    struct buf bytes = BUF_INIT;
    entry_encode(&en, &bytes);
    commit((struct raft_log_entry){ ++world.index, world.term, RAFT_ENTRY_DATA, buf_str(&bytes) }, &e, &revision);
    CHECK(e.code == 0);
    buf_done(&b);
    buf_done(&bytes);
}

static void begin(uint64_t seed)
{
    struct raft_log_identity id = { .cluster_id = CLUSTER, .node_id = SELF, .id = 1 };
    struct sm_conf conf = { .run_dir = world.dir, .secret_gid = (gid_t)-1, .map_bytes = 64ull << 20 };
    struct err why = ERR_INIT, e = ERR_INIT;
    bool fresh;
    world = (struct world){ .seed = seed, .rng = seed, .now = 1700000000ll * SECOND, .term = 7 };
    snprintf(world.dir, sizeof world.dir, "/dev/shm/cad-sim-XXXXXX");
    CHECK(mkdtemp(world.dir) != NULL);
    must(&e, sm_open(&world.sm, &conf, &id, 1, UINT64_MAX, &fresh, &why, &e) == 0 && sm_publish(world.sm, &e) == 0 &&
                 sm_set_role(world.sm, world.term, true, SELF, &e) == 0 &&
                 store_open(&world.store, world.dir, true, &e) == 0);
    put_cluster();
    put_node(SELF, "manager");
    join_group(SELF);
    (void)str_copy(world.nodes[0].id, CAD_ID_SIZE, STR(SELF));
    start_cad();
}

static void end(void)
{
    char cmd[128];
    if (world.cad)
        kill_cad();
    for (struct event *e = world.events, *next; e; e = next) {
        next = e->link;
        if (e->type == OUTSIDE)
            cad_outside_free(e->job);
        buf_done(&e->bytes);
        free(e);
    }
    for (struct call *c = world.calls, *next; c; c = next) {
        next = c->link;
        arena_done(&c->arena);
        free(c);
    }
    for (unsigned i = 0; i < NODES; i++) {
        EVP_PKEY_free(world.nodes[i].key);
        EVP_PKEY_free(world.nodes[i].next);
        buf_done(&world.nodes[i].chain);
        buf_done(&world.nodes[i].trust);
    }
    ca_root_done(&world.outside_root);
    store_close(world.store);
    sm_close(world.sm);
    snprintf(cmd, sizeof cmd, "rm -rf %s", world.dir);
    CHECK(system(cmd) == 0);
}

/* ---- the rules, one by one ---- */

static void expect_error(int code, const char *text)
{
    if (world.last.code != code || !strstr(world.last.msg, text))
        printf("cad_sim: got %s \"%s\" instead of %s \"%s\"\n", err_name(world.last.code), world.last.msg,
               err_name(code), text);
    CHECK(world.last.code == code && strstr(world.last.msg, text));
    world.last = (struct err)ERR_INIT;
}

static struct node *joined(unsigned i, const char *role)
{
    struct node *n = &world.nodes[i];
    join(n, role);
    run_for(SECOND);
    must(&world.last, n->answers == 1);
    return n;
}

static void test_first(void)
{
    run_for(SECOND);
    struct str worker = at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker");
    char digest[CA_DIGEST_DIGITS + 1];
    CHECK(ca_token_ok(worker) && cluster_text("RootCA.Cert").n > 0 && !rotating());
    ca_digest(cluster_text("RootCA.Cert"), digest);
    CHECK(memcmp(worker.p + 9, digest, CA_DIGEST_DIGITS) == 0);
    CHECK(str_eq(cluster_text("TLSInfo.TrustRoot"), cluster_text("RootCA.Cert")));
    send(ask_csr(&world.nodes[0]), RPC_LOCAL, ""); /* the first manager enrols itself */
    run_for(SECOND);
    must(&world.last, world.nodes[0].answers == 1);
    CHECK(world.nodes[0].manager && str_is(at(look(KIND_NODE, SELF), "Role"), "manager"));
}

static void test_join(void)
{
    uint64_t passes;
    run_for(SECOND);
    struct node *w = joined(1, "Worker"), *m = joined(2, "Manager");
    struct buf *doc = look(KIND_NODE, w->id);
    CHECK(!w->manager && m->manager && strcmp(w->id, m->id) != 0);
    CHECK(str_is(at(doc, "Spec.Role"), "worker") && str_is(at(doc, "Role"), "worker") &&
          str_is(at(doc, "Spec.Availability"), "active") && str_is(at(doc, "Status.State"), "unknown") &&
          str_is(at(doc, "Status.Addr"), "10.0.0.9") && str_is(at(doc, "Certificate.Status"), "issued"));
    CHECK(believes(buf_str(&m->trust), buf_str(&w->chain), "swarm-worker") &&
          believes(buf_str(&w->trust), buf_str(&m->chain), "swarm-manager") &&
          believes(buf_str(&w->trust), buf_str(&m->chain), "swarm-ca") &&
          !believes(buf_str(&m->trust), buf_str(&w->chain), "swarm-manager"));
    passes = sm_revision(world.sm);
    run_for(3600 * SECOND);
    CHECK(passes == sm_revision(world.sm)); /* nothing is written without a reason */
}

/* The answer is lost, the node asks again with the same key: one node, not two. */
static void test_asked_again(void)
{
    run_for(SECOND);
    struct node *n = joined(1, "Worker");
    uint64_t count = sm_count(world.sm, KIND_NODE);
    n->next = n->key; /* the same key, once more */
    EVP_PKEY_up_ref(n->key);
    join(n, "Worker");
    run_for(SECOND);
    n->next = n->key;
    EVP_PKEY_up_ref(n->key);
    kill_cad(); /* and after a restart, which has to find it in the store */
    start_cad();
    run_for(SECOND);
    join(n, "Worker");
    run_for(SECOND);
    CHECK(n->answers == 3 && sm_count(world.sm, KIND_NODE) == count);
    need_key(&world.nodes[2]);
    for (unsigned i = 0; i < 2; i++) { /* two at a time */
        struct call *c = ask_csr(&world.nodes[2]);
        c->issue.Token = arena_str(&c->arena, at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker"));
        if (i == 1)
            c->node = &world.nodes[3]; /* whoever it is that gets the second answer */
        send(c, RPC_NOBODY, "");
    }
    EVP_PKEY_up_ref(world.nodes[2].next);
    world.nodes[3].next = world.nodes[2].next;
    run_for(SECOND);
    CHECK(world.nodes[2].answers == 1 && world.nodes[3].answers == 1 &&
          strcmp(world.nodes[2].id, world.nodes[3].id) == 0 && sm_count(world.sm, KIND_NODE) == count + 1);
}

static void refused(struct node *n, struct str token, const char *text)
{
    uint64_t count = sm_count(world.sm, KIND_NODE);
    join_with(n, token);
    run_for(SECOND);
    expect_error(ERR_INVALID, text);
    CHECK(n->answers == 0 && sm_count(world.sm, KIND_NODE) == count);
}

static void test_bad_tokens(void)
{
    char old[CA_TOKEN_SIZE], other[CA_TOKEN_SIZE];
    struct node *n = &world.nodes[1];
    run_for(SECOND);
    CHECK(str_copy(old, sizeof old, at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker")));
    memcpy(other, old, sizeof other);
    other[9] = old[9] == '0' ? '1' : '0';
    refused(n, str_from(other), "of another swarm");
    memcpy(other, old, sizeof other);
    other[70] = old[70] == '0' ? '1' : '0';
    refused(n, str_from(other), "A valid join token is necessary to join this cluster");
    refused(n, (struct str){ old, 84 }, "invalid join token");
    refused(n, STR("SWMTKN-1-"), "invalid join token");
    refused(n, STR(""), "A valid join token is necessary");
    want_epochs(2, 1);
    run_for(SECOND);
    refused(n, str_from(old), "not any more");
    CHECK(memcmp(at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker").p, old, 60) == 0); /* the same digest */
    joined(1, "Worker");
    struct call *c = ask_csr(&world.nodes[2]);
    c->issue.Token = arena_str(&c->arena, at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker"));
    c->issue.Availability = STR("lazy");
    send(c, RPC_NOBODY, "");
    run_for(SECOND);
    expect_error(ERR_INVALID, "invalid Availability");
    c = ask_csr(&world.nodes[2]);
    c->issue.Token = arena_str(&c->arena, at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker"));
    c->issue.CSR = STR("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    send(c, RPC_NOBODY, "");
    run_for(SECOND);
    expect_error(ERR_INVALID, "certificate request");
}

static void test_renewal(void)
{
    run_for(SECOND);
    struct node *w = joined(1, "Worker");
    renew(w);
    run_for(SECOND);
    CHECK(w->answers == 2 && !w->manager);
    want_role(w->id, true);
    run_for(SECOND);
    CHECK(str_is(at(look(KIND_NODE, w->id), "Role"), "manager"));
    renew(w); /* it asks with its old certificate, and gets the role that it has now */
    run_for(SECOND);
    CHECK(w->answers == 3 && w->manager);
    join_group(w->id);
    struct buf none = BUF_INIT;
    CHECK(user("delete", KIND_NODE, w->id, &none) == 0);
    renew(w);
    run_for(SECOND);
    expect_error(ERR_DENIED, "was removed from swarm");
    CHECK(!is_member(w->id)); /* and it was taken out of the group */
}

static void test_proof(void)
{
    run_for(SECOND);
    struct node *w = joined(1, "Worker"), *other = joined(2, "Worker");
    world.now += 100ll * 86400 * SECOND; /* it slept for a hundred days */
    CHECK(!believes(buf_str(&w->trust), buf_str(&w->chain), "swarm-worker"));
    prove(w);
    run_for(SECOND);
    must(&world.last, w->answers == 2);
    send(proof_call(w, first_cert(buf_str(&w->chain)), other->key), RPC_NOBODY, ""); /* by another key */
    run_for(SECOND);
    expect_error(ERR_DENIED, "was not made with the key");
    /* a certificate of the right root, but for a key that this swarm never saw: a root that was stolen */
    struct ca_leaf l = { .node_id = str_from(w->id), .cluster_id = STR(CLUSTER), .now_s = world.now / SECOND };
    struct err e = ERR_INIT;
    struct buf forged = BUF_INIT;
    struct arena a;
    arena_init(&a, 1 << 20);
    EVP_PKEY *thief = EVP_EC_gen("P-256");
    struct str csr = make_csr(&a, thief), key;
    struct store_snap *snap;
    CHECK(store_begin(world.store, &snap, &e) == 0);
    key = arena_str(&a, cad_secret(snap, STORE_CA_KEY_ID));
    store_end(snap);
    must(&e, ca_sign(cluster_text("RootCA.Cert"), key, csr, &l, &forged, &e) == 0);
    send(proof_call(w, buf_str(&forged), thief), RPC_NOBODY, "");
    run_for(SECOND);
    expect_error(ERR_DENIED, "is not one that node");
    /* and one of another root altogether */
    struct ca_root foreign = { .key_pem = BUF_INIT };
    must(&e, ca_root_make(&foreign, world.now / SECOND, &e) == 0);
    buf_clear(&forged);
    must(&e, ca_sign(buf_str(&foreign.cert_pem), buf_str(&foreign.key_pem), csr, &l, &forged, &e) == 0);
    send(proof_call(w, buf_str(&forged), thief), RPC_NOBODY, "");
    run_for(SECOND);
    expect_error(ERR_DENIED, "not issued by this swarm");
    ca_root_done(&foreign);
    buf_done(&forged);
    EVP_PKEY_free(thief);
    arena_done(&a);
    CHECK(w->answers == 2);
}

static void test_roles(void)
{
    run_for(SECOND);
    struct node *a = joined(1, "Manager"), *b = joined(2, "Worker");
    join_group(a->id);
    want_role(b->id, true);
    run_for(SECOND);
    CHECK(str_is(at(look(KIND_NODE, b->id), "Certificate.Status"), "renew"));
    renew(b);
    run_for(SECOND);
    join_group(b->id);
    world.fail_removal = true;
    want_role(a->id, false);
    run_for(5 * SECOND);
    CHECK(str_is(at(look(KIND_NODE, a->id), "Role"), "manager") && is_member(a->id));
    CHECK(strstr(at(look(KIND_NODE, a->id), "Certificate.RoleErr").p, "loss of quorum"));
    CHECK(world.removals < 12); /* with growing pauses */
    world.fail_removal = false;
    run_for(60 * SECOND);
    CHECK(str_is(at(look(KIND_NODE, a->id), "Role"), "worker") && !is_member(a->id));
    CHECK(at(look(KIND_NODE, a->id), "Certificate.RoleErr").n == 0);
    join_group(a->id); /* it slips in again before it has its new certificate */
    run_for(60 * SECOND);
    CHECK(!is_member(a->id));
    want_role(SELF, false); /* the leader: it hands over, and another cad goes on; here, nobody does */
    run_for(20 * SECOND);
    CHECK(is_member(SELF) && str_is(at(look(KIND_NODE, SELF), "Role"), "manager"));
    want_role(SELF, true);
    want_role(b->id, false);
    run_for(60 * SECOND);
    CHECK(!is_member(b->id) && at(look(KIND_NODE, SELF), "Certificate.RoleErr").n == 0);
    want_role(SELF, false);
    run_for(60 * SECOND);
    CHECK(is_member(SELF) && strstr(at(look(KIND_NODE, SELF), "Certificate.RoleErr").p, "last manager"));
}

static bool old_issuer(const struct node *n)
{
    struct ca_info i = { .cn = "" };
    struct err e;
    struct str root = cluster_text("RootCA.Rotation.NewCert");
    X509 *leaf = read_cert(first_cert(buf_str(&n->chain))), *x = read_cert(root.n ? root : cluster_text("RootCA.Cert"));
    bool old = X509_verify(leaf, X509_get0_pubkey(x)) != 1;
    ERR_clear_error();
    X509_free(leaf);
    X509_free(x);
    ca_info_done(&i);
    (void)e;
    return old;
}

static void all_believe(void)
{
    struct str root = cluster_text("RootCA.Cert");
    for (unsigned i = 0; i < NODES; i++) {
        struct node *n = &world.nodes[i];
        if (n->answers == 0 || n->removed)
            continue;
        for (unsigned k = 0; k < NODES; k++)
            if (world.nodes[k].answers > 0 && !world.nodes[k].removed)
                must(&world.last, believes(buf_str(&world.nodes[k].trust), buf_str(&n->chain), n->id));
        must(&world.last, believes(root, buf_str(&n->chain), n->id));
    }
}

/* as gatewayd does: a certificate of another issuer or role than the store's is renewed, trust is what is pushed */
static void gateways(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct node *n = &world.nodes[i];
        if (n->answers == 0 || n->removed || n->asking || !world.cad)
            continue;
        bool manager = str_is(at(look(KIND_NODE, n->id), "Role"), "manager");
        if (old_issuer(n) || manager != n->manager)
            renew(n);
    }
}

static void push_trust(void)
{
    struct str root = cluster_text("RootCA.Cert");
    for (unsigned i = 0; i < NODES; i++)
        if (world.nodes[i].answers > 0) {
            buf_clear(&world.nodes[i].trust);
            buf_put(&world.nodes[i].trust, root.p, root.n);
        }
}

static void test_rotation(void)
{
    struct buf first = BUF_INIT;
    char token[CA_TOKEN_SIZE];
    test_first();
    struct node *w = joined(1, "Worker"), *m = joined(2, "Manager");
    struct str root = cluster_text("RootCA.Cert");
    buf_put(&first, root.p, root.n);
    CHECK(str_copy(token, sizeof token, at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker")));
    rotate(STR(""), STR(""));
    run_for(SECOND);
    must(&world.last, world.last.code == 0 && rotating());
    CHECK(str_eq(cluster_text("TLSInfo.TrustRoot"), buf_str(&first)) && old_issuer(w));
    renew(w);
    run_for(SECOND);
    CHECK(!old_issuer(w) && rotating() && old_issuer(m));
    all_believe(); /* some of the one root, some of the other */
    struct node *late = &world.nodes[3];
    join_with(late, str_from(token)); /* the old tokens are good until the end */
    run_for(SECOND);
    CHECK(late->answers == 1 && !old_issuer(late));
    all_believe();
    gateways();
    run_for(SECOND);
    CHECK(!rotating() && !str_eq(cluster_text("RootCA.Cert"), buf_str(&first)));
    CHECK(str_eq(cluster_text("TLSInfo.TrustRoot"), cluster_text("RootCA.Cert")));
    CHECK(look(KIND_CREDENTIAL, STORE_CA_NEXT_ID)->n == 0);
    all_believe(); /* nodes that have not heard of the end yet, too */
    push_trust();
    all_believe();
    CHECK(!str_is(at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker"), token));
    refused(&world.nodes[4], str_from(token), "root certificate that has been replaced");
    joined(4, "Worker");
    all_believe();
    buf_done(&first);
}

/* Somebody is away for the whole of it: a deadline, and later a proof. */
static void test_stragglers(void)
{
    test_first();
    struct node *w = joined(1, "Worker"), *away = joined(2, "Worker");
    rotate(STR(""), STR(""));
    run_for(SECOND);
    renew(w);
    renew(&world.nodes[0]);
    run_for(100 * SECOND);
    CHECK(rotating());
    kill_cad(); /* the deadline is in the store */
    start_cad();
    run_for(3600 * SECOND);
    CHECK(!rotating());
    /* It does not trust the new root, but believes a manager by the cross-signed certificate; nobody believes it. */
    must(&world.last, believes(buf_str(&away->trust), buf_str(&world.nodes[0].chain), "swarm-manager"));
    CHECK(!believes(cluster_text("RootCA.Cert"), buf_str(&away->chain), "swarm-worker"));
    prove(away);
    run_for(SECOND);
    must(&world.last, away->answers == 2 && !old_issuer(away));
    push_trust();
    all_believe();
    /* a node that is down is not waited for */
    joined(3, "Worker");
    struct buf b = BUF_INIT;
    struct err e;
    mp_map(&b, 1);
    mp_cstr(&b, "Status");
    mp_map(&b, 1);
    mp_kv_cstr(&b, "State", "down");
    struct txn_change ch = { STR("update"), STR("node"), str_from(world.nodes[3].id), buf_str(&b) };
    apply(1u << WHO_DISPATCHERD, (struct list){ 0 }, (struct list){ &ch, 1 }, 0, &e);
    buf_done(&b);
    rotate(STR(""), STR(""));
    run_for(SECOND);
    world.nodes[3].removed = true;
    gateways();
    run_for(SECOND);
    CHECK(!rotating());
    world.nodes[3].removed = false;
    prove(&world.nodes[3]);
    run_for(SECOND);
    CHECK(world.nodes[3].answers == 2);
}

static void test_given_root(void)
{
    struct ca_root given = { .key_pem = BUF_INIT }, short_one = { .key_pem = BUF_INIT };
    struct err e = ERR_INIT;
    test_first();
    must(&e, ca_root_make(&given, world.now / SECOND, &e) == 0);
    must(&e, ca_root_make(&short_one, world.now / SECOND - 19ll * 365 * 86400 - 40ll * 86400, &e) == 0);
    rotate(STR(""), buf_str(&given.key_pem));
    run_for(SECOND);
    expect_error(ERR_INVALID, "the signing CA cert must also be provided");
    rotate(buf_str(&given.cert_pem), buf_str(&short_one.key_pem));
    run_for(SECOND);
    expect_error(ERR_INVALID, "does not belong");
    rotate(buf_str(&short_one.cert_pem), buf_str(&short_one.key_pem));
    run_for(SECOND);
    expect_error(ERR_INVALID, "CA certificate expires too soon");
    rotate(STR("not a certificate"), STR(""));
    run_for(SECOND);
    expect_error(ERR_INVALID, "the desired CA certificate");
    rotate(buf_str(&given.cert_pem), STR(""));
    run_for(SECOND);
    expect_error(ERR_INVALID, "at least one valid, reachable external CA");
    rotate(first_cert(buf_str(&world.nodes[0].chain)), STR(""));
    run_for(SECOND);
    expect_error(ERR_INVALID, "may not sign");
    CHECK(!rotating());
    struct buf was = BUF_INIT;
    struct str root = cluster_text("RootCA.Cert");
    buf_put(&was, root.p, root.n);
    rotate(buf_str(&given.cert_pem), buf_str(&given.key_pem));
    run_for(SECOND);
    must(&world.last, world.last.code == 0 && rotating());
    struct store_snap *snap;
    struct str key;
    CHECK(store_begin(world.store, &snap, &e) == 0);
    key = cad_secret(snap, STORE_CA_KEY_ID);
    struct buf kept = BUF_INIT;
    buf_put(&kept, key.p, key.n);
    store_end(snap);
    renew(&world.nodes[0]);
    world.last = (struct err)ERR_INIT;
    rotate(buf_str(&was), buf_str(&kept)); /* back to where we were: called off */
    run_for(SECOND);
    must(&world.last, world.last.code == 0 && !rotating());
    CHECK(look(KIND_CREDENTIAL, STORE_CA_NEXT_ID)->n == 0 && str_eq(cluster_text("RootCA.Cert"), buf_str(&was)));
    joined(1, "Worker");
    all_believe();
    buf_done(&was);
    buf_done(&kept);
    rotate(STR(""), STR(""));
    run_for(SECOND);
    rotate(buf_str(&given.cert_pem), buf_str(&given.key_pem)); /* another one on the way */
    run_for(SECOND);
    CHECK(rotating() && str_eq(cluster_text("RootCA.Rotation.NewCert"), buf_str(&given.cert_pem)));
    gateways();
    run_for(SECOND);
    CHECK(!rotating() && str_eq(cluster_text("RootCA.Cert"), buf_str(&given.cert_pem)));
    push_trust();
    all_believe();
    ca_root_done(&given);
    ca_root_done(&short_one);
}

/* The external CA's certificate came with init: no root is made here, and there is never a key. */
static void test_external_first(void)
{
    struct err e = ERR_INIT;
    must(&e, ca_root_make(&world.outside_root, world.now / SECOND, &e) == 0);
    want_spec(false, buf_str(&world.outside_root.cert_pem));
    test_first();
    CHECK(str_eq(cluster_text("RootCA.Cert"), buf_str(&world.outside_root.cert_pem)));
    CHECK(look(KIND_CREDENTIAL, STORE_CA_KEY_ID)->n == 0);
    joined(1, "Worker");
    joined(2, "Manager");
    all_believe();
    world.outside_down = true;
    renew(&world.nodes[1]);
    run_for(SECOND);
    expect_error(ERR_UNAVAILABLE, "no connection");
}

/* It came without: the root is made here, and signs the first certificate, which nobody else could; then it is asked.
 */
static void test_external_current(void)
{
    want_spec(false, STR("current"));
    world.outside_down = true;
    test_first();
    CHECK(look(KIND_CREDENTIAL, STORE_CA_KEY_ID)->n > 0);
    renew(&world.nodes[0]);
    run_for(SECOND);
    expect_error(ERR_UNAVAILABLE, "no connection");
}

static void test_external(void)
{
    struct err e = ERR_INIT;
    test_first();
    must(&e, ca_root_make(&world.outside_root, world.now / SECOND, &e) == 0);
    want_spec(false, buf_str(&world.outside_root.cert_pem));
    rotate(buf_str(&world.outside_root.cert_pem), STR(""));
    run_for(SECOND);
    must(&world.last, world.last.code == 0 && rotating());
    world.outside_down = true;
    renew(&world.nodes[0]);
    run_for(SECOND);
    expect_error(ERR_UNAVAILABLE, "no connection");
    world.outside_down = false;
    gateways();
    run_for(SECOND);
    must(&world.last, !rotating());
    CHECK(look(KIND_CREDENTIAL, STORE_CA_KEY_ID)->n == 0); /* not needed any more, so it is not here */
    CHECK(str_eq(cluster_text("RootCA.Cert"), buf_str(&world.outside_root.cert_pem)));
    struct node *w = joined(1, "Worker");
    renew(w);
    run_for(SECOND);
    CHECK(w->answers == 2);
    push_trust();
    all_believe();
    kill_cad(); /* with a question under way */
    start_cad();
    run_for(SECOND);
    joined(2, "Manager");
    join(&world.nodes[3], "Worker");
    run_for(2000000);
    kill_cad();
    start_cad();
    run_for(SECOND);
    rotate(STR(""), STR("")); /* away from it; it does not cross-sign */
    run_for(SECOND);
    expect_error(ERR_IO, "no profile CA");
    CHECK(!rotating());
}

static void test_unlock_key(void)
{
    char key[80];
    run_for(SECOND);
    CHECK(look(KIND_CREDENTIAL, STORE_UNLOCK_KEY_ID)->n == 0);
    want_spec(true, STR(""));
    run_for(SECOND);
    CHECK(str_copy(key, sizeof key, at(look(KIND_CREDENTIAL, STORE_UNLOCK_KEY_ID), "Key")));
    CHECK(strlen(key) == CA_UNLOCK_SIZE - 1 && memcmp(key, "SWMKEY-1-", 9) == 0);
    want_unlock_epoch(5);
    run_for(SECOND);
    CHECK(!str_is(at(look(KIND_CREDENTIAL, STORE_UNLOCK_KEY_ID), "Key"), key));
    CHECK(str_copy(key, sizeof key, at(look(KIND_CREDENTIAL, STORE_UNLOCK_KEY_ID), "Key")));
    kill_cad();
    start_cad();
    run_for(SECOND);
    CHECK(str_is(at(look(KIND_CREDENTIAL, STORE_UNLOCK_KEY_ID), "Key"), key));
    want_spec(false, STR(""));
    run_for(SECOND);
    CHECK(look(KIND_CREDENTIAL, STORE_UNLOCK_KEY_ID)->n == 0);
}

/* The newest of a purpose is behind the one that seals: each stays three rotations. */
static void test_network_keys(void)
{
    struct netkeys k[3];
    struct arena a;
    struct err e = ERR_INIT;
    arena_init(&a, 1 << 20);
    run_for(SECOND);
    for (int i = 0; i < 3; i++) {
        CHECK(netkeys_read(buf_str(look(KIND_CREDENTIAL, STORE_NETWORK_KEYS_ID)), &k[i], &a, &e) == 0);
        if (i == 0) { /* not made again by another leader */
            kill_cad();
            start_cad();
        }
        run_for(i == 0 ? 11 * 3600 * SECOND : 12 * 3600 * SECOND);
        if (i == 0) {
            struct netkeys same;
            CHECK(netkeys_read(buf_str(look(KIND_CREDENTIAL, STORE_NETWORK_KEYS_ID)), &same, &a, &e) == 0);
            CHECK(memcmp(&same, &k[0], sizeof same) == 0);
            run_for(2 * 3600 * SECOND);
        }
    }
    for (int i = 0; i < 3; i++)
        for (unsigned p = 0; p < NETKEYS_PURPOSES; p++) {
            CHECK(k[i].ring[p].n == (size_t)i + 1 && k[i].ring[p].keys[0].epoch == (uint64_t)i + 1);
            CHECK(i == 0 || memcmp(&k[i].ring[p].keys[1], &k[i - 1].ring[p].keys[0], sizeof(struct netkey)) == 0);
        }
    arena_done(&a);
}

/* Tokens of an older version stand in the cluster object: they move, and stay what they are. */
static void test_old_store(void)
{
    uint8_t secret[CA_SECRET_BYTES] = { 9 };
    char digest[CA_DIGEST_DIGITS + 1], worker[CA_TOKEN_SIZE], manager[CA_TOKEN_SIZE];
    struct ca_root root = { .key_pem = BUF_INIT };
    struct buf b = BUF_INIT, k = BUF_INIT;
    struct err e = ERR_INIT;
    kill_cad();
    must(&e, ca_root_make(&root, world.now / SECOND, &e) == 0);
    ca_digest(buf_str(&root.cert_pem), digest);
    ca_token(digest, secret, worker);
    secret[0] = 8;
    ca_token(digest, secret, manager);
    mp_map(&b, 2);
    mp_cstr(&b, "RootCA");
    mp_map(&b, 3);
    mp_kv_str(&b, "Cert", buf_str(&root.cert_pem));
    mp_kv_cstr(&b, "Digest", digest);
    mp_cstr(&b, "TokenEpoch");
    mp_map(&b, 2);
    mp_kv_u64(&b, "Worker", 1);
    mp_kv_u64(&b, "Manager", 1);
    mp_cstr(&b, "JoinTokens");
    mp_map(&b, 2);
    mp_kv_cstr(&b, "Worker", worker);
    mp_kv_cstr(&b, "Manager", manager);
    mp_map(&k, 2);
    mp_kv_cstr(&k, "ID", STORE_CA_KEY_ID);
    mp_cstr(&k, "Data");
    mp_bin(&k, buf_str(&root.key_pem));
    struct txn_change ch[] = { { STR("update"), STR("cluster"), STR(CLUSTER), buf_str(&b) },
                               { STR("create"), STR("credential"), STR(STORE_CA_KEY_ID), buf_str(&k) } };
    struct entry en = { .At = world.now, .By = STR("sim"), .Changes = { ch, 2 } };
    struct buf bytes = BUF_INIT;
    uint64_t revision;
    entry_encode(&en, &bytes);
    commit((struct raft_log_entry){ ++world.index, world.term, RAFT_ENTRY_DATA, buf_str(&bytes) }, &e, &revision);
    CHECK(e.code == 0 && str_is(cluster_text("JoinTokens.Worker"), worker));
    start_cad();
    run_for(SECOND);
    CHECK(cluster_text("JoinTokens.Worker").n == 0 &&
          str_is(at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker"), worker) &&
          str_is(at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Manager"), manager));
    test_first();
    joined(1, "Worker");
    buf_done(&b);
    buf_done(&k);
    buf_done(&bytes);
    ca_root_done(&root);
}

/* A backup does not know the manager that it is restored on: it leads under a new name. */
static void test_restored(void)
{
    struct buf none = BUF_INIT;
    run_for(SECOND);
    CHECK(user("delete", KIND_NODE, SELF, &none) == 0);
    run_for(SECOND);
    CHECK(is_member(SELF)); /* the last one stays, whatever the store says */
    send(ask_csr(&world.nodes[0]), RPC_LOCAL, "");
    run_for(SECOND);
    must(&world.last, world.nodes[0].answers == 1 && world.nodes[0].manager);
    struct buf *doc = look(KIND_NODE, SELF);
    CHECK(str_is(at(doc, "Spec.Role"), "manager") && str_is(at(doc, "Role"), "manager"));
    joined(1, "Worker");
}

static void test_limits(void)
{
    run_for(SECOND);
    world.keeper.limits.per_second = 5;
    world.keeper.tokens = 5;
    for (unsigned i = 0; i < 50; i++)
        join_with(&world.nodes[1], STR("nonsense"));
    CHECK(world.keeper.limited == 45 && world.keeper.nqueue == 5);
    expect_error(ERR_UNAVAILABLE, "too many requests");
    run_for(10 * SECOND);
    CHECK(world.keeper.refused == 5);
    world.last = (struct err)ERR_INIT;
    joined(1, "Worker");
    struct err e;
    CHECK(sm_set_role(world.sm, world.term, false, "", &e) == 0); /* not leader any more */
    renew(&world.nodes[1]);
    wake();
    run_for(SECOND);
    expect_error(ERR_UNAVAILABLE, "only the leader issues certificates");
    renew(&world.nodes[1]);
    expect_error(ERR_UNAVAILABLE, "only the leader issues certificates");
}

/* ---- chance ---- */

static void chaos_step(void)
{
    struct node *n = &world.nodes[1 + below(NODES - 1)];
    struct buf none = BUF_INIT;
    if (!world.cad) {
        if (chance(50))
            start_cad();
        return;
    }
    uint64_t what = below(100);
    if (n->answers == 0) {
        if (!n->asking && !n->removed && cluster_text("RootCA.Cert").n > 0 &&
            at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker").n > 0)
            join(n, chance(50) ? "Worker" : "Manager");
    } else if (what < 30 && !n->removed) {
        want_role(n->id, chance(50));
    } else if (what < 33 && !n->removed) {
        n->removed = user("delete", KIND_NODE, n->id, &none) == 0;
    } else if (what < 40) {
        want_epochs(1 + below(5), 1 + below(5));
    } else if (what < 45) {
        rotate(STR(""), STR(""));
    } else if (what < 50) {
        want_spec(chance(50), STR(""));
    } else if (what < 65) {
        kill_cad();
    } else if (what < 75 && !n->removed && !n->asking) {
        prove(n);
    }
    gateways();
    for (unsigned i = 1; i < NODES; i++) /* raftd of a manager joins by itself; with an old certificate, too */
        if (world.nodes[i].manager && !world.nodes[i].removed && chance(30))
            join_group(world.nodes[i].id);
    if (chance(50))
        push_trust();
}

static const char *wrong(void)
{
    char digest[CA_DIGEST_DIGITS + 1];
    ca_digest(cluster_text("RootCA.Cert"), digest);
    struct str w = at(look(KIND_CREDENTIAL, STORE_TOKENS_ID), "Worker");
    if (rotating())
        return "the move to another root does not end";
    if (!ca_token_ok(w) || memcmp(w.p + 9, digest, CA_DIGEST_DIGITS) != 0)
        return "the join token is not of the root";
    bool lock = false;
    (void)mp_get_bool(buf_str(look(KIND_CLUSTER, CLUSTER)), "Spec.EncryptionConfig.AutoLockManagers", &lock);
    if (lock != (look(KIND_CREDENTIAL, STORE_UNLOCK_KEY_ID)->n > 0))
        return "the unlock key is not as declared";
    if (look(KIND_CREDENTIAL, STORE_NETWORK_KEYS_ID)->n == 0)
        return "there are no network keys";
    for (unsigned i = 1; i < NODES; i++) {
        struct node *n = &world.nodes[i];
        struct buf *doc = look(KIND_NODE, n->id);
        if (n->answers == 0)
            continue;
        if (n->removed) {
            if (is_member(n->id) || doc->n > 0)
                return "a removed node is still there";
            continue;
        }
        bool want = str_is(at(doc, "Spec.Role"), "manager");
        if (want != str_is(at(doc, "Role"), "manager") || want != n->manager || want != is_member(n->id))
            return "a node's role is not as declared";
        if (old_issuer(n))
            return "a node has not come over to the root";
    }
    return NULL;
}

static bool run(uint64_t seed)
{
    printf("cad_sim: seed %" PRIu64 "\n", seed);
    fflush(stdout);
    begin(seed);
    send(ask_csr(&world.nodes[0]), RPC_LOCAL, "");
    run_for(SECOND);
    world.nodes[0].manager = true;
    world.faults = true;
    for (unsigned i = 0; i < 150; i++) {
        chaos_step();
        run_for((int64_t)below(chance(50) ? 20000000 : 3 * SECOND));
    }
    world.faults = false;
    if (!world.cad)
        start_cad();
    const char *what = "nothing was checked";
    for (unsigned i = 0; i < 240 && what; i++) {
        gateways();
        for (unsigned k = 1; k < NODES; k++)
            if (world.nodes[k].manager && !world.nodes[k].removed)
                join_group(world.nodes[k].id);
        push_trust();
        run_for(30 * SECOND);
        what = wrong();
    }
    if (!what)
        all_believe();
    printf("%s cad_sim: seed %" PRIu64 ": %s; %" PRIu64 " transactions, %" PRIu64 " kills, %" PRIu64 " removals\n",
           what ? "not ok" : "ok", seed, what ? what : "converged", world.txns, world.kills, world.removals);
    end();
    return what == NULL;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(void);
    } rules[] = {
        { "the first root, tokens and certificate", test_first },
        { "joining by token", test_join },
        { "a request repeated", test_asked_again },
        { "bad tokens and requests", test_bad_tokens },
        { "renewal, and the role in it", test_renewal },
        { "an expired certificate renewed by proof of its key", test_proof },
        { "promotion, demotion, strangers in the group", test_roles },
        { "another root", test_rotation },
        { "a deadline for those who are away", test_stragglers },
        { "a root that is given", test_given_root },
        { "an external CA", test_external },
        { "a swarm that begins with an external CA", test_external_first },
        { "a swarm that begins with an external CA whose root it is to be", test_external_current },
        { "the unlock key", test_unlock_key },
        { "the keys of the data plane", test_network_keys },
        { "the store of an older version", test_old_store },
        { "the first manager of a restored swarm", test_restored },
        { "limits", test_limits },
    };
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, runs = argc > 2 ? strtoull(argv[2], NULL, 10) : 20;
    bool ok = true;
    log_init("cad_sim");
    (void)log_set_level("error");
    for (size_t i = 0; argc == 1 && i < sizeof rules / sizeof *rules; i++) {
        begin(i + 1);
        rules[i].fn();
        end();
        printf("ok %s\n", rules[i].name);
        fflush(stdout);
    }
    for (uint64_t i = 0; i < (argc > 1 && argc < 3 ? 1 : runs); i++)
        ok &= run(seed + i);
    return ok ? 0 : 1;
}

/* Frames, the authorization table, certificates, tokens, addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <net/if.h>
#include <netinet/in.h>
#include <openssl/pkcs12.h>

#include "gatewayd/gw_addr.h"
#include "gatewayd/gw_authz.h"
#include "gatewayd/gw_frame.h"
#include "gatewayd/gw_state.h"
#include "gatewayd/test_ca.h"

/* ---- frames ---- */

struct got {
    enum gw_type type;
    uint32_t stream;
    size_t n;
    uint8_t fill;
    bool lost, intact;
};
static struct got got[4096];
static size_t ngot;

static int on_msg(void *arg, enum gw_type type, uint32_t stream, struct str body, struct err *e)
{
    (void)arg, (void)e;
    struct got g = { type, stream, body.n, body.n ? (uint8_t)body.p[0] : 0, body.p == NULL, true };
    for (size_t i = 0; i < body.n; i++)
        g.intact = g.intact && (uint8_t)body.p[i] == g.fill;
    got[ngot++] = g;
    return 0;
}

static void push(struct gw_out *o, enum gw_prio prio, enum gw_type type, uint32_t stream, size_t n, int fill)
{
    struct buf b = BUF_INIT;
    char *p = buf_reserve(&b, n + 1);
    memset(p, fill, n);
    b.n = n;
    gw_out_push(o, prio, type, stream, &b);
}

static const struct gw_limits wide = { GW_MESSAGE_MAX, 256u << 20, 64 };

static void test_frames_survive_any_cut(void **state)
{
    static const size_t steps[] = { 1, 7, 15, 16, 17, 1000, 65552, 1u << 20 };
    (void)state;
    for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
        struct gw_out o;
        struct gw_in in;
        struct gw_budget budget = { 0, 1u << 30 };
        struct buf wire = BUF_INIT;
        struct err e = ERR_INIT;
        gw_out_init(&o);
        gw_in_init(&in, &wide, &budget);
        push(&o, GW_PRIO_CONTROL, GW_REQUEST, 1, 0, 0);
        push(&o, GW_PRIO_CONTROL, GW_REQUEST, 2, 10, 'a');
        push(&o, GW_PRIO_BULK, GW_REPLY, 3, 300000, 'b');
        push(&o, GW_PRIO_BULK, GW_REPLY, 4, (size_t)GW_CHUNK_BYTES * 2, 'c');
        push(&o, GW_PRIO_RAFT, GW_RAFT, 0, 100000, 'd');
        gw_out_fill(&o, &wire, SIZE_MAX);
        assert_true(gw_out_empty(&o));
        assert_int_equal(o.bytes, 0);
        ngot = 0;
        for (size_t at = 0; at < wire.n; at += steps[k]) {
            size_t n = wire.n - at < steps[k] ? wire.n - at : steps[k];
            assert_int_equal(gw_in_feed(&in, wire.p + at, n, on_msg, NULL, &e), 0);
        }
        assert_int_equal(ngot, 5);
        assert_int_equal(got[0].type, GW_RAFT); /* first, although it came last */
        assert_int_equal(got[0].n, 100000);
        assert_int_equal(got[1].stream, 1);
        assert_int_equal(got[2].stream, 2);
        assert_int_equal(got[3].stream, 4); /* shorter, so it is whole before the other one */
        assert_int_equal(got[4].n, 300000);
        for (size_t i = 0; i < ngot; i++)
            assert_true(got[i].intact && !got[i].lost);
        assert_int_equal(budget.used, 0);
        gw_in_done(&in);
        gw_out_done(&o);
        buf_done(&wire);
    }
}

/* Bulk never holds up Raft for more than a chunk, and Raft never stops bulk for good. */
static void test_priorities(void **state)
{
    struct gw_out o;
    struct buf wire = BUF_INIT;
    struct gw_header h;
    struct err e = ERR_INIT;
    unsigned bulk = 0, raft = 0;
    (void)state;
    gw_out_init(&o);
    push(&o, GW_PRIO_BULK, GW_REPLY, 1, 10u << 20, 'x');
    gw_out_fill(&o, &wire, 1);
    assert_int_equal(wire.n, GW_HEADER_BYTES + GW_CHUNK_BYTES);
    for (int i = 0; i < 64; i++) {
        push(&o, GW_PRIO_RAFT, GW_RAFT, 0, 10, 'r');
        buf_clear(&wire);
        gw_out_fill(&o, &wire, 1);
        assert_int_equal(gw_header_decode(&h, (uint8_t *)wire.p, &e), 0);
        bulk += h.type == GW_REPLY;
        raft += h.type == GW_RAFT;
    }
    assert_int_equal(bulk, 64 / (GW_BULK_EVERY + 1));
    assert_int_equal(raft, 64 - bulk);
    gw_out_done(&o);
    buf_done(&wire);
}

static void test_bulk_is_mixed(void **state)
{
    struct gw_out o;
    struct buf wire = BUF_INIT;
    struct gw_header h;
    struct err e = ERR_INIT;
    unsigned first[40] = { 0 }, seen = 0;
    (void)state;
    gw_out_init(&o);
    for (uint32_t i = 0; i < 40; i++)
        push(&o, GW_PRIO_BULK, GW_REPLY, i, (size_t)4 * GW_CHUNK_BYTES, 'x');
    for (unsigned k = 0; !gw_out_empty(&o); k++) {
        buf_clear(&wire);
        gw_out_fill(&o, &wire, 1);
        assert_int_equal(gw_header_decode(&h, (uint8_t *)wire.p, &e), 0);
        if (h.flags & GW_FIRST)
            first[seen++] = k;
    }
    assert_int_equal(seen, 40);
    assert_int_equal(first[15], 15); /* sixteen take turns */
    assert_true(first[16] >= 48);    /* the next one when the first of them are through */
    gw_out_done(&o);
    buf_done(&wire);
}

static void test_raft_queue_drops_the_oldest(void **state)
{
    struct gw_out o;
    struct gw_in in;
    struct buf wire = BUF_INIT;
    struct err e = ERR_INIT;
    (void)state;
    gw_out_init(&o);
    gw_in_init(&in, &wide, NULL);
    push(&o, GW_PRIO_RAFT, GW_RAFT, 0, 2u << 20, 1);
    gw_out_fill(&o, &wire, 1); /* this one has begun: it must be finished */
    for (int i = 2; i < 20; i++)
        push(&o, GW_PRIO_RAFT, GW_RAFT, 0, 2u << 20, i);
    assert_true(o.dropped > 0);
    assert_true(o.bytes <= GW_RAFT_QUEUE_MAX);
    gw_out_fill(&o, &wire, SIZE_MAX);
    ngot = 0;
    assert_int_equal(gw_in_feed(&in, wire.p, wire.n, on_msg, NULL, &e), 0);
    assert_int_equal(ngot + o.dropped, 19);
    assert_int_equal(got[0].fill, 1);
    assert_int_equal(got[ngot - 1].fill, 19);
    for (size_t i = 0; i < ngot; i++)
        assert_true(got[i].intact && got[i].n == 2u << 20);
    gw_in_done(&in);
    gw_out_done(&o);
    buf_done(&wire);
}

static int feed_header(struct gw_in *in, struct gw_header h, size_t payload, struct err *e)
{
    struct buf b = BUF_INIT;
    uint8_t head[GW_HEADER_BYTES];
    gw_header_encode(&h, head);
    buf_put(&b, head, sizeof head);
    char *p = buf_reserve(&b, payload + 1);
    memset(p, 'z', payload);
    b.n += payload;
    int r = gw_in_feed(in, b.p, b.n, on_msg, NULL, e);
    buf_done(&b);
    return r;
}

static void test_bad_frames(void **state)
{
    static const struct {
        struct gw_header h;
        const char *says;
    } bad[] = {
        { { GW_CHUNK_BYTES + 1, 0, GW_CHUNK_BYTES + 1, GW_RAFT, 3 }, "at most 65536" },
        { { 1, 0, 1, 0, 3 }, "type 0" },
        { { 1, 0, 1, GW_TYPE_COUNT, 3 }, "type 6" },
        { { 1, 0, 1, GW_RAFT, 7 }, "flags" },
        { { 1, 0, GW_MESSAGE_MAX + 1, GW_RAFT, 1 }, "out of range" },
        { { 2, 0, 1, GW_RAFT, 3 }, "out of range" },
        { { 1, 0, 2, GW_RAFT, 3 }, "not what was announced" },
        { { 0, 0, 5, GW_RAFT, 1 }, "empty chunk" },
        { { 1, 0, 0, GW_RAFT, 0 }, "without a beginning" },
        { { 1, 0, 0, GW_RAFT, 2 }, "without a beginning" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct gw_in in;
        struct err e = ERR_INIT;
        gw_in_init(&in, &wide, NULL);
        ngot = 0;
        assert_true(feed_header(&in, bad[i].h, bad[i].h.len, &e) < 0);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("case %zu: %s", i, e.msg);
        assert_int_equal(ngot, 0);
        gw_in_done(&in);
    }
}

static void test_bad_sequences(void **state)
{
    struct gw_in in;
    struct err e = ERR_INIT;
    (void)state;
    gw_in_init(&in, &wide, NULL); /* the same stream begins twice */
    assert_int_equal(feed_header(&in, (struct gw_header){ 1, 5, 2, GW_REQUEST, 1 }, 1, &e), 0);
    assert_int_equal(feed_header(&in, (struct gw_header){ 1, 6, 2, GW_REQUEST, 1 }, 1, &e), 0);
    assert_true(feed_header(&in, (struct gw_header){ 1, 5, 2, GW_REQUEST, 1 }, 1, &e) < 0);
    gw_in_done(&in);
    gw_in_init(&in, &wide, NULL); /* the last chunk comes too early, too late */
    assert_int_equal(feed_header(&in, (struct gw_header){ 1, 5, 3, GW_REQUEST, 1 }, 1, &e), 0);
    assert_true(feed_header(&in, (struct gw_header){ 1, 5, 0, GW_REQUEST, 2 }, 1, &e) < 0);
    gw_in_done(&in);
    gw_in_init(&in, &wide, NULL);
    assert_int_equal(feed_header(&in, (struct gw_header){ 1, 5, 2, GW_REQUEST, 1 }, 1, &e), 0);
    assert_true(feed_header(&in, (struct gw_header){ 1, 5, 0, GW_REQUEST, 0 }, 1, &e) < 0);
    gw_in_done(&in);
}

static void test_limits(void **state)
{
    static const struct gw_limits narrow = { 1000, 1500, 3 };
    struct gw_budget budget = { 0, 1200 };
    struct gw_in in;
    struct err e = ERR_INIT;
    (void)state;
    gw_in_init(&in, &narrow, &budget);
    assert_int_equal(feed_header(&in, (struct gw_header){ 1, 0, 1001, GW_REQUEST, 1 }, 1, &e), -ERR_TOO_BIG);
    gw_in_done(&in);
    gw_in_init(&in, &narrow, &budget); /* the second has no room: it is thrown away, the first one is not */
    ngot = 0;
    assert_int_equal(feed_header(&in, (struct gw_header){ 1, 1, 1000, GW_REQUEST, 1 }, 1, &e), 0);
    assert_int_equal(feed_header(&in, (struct gw_header){ 1, 2, 700, GW_REQUEST, 1 }, 1, &e), 0);
    assert_int_equal(budget.used, 1000);
    assert_int_equal(feed_header(&in, (struct gw_header){ 699, 2, 0, GW_REQUEST, 2 }, 699, &e), 0);
    assert_int_equal(feed_header(&in, (struct gw_header){ 999, 1, 0, GW_REQUEST, 2 }, 999, &e), 0);
    assert_int_equal(ngot, 2);
    assert_true(got[0].lost && got[0].stream == 2 && !got[1].lost && got[1].n == 1000);
    assert_int_equal(budget.used, 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(feed_header(&in, (struct gw_header){ 1, i, 2, GW_REQUEST, 1 }, 1, &e), 0);
    assert_int_equal(feed_header(&in, (struct gw_header){ 1, 9, 2, GW_REQUEST, 1 }, 1, &e), -ERR_TOO_BIG);
    gw_in_done(&in);
    assert_int_equal(budget.used, 0);
}

/* ---- authorization ---- */

static int ask(enum rpc_role role, const char *by, const char *svc, const char *op, const char *body_node)
{
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    mp_map(&b, body_node ? 1 : 0);
    if (body_node)
        mp_kv_cstr(&b, "NodeID", body_node);
    struct rpc_origin o = { role, role == RPC_NOBODY ? STR("") : STR("n1"), str_from(by), STR("10.0.0.1") };
    int r = gw_authz(&o, str_from(svc), str_from(op), buf_str(&b), &e);
    buf_done(&b);
    return r;
}

/* Every rule, every role: what the table doesn't list is refused, whatever it is called. */
static void test_authz_matrix(void **state)
{
    static const char *const none[] = { "cad.root", "cad.issue" };
    static const char *const worker[] = {
        "cad.root",           "cad.issue",           "dispatcherd.session", "dispatcherd.assignments",
        "dispatcherd.status", "dispatcherd.network", "dispatcherd.payload", "dispatcherd.usage"
    };
    static const char *const services[] = { "raftd",       "cad",  "orchestratord", "allocatord", "schedulerd",
                                            "dispatcherd", "apid", "gatewayd",      "agentd",     "meshd" };
    (void)state;
    for (const struct gw_rule *r = gw_rules; r->svc; r++) {
        char name[80];
        bool for_none = false, for_worker = false;
        snprintf(name, sizeof name, "%s.%s", r->svc, r->op->name);
        for (size_t i = 0; i < sizeof none / sizeof *none; i++)
            for_none = for_none || strcmp(none[i], name) == 0;
        for (size_t i = 0; i < sizeof worker / sizeof *worker; i++)
            for_worker = for_worker || strcmp(worker[i], name) == 0;
        struct str by = gw_authz_root(str_from(r->svc), str_from(r->op->name));
        char who[40];
        assert_true(str_copy(who, sizeof who, by));
        assert_int_equal(ask(RPC_NOBODY, "", r->svc, r->op->name, "n1"), for_none ? 0 : -ERR_DENIED);
        assert_int_equal(ask(RPC_WORKER, "anything", r->svc, r->op->name, "n1"), for_worker ? 0 : -ERR_DENIED);
        assert_int_equal(ask(RPC_MANAGER, who, r->svc, r->op->name, "n1"), 0);
        assert_int_equal(ask(RPC_LOCAL, who, r->svc, r->op->name, "n1"), -ERR_DENIED);
        if (r->askers)
            assert_int_equal(ask(RPC_MANAGER, "orchestratord", r->svc, r->op->name, "n1"), -ERR_DENIED);
        if (r->self) {
            assert_int_equal(ask(RPC_MANAGER, who, r->svc, r->op->name, "n2"), -ERR_DENIED);
            assert_int_equal(ask(RPC_MANAGER, who, r->svc, r->op->name, NULL), -ERR_INVALID);
        }
    }
    for (size_t i = 0; i < sizeof services / sizeof *services; i++) {
        for (int role = RPC_NOBODY; role <= RPC_MANAGER; role++) {
            assert_int_equal(ask((enum rpc_role)role, "apid", services[i], "no-such-op", NULL), -ERR_DENIED);
            assert_int_equal(ask((enum rpc_role)role, "raftd", services[i], "txn", NULL), -ERR_DENIED);
            assert_int_equal(ask((enum rpc_role)role, "apid", services[i], "", NULL), -ERR_DENIED);
        }
    }
    assert_int_equal(ask(RPC_MANAGER, "apid", "gatewayd", "leave", NULL), -ERR_DENIED);
    assert_int_equal(ask(RPC_MANAGER, "apid", "raftd", "restore", NULL), -ERR_DENIED);
    assert_int_equal(ask(RPC_MANAGER, "apid", "cad", "unlock_key", NULL), -ERR_DENIED);
    assert_int_equal(ask(RPC_MANAGER, "gatewayd", "cad", "unlock_key", NULL), -ERR_DENIED);
    assert_int_equal(ask(RPC_MANAGER, "gatewayd", "raftd", "node_key", NULL), -ERR_DENIED);
}

/* ---- certificates ---- */

static void test_certificates(void **state)
{
    static const struct {
        const char *cn, *ou, *o, *says;
    } bad[] = { { NULL, "swarm-worker", "c1", "no node" },
                { "n1", NULL, "c1", "no role" },
                { "n1", "swarm-worker", NULL, "no swarm" },
                { "n1", "swarm-king", "c1", "swarm-king" },
                { "../x", "swarm-worker", "c1", "no node" } };
    struct test_ca ca, other;
    struct err e = ERR_INIT;
    struct gw_credentials c;
    struct gw_cert_info info;
    EVP_PKEY *key = EVP_EC_gen("P-256"), *wrong = EVP_EC_gen("P-256");
    struct buf pem = BUF_INIT, subject = BUF_INIT, spki = BUF_INIT;
    (void)state;
    test_ca_make(&ca);
    test_ca_make(&other);
    test_issue(&ca, key, "n1", "swarm-manager", "c1", -100, 1000, &pem);
    assert_int_equal(gw_credentials_make(&c, buf_str(&pem), buf_str(&ca.pem), key, &e), 0);
    assert_string_equal(c.info.node, "n1");
    assert_string_equal(c.info.cluster, "c1");
    assert_int_equal(c.info.role, RPC_MANAGER);
    assert_in_range(c.info.not_after - c.info.not_before, 1099, 1101);
    int64_t now = c.info.not_before + 100;
    assert_int_equal(gw_cert_verify(c.cert, c.rest, buf_str(&ca.pem), now, &e), 0);
    assert_int_equal(gw_cert_verify(c.cert, c.rest, buf_str(&other.pem), now, &e), -ERR_UNAUTHORIZED);
    assert_int_equal(gw_cert_verify(c.cert, c.rest, buf_str(&ca.pem), now + 2000, &e), -ERR_UNAUTHORIZED);
    assert_non_null(strstr(e.msg, "expired"));
    assert_int_equal(gw_cert_verify(c.cert, c.rest, buf_str(&ca.pem), now - 86400, &e), -ERR_UNAUTHORIZED);
    assert_non_null(strstr(e.msg, "not yet valid"));
    assert_true(gw_cert_issuer(c.cert, c.rest, buf_str(&ca.pem), &subject, &spki));
    assert_false(gw_cert_issuer(c.cert, c.rest, buf_str(&other.pem), &subject, &spki));
    for (uint64_t r = 0; r < 1000; r += 7) {
        int64_t at = gw_renew_at(&c.info, r * 0x9e3779b97f4a7c15u);
        assert_in_range(at - c.info.not_before, 549, 881);
    }
    gw_credentials_done(&c);
    assert_true(gw_credentials_make(&c, buf_str(&pem), buf_str(&ca.pem), wrong, &e) < 0);
    assert_true(gw_credentials_make(&c, buf_str(&pem), buf_str(&other.pem), key, &e) < 0);
    assert_true(gw_credentials_make(&c, STR("garbage"), buf_str(&ca.pem), key, &e) < 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        STACK_OF(X509) * chain;
        buf_clear(&pem);
        test_issue(&ca, key, bad[i].cn, bad[i].ou, bad[i].o, -100, 1000, &pem);
        assert_int_equal(gw_cert_chain(&chain, buf_str(&pem), &e), 0);
        assert_int_equal(gw_cert_info(&info, sk_X509_value(chain, 0), &e), -ERR_UNAUTHORIZED);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("case %zu: %s", i, e.msg);
        gw_cert_chain_free(chain);
    }
    EVP_PKEY_free(key);
    EVP_PKEY_free(wrong);
    buf_done(&pem);
    buf_done(&subject);
    buf_done(&spki);
    test_ca_done(&ca);
    test_ca_done(&other);
}

static void test_csr_and_proof(void **state)
{
    struct buf pem = BUF_INIT, csr = BUF_INIT, sig = BUF_INIT;
    struct err e = ERR_INIT;
    EVP_PKEY *key, *again;
    (void)state;
    assert_int_equal(gw_key_new(&key, &e), 0);
    assert_int_equal(gw_key_pem(key, NULL, &pem, &e), 0);
    assert_int_equal(gw_key_parse(&again, buf_str(&pem), NULL, NULL, &e), 0);
    assert_int_equal(EVP_PKEY_eq(key, again), 1);
    assert_int_equal(gw_csr(key, &csr, &e), 0);
    BIO *b = BIO_new_mem_buf(csr.p, (int)csr.n);
    X509_REQ *q = PEM_read_bio_X509_REQ(b, NULL, NULL, NULL);
    assert_non_null(q);
    assert_int_equal(X509_REQ_verify(q, key), 1);
    assert_int_equal(gw_proof(key, buf_str(&csr), &sig, &e), 0);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestVerify(ctx, (unsigned char *)sig.p, sig.n, (unsigned char *)csr.p, csr.n), 1);
    EVP_MD_CTX_free(ctx);
    X509_REQ_free(q);
    BIO_free(b);
    EVP_PKEY_free(key);
    EVP_PKEY_free(again);
    gw_secret_done(&pem);
    buf_done(&csr);
    buf_done(&sig);
}

/* A crash between storing the certificate and putting its key into place. */
static void test_key_finds_its_certificate(void **state)
{
    char dir[] = "/tmp/gw_test.XXXXXX", cmd[64];
    struct test_ca ca;
    struct gw_state s = { .gateway_dir = "" };
    struct gw_credentials c;
    struct err e = ERR_INIT;
    struct buf one = BUF_INIT, two = BUF_INIT;
    char from[400], to[400];
    bool sealed;
    EVP_PKEY *k1 = EVP_EC_gen("P-256"), *k2 = EVP_EC_gen("P-256");
    (void)state;
    assert_non_null(mkdtemp(dir));
    test_ca_make(&ca);
    assert_int_equal(gw_state_open(&s, dir, &e), 0);
    assert_int_equal(gw_state_load_credentials(&s, NULL, &c, &sealed, &e), -ERR_NOT_FOUND);
    test_issue(&ca, k1, "n1", "swarm-worker", "c1", -100, 1000, &one);
    test_issue(&ca, k2, "n1", "swarm-manager", "c1", -100, 1000, &two);
    assert_int_equal(gw_state_save_key(&s, k1, NULL, &e), 0);
    assert_int_equal(gw_state_save_credentials(&s, buf_str(&one), buf_str(&ca.pem), &e), 0);
    assert_int_equal(gw_state_load_credentials(&s, NULL, &c, &sealed, &e), 0);
    assert_int_equal(c.info.role, RPC_WORKER);
    gw_credentials_done(&c);
    assert_int_equal(gw_state_save_key(&s, k2, NULL, &e), 0); /* asked for, nothing came: the old one goes on */
    assert_int_equal(gw_state_load_credentials(&s, NULL, &c, &sealed, &e), 0);
    assert_int_equal(c.info.role, RPC_WORKER);
    gw_credentials_done(&c);
    snprintf(from, sizeof from, "%s/swarm-node.key", s.cert_dir);
    snprintf(to, sizeof to, "%s/swarm-node.key.old", s.cert_dir);
    assert_int_equal(link(from, to), 0);
    assert_int_equal(gw_state_save_credentials(&s, buf_str(&two), buf_str(&ca.pem), &e), 0);
    assert_int_equal(gw_state_save_key(&s, k2, NULL, &e), 0); /* as it was before the last rename */
    assert_int_equal(rename(to, from), 0);
    assert_int_equal(gw_state_load_credentials(&s, NULL, &c, &sealed, &e), 0);
    assert_int_equal(c.info.role, RPC_MANAGER);
    gw_credentials_done(&c);
    assert_int_equal(gw_state_forget(&s, &e), 0);
    assert_int_equal(gw_state_load_credentials(&s, NULL, &c, &sealed, &e), -ERR_NOT_FOUND);
    EVP_PKEY_free(k1);
    EVP_PKEY_free(k2);
    buf_done(&one);
    buf_done(&two);
    test_ca_done(&ca);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

/* opened_by - the key in @pem is @key, and this opens it. */
static bool opened_by(struct str pem, const EVP_PKEY *key, const char *unlock, const char *store)
{
    struct gw_seal seal = { .unlock = "" };
    struct err e = ERR_INIT;
    EVP_PKEY *k = NULL;
    bool sealed;
    (void)str_copy(seal.unlock, sizeof seal.unlock, str_from(unlock));
    (void)str_copy(seal.store, sizeof seal.store, str_from(store));
    int r = gw_key_parse(&k, pem, &seal, &sealed, &e);
    bool same = r == 0 && EVP_PKEY_eq(k, key) == 1;
    assert_true(r == 0 || (r == -ERR_DENIED && sealed));
    EVP_PKEY_free(k);
    return same;
}

static void test_sealed_key(void **state)
{
    static const struct gw_seal both = { "SWMKEY-1-one", "aabb" }, first = { .unlock = "SWMKEY-1-one" };
    struct buf pem = BUF_INIT, one = BUF_INIT;
    struct err e = ERR_INIT;
    EVP_PKEY *key, *k = NULL;
    bool sealed = false;
    (void)state;
    assert_int_equal(gw_key_new(&key, &e), 0);
    assert_int_equal(gw_key_pem(key, &both, &pem, &e), 0);
    assert_int_equal(gw_key_pem(key, &first, &one, &e), 0);
    assert_null(memmem(pem.p, pem.n, "BEGIN PRIVATE KEY", 17));
    assert_true(opened_by(buf_str(&pem), key, "SWMKEY-1-one", ""));
    assert_true(opened_by(buf_str(&pem), key, "", "aabb"));
    assert_true(opened_by(buf_str(&pem), key, "SWMKEY-1-two", "aabb"));
    assert_false(opened_by(buf_str(&pem), key, "SWMKEY-1-two", "aabc"));
    assert_false(opened_by(buf_str(&pem), key, "aab", "SWMKEY-1-onE"));
    assert_false(opened_by(buf_str(&pem), key, "", ""));
    assert_true(opened_by(buf_str(&one), key, "SWMKEY-1-one", "other"));
    assert_false(opened_by(buf_str(&one), key, "", "aabb"));
    assert_int_equal(gw_key_parse(&k, buf_str(&pem), NULL, &sealed, &e), -ERR_DENIED);
    assert_true(sealed);
    BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n); /* openssl pkey -passin pass:SWMKEY-1-... */
    k = PEM_read_bio_PrivateKey(b, NULL, NULL, (void *)"SWMKEY-1-one");
    assert_non_null(k);
    assert_int_equal(EVP_PKEY_eq(key, k), 1);
    BIO_free(b);
    EVP_PKEY_free(k);
    EVP_PKEY_free(key);
    gw_secret_done(&pem);
    gw_secret_done(&one);
    assert_int_equal(gw_key_parse(&k, STR("nothing"), NULL, &sealed, &e), -ERR_CORRUPT);
    assert_false(sealed);
}

/* What another program sealed with a million rounds would take a second: not ours, so not tried. */
static void test_sealed_with_too_much_work(void **state)
{
    static const struct gw_seal seal = { .unlock = "pw" };
    struct err e = ERR_INIT;
    EVP_PKEY *key, *k = NULL;
    char *p;
    (void)state;
    assert_int_equal(gw_key_new(&key, &e), 0);
    for (int rounds = 1000; rounds <= 1000000; rounds *= 1000) {
        PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
        X509_ALGOR *alg = PKCS5_pbe2_set_iv(EVP_aes_256_cbc(), rounds, NULL, 0, NULL, NID_hmacWithSHA256);
        X509_SIG *sig = PKCS8_set0_pbe("pw", 2, info, alg);
        assert_non_null(sig);
        BIO *b = BIO_new(BIO_s_mem());
        assert_int_equal(PEM_write_bio_PKCS8(b, sig), 1);
        long n = BIO_get_mem_data(b, &p);
        assert_int_equal(gw_key_parse(&k, (struct str){ p, (size_t)n }, &seal, NULL, &e),
                         rounds == 1000 ? 0 : -ERR_DENIED);
        if (rounds == 1000)
            EVP_PKEY_free(k);
        BIO_free(b);
        X509_SIG_free(sig);
        PKCS8_PRIV_KEY_INFO_free(info);
    }
    EVP_PKEY_free(key);
}

static bool there(const struct gw_state *s, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", s->cert_dir, name);
    return access(path, F_OK) == 0;
}

/* Sealed, sealed otherwise, opened; in the middle of a renewal, too. */
static void test_resealing(void **state)
{
    static const struct gw_seal k1 = { "SWMKEY-1-one", "aabb" }, k2 = { "SWMKEY-1-two", "aabb" }, none = { "", "" };
    static const struct gw_seal old = { .unlock = "SWMKEY-1-one" }, store = { .store = "aabb" };
    char dir[] = "/tmp/gw_test.XXXXXX", cmd[64], path[400];
    struct test_ca ca;
    struct gw_state s = { .gateway_dir = "" };
    struct gw_credentials c;
    struct err e = ERR_INIT;
    struct buf one = BUF_INIT, two = BUF_INIT;
    EVP_PKEY *a = EVP_EC_gen("P-256"), *b = EVP_EC_gen("P-256");
    bool sealed = false;
    (void)state;
    assert_non_null(mkdtemp(dir));
    test_ca_make(&ca);
    assert_int_equal(gw_state_open(&s, dir, &e), 0);
    test_issue(&ca, a, "n1", "swarm-manager", "c1", -100, 1000, &one);
    test_issue(&ca, b, "n1", "swarm-manager", "c1", -100, 1000, &two);
    assert_int_equal(gw_state_save_key(&s, a, NULL, &e), 0);
    assert_int_equal(gw_state_save_credentials(&s, buf_str(&one), buf_str(&ca.pem), &e), 0);
    assert_int_equal(gw_state_save_key(&s, b, NULL, &e), 0); /* left behind by a crash, in plain text */
    assert_int_equal(gw_state_reseal(&s, a, NULL, &k1, &e), 0);
    assert_false(there(&s, "swarm-node.key.next"));
    assert_int_equal(gw_state_load_credentials(&s, NULL, &c, &sealed, &e), -ERR_DENIED);
    assert_int_equal(gw_state_load_credentials(&s, &k2, &c, &sealed, &e), 0); /* by the store's key */
    assert_true(sealed);
    gw_credentials_done(&c);
    assert_int_equal(gw_state_load_credentials(&s, &old, &c, &sealed, &e), 0);
    gw_credentials_done(&c);
    assert_int_equal(gw_state_save_key(&s, b, &k1, &e), 0);  /* a renewal begins, */
    assert_int_equal(gw_state_reseal(&s, a, b, &k2, &e), 0); /* the unlock key is rotated, */
    assert_int_equal(gw_state_load_credentials(&s, &old, &c, &sealed, &e), -ERR_DENIED);
    assert_int_equal(gw_state_save_credentials(&s, buf_str(&two), buf_str(&ca.pem), &e), 0); /* and it ends */
    assert_int_equal(gw_state_load_credentials(&s, &old, &c, &sealed, &e), -ERR_DENIED);
    assert_int_equal(gw_state_load_credentials(&s, &store, &c, &sealed, &e), 0);
    gw_credentials_done(&c);
    /* power goes after the certificate was stored and before its sealed key took its place */
    assert_int_equal(gw_state_save_key(&s, a, &k2, &e), 0);
    assert_int_equal(gw_state_reseal(&s, b, a, &none, &e), 0);
    assert_int_equal(gw_state_save_key(&s, a, &k2, &e), 0);
    snprintf(path, sizeof path, "%s/swarm-node.crt", s.cert_dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(one.p, 1, one.n, f), one.n);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(gw_state_load_credentials(&s, NULL, &c, &sealed, &e), -ERR_DENIED);
    assert_int_equal(gw_state_load_credentials(&s, &k2, &c, &sealed, &e), 0);
    assert_true(sealed);
    gw_credentials_done(&c);
    assert_int_equal(gw_state_reseal(&s, a, NULL, &none, &e), 0);
    assert_int_equal(gw_state_load_credentials(&s, NULL, &c, &sealed, &e), 0);
    assert_false(sealed);
    gw_credentials_done(&c);
    EVP_PKEY_free(a);
    EVP_PKEY_free(b);
    buf_done(&one);
    buf_done(&two);
    test_ca_done(&ca);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

static void test_tokens(void **state)
{
    static const char ok[] = "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx";
    static const char *const bad[] = {
        "",
        "abc",
        "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdb",
        "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbxx",
        "SWMTKN-2-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx",
        "SWMTKN-1-3PU6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx",
        "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl+1awxwuwd3z9j1z3puu7rcgdbx",
        "SWMTKN-1-zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-1awxwuwd3z9j1z3puu7rcgdbx",
    };
    uint8_t d[GW_DIGEST_BYTES];
    char hex[65];
    (void)state;
    assert_true(gw_token_digest(STR(ok), d));
    for (size_t i = 0; i < sizeof d; i++)
        snprintf(hex + 2 * i, 3, "%02x", d[i]);
    /* as the engine prints it for this token (docker-api-transcripts/213) */
    assert_string_equal(hex, "9529c6f3c5558ac3ec02b338a52d3c5434e0835a8af6f1e124649e87afaa2fb5");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (gw_token_digest(str_from(bad[i]), d))
            fail_msg("%s", bad[i]);
    }
}

/* ---- addresses ---- */

static struct sockaddr_in v4(uint32_t host)
{
    return (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(host) };
}

static void test_addresses(void **state)
{
    struct sockaddr_in lo = v4(0x7f000001), a = v4(0x0a000005), b = v4(0xc0a80107), c = v4(0x0a000006);
    struct ifaddrs two_on[] = {
        { .ifa_name = (char[]){ "lo" }, .ifa_flags = IFF_UP | IFF_LOOPBACK, .ifa_addr = (struct sockaddr *)&lo },
        { .ifa_name = (char[]){ "eth0" }, .ifa_flags = IFF_UP, .ifa_addr = (struct sockaddr *)&a },
        { .ifa_name = (char[]){ "msbr0" }, .ifa_flags = IFF_UP, .ifa_addr = (struct sockaddr *)&b },
        { .ifa_name = (char[]){ "eth1" }, .ifa_flags = IFF_UP, .ifa_addr = (struct sockaddr *)&b },
        { .ifa_name = (char[]){ "eth1" }, .ifa_flags = IFF_UP, .ifa_addr = (struct sockaddr *)&c },
    };
    for (size_t i = 0; i + 1 < 5; i++)
        two_on[i].ifa_next = &two_on[i + 1];
    static const struct {
        const char *listen, *advertise, *data;
        int upto; /* how many of the interfaces there are */
        bool wait;
        const char *l, *a, *error;
    } t[] = {
        { "", "", "", 3, false, "0.0.0.0:2377", "10.0.0.5:2377", NULL },
        { "0.0.0.0:2377", "", "", 3, false, "0.0.0.0:2377", "10.0.0.5:2377", NULL },
        { "0.0.0.0:4000", "", "", 3, false, "0.0.0.0:4000", "10.0.0.5:4000", NULL },
        { "eth0", "", "", 5, false, "10.0.0.5:2377", "10.0.0.5:2377", NULL },
        { "eth0:5000", "", "eth0", 5, false, "10.0.0.5:5000", "10.0.0.5:5000", NULL },
        { "10.0.0.5", "1.2.3.4", "", 5, false, "10.0.0.5:2377", "1.2.3.4:2377", NULL },
        { "0.0.0.0", "1.2.3.4:99", "5.6.7.8", 5, false, "0.0.0.0:2377", "1.2.3.4:99", NULL },
        { "[::]:2377", "eth0", "", 5, false, "[::]:2377", "10.0.0.5:2377", NULL },
        { "", "", "", 5, true, "0.0.0.0:2377", ":2377", NULL },
        { "", "", "", 5, false, NULL, NULL,
          "multiple addresses on different interfaces (10.0.0.5 on eth0 and 192.168.1.7 on eth1)" },
        { "", "", "", 1, false, NULL, NULL, "could not find the system's IP address" },
        { "eth1", "", "", 5, false, NULL, NULL, "interface eth1 has more than one IPv4 address" },
        { "eth9", "", "", 5, false, NULL, NULL, "listen address must be an IP address or network interface" },
        { "", "eth9", "", 5, false, NULL, NULL, "advertise address must be a non-zero IP address" },
        { "", "0.0.0.0", "", 5, false, NULL, NULL, "advertise address must be a non-zero IP address" },
        { "", "1.2.3.4:99999", "", 5, false, NULL, NULL, "advertise address must be a non-zero IP address" },
        { "", "eth0", "0.0.0.0", 5, false, NULL, NULL, "data path address must be a non-zero IP address" },
        { "", "eth0", "1.2.3.4:5", 5, false, NULL, NULL, "data path address must be a non-zero IP address" },
        { "1.2.3.4:x", "", "", 5, false, NULL, NULL, "invalid ListenAddr" },
        { ":2377", "", "", 5, false, NULL, NULL, "invalid ListenAddr" },
        { "[::1", "", "", 5, false, NULL, NULL, "missing ']'" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct gw_addrs r;
        struct err e = ERR_INIT;
        char l[ADDR_TEXT_MAX], adv[ADDR_TEXT_MAX];
        two_on[t[i].upto - 1].ifa_next = NULL;
        int got_r = gw_addrs_resolve(&r, str_from(t[i].listen), str_from(t[i].advertise), str_from(t[i].data), two_on,
                                     t[i].wait, &e);
        if (t[i].upto < 5)
            two_on[t[i].upto - 1].ifa_next = &two_on[t[i].upto];
        if (t[i].error) {
            if (got_r == 0 || !strstr(e.msg, t[i].error))
                fail_msg("case %zu: %d %s", i, got_r, e.msg);
            continue;
        }
        if (got_r != 0)
            fail_msg("case %zu: %s", i, e.msg);
        addr_text(&r.listen, l);
        addr_text(&r.advertise, adv);
        assert_string_equal(l, t[i].l);
        assert_string_equal(adv, t[i].a);
    }
    assert_true(addr_is_ours(two_on, "10.0.0.5") && !addr_is_ours(two_on, "10.0.0.9"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_survive_any_cut),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_bulk_is_mixed),
        cmocka_unit_test(test_raft_queue_drops_the_oldest),
        cmocka_unit_test(test_bad_frames),
        cmocka_unit_test(test_bad_sequences),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_authz_matrix),
        cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_csr_and_proof),
        cmocka_unit_test(test_key_finds_its_certificate),
        cmocka_unit_test(test_sealed_key),
        cmocka_unit_test(test_sealed_with_too_much_work),
        cmocka_unit_test(test_resealing),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The shell of cad: looks at the cluster object, and writes what it lacks. */
#include "cad/cad_shell.h"

#include <openssl/crypto.h>

#include "cad/ca_root.h"
#include "cad/ca_token.h"
#include "common/daemon/daemon.h"
#include "common/store/controller.h"
#include "common/util/id.h"

static struct controller *controller;
static bool dirty; /* the cluster object needs a look */
static uint64_t roots_made, tokens_made;

struct epochs {
    uint64_t worker, manager;
};

static struct epochs epochs_at(struct str doc, const char *path_worker, const char *path_manager)
{
    struct epochs x = { 0, 0 };

    (void)mp_get_u64(doc, path_worker, &x.worker);
    (void)mp_get_u64(doc, path_manager, &x.manager);
    return x;
}

static struct str text_at(struct str doc, const char *path)
{
    struct str s = { NULL, 0 };

    (void)mp_get_str(doc, path, &s);
    return s;
}

/* RootCA and JoinTokens of the cluster: a token that its epoch does not change stays. */
static void put_tokens(struct buf *b, struct str cluster, struct str cert, struct epochs want, struct epochs have)
{
    char digest[CA_DIGEST_DIGITS + 1], token[CA_TOKEN_SIZE];
    uint8_t secret[CA_SECRET_BYTES];
    const struct {
        const char *role, *path;
        bool renew;
    } role[] = { { "Worker", "JoinTokens.Worker", want.worker != have.worker },
                 { "Manager", "JoinTokens.Manager", want.manager != have.manager } };

    ca_digest(cert, digest);
    mp_cstr(b, "RootCA");
    mp_map(b, 3);
    mp_kv_str(b, "Cert", cert);
    mp_kv_cstr(b, "Digest", digest);
    mp_cstr(b, "TokenEpoch");
    mp_map(b, 2);
    mp_kv_u64(b, "Worker", want.worker);
    mp_kv_u64(b, "Manager", want.manager);
    mp_cstr(b, "JoinTokens");
    mp_map(b, 2);
    for (size_t i = 0; i < 2; i++) {
        struct str old = text_at(cluster, role[i].path);
        if (old.n > 0 && !role[i].renew) {
            mp_kv_str(b, role[i].role, old);
            continue;
        }
        random_bytes(secret, sizeof secret);
        ca_token(digest, secret, token);
        mp_kv_cstr(b, role[i].role, token);
        tokens_made++;
    }
    OPENSSL_cleanse(secret, sizeof secret);
}

static void put_tls_info(struct buf *b, const struct ca_root *root)
{
    mp_cstr(b, "TLSInfo");
    mp_map(b, 3);
    mp_kv_str(b, "TrustRoot", buf_str(&root->cert_pem));
    mp_cstr(b, "CertIssuerSubject");
    mp_bin(b, buf_str(&root->subject));
    mp_cstr(b, "CertIssuerPublicKey");
    mp_bin(b, buf_str(&root->public_key));
}

/* The first root: its key goes to the secret map in the same transaction, so there is never one without the other. */
static void make_root(struct controller_pass *p, struct str id, struct str doc, struct epochs want)
{
    struct ca_root root = { .key_pem = BUF_INIT };
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;

    if (ca_root_make(&root, p->now.ns / 1000000000, &e) < 0) {
        log_error("root certificate: %s", e.msg);
        goto out;
    }
    mp_map(&b, 2);
    mp_kv_cstr(&b, "ID", STORE_CA_KEY_ID);
    mp_cstr(&b, "Data");
    mp_bin(&b, buf_str(&root.key_pem));
    txn_purge(p->txn, KIND_CREDENTIAL, STR(STORE_CA_KEY_ID));
    txn_create(p->txn, KIND_CREDENTIAL, STR(STORE_CA_KEY_ID), txn_doc(p->txn, &b));
    OPENSSL_cleanse(b.p, b.n);
    buf_clear(&b);
    mp_map(&b, 3);
    put_tokens(&b, doc, buf_str(&root.cert_pem), want, (struct epochs){ 0, 0 });
    put_tls_info(&b, &root);
    txn_update(p->txn, KIND_CLUSTER, id, txn_doc(p->txn, &b));
    roots_made++;
    log_info("made the root certificate of cluster=" STR_FMT, STR_ARG(id));
out:
    buf_done(&b);
    ca_root_done(&root);
}

static void pass(void *arg, struct controller_pass *p)
{
    struct str doc, cert, id = p->meta->cluster_id;
    struct buf b = BUF_INIT;
    uint64_t rev = 0;

    (void)arg;
    if (!dirty || store_get(p->snap, KIND_CLUSTER, id, &doc) < 0)
        return;
    dirty = false;
    struct epochs want = epochs_at(doc, "TokenEpoch.Worker", "TokenEpoch.Manager");
    struct epochs have = epochs_at(doc, "RootCA.TokenEpoch.Worker", "RootCA.TokenEpoch.Manager");
    cert = text_at(doc, "RootCA.Cert");
    (void)mp_get_u64(doc, "Rev", &rev);
    if (cert.n > 0 && want.worker == have.worker && want.manager == have.manager)
        return;
    id = arena_str(&p->txn->arena, id);
    txn_require_rev(p->txn, KIND_CLUSTER, id, rev);
    if (cert.n == 0) {
        make_root(p, id, doc, want);
        return;
    }
    mp_map(&b, 2);
    put_tokens(&b, doc, cert, want, have);
    txn_update(p->txn, KIND_CLUSTER, id, txn_doc(p->txn, &b));
    buf_done(&b);
    log_info("made new join tokens worker_epoch=%llu manager_epoch=%llu", (unsigned long long)want.worker,
             (unsigned long long)want.manager);
}

static void reload(void *arg, struct store_snap *snap, const struct store_meta *meta)
{
    (void)arg, (void)snap, (void)meta;
    dirty = true;
}

static void change(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op)
{
    (void)arg, (void)snap, (void)id, (void)op;
    dirty |= kind == KIND_CLUSTER;
}

static void done(void *arg, const struct err *e)
{
    (void)arg;
    if (e->code != 0) {
        dirty = true;
        if (e->code != ERR_CONFLICT)
            log_warn("transaction: %s", e->msg);
    }
}

static const struct controller_ops ops = {
    .name = "cad", .reload = reload, .change = change, .pass = pass, .done = done
};

int cad_start(struct err *e)
{
    return controller_open(&controller, daemon_loop(), daemon_run_dir(), &ops, NULL, e);
}

void cad_stop(void)
{
    controller = controller_free(controller);
}

void cad_status(struct buf *out)
{
    controller_status(controller, out);
    buf_printf(out, ",\"roots_made\":%llu,\"tokens_made\":%llu", (unsigned long long)roots_made,
               (unsigned long long)tokens_made);
}

void cad_metrics(struct buf *out)
{
    controller_metrics(controller, out);
    buf_printf(out, "# TYPE microswarm_cad_tokens_made_total counter\nmicroswarm_cad_tokens_made_total %llu\n",
               (unsigned long long)tokens_made);
}

/* txn.c - growing lists of preconditions and changes, and the request made of them. */
#include "common/store/txn.h"

#include <stdlib.h>

#include "common/daemon/daemon.h"
#include "common/util/check.h"

void txn_init(struct txn *t)
{
    *t = (struct txn){ 0 };
    arena_init(&t->arena, TXN_BYTES_MAX);
}

void txn_reset(struct txn *t)
{
    arena_reset(&t->arena);
    t->nreq = 0;
    t->nchg = 0;
    t->term = 0;
    t->failed = false;
}

void txn_done(struct txn *t)
{
    arena_done(&t->arena);
    free(t->req);
    free(t->chg);
    *t = (struct txn){ 0 };
}

/* grow - room for one more element; false (and t->failed) without memory or over the documented limit. */
static bool grow(struct txn *t, void **v, size_t n, size_t *cap, size_t size)
{
    if (t->failed || n >= TXN_CHANGES_MAX) {
        t->failed = true;
        return false;
    }
    if (n < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 16;
    void *p = reallocarray(*v, more, size);
    if (p == NULL) {
        t->failed = true;
        return false;
    }
    *v = p;
    *cap = more;
    return true;
}

static void require(struct txn *t, const char *test, enum kind k, struct str id, uint64_t value)
{
    if (grow(t, (void **)&t->req, t->nreq, &t->creq, sizeof *t->req))
        t->req[t->nreq++] = (struct txn_require){
            .Kind = str_from(kind_info[k].name), .ID = id, .Test = str_from(test), .Value = value
        };
}

static void change(struct txn *t, const char *op, enum kind k, struct str id, struct str doc)
{
    if (grow(t, (void **)&t->chg, t->nchg, &t->cchg, sizeof *t->chg))
        t->chg[t->nchg++] =
            (struct txn_change){ .Op = str_from(op), .Kind = str_from(kind_info[k].name), .ID = id, .Doc = doc };
}

void txn_require_version(struct txn *t, enum kind k, struct str id, uint64_t version_index)
{
    require(t, "version", k, id, version_index);
}

void txn_require_rev(struct txn *t, enum kind k, struct str id, uint64_t rev)
{
    require(t, "rev", k, id, rev);
}

void txn_require_exists(struct txn *t, enum kind k, struct str id)
{
    require(t, "exists", k, id, 0);
}

void txn_require_unreferenced(struct txn *t, enum kind k, struct str id)
{
    require(t, "unreferenced", k, id, 0);
}

void txn_create(struct txn *t, enum kind k, struct str id, struct str doc)
{
    change(t, "create", k, id, doc);
}

void txn_update(struct txn *t, enum kind k, struct str id, struct str patch)
{
    change(t, "update", k, id, patch);
}

void txn_merge(struct txn *t, enum kind k, struct str id, struct str patch)
{
    change(t, "merge", k, id, patch);
}

void txn_delete(struct txn *t, enum kind k, struct str id)
{
    change(t, "delete", k, id, (struct str){ NULL, 0 });
}

void txn_purge(struct txn *t, enum kind k, struct str id)
{
    change(t, "purge", k, id, (struct str){ NULL, 0 });
}

struct str txn_doc(struct txn *t, const struct buf *b)
{
    struct str copy = arena_str(&t->arena, buf_str(b));
    if (b->failed || copy.p == NULL)
        t->failed = true;
    return copy;
}

/* A transaction that could not be built: its caller hears of it from the loop, as of any other failure. */
struct refused {
    rpc_done_fn *done;
    void *arg;
};

static int refused_report(sd_event_source *s, void *arg)
{
    struct refused *r = arg;
    struct err e = ERR_INIT;
    err_set(&e, ERR_NOMEM, "transaction is over %u changes or out of memory", TXN_CHANGES_MAX);
    (void)s; /* floating and one-shot: the loop releases it */
    r->done(r->arg, NULL, &e);
    free(r);
    return 0;
}

static void refuse(rpc_done_fn *done, void *arg)
{
    struct refused *r = malloc(sizeof *r);
    CHECK(r != NULL && sd_event_add_defer(daemon_loop(), NULL, refused_report, r) >= 0);
    *r = (struct refused){ done, arg };
}

void txn_send(struct txn *t, struct rpc_client *raftd, unsigned timeout_ms, rpc_done_fn *done, void *arg)
{
    if (t->failed) {
        refuse(done, arg);
        return;
    }
    struct raftd_txn req = { .Term = t->term, .Requires = { t->req, t->nreq }, .Changes = { t->chg, t->nchg } };
    rpc_send(raftd, &op_raftd_txn, &req, timeout_ms, done, arg);
}

/* txn.h - building a transaction. Texts and documents handed in are borrowed until txn_send() or txn_reset(). */
#pragma once

#include "common/daemon/rpc.h"
#include "common/proto/msg_raftd.h"
#include "common/store/layout.h"
#include "common/util/arena.h"

struct txn {
    struct arena arena; /* room for what callers build on the way: txn_doc() */
    struct txn_require *req;
    struct txn_change *chg;
    size_t nreq, creq, nchg, cchg;
    uint64_t term;
    bool failed; /* out of memory: txn_send() reports it */
};

void txn_init(struct txn *t);
void txn_reset(struct txn *t);
void txn_done(struct txn *t);

void txn_require_version(struct txn *t, enum kind k, struct str id, uint64_t version_index);
void txn_require_rev(struct txn *t, enum kind k, struct str id, uint64_t rev);
void txn_require_exists(struct txn *t, enum kind k, struct str id);
void txn_require_unreferenced(struct txn *t, enum kind k, struct str id);

void txn_create(struct txn *t, enum kind k, struct str id, struct str doc);
void txn_update(struct txn *t, enum kind k, struct str id, struct str patch); /* conflict when it is gone */
void txn_merge(struct txn *t, enum kind k, struct str id, struct str patch);  /* ignored when it is gone */
void txn_delete(struct txn *t, enum kind k, struct str id);
void txn_purge(struct txn *t, enum kind k, struct str id); /* ignored when it is gone */

/* txn_doc - copies an encoded map into the transaction's arena, so that a scratch buffer can be reused. */
struct str txn_doc(struct txn *t, const struct buf *b);

static inline bool txn_empty(const struct txn *t)
{
    return t->nchg == 0;
}

/* txn_send - rpc_send() of what was built; the txn may be reset right after. done gets struct raftd_txn_reply. */
void txn_send(struct txn *t, struct rpc_client *raftd, unsigned timeout_ms, rpc_done_fn *done, void *arg);

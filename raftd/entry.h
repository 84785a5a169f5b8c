/* entry.h - what a data entry of the Raft log says: one transaction, by whom, and at what time of the leader's clock.
 */
#pragma once

#include "common/proto/msg_raftd.h"

struct entry {
    int64_t At;    /* wall ns: the leader's; CreatedAt and UpdatedAt come from it, so that every node stamps the same */
    struct str By; /* the daemon that asked, for the log's reader */
    uint64_t Req;  /* of the manager that passed it on, to find it again; 0: none */
    uint64_t Term; /* fence: must be the entry's own term; 0: none */
    struct list Requires, Changes; /* struct txn_require, struct txn_change */
};

#define ENTRY_BYTES_MAX (TXN_BYTES_MAX + (1u << 20))

void entry_encode(const struct entry *en, struct buf *out);

/* entry_decode - text points into `data`. -ERR_INVALID names the field; -ERR_NOMEM when the arena is full. */
int entry_decode(struct entry *ret, struct str data, struct arena *a, struct err *e);

/* entry_req - its Req, without decoding the rest. */
uint64_t entry_req(struct str data);

/* entry_check - what a sound transaction is, before it gets into the log: known kinds, ops and tests, documents where
 * they belong, sizes. -ERR_INVALID names what is wrong. */
int entry_check(const struct entry *en, struct err *e);

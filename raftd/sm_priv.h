/* sm_priv.h - what sm.c and sm_snap.c share. */
#pragma once

#include "common/util/arena.h"
#include "raftd/map.h"
#include "raftd/sm.h"

#define SM_COMMITS 64u

struct touch;

struct sm {
    struct map state, secret;
    struct sm_conf conf;
    uint64_t applied, applied_term, revision;        /* of the open batch */
    uint64_t done_applied, done_term, done_revision; /* committed */
    bool secret_touched;                             /* the batch changes the secret map */
    uint64_t roomy_ms;                               /* when there was plenty of room */
    bool torn;
    struct arena arena; /* one entry: decoded, and what it replaced */
    struct touch *touched;
    size_t n_touched;
    struct buf keys_old, keys_new, patch, doc, events;
    sm_touch_fn *touch_fn;
    void *touch_arg;
    struct { /* when which commit of LMDB was, about ten a second at most */
        uint64_t txnid, at_ms;
    } commits[SM_COMMITS];
    size_t n_commits;
    unsigned snaps; /* held */
};

struct map *sm_map(struct sm *sm, enum kind k);
int sm_doc_write(struct sm *sm, enum kind k, struct str id, const struct str *old, const struct str *doc,
                 struct err *result, struct err *e);
int sm_restored(struct sm *sm, uint64_t index, uint64_t term, uint64_t revision, struct err *e);

/*
 * cad_pass.h - what cad does of its own (root, tokens, unlock key, rotation, roles) and on request (certificates), as
 * one controller. The shell or a test gives it calls, randomness and the way to others.
 *
 * A call is opaque here: it is handed in and gets its answer through struct cad_calls.
 */
#pragma once

#include "cad/cad_doc.h"
#include "common/daemon/rpc.h"
#include "common/proto/msg_cad.h"
#include "common/store/controller.h"
#include "common/util/id.h"

#define CAD_ID_SIZE 65

struct cad_calls {
    void (*issued)(void *call, const struct cad_issue_reply *rep);
    void (*failed)(void *call, const struct err *e);
    void (*random)(void *p, size_t n);
};

/* A request for a certificate; `req` lives until it is answered. */
struct cad_wait {
    struct cad_wait *next;
    void *call;
    const struct cad_issue *req;
    enum rpc_role asker;
    char peer[CAD_ID_SIZE], addr[64]; /* who asks, by its certificate; where it is seen */

    /* what was decided */
    char node[CAD_ID_SIZE];
    bool manager, fresh; /* fresh: the node comes into being with this */
    uint8_t key[CA_KEY_DIGEST], proven[CA_KEY_DIGEST];
    bool has_proven;
    struct buf chain, trust; /* the answer */
    char cluster[CAD_ID_SIZE];
    unsigned tries;
};

struct cad_limits {
    unsigned queue_max;  /* requests that wait */
    unsigned per_second; /* of nodes without a certificate; as many may come at once */
};

struct cad_keeper {
    const struct cad_calls *calls;
    struct cad_limits limits;
    struct controller *controller;
    bool leading, cluster_dirty;
    struct cad_wait *queue, **queue_end; /* for the next pass */
    struct cad_wait *flying;             /* in the transaction in flight */
    unsigned nqueue;
    struct table keys;   /* key digest -> char[CAD_ID_SIZE], the node that has it */
    double tokens;       /* of the rate limit: how many may come now */
    int64_t tokens_at;   /* wall ns */
    struct str *secrets; /* in the transaction's memory, to be wiped */
    size_t nsecrets;
    struct buf doc;
    struct err last_error;
    uint64_t roots_made, tokens_made, issued, refused, limited; /* for metrics */
};

void cad_keeper_init(struct cad_keeper *k, const struct cad_calls *calls);
void cad_keeper_done(struct cad_keeper *k);

/* cad_ask_issue - a node wants a certificate; answered when it is in the store, or refused. */
void cad_ask_issue(struct cad_keeper *k, void *call, const struct cad_issue *req, const struct rpc_origin *from,
                   int64_t now_ns);

/* What every manager can answer from its own copy of the store. ERR_UNAVAILABLE while it isn't there. The texts live as
 * long as the arena. */
int cad_get_root(struct store *s, struct arena *a, struct cad_root_reply *ret, struct err *e);
int cad_get_tokens(struct store *s, struct arena *a, struct cad_tokens_reply *ret, struct err *e);
int cad_get_unlock_key(struct store *s, struct arena *a, struct cad_unlock_key_reply *ret, struct err *e);

extern const struct controller_ops cad_ops; /* arg: struct cad_keeper */

/* ---- between the files ---- */

/* One pass over the cluster object. */
struct cad_work {
    struct cad_keeper *k;
    struct controller_pass *p;
    struct str id, doc;
    struct cad_root_doc root;
    bool root_dirty, tls_dirty, drop_tokens; /* what of it is to be written */
};

/* cad_secret - Data of a credential; empty when there is none. */
struct str cad_secret(struct store_snap *snap, const char *id);
/* cad_put_secret - replaces (or, without fields, removes) a credential. */
void cad_put_secret(struct cad_work *w, const char *id, const char *const *names, const struct str *values, size_t n,
                    bool binary);
void cad_upkeep(struct cad_work *w); /* cad_upkeep.c: root, tokens, unlock key */
void cad_renew_tokens(struct cad_work *w, bool worker, bool manager);
void cad_issue_some(struct cad_work *w); /* cad_issue.c */
void cad_issue_done(struct cad_keeper *k, const struct err *e);
void cad_issue_drop(struct cad_keeper *k, const struct err *e);
void cad_learn_node(struct cad_keeper *k, struct str id, struct str doc);
void cad_forget_node(struct cad_keeper *k, struct str id);

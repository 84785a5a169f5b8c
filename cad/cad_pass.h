/*
 * cad_pass.h - what cad does of its own (root, tokens, unlock key, rotation, roles) and on request (certificates), as
 * one controller. The shell or a test gives it calls, randomness and the way to others.
 *
 * A call is opaque here: it is handed in and gets its answer through struct cad_calls.
 */
#pragma once

#include "cad/cad_doc.h"
#include "cad/role_core.h"
#include "cad/rotate_core.h"
#include "common/daemon/rpc.h"
#include "common/proto/msg_cad.h"
#include "common/store/controller.h"
#include "common/util/id.h"

#define CAD_ID_SIZE 65
#define CAD_WHY_SIZE 240
#define CAD_URLS_MAX 8u

struct cad_outside;

struct cad_calls {
    void (*issued)(void *call, const struct cad_issue_reply *rep);
    void (*rotated)(void *call);
    void (*failed)(void *call, const struct err *e);
    void (*random)(void *p, size_t n);
    void (*remove_member)(struct str node_id);    /* answered with cad_member_removed(), always */
    void (*ask_outside)(struct cad_outside *job); /* answered with cad_outside_answer(), always, not from inside */
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
    char fresh_id[ID_SIZE];
    struct buf chain, trust; /* the answer */

    /* an external CA's part */
    struct cad_outside *outside; /* it is being asked */
    struct buf signed_cert;      /* what it sent */
    struct err outside_err;
    char cluster[CAD_ID_SIZE];
    unsigned tries;
};

/* A request for another root. */
struct cad_turn {
    void *call;
    const struct cad_rotate *req;
    struct buf cert, key, cross; /* the new root; key is secret and may be empty */
    struct buf old;              /* which root `cross` is by */
    struct cad_outside *outside; /* an external CA is being asked for `cross` */
    bool flying;
    unsigned tries;
};

/* A question to an external CA. */
struct cad_outside {
    struct cad_keeper *keeper;
    struct cad_wait *wait; /* for whom; both NULL: nobody wants the answer any more */
    struct cad_turn *turn;
    char *url[CAD_URLS_MAX]; /* to be tried in this order */
    size_t nurls, at;
    struct buf body, trust; /* JSON to post; PEM: whom to believe to be the external CA */
};

struct cad_limits {
    unsigned queue_max;      /* requests that wait */
    unsigned per_second;     /* of nodes without a certificate; as many may come at once */
    int64_t rotation_ns;     /* a move to another root ends after this time, whoever is behind */
    int64_t network_keys_ns; /* between two rotations of the keys of the data plane */
};

struct cad_keeper {
    const struct cad_calls *calls;
    struct cad_limits limits;
    struct controller *controller;
    bool leading, cluster_dirty;
    struct cad_wait *queue, **queue_end; /* for the next pass */
    struct cad_wait *flying;             /* in the transaction in flight */
    unsigned nqueue;
    struct cad_turn *turn; /* NULL: none */
    unsigned asking;       /* external CAs */
    struct table keys;     /* key digest -> char[CAD_ID_SIZE], the node that has it */
    double tokens;         /* of the rate limit: how many may come now */
    int64_t tokens_at;     /* wall ns */
    struct str *secrets;   /* in the transaction's memory, to be wiped */
    size_t nsecrets;
    struct buf doc;

    struct role_core role_core;
    struct marks roles;     /* nodes whose role is to be looked at */
    struct table role_errs; /* node ID -> char[CAD_WHY_SIZE]: why it is still in the Raft group */
    struct buf members;     /* of the group, as last seen */

    struct table behind; /* nodes that have not come over to the new root -> int64_t, see rotate_node() */
    struct marks moved;  /* nodes that changed meanwhile */
    bool nodes_unread;   /* all of them are to be looked at */

    uint64_t roots_made, tokens_made, issued, refused, limited, asked, removals, network_keys_made; /* for metrics */
};

void cad_keeper_init(struct cad_keeper *k, const struct cad_calls *calls);
void cad_keeper_done(struct cad_keeper *k);

/* cad_ask_issue - a node wants a certificate; answered when it is in the store, or refused. */
void cad_ask_issue(struct cad_keeper *k, void *call, const struct cad_issue *req, const struct rpc_origin *from,
                   int64_t now_ns);

/* cad_ask_rotate - another root is wanted; answered when the move has begun. */
void cad_ask_rotate(struct cad_keeper *k, void *call, const struct cad_rotate *req);

void cad_member_removed(struct cad_keeper *k, struct str id, const struct err *e, int64_t now_ns);

/* cad_outside_answer - what came of a question (e->code 0: the body of the answer); the job is taken. */
void cad_outside_answer(struct cad_outside *job, struct str body, const struct err *e);
void cad_outside_free(struct cad_outside *job); /* without an answer: the keeper is gone */

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
/* cad_put_credential - the same with what is in the keeper's `doc`, which is wiped. */
void cad_put_credential(struct cad_work *w, const char *id);

/* cad_upkeep.c */
void cad_upkeep(struct cad_work *w);
void cad_renew_tokens(struct cad_work *w, bool worker, bool manager);
/* cad_netkeys.c */
void cad_netkeys_some(struct cad_work *w);
/* cad_issue.c */
void cad_issue_some(struct cad_work *w);
void cad_issue_done(struct cad_keeper *k, const struct err *e);
void cad_issue_drop(struct cad_keeper *k, const struct err *e); /* e NULL: without an answer */
void cad_learn_node(struct cad_keeper *k, struct str id, struct str doc);
void cad_forget_node(struct cad_keeper *k, struct str id);
/* cad_rotate.c */
void cad_rotate_some(struct cad_work *w);
void cad_rotate_done(struct cad_keeper *k, const struct err *e);
void cad_rotate_drop(struct cad_keeper *k, const struct err *e);
/* cad_roles.c */
void cad_roles_note(struct cad_keeper *k, struct str id, struct str doc); /* doc empty: removed */
void cad_roles_members(struct cad_keeper *k, struct store_snap *snap);
void cad_roles_some(struct cad_work *w);
/* cad_outside.c */
bool cad_outside_for(struct cad_work *w, struct str root, const struct list *more); /* more: struct cad_external_ca */
/* cad_outside_root - of a swarm that is to begin: the certificate of the external CA that shall sign for it; empty:
 * none comes with its certificate. */
struct str cad_outside_root(struct cad_work *w);
bool cad_outside_sign(struct cad_work *w, struct cad_wait *wait, const struct ca_leaf *l); /* false: too many at once */
void cad_outside_cross(struct cad_work *w, struct cad_turn *t, struct err *e);
void cad_outside_forget(struct cad_outside *job); /* NULL is fine */

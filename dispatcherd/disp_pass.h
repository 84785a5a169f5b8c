/*
 * disp_pass.h - what agents say becomes transactions, what the store says becomes answers to agents.
 *
 * A call is opaque here: the shell (or the simulation) hands it in and gets it back with its answer.
 */
#pragma once

#include "common/proto/msg_dispatcherd.h"
#include "common/store/controller.h"
#include "dispatcherd/disp_core.h"
#include "dispatcherd/disp_network.h"
#include "dispatcherd/disp_usage.h"

/* A call that waits for a transaction; `req` lives until it is answered. */
struct disp_wait {
    struct disp_wait *next;
    void *call;
    bool hello; /* a session is to be opened, else task states were reported */
    const struct disp_session *session;
    const struct disp_status *status;
    char node[ID_SIZE];  /* who says so */
    char addr[64];       /* hello: where the node is seen at; "" not known */
    char id[ID_SIZE];    /* hello: the new session */
    uint64_t until_ms;   /* hello: while this manager does not lead, wait no longer than this */
    bool vanished;       /* the node is not part of the swarm */
    bool held;           /* it flaps: it gets its session, but is not ready yet */
    struct strs unknown; /* into `status`; given with the answer */
};

struct disp_calls { /* what to do with calls */
    void (*opened)(void *call, const struct disp_session_reply *rep);
    void (*stored)(void *call, const struct disp_status_reply *rep);
    void (*assigned)(void *call, const struct disp_assignments_reply *rep);
    void (*networks)(void *call, struct str body); /* struct disp_network_reply, encoded */
    void (*failed)(void *call, int code, const char *why);
    struct arena *(*arena)(void *call);
    uint64_t (*now_ms)(void); /* mono */
    void (*new_id)(char id[ID_SIZE]);
    void (*confirm)(void *keeper, uint64_t round); /* asks for a barrier; disp_confirmed() follows */
};

/* Why a node is declared down, or unknown; with the message that its status gets. */
enum disp_loss { DISP_LOSS_SILENT, DISP_LOSS_UNKNOWN, DISP_LOSS_NEVER_CAME };

struct disp_lost { /* a node that fell silent */
    enum disp_loss why;
    bool asked; /* before the barrier that is under way was asked for */
};

/* An answer about networks, encoded: most nodes are in the same position as others. */
#define DISP_SHARED 4u
struct disp_shared {
    struct buf sign, body;
    bool secret; /* it has keys: wiped after use */
};

struct disp_keeper {
    struct disp core;
    struct disp_net net;
    struct arena net_arena;
    struct disp_shared shared[DISP_SHARED];
    unsigned shared_at;
    bool net_turning; /* a change of this turn was noted */
    uint64_t net_asks, net_answers, net_shared, net_fulls, net_bytes;
    const struct disp_calls *calls;
    struct controller *controller;
    bool active;        /* this manager leads */
    char self[ID_SIZE]; /* its node; "": not known yet */
    struct disp_flap_conf flap;
    int64_t orphan_after_ns;              /* tasks of a node that stays down for so long are given up */
    struct disp_wait *queue, **queue_end; /* for the next pass */
    struct disp_wait *flying;             /* in the transaction in flight */
    struct table loss;                    /* node ID -> struct disp_lost: not stored yet */
    struct marks lost;                    /* those of them that the next pass declares down or unknown */
    bool confirming;                      /* a barrier is under way */
    uint64_t round, confirm_at_ms;        /* its number; when to ask again after a failure, 0 not */
    struct marks gone;                    /* nodes that were removed: their tasks will never be heard of again */
    struct table orphans;                 /* node ID -> int64_t, when the tasks of this lost node are given up */
    struct table holds;                   /* node ID -> int64_t, when this flapping node may be ready */
    struct table best;                    /* during a pass: task ID -> what its status will be */
    struct arena scratch;
    struct buf doc;
    struct usages usages;
    struct table scaling; /* service ID -> uint64_t, the print of its labels */
    uint64_t reports, ignored, nodes_lost, answers, assignments, orphaned, damped, payloads, refused; /* for metrics */
};

void disp_keeper_init(struct disp_keeper *k, const struct disp_calls *calls);
void disp_keeper_done(struct disp_keeper *k);

/*
 * disp_hello - wants a session for a node; answered when the store shows the node ready.
 *
 * @node  by its certificate; empty: the node this manager runs on. One that the swarm does not know is refused
 * @addr  where it is seen at; empty: as the request says
 *
 * A manager that does not lead (yet) keeps it waiting for a moment, since a leader is known to others before it acts.
 */
void disp_hello(struct disp_keeper *k, void *call, const struct disp_session *req, struct str node, struct str addr);
void disp_report(struct disp_keeper *k, void *call, const struct disp_status *req, struct str node);

/* disp_poll - answered at once when there is news, else when there is or at the end of req->WaitMs. */
void disp_poll(struct disp_keeper *k, void *call, const struct disp_assignments *req, struct str node);

/* disp_network - what a node's meshd must know; answered when there is news, a few nodes at a time. */
void disp_network(struct disp_keeper *k, void *call, const struct disp_network *req, struct str node);

/* disp_peer_of_call - the peer whose session this is, if it is the caller's own. */
#define DISP_NO_SESSION "no such session: open a new one"
struct disp_peer *disp_peer_of_call(struct disp_keeper *k, struct str session, struct str node, struct str *ret_owner);

/* disp_hint - gatewayd says that the link to a node came or went. */
void disp_hint(struct disp_keeper *k, struct str node, bool up);

/*
 * disp_confirmed - the barrier's answer. Without a majority a leader hears of nothing, and what it writes then may be
 * committed much later: it must not say who is down. A barrier is answered by a majority only.
 */
void disp_confirmed(struct disp_keeper *k, uint64_t round, bool ok);

/* disp_tick - nodes and calls whose time is up; returns disp_due(). */
uint64_t disp_tick(struct disp_keeper *k);

/* disp_due - when to call disp_tick() (mono ms, DISP_NEVER). */
uint64_t disp_due(const struct disp_keeper *k);

extern const struct controller_ops disp_ops; /* arg: struct disp_keeper */

/* disp_answer_hot - agents whose tasks changed outside of a turn. */
void disp_answer_hot(struct disp_keeper *k);

/* ---- disp_netpass.c ---- */

void disp_net_init(struct disp_keeper *k);
void disp_net_done(struct disp_keeper *k);
void disp_net_fail(struct disp_keeper *k, const char *why);
void disp_net_reload(struct disp_keeper *k, struct store_snap *snap, uint64_t revision); /* nodes, tasks follow */
void disp_net_change(struct disp_keeper *k, struct store_snap *snap, enum kind kind, struct str id, struct str doc);
void disp_net_seen(struct disp_keeper *k, struct store_snap *snap, uint64_t revision);
void disp_net_tick(struct disp_keeper *k);

/* ---- disp_node.c: what is stored about nodes ---- */

/* disp_take_hello - the node is ready (or held back), and this is what it is. */
void disp_take_hello(struct disp_keeper *k, struct controller_pass *p, struct disp_wait *w);
void disp_write_losses(struct disp_keeper *k, struct controller_pass *p);
/* disp_check_description - what a node says of itself is read by every controller: it must be of its form and of a
 * moderate size. -ERR_INVALID. */
int disp_check_description(struct str description, struct arena *a, struct err *e);

/* disp_write_ready - nodes whose damping is over. disp_write_orphans - tasks of which nobody will report any more. */
void disp_write_ready(struct disp_keeper *k, struct controller_pass *p);
void disp_write_orphans(struct disp_keeper *k, struct controller_pass *p);

/* disp_learn_node - what a node's document says about times to wait for. */
void disp_learn_node(struct disp_keeper *k, struct str id, struct str doc);

/* ---- disp_usages.c ---- */

/* disp_usage - what tasks use; those that are not this node's are passed over. -ERR_GONE: no such session. */
int disp_usage(struct disp_keeper *k, const struct disp_usage *q, struct str node, struct err *e);
void disp_write_usages(struct disp_keeper *k, struct controller_pass *p);
/* disp_note_use - a task has changed, or is gone (no document). */
void disp_note_use(struct disp_keeper *k, struct str id, struct str doc);
/* disp_note_scaling - a service's labels say what its nodes are to measure: when they change, the nodes hear of it. */
void disp_note_scaling(struct disp_keeper *k, struct store_snap *snap, struct str id, struct str doc);

/* ---- disp_payload.c ---- */

/* disp_payload - the reply is in the arena. -ERR_GONE: no such session; -ERR_DENIED: not for this node (any more). */
int disp_payload(struct disp_keeper *k, const struct disp_payload *q, struct str node, struct arena *a,
                 struct disp_payload_reply *ret, struct err *e);
int disp_secret_is(struct disp_keeper *k, const struct disp_secret_is *q, struct disp_secret_is_reply *ret,
                   struct err *e);

/* ---- disp_assign.c ---- */

/* disp_note_task - remembers that a node must hear about a task. */
void disp_note_task(struct disp_keeper *k, struct str id, struct str doc);

/* disp_fill - the answer to a poll, as planned; the peer then counts as told. */
void disp_fill(struct disp_keeper *k, struct store_snap *snap, struct disp_peer *p, struct str node, uint64_t revision,
               enum disp_answer plan, struct arena *a, struct disp_assignments_reply *rep);

/*
 * disp_pass.h - what agents say becomes transactions, what the store says becomes answers to agents.
 *
 * A call is opaque here: the shell (or the simulation) hands it in and gets it back with its answer.
 */
#pragma once

#include "common/proto/msg_dispatcherd.h"
#include "common/store/controller.h"
#include "dispatcherd/disp_core.h"

/* A call that waits for a transaction; `req` lives until it is answered. */
struct disp_wait {
    struct disp_wait *next;
    void *call;
    bool hello; /* a session is to be opened, else task states were reported */
    const struct disp_session *session;
    const struct disp_status *status;
    char node[ID_SIZE];  /* who says so */
    char id[ID_SIZE];    /* hello: the new session */
    bool vanished;       /* the node is not part of the swarm */
    struct strs unknown; /* into `status`; given with the answer */
};

struct disp_calls { /* what to do with calls */
    void (*opened)(void *call, const struct disp_session_reply *rep);
    void (*stored)(void *call, const struct disp_status_reply *rep);
    void (*assigned)(void *call, const struct disp_assignments_reply *rep);
    void (*failed)(void *call, int code, const char *why);
    struct arena *(*arena)(void *call);
    uint64_t (*now_ms)(void); /* mono */
    void (*new_id)(char id[ID_SIZE]);
};

struct disp_keeper {
    struct disp core;
    const struct disp_calls *calls;
    struct controller *controller;
    struct disp_wait *queue, **queue_end; /* for the next pass */
    struct disp_wait *flying;             /* in the transaction in flight */
    struct marks down;                    /* nodes to be declared down */
    struct table best;                    /* during a pass: task ID -> what its status will be */
    struct arena scratch;
    struct buf doc;
    uint64_t reports, ignored, nodes_lost, answers, assignments; /* for metrics */
};

void disp_keeper_init(struct disp_keeper *k, const struct disp_calls *calls);
void disp_keeper_done(struct disp_keeper *k);

/* disp_hello - wants a session for a node; `node` empty: the node this manager runs on. Answered when the store shows
 * the node ready; also waits while this manager does not lead. */
void disp_hello(struct disp_keeper *k, void *call, const struct disp_session *req, struct str node);
void disp_report(struct disp_keeper *k, void *call, const struct disp_status *req, struct str node);

/* disp_poll - answered at once when there is news, else when there is or at the end of req->WaitMs. */
void disp_poll(struct disp_keeper *k, void *call, const struct disp_assignments *req, struct str node);

/* disp_tick - nodes and polls whose time is up; returns when to come again (mono ms, DISP_NEVER). */
uint64_t disp_tick(struct disp_keeper *k);

extern const struct controller_ops disp_ops; /* arg: struct disp_keeper */

/* ---- disp_assign.c ---- */

/* disp_note_task - remembers that a node must hear about a task. */
void disp_note_task(struct disp_keeper *k, struct str id, struct str doc);

/* disp_fill - the answer to a poll, as planned; the peer then counts as told. */
void disp_fill(struct disp_keeper *k, struct store_snap *snap, struct disp_peer *p, struct str node, uint64_t revision,
               enum disp_answer plan, struct arena *a, struct disp_assignments_reply *rep);

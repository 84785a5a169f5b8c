/*
 * orch_pass.h - from the store to the core and back: which services need a decision, and the transaction that comes of
 * it. The only input besides the snapshot is a source of identifiers.
 */
#pragma once

#include "common/store/controller.h"
#include "common/util/id.h"
#include "orchestratord/orch_autoscale.h"
#include "orchestratord/orch_core.h"
#include "orchestratord/orch_nodes.h"

struct orch {
    struct marks services; /* to decide about */
    struct table watch;    /* service ID -> struct orch_watch */
    struct table globals;  /* the IDs of the global services and jobs */
    struct orch_nodes nodes;
    struct table waiting; /* IDs of services with tasks on held nodes: they are looked at when some may be moved */
    struct arena scratch; /* for looking at one document */
    struct buf doc;       /* for building one */
    int64_t history_limit;
    size_t read;                      /* tasks, since the last rest */
    int64_t rested_ns, rest_until_ns; /* see orch_pass.c */
    int64_t reloaded_ns;              /* wall: since when this daemon follows the store; 0: it is about to */
    bool urgent;                      /* a service changed: no rest now */
    void (*new_id)(void *arg, char id[ID_SIZE]);
    void *new_id_arg;
    uint64_t created, deleted, restarted; /* tasks; for metrics */
    uint64_t runs, skipped;               /* of jobs with a schedule */
    uint64_t scaled;                      /* services, by themselves */
};

/* A service that wants to be looked at later, or at more than usual. */
struct orch_watch {
    int64_t due_ns;
    bool updating;
};

void orch_init(struct orch *o);
void orch_done(struct orch *o);
/* orch_pass_explain - why the tasks of a service, or one task and those of its slot, are as they are, as JSON. */
void orch_pass_explain(struct orch *o, struct store_snap *snap, int64_t now_ns, struct str what, struct buf *out);
extern const struct controller_ops orch_ops; /* arg: struct orch */

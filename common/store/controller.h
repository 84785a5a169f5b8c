/*
 * controller.h - the loop that orchestratord, allocatord, schedulerd, dispatcherd and cad share (docs/architecture.md).
 *
 * A turn: open a snapshot; not leader: stand by; else tell the ops what changed since the last turn (or `reload` after
 * a start, a new leadership or a gap), then let `pass` decide, and send what it put into the transaction. One
 * transaction is in flight at a time; changes keep coming in meanwhile, and are decided on together after the reply.
 *
 * Level-triggered: a pass must find its work from what is marked in memory, and everything that is marked must be
 * found again by `reload`. What a pass took off its marks and put into a transaction that then failed comes back
 * through `done`. A failed transaction may have been applied (its reply was lost), so a pass trusts only the snapshot.
 * What the same daemon sent before it was killed fails once its successor has begun (see take_turn()).
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/store/store.h"
#include "common/store/txn.h"
#include "common/util/clock.h"
#include "common/util/table.h"

#define CONTROLLER_NEVER INT64_MAX

struct controller_pass {
    struct store_snap *snap;
    const struct store_meta *meta;
    struct wall_ns now;
    struct txn *txn;     /* what to write; left empty: nothing */
    struct arena *arena; /* for this pass only */
    int64_t next_ns;     /* out: look again at this wall time even if nothing changes; CONTROLLER_NEVER: don't */
    bool more;           /* out: work was left for the next transaction (see CONTROLLER_CHANGES_SOFT) */
};

/* A pass that has put this many changes into its transaction leaves the rest for the next: bounds one log entry, the
 * pages that raftd has to copy for it, and how long its loop is busy with it (about 50 ms). */
#define CONTROLLER_CHANGES_SOFT 4000u

struct controller_ops {
    const char *name; /* the daemon's */
    bool secrets;     /* open the secret map as well */
    /* Forget everything, read everything. */
    void (*reload)(void *arg, struct store_snap *snap, const struct store_meta *meta);
    /* One key was touched after the last turn; repeats are possible, and the snapshot may already be newer. */
    void (*change)(void *arg, struct store_snap *snap, enum kind kind, struct str id, char op);
    /* Every change of this turn was told, also while a transaction is in flight: the place to answer long polls. */
    void (*seen)(void *arg, struct store_snap *snap, const struct store_meta *meta); /* may be NULL */
    void (*pass)(void *arg, struct controller_pass *p);
    /* What became of a pass: e->code 0 when its transaction was applied, or it had nothing to write. Else whatever it
     * was to do must be marked again. */
    void (*done)(void *arg, const struct err *e);
    void (*standby)(void *arg); /* not leader any more (or not in a swarm); may be NULL */
};

/* What the loop needs of the outside; the simulation has its own. */
struct controller_io {
    void *arg;
    struct wall_ns (*now)(void *arg);
    void (*send)(void *arg, struct txn *txn, rpc_done_fn *done, void *done_arg);
    void (*arm)(void *arg, int64_t at_ns); /* call controller_due() then; CONTROLLER_NEVER disarms */
    void (*kick)(void *arg);               /* call controller_turn() soon, from the loop */
};

struct controller;

/* controller_open - with the run folder's store, wake-ups and raftd; the first turn follows from the loop. */
int controller_open(struct controller **ret, sd_event *loop, const char *run_dir, const struct controller_ops *ops,
                    void *arg, struct err *e);

/* controller_new - the same over a given store and io; the caller calls controller_turn() on wake-ups. */
struct controller *controller_new(struct store *store, const struct controller_io *io, const struct controller_ops *ops,
                                  void *arg);
struct controller *controller_free(struct controller *c);

/* controller_kick - something besides the store wants a pass (a message came in). Cheap; repeats are merged. */
void controller_kick(struct controller *c);

void controller_turn(struct controller *c);
void controller_due(struct controller *c);

struct store *controller_store(struct controller *c);

void controller_status(const struct controller *c, struct buf *out);  /* `,"key":value` pairs for the status probe */
void controller_metrics(const struct controller *c, struct buf *out); /* Prometheus lines */

/*
 * Marks: ids that need looking at, kept through a failed transaction. A pass pops them; marks_settle() in `done`
 * forgets what was popped, or marks it again.
 */
struct marks {
    struct table pending, taken;
    size_t from; /* no pending one is in a bucket before this */
};
void marks_init(struct marks *m);
void marks_done(struct marks *m);
void marks_clear(struct marks *m);
void marks_add(struct marks *m, struct str id);
bool marks_pop(struct marks *m, struct str *ret_id); /* id lives until marks_settle() */
void marks_settle(struct marks *m, bool ok);

/*
 * agent_dispatch.h - the conversation with the swarm: who this node is (from its gatewayd), and with the dispatcherd of
 * whatever manager leads one session, a long poll for assignments, status in batches.
 *
 * Everything goes through gatewayd, also on a manager. Everything is retried for ever, with a growing random pause. A
 * session outlives lost links: the same poll is asked again, whichever way, until the leader says that it does not know
 * the session. Tasks do not notice any of it; what they have to report waits.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/daemon/rpc.h"
#include "common/proto/msg_dispatcherd.h"

struct agent_dispatch;

struct dispatch_ops {
    /* What to run. Text lives during the call. */
    void (*assignments)(void *arg, const struct disp_assignments_reply *rep);
    /* A new session: every status is to be reported again. */
    void (*session)(void *arg, struct str node_id);
    /* The leader does not know this node (any more): nothing that runs here is wanted. */
    void (*removed)(void *arg);
    /* Fills in what is to be reported, from the arena, at most max; returns how many. */
    size_t (*collect)(void *arg, struct task_status *v, size_t max, struct arena *a);
    /* The outcome of the batch that was collected last. */
    void (*sent)(void *arg, bool ok, const struct strs *unknown);
};

struct dispatch_conf {
    const char *run_dir;
    const char *hostname;
    const char *boot_id;    /* borrowed for good */
    struct str description; /* raw map; borrowed for good; TLSInfo is added here */
    uint64_t backoff_max_ms;
};

int agent_dispatch_open(struct agent_dispatch **ret, sd_event *loop, const struct dispatch_conf *conf,
                        const struct dispatch_ops *ops, void *arg, struct err *e);
struct agent_dispatch *agent_dispatch_close(struct agent_dispatch *d);

void agent_dispatch_kick(struct agent_dispatch *d); /* there may be something to report */

/* agent_dispatch_usage - what tasks use; as it is now, so nothing is sent again. */
void agent_dispatch_usage(struct agent_dispatch *d, const struct task_usage *v, size_t n);

/* agent_dispatch_leave - ends the session and opens none for the same node again: this host leaves the swarm. */
void agent_dispatch_leave(struct agent_dispatch *d);
/* The way to the leader, and the session that opens it there ("" while there is none), for requests of others. */
struct rpc_client *agent_dispatch_gateway(const struct agent_dispatch *d);
struct str agent_dispatch_session(const struct agent_dispatch *d);
bool agent_dispatch_connected(const struct agent_dispatch *d);

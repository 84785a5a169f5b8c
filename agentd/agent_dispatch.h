/*
 * agent_dispatch.h - the conversation with dispatcherd: one session, a long poll for assignments, status in batches.
 *
 * Everything is retried for ever, with a growing random pause when dispatcherd answers with a refusal; while it is only
 * away (restart), the next request waits for its socket and goes through at once. Tasks do not notice either.
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
    /* Fills in what is to be reported, from the arena, at most max; returns how many. */
    size_t (*collect)(void *arg, struct task_status *v, size_t max, struct arena *a);
    /* The outcome of the batch that was collected last. */
    void (*sent)(void *arg, bool ok, const struct strs *unknown);
};

struct dispatch_conf {
    const char *run_dir, *daemon; /* socket to talk to */
    const char *hostname;
    struct str description; /* raw map; borrowed for good */
    uint64_t backoff_max_ms;
};

int agent_dispatch_open(struct agent_dispatch **ret, sd_event *loop, const struct dispatch_conf *conf,
                        const struct dispatch_ops *ops, void *arg, struct err *e);
struct agent_dispatch *agent_dispatch_close(struct agent_dispatch *d);

void agent_dispatch_kick(struct agent_dispatch *d); /* there may be something to report */

/* agent_dispatch_leave - ends the session and opens none for the same node again: this host has left the swarm. */
void agent_dispatch_leave(struct agent_dispatch *d);
bool agent_dispatch_connected(const struct agent_dispatch *d);

/* api_local.c - see api_local.h. One long poll at agentd, answered when something has happened. */
#include "apid/api_local.h"

#include "apid/api_resources.h"
#include "common/proto/msg_agentd.h"

#define WAIT_MS 30000u
#define GRACE_MS 5000u
#define AGAIN_MS 500u /* agentd restarts */

static struct {
    bool wanted, asking;
    uint64_t seq;
    int64_t since_ns; /* what happened before is nobody's business */
    struct timer *timer;
} self;

static void ask(void *arg);

static void answered(void *arg, const void *rep, const struct err *e)
{
    const struct agent_events_reply *r = rep;
    struct err ignored = ERR_INIT;

    (void)arg;
    self.asking = false;
    if (!self.wanted)
        return;
    if (e->code != 0) {
        if (self.timer || timer_open(&self.timer, ask, NULL, &ignored) == 0)
            timer_arm(self.timer, clock_mono().ms + AGAIN_MS);
        return;
    }
    self.seq = r->Seq;
    for (size_t i = 0; i < r->Events.n; i++) {
        const struct agent_event_item *x = &((const struct agent_event_item *)r->Events.v)[i];
        if (x->Time >= self.since_ns)
            events_container(x);
    }
    ask(NULL);
}

static void ask(void *arg)
{
    struct agent_events in = { .Seq = self.seq, .WaitMs = WAIT_MS };

    (void)arg;
    if (!self.wanted || self.asking)
        return;
    self.asking = true;
    rpc_send(api.agentd, &op_agent_events, &in, WAIT_MS + GRACE_MS, answered, NULL);
}

void local_watch(bool wanted)
{
    if (wanted == self.wanted)
        return;
    self.wanted = wanted;
    if (!wanted)
        return;
    self.since_ns = clock_wall().ns;
    ask(NULL);
}

void local_close(void)
{
    self.wanted = false;
    self.timer = timer_free(self.timer);
}

/* agent_events.c - see agent_events.h. */
#include "agentd/agent_events.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"

#define KEPT 64u
#define WAITING_MAX 32u

struct event { /* text on the heap */
    uint64_t seq;
    int64_t time_ns, exit_code;
    char action[48], task[80], container[65], *image, *name, *service, *service_name, *node;
};

struct waiting {
    struct waiting *next;
    struct rpc_call *call;
    uint64_t seq, until_ms;
};

static struct event *ring; /* made with the first event */
static uint64_t last_seq;
static struct waiting *waiting;
static unsigned nwaiting;
static struct timer *timer;

/* Numbers go on growing when agentd is another one. */
static void first_seq(void)
{
    if (last_seq == 0)
        last_seq = (uint64_t)(clock_wall().ns / 1000);
}

static void clear(struct event *e)
{
    free(e->image);
    free(e->name);
    free(e->service);
    free(e->service_name);
    free(e->node);
    *e = (struct event){ 0 };
}

static struct list since(uint64_t seq, struct arena *a)
{
    struct agent_event_item *v = arena_array(a, KEPT + 1, sizeof *v);
    size_t n = 0;
    for (uint64_t i = last_seq >= KEPT ? last_seq - KEPT + 1 : 1; v && ring && i <= last_seq; i++) {
        const struct event *e = &ring[i % KEPT];
        if (e->seq != i || i <= seq)
            continue;
        v[n++] = (struct agent_event_item){ .Time = e->time_ns,
                                            .Action = str_from(e->action),
                                            .TaskID = str_from(e->task),
                                            .ContainerID = str_from(e->container),
                                            .Image = str_from(e->image),
                                            .Name = str_from(e->name),
                                            .ServiceID = str_from(e->service),
                                            .ServiceName = str_from(e->service_name),
                                            .NodeID = str_from(e->node),
                                            .ExitCode = e->exit_code };
    }
    return (struct list){ v, n };
}

static void answer(struct rpc_call *c, uint64_t seq)
{
    struct agent_events_reply rep = { .Seq = last_seq, .Events = since(seq, rpc_arena(c)) };
    rpc_reply(c, &rep);
}

/* Those for whom there is something, or whose time is up. */
static void look(void *arg)
{
    uint64_t now = clock_mono().ms, next = UINT64_MAX;
    (void)arg;
    for (struct waiting **pp = &waiting, *w; (w = *pp);) {
        if (w->seq < last_seq || w->until_ms <= now) {
            *pp = w->next;
            nwaiting--;
            answer(w->call, w->seq);
            free(w);
            continue;
        }
        next = w->until_ms < next ? w->until_ms : next;
        pp = &w->next;
    }
    timer_arm(timer, next);
}

void agent_event(const struct atask *t, const char *action, const char *more)
{
    struct str image = t->spec.ContainerSpec ? t->spec.ContainerSpec->Image : STR("");
    char slot[24];
    struct buf name = BUF_INIT;
    first_seq();
    if (!ring)
        ring = calloc(KEPT, sizeof *ring);
    CHECK(ring != NULL);
    struct event *e = &ring[++last_seq % KEPT];
    clear(e);
    snprintf(slot, sizeof slot, "%llu", (unsigned long long)t->a.Slot);
    struct str place = t->a.Slot ? str_from(slot) : t->a.NodeID;
    buf_printf(&name, STR_FMT "." STR_FMT ".%s", STR_ARG(t->a.ServiceName), STR_ARG(place), t->id);
    e->seq = last_seq;
    e->time_ns = clock_wall().ns;
    e->exit_code = t->core.exit_code;
    snprintf(e->action, sizeof e->action, "%s%s", action, more);
    snprintf(e->task, sizeof e->task, "%s", t->id);
    snprintf(e->container, sizeof e->container, "%s", t->container_id);
    e->image = str_dup(image);
    e->name = str_dup(buf_str(&name));
    e->service = str_dup(t->a.ServiceID);
    e->service_name = str_dup(t->a.ServiceName);
    e->node = str_dup(t->a.NodeID);
    buf_done(&name);
    if (waiting)
        look(NULL);
}

void agent_events_op(struct rpc_call *c, const struct agent_events *req)
{
    struct err e = ERR_INIT;
    struct waiting *w;
    first_seq();
    if ((!timer && timer_open(&timer, look, NULL, &e) < 0) || req->Seq < last_seq || req->WaitMs == 0 ||
        nwaiting >= WAITING_MAX || !(w = calloc(1, sizeof *w))) {
        answer(c, req->Seq);
        return;
    }
    *w = (struct waiting){ waiting, c, req->Seq, clock_mono().ms + req->WaitMs };
    waiting = w;
    nwaiting++;
    look(NULL);
}

unsigned agent_events_waiting(void)
{
    return nwaiting;
}

void agent_events_close(void)
{
    timer = timer_free(timer);
    while (waiting) {
        struct waiting *w = waiting;
        waiting = w->next;
        free(w);
    }
    nwaiting = 0;
    for (size_t i = 0; ring && i < KEPT; i++)
        clear(&ring[i]);
    free(ring);
    ring = NULL;
}

/* agent_mesh.c - what agentd asks of meshd for a task: its network, traffic to it, and none any more. */
#include <inttypes.h>
#include <stdlib.h>

#include "agentd/agent_health.h"
#include "agentd/agent_run.h"

#define MESH_DRAIN_MS 300u
#define MESH_QUIET_MS 1000u /* more than what meshd was given to wait */
#define MESH_PAUSE_MIN_MS 20
#define MESH_PAUSE_MAX_MS 1000

struct mesh_call {
    struct mesh_call *next;
    struct atask *t;
    unsigned run_no;
    void (*then)(struct atask *t);
};
static struct mesh_call *mesh_calls; /* under way */

static struct mesh_call *mesh_call_new(struct atask *t)
{
    struct mesh_call *m = malloc(sizeof *m);
    if (!m)
        abort();
    *m = (struct mesh_call){ .next = mesh_calls, .t = t, .run_no = t->run_no };
    mesh_calls = m;
    t->calls++;
    return m;
}

/* mesh_call_end - the task, or NULL when the answer came too late to matter */
static struct atask *mesh_call_end(void *arg)
{
    struct mesh_call m = *(struct mesh_call *)arg, **pp = &mesh_calls;
    while (*pp != arg)
        pp = &(*pp)->next;
    *pp = m.next;
    free(arg);
    m.t->calls--;
    if (m.t->forget && m.t->calls == 0)
        task_dirty(m.t); /* it can be dropped now */
    return m.run_no == m.t->run_no ? m.t : NULL;
}

static bool passing(const struct err *e)
{
    return e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT;
}

static void mesh_again(struct atask *t, int what, const struct err *e)
{
    if (t->mesh_pause_ms == 0) {
        log_warn("task=%s: meshd: %s: trying again", t->id, e->msg);
        t->mesh_pause_ms = MESH_PAUSE_MIN_MS;
    }
    run_timer(t, what, t->mesh_pause_ms);
    t->mesh_pause_ms = t->mesh_pause_ms * 2 > MESH_PAUSE_MAX_MS ? MESH_PAUSE_MAX_MS : t->mesh_pause_ms * 2;
}

static int take_mesh(struct atask *t, const struct mesh_up_reply *r)
{
    const struct mesh_port *from = r->Ports.v;
    struct task_port *p = arena_array(&t->run, r->Ports.n + 1, sizeof *p);
    struct str *addr = arena_array(&t->run, r->Addresses.n + 1, sizeof *addr);
    size_t n = 0;
    if (!p || !addr)
        return -1;
    for (size_t i = 0; i < r->Ports.n; i++)
        if (str_is(from[i].PublishMode, "host")) {
            p[n] = (struct task_port){ .Protocol = arena_str(&t->run, from[i].Protocol),
                                       .PublishMode = STR("host"),
                                       .TargetPort = from[i].TargetPort,
                                       .PublishedPort = from[i].PublishedPort };
            n++;
        }
    for (size_t i = 0; i < r->Addresses.n; i++)
        addr[i] = arena_str(&t->run, r->Addresses.v[i]);
    t->ports = (struct list){ p, n };
    t->addresses = (struct strs){ addr, r->Addresses.n };
    t->netns = arena_str(&t->run, r->Netns);
    t->resolv_conf = arena_str(&t->run, r->ResolvConf);
    return 0;
}

static void on_mesh_up(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    struct err cancelled = { ERR_UNAVAILABLE, "cancelled" };
    if (!t)
        return;
    if (rep && take_mesh(t, rep) == 0) {
        t->mesh_pause_ms = 0;
        t->mesh_there = true;
        run_go_on(t);
    } else if (task_stop_wanted(t)) {
        run_start_failed(t, &cancelled, 0);
    } else if (!rep && (e->code == ERR_UNIMPLEMENTED || e->code == ERR_PRECONDITION)) {
        /* such as encryption that this kernel lacks */
        run_rejected(t, e);
    } else if (rep || !passing(e)) {
        struct err nomem = { ERR_NOMEM, "network: out of memory" };
        run_start_failed(t, rep ? &nomem : e, 0);
    } else {
        mesh_again(t, TIMER_MESH_UP, e);
    }
}

static struct str net_mode(const struct atask *t)
{
    const struct tspec_network *n = t->spec.Networks.v;
    for (size_t i = 0; i < t->spec.Networks.n; i++)
        if (str_is(n[i].Target, "host") || str_is(n[i].Target, "none"))
            return n[i].Target;
    return STR("bridge");
}

static const struct field port_config_fields[] = {
    FIELD_STR(struct mesh_port, Protocol, 0, 16),
    FIELD_STR(struct mesh_port, PublishMode, 0, 16),
    FIELD_U64(struct mesh_port, TargetPort, 0, 65535),
    FIELD_U64(struct mesh_port, PublishedPort, 0, 65535),
    FIELD_END,
};

struct list run_port_list(struct str raw, struct arena *a)
{
    struct mp_cursor c = mp_cursor(raw);
    struct mp_val v;
    struct list ret = { NULL, 0 };
    struct err e = ERR_INIT;
    if (raw.n == 0 || mp_next(&c, &v) < 0 || v.type != MP_ARRAY)
        return ret;
    struct mesh_port *p = arena_array(a, v.n + 1, sizeof *p);
    for (size_t i = 0; p && i < v.n; i++) {
        struct str span;
        struct mesh_port *o = &p[ret.n];
        if (mp_span(&c, &span) < 0 || fields_decode(o, port_config_fields, sizeof *o, span, FIELDS_VIEW, a, &e) < 0)
            break;
        if (o->Protocol.n == 0)
            o->Protocol = STR("tcp");
        if (o->PublishMode.n == 0)
            o->PublishMode = STR("ingress");
        ret.n++;
    }
    ret.v = p;
    return ret;
}

struct str run_hostname(const struct atask *t)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    if (c->Hostname.n)
        return c->Hostname;
    return str_is(net_mode(t), "host") ? str_from(t->ag->host.hostname) : (struct str){ t->container_id, 12 };
}

void run_mesh_up(struct atask *t)
{
    const struct tspec_container *c = t->spec.ContainerSpec;
    struct err cancelled = { ERR_UNAVAILABLE, "cancelled" };
    struct strpair *sysctls;
    struct expand_ctx ctx;
    if (task_stop_wanted(t) && t->mesh_pause_ms) {
        run_start_failed(t, &cancelled, 0);
        return;
    }
    run_expand_ctx(t, &t->run, &ctx);
    struct mesh_up req = { .TaskID = str_from(t->id),
                           .ServiceID = t->a.ServiceID,
                           .Mode = net_mode(t),
                           .Networks = t->a.Networks,
                           .ServiceName = t->a.ServiceName,
                           .TaskName = ctx.task_name,
                           .Hostname = run_hostname(t) };
    req.Ports = run_port_list(t->a.Ports, &t->run);
    if (c->DNSConfig) {
        req.Nameservers = c->DNSConfig->Nameservers;
        req.Search = c->DNSConfig->Search;
        req.Options = c->DNSConfig->Options;
    }
    sysctls = arena_array(&t->run, c->Sysctls.n + 1, sizeof *sysctls);
    for (size_t i = 0; sysctls && i < c->Sysctls.n; i++)
        if (str_starts(c->Sysctls.v[i].key, STR("net.")))
            sysctls[req.Sysctls.n++] = c->Sysctls.v[i];
    req.Sysctls.v = sysctls;
    t->mesh_asked = true;
    rpc_send(t->ag->mesh, &op_mesh_up, &req, MESH_TIMEOUT_MS, on_mesh_up, mesh_call_new(t));
}

/* ---- traffic ---- */

static void on_mesh_ready(void *arg, const void *rep, const struct err *e)
{
    void (*then)(struct atask *) = ((struct mesh_call *)arg)->then;
    struct atask *t = mesh_call_end(arg);
    if (!rep && t)
        log_warn("task=%s: meshd: ready: %s", t->id, e->msg);
    if (t && then)
        then(t);
}

void run_mesh_ready(struct atask *t, void (*then)(struct atask *t))
{
    struct mesh_ready req = { .TaskID = str_from(t->id), .Ready = true };
    struct mesh_call *call = mesh_call_new(t);
    call->then = then;
    t->taken_out = false;
    rpc_send(t->ag->mesh, &op_mesh_ready, &req, MESH_TIMEOUT_MS, on_mesh_ready, call);
}

static void on_out_then_stop(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    (void)rep;
    (void)e;
    if (t && t->ctr && t->core.phase == TP_STOPPING)
        run_signal_stop(t);
}

static void on_out(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    if (t && !rep)
        log_warn("task=%s: meshd: no new connections: %s", t->id, e->msg);
}

static void take_out(struct atask *t, rpc_done_fn *done)
{
    struct mesh_ready req = { .TaskID = str_from(t->id), .Ready = false };
    t->taken_out = true;
    rpc_send(t->ag->mesh, &op_mesh_ready, &req, MESH_DRAIN_MS, done, mesh_call_new(t));
}

void run_stop(struct atask *t)
{
    agent_health_end(t);
    run_timer(t, TIMER_NONE, 0);
    if (!t->taken_out)
        take_out(t, on_out_then_stop);
    else if (t->ctr)
        run_signal_stop(t);
}

void run_drain(struct atask *t)
{
    agent_health_end(t);
    if (!t->taken_out)
        take_out(t, on_out);
    run_timer(t, TIMER_DRAIN, agent_conf.drain_wait_ms);
}

static void on_quiet(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    const struct mesh_quiet_reply *r = rep;
    if (!t)
        return;
    if (!r)
        log_warn("task=%s: meshd: quiet: %s", t->id, e->msg);
    else if (!r->Quiet)
        log_info("task=%s: its drain period is over with %" PRIu64 " connections open", t->id, r->Connections);
    task_event(t, (struct task_event){ .type = TE_QUIET });
}

void run_quiet(struct atask *t)
{
    agent_health_end(t);
    struct mesh_quiet req = { .TaskID = str_from(t->id), .WaitMs = t->a.DrainMs };
    uint64_t timeout = t->a.DrainMs + MESH_QUIET_MS;
    run_timer(t, TIMER_NONE, 0);
    if (!t->taken_out)
        take_out(t, on_out);
    rpc_send(t->ag->mesh, &op_mesh_quiet, &req, (unsigned)timeout, on_quiet, mesh_call_new(t));
}

/* ---- the end of it ---- */

static void on_mesh_down(void *arg, const void *rep, const struct err *e)
{
    struct atask *t = mesh_call_end(arg);
    if (!t)
        return;
    if (!rep && passing(e)) {
        mesh_again(t, TIMER_MESH_DOWN, e);
        return;
    }
    if (!rep && e->code != ERR_NOT_FOUND)
        log_warn("task=%s: meshd: down: %s", t->id, e->msg);
    t->mesh_pause_ms = 0;
    run_clean_part_done(t);
}

void run_mesh_down(struct atask *t)
{
    struct mesh_task req = { .TaskID = str_from(t->id) };
    rpc_send(t->ag->mesh, &op_mesh_down, &req, MESH_TIMEOUT_MS, on_mesh_down, mesh_call_new(t));
}

void run_close(void)
{
    while (mesh_calls) { /* their client is gone, so no answer will come */
        struct mesh_call *m = mesh_calls;
        mesh_calls = m->next;
        free(m);
    }
}

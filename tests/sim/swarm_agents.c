/* swarm_agents.c - agents, their containers and the networks of their nodes. */
#include "tests/sim/swarm_world.h"

static void wake_agent(unsigned i, int64_t in)
{
    schedule(sim.now + in, EV_AGENT, i, sim.agents[i].gen, NULL);
}

static void wake_mesh(unsigned i, int64_t in)
{
    schedule(sim.now + in, EV_MESH, i, sim.agents[i].mesh_gen, NULL);
}

static struct call *new_call(unsigned i, int kind)
{
    struct call *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    arena_init(&c->arena, 256u << 20);
    c->agent = i;
    c->manager = sim.agents[i].manager;
    c->agent_gen = sim.agents[i].gen;
    c->mesh_gen = sim.agents[i].mesh_gen;
    c->kind = kind;
    c->next = sim.calls;
    sim.calls = c;
    return c;
}

static void free_call(struct call *c)
{
    struct call **p = &sim.calls;
    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    arena_done(&c->arena);
    free(c);
}

/* agent_of - NULL when the agent that asked is not there any more. */
static struct agent *agent_of(struct call *c)
{
    struct agent *a = &sim.agents[c->agent];
    if (!a->up || a->gen != c->agent_gen)
        return NULL;
    if (c->kind == HELLO)
        a->hello_out = false;
    else if (c->kind == POLL)
        a->poll_out = false;
    else
        a->status_out = false;
    wake_agent(c->agent, (int64_t)below(sim.faults ? 5 * MS : MS));
    return a;
}

/* disp_of - where the agent's calls go; NULL: to nobody. */
static struct disp_keeper *disp_of(unsigned i)
{
    struct manager *m = &sim.managers[sim.agents[i].manager];
    return sim.agents[i].cut || !m->up || !m->life[DISP].c ? NULL : &m->disp;
}

/* answered - the agent the answer gets to; NULL: lost on the way. */
static struct agent *answered(struct call *c)
{
    struct agent *a = &sim.agents[c->agent];
    bool lost = a->cut;
    a = agent_of(c);
    return lost ? NULL : a;
}

/* forget - the swarm does not want it any more. */
static void forget(unsigned i, struct str id);

static void forget_all(unsigned i)
{
    struct task_life *t;
    struct str id;
    for (struct table_pos pos = { 0 }; table_next(&sim.agents[i].tasks, &pos, &id, &t);)
        forget(i, id);
}

/* mesh_answered - the same for what its meshd asked. */
static struct agent *mesh_answered(struct call *c)
{
    struct agent *a = &sim.agents[c->agent];
    if (!a->up || a->mesh_gen != c->mesh_gen)
        return NULL;
    a->mesh_out = false;
    wake_mesh(c->agent, (int64_t)below(sim.faults ? 20 * MS : MS));
    return a->cut ? NULL : a;
}

static void call_failed(void *p, int code, const char *why)
{
    struct call *c = p;
    if (c->kind == NETWORK) {
        struct agent *asker = mesh_answered(c);
        if (asker)
            asker->manager = chance(80) ? sim.leader : (unsigned)below(MANAGERS);
        free_call(c);
        return;
    }
    struct agent *a = c->evil ? NULL : answered(c);
    (void)why;
    if (a && code == ERR_NOT_FOUND)
        forget_all(c->agent);
    if (a && code != ERR_UNAVAILABLE)
        a->session[0] = 0;
    if (a)
        a->manager = chance(80) ? sim.leader : (unsigned)below(MANAGERS);
    free_call(c);
}

void fail_calls(unsigned manager)
{
    for (bool found = true; found;) {
        found = false;
        for (struct call *c = sim.calls; c && !found; c = c->next)
            if (c->manager == manager) {
                call_failed(c, ERR_UNAVAILABLE, "dispatcherd is gone");
                found = true;
            }
    }
}

static void call_opened(void *p, const struct disp_session_reply *rep)
{
    struct agent *a = answered(p);
    if (a) {
        CHECK(str_copy(a->session, sizeof a->session, rep->SessionID));
        CHECK(str_is(rep->NodeID, a->node));
        a->heartbeat_ms = rep->HeartbeatMs;
        a->seq = 0;
    }
    free_call(p);
}

static void step_task(unsigned agent, struct str id, struct task_life *t, int64_t in)
{
    char *copy = str_dup(id);
    t->gen = ++sim.seq;
    schedule(sim.now + in, EV_TASK, agent, t->gen, copy);
}

static void assign(unsigned i, const struct assignment *as)
{
    bool fresh;
    struct task_life *t = table_put(&sim.agents[i].tasks, as->ID, &fresh);
    enum task_state desired = task_state_parse(as->DesiredState);
    CHECK(fresh || desired >= t->desired || t->removed);
    CHECK(as->Spec.n > 0); /* everything a node needs is there */
    if (desired >= TASK_SHUTDOWN && t->desired < TASK_SHUTDOWN)
        t->stop_at = sim.now + (sim.patient ? 3600 : 4) * SECOND;
    t->desired = desired;
    t->drains = as->DrainMs != 0;
    t->once |= desired == TASK_COMPLETE;
    struct str image;
    t->bad = mp_get_str(as->Spec, "ContainerSpec.Image", &image) && str_is(image, "bad");
    t->drained |= as->Drained;
    CHECK(!as->Drained || desired >= TASK_SHUTDOWN);
    t->removed = false;
    if (fresh)
        t->state = TASK_ASSIGNED;
    t->dirty = true; /* a report may have been lost with a session */
    step_task(i, as->ID, t, (int64_t)below(20 * MS));
}

static void forget(unsigned i, struct str id)
{
    struct task_life *t = table_get(&sim.agents[i].tasks, id);
    if (t && t->state > TASK_RUNNING) {
        table_del(&sim.agents[i].tasks, id);
    } else if (t) {
        t->removed = true;
        step_task(i, id, t, (int64_t)below(20 * MS));
    }
}

static bool given_up(struct manager *m, struct str task)
{
    struct buf doc = BUF_INIT;
    struct str state;
    struct err e;
    bool is = sm_get(m->sm, KIND_TASK, task, &doc, &e) == 0 && mp_get_str(buf_str(&doc), "Status.State", &state) &&
              str_is(state, "orphaned");
    buf_done(&doc);
    return is;
}

/*
 * check_drained - what may stop gets no new connections from any node that is alive, as far as this manager knows; all
 * the less from one that has its answer still on its way. When managers wait for ever for the nodes' word. One that has
 * just come back, or whose meshd has, may have been taken for one that sends nothing; as one is that joined as another
 * node and was not heard of since.
 */
static void check_drained(const struct call *c, const struct assignment *as)
{
    const struct disp_net *net = &sim.managers[c->manager].disp.net;
    const struct task_life *t = table_get(&sim.agents[c->agent].tasks, as->ID);
    if (!sim.patient || !as->Drained || as->DrainMs == 0 || !t || t->state > TASK_RUNNING ||
        given_up(&sim.managers[c->manager], as->ID))
        return;
    for (unsigned i = 0; i < NODES; i++) {
        const struct agent *a = &sim.agents[i];
        const struct dnet_node *n = table_get(&net->nodes, str_from(a->node));
        if (a->up && n && n->live && n->acked && sim.now - a->began > 2 * SECOND)
            CHECK(!model_sends(&a->mesh, as->ID));
    }
    sim.drained++;
}

static void call_assigned(void *p, const struct disp_assignments_reply *rep)
{
    struct call *c = p;
    CHECK(!c->evil);
    struct agent *a = answered(c);
    const struct assignment *as = rep->Tasks.v;
    struct task_life *t;
    struct str id;
    if (a && !(sim.faults && chance(3))) { /* else the answer is lost */
        a->seq = rep->Seq;
        for (struct table_pos pos = { 0 }; rep->Full && table_next(&a->tasks, &pos, &id, &t);) {
            bool there = false;
            for (size_t i = 0; i < rep->Tasks.n; i++)
                there |= str_eq(as[i].ID, id);
            if (!there)
                forget(c->agent, id);
        }
        for (size_t i = 0; i < rep->Tasks.n; i++)
            assign(c->agent, &as[i]);
        for (size_t i = 0; i < rep->Tasks.n; i++)
            check_drained(c, &as[i]);
        for (size_t i = 0; i < rep->Removed.n; i++)
            forget(c->agent, rep->Removed.v[i]);
    }
    free_call(c);
}

static void call_stored(void *p, const struct disp_status_reply *rep)
{
    struct call *c = p;
    const struct task_status *s = c->status.Statuses.v;
    if (c->evil) {
        CHECK(rep->Unknown.n == c->status.Statuses.n);
        free_call(c);
        return;
    }
    struct agent *a = answered(c);
    for (size_t i = 0; a && i < c->status.Statuses.n; i++) {
        struct task_life *t = table_get(&a->tasks, s[i].TaskID);
        if (t && t->state == task_state_parse(s[i].State))
            t->dirty = false;
    }
    free_call(c);
}

static struct arena *call_arena(void *p)
{
    return &((struct call *)p)->arena;
}

static uint64_t call_now(void)
{
    return (uint64_t)(sim.now / MS);
}

/* call_confirm - only the leader hears of a majority. */
static void call_confirm(void *keeper, uint64_t round)
{
    for (unsigned i = 0; i < MANAGERS; i++)
        if (&sim.managers[i].disp == keeper)
            schedule(sim.now + 500000 + (int64_t)below(sim.faults ? 50 * MS : MS), EV_CONFIRM, i,
                     sim.managers[i].life[DISP].gen, (void *)(uintptr_t)round);
}

static void call_networks(void *p, struct str body)
{
    struct call *c = p;
    struct agent *a = mesh_answered(c);
    if (a && !(sim.faults && chance(3))) { /* else the answer is lost */
        buf_clear(&a->answer);
        buf_put(&a->answer, body.p, body.n);
        sim.told++;
    }
    free_call(c);
}

const struct disp_calls sim_disp_calls = { call_opened, call_stored, call_assigned, call_networks, call_failed,
                                           call_arena,  call_now,    make_id,       call_confirm };

static struct str description(struct call *c, unsigned i)
{
    struct buf b = BUF_INIT;
    char host[16];
    snprintf(host, sizeof host, "node%u", i);
    mp_map(&b, 2);
    mp_kv_cstr(&b, "Hostname", host);
    mp_cstr(&b, "Resources");
    mp_map(&b, 2);
    mp_kv_i64(&b, "NanoCPUs", 4 * SECOND);
    mp_kv_i64(&b, "MemoryBytes", NODE_MEMORY);
    struct str s = arena_str(&c->arena, buf_str(&b));
    buf_done(&b);
    return s;
}

static void say_hello(unsigned i)
{
    struct call *c = new_call(i, HELLO);
    c->hello = (struct disp_session){ .Hostname = STR("node"), .Description = description(c, i) };
    sim.agents[i].hello_out = true;
    disp_hello(disp_of(i), c, &c->hello, str_from(sim.agents[i].node), STR("10.0.0.1"));
}

static void poll_assignments(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct call *c = new_call(i, POLL);
    c->poll = (struct disp_assignments){ .SessionID = arena_str(&c->arena, str_from(a->session)),
                                         .Seq = a->seq,
                                         .WaitMs = a->heartbeat_ms };
    a->poll_out = true;
    disp_poll(disp_of(i), c, &c->poll, str_from(a->node));
}

static void report(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct task_life *t;
    struct str id;
    size_t n = 0;
    for (struct table_pos pos = { 0 }; table_next(&a->tasks, &pos, NULL, &t);)
        n += t->dirty && t->state > TASK_ASSIGNED;
    if (n == 0)
        return;
    struct call *c = new_call(i, STATUS);
    struct task_status *s = arena_array(&c->arena, n, sizeof *s);
    CHECK(s != NULL);
    c->status = (struct disp_status){ .SessionID = arena_str(&c->arena, str_from(a->session)), .Statuses = { s, 0 } };
    for (struct table_pos pos = { 0 }; table_next(&a->tasks, &pos, &id, &t);)
        if (t->dirty && t->state > TASK_ASSIGNED)
            s[c->status.Statuses.n++] = (struct task_status){ .TaskID = arena_str(&c->arena, id),
                                                              .State = str_from(task_state_name(t->state)),
                                                              .Message = str_from(task_state_name(t->state)),
                                                              .Timestamp = sim.now };
    a->status_out = true;
    disp_report(disp_of(i), c, &c->status, str_from(a->node));
}

/* intrude - an agent that was taken over claims things about another node's tasks, or asks for them. */
static void intrude(unsigned i)
{
    struct agent *a = &sim.agents[i], *victim = &sim.agents[(i + 1 + below(NODES - 1)) % NODES];
    struct task_life *t;
    struct str id;
    struct call *c = new_call(i, below(2) ? POLL : STATUS);
    struct task_status *s = arena_array(&c->arena, victim->tasks.count + 1, sizeof *s);
    CHECK(s != NULL);
    c->evil = true;
    if (c->kind == POLL) {
        c->poll.SessionID = arena_str(&c->arena, str_from(victim->session));
        disp_poll(disp_of(i), c, &c->poll, str_from(a->node));
        return;
    }
    c->status =
        (struct disp_status){ .SessionID = arena_str(&c->arena, str_from(chance(50) ? a->session : victim->session)),
                              .Statuses = { s, 0 } };
    for (struct table_pos pos = { 0 }; table_next(&victim->tasks, &pos, &id, &t);)
        s[c->status.Statuses.n++] = (struct task_status){ .TaskID = arena_str(&c->arena, id), .State = STR("failed") };
    disp_report(disp_of(i), c, &c->status, str_from(a->node));
}

void agent_turn(unsigned i)
{
    struct agent *a = &sim.agents[i];
    if (!a->up)
        return;
    if (!disp_of(i)) {
        a->manager = sim.leader;
        wake_agent(i, 20 * MS);
        return;
    }
    if (sim.faults && a->session[0] && chance(2))
        intrude(i);
    if (!a->session[0] && !a->hello_out)
        say_hello(i);
    if (a->session[0] && !a->poll_out)
        poll_assignments(i);
    if (a->session[0] && !a->status_out)
        report(i);
}

/* mesh_turn - what was answered gets into the kernel; only then is it asked for more. */
void mesh_turn(unsigned i)
{
    struct agent *a = &sim.agents[i];
    if (a->answer.n) {
        struct disp_network_reply rep;
        struct arena mem;
        struct err e;
        arena_init(&mem, 256u << 20);
        CHECK(fields_decode(&rep, op_disp_network.rep, sizeof rep, buf_str(&a->answer), FIELDS_STRICT, &mem, &e) == 0);
        model_apply(&a->mesh, &rep);
        arena_done(&mem);
        buf_clear(&a->answer);
    }
    if (a->mesh_out)
        return;
    if (!disp_of(i)) {
        a->manager = sim.leader;
        wake_mesh(i, 20 * MS);
        return;
    }
    struct call *c = new_call(i, NETWORK);
    model_ask(&a->mesh, &c->arena, &c->network);
    c->network.WaitMs = below(5000);
    a->mesh_out = true;
    disp_network(disp_of(i), c, &c->network, str_from(a->node));
}

/* restart_mesh - it knows nothing, and what is in the kernel stays until it has heard. */
static void restart_mesh(unsigned i)
{
    struct agent *a = &sim.agents[i];
    a->mesh_gen++;
    a->began = sim.now;
    a->mesh_out = false;
    buf_clear(&a->answer);
    a->mesh.seq = 0;
    wake_mesh(i, (int64_t)below(100 * MS));
}

/* next_state - the container's part: one step towards what is wanted, sometimes a failure. */
static enum task_state next_state(const struct task_life *t)
{
    static const enum task_state steps[] = { TASK_ACCEPTED, TASK_PREPARING, TASK_READY, TASK_STARTING, TASK_RUNNING };
    enum task_state goal = t->desired < TASK_RUNNING ? TASK_READY : TASK_RUNNING;
    if (t->desired > TASK_COMPLETE || t->removed)
        return TASK_SHUTDOWN;
    if (sim.faults && !sim.calm && chance(4))
        return t->state < TASK_STARTING ? TASK_REJECTED : chance(30) ? TASK_COMPLETE : TASK_FAILED;
    if (t->state == TASK_RUNNING)
        return t->bad ? TASK_FAILED : t->once ? TASK_COMPLETE : TASK_RUNNING;
    for (unsigned s = 0; s < sizeof steps / sizeof steps[0]; s++)
        if (steps[s] > t->state && steps[s] <= goal)
            return steps[s];
    return t->state;
}

void task_turn(unsigned i, struct str id, uint64_t gen)
{
    struct agent *a = &sim.agents[i];
    struct task_life *t = a->up ? table_get(&a->tasks, id) : NULL;
    if (!t || t->gen != gen)
        return;
    enum task_state was = t->state;
    if (t->state > TASK_RUNNING) {
        if (t->removed)
            table_del(&a->tasks, id);
        wake_agent(i, 0);
        return;
    }
    bool stop = t->removed || t->desired >= TASK_SHUTDOWN;
    if (stop && t->drains && !t->drained && !t->removed && t->state == TASK_RUNNING && sim.now < t->stop_at) {
        step_task(i, id, t, t->stop_at - sim.now < 50 * MS ? t->stop_at - sim.now : 50 * MS);
        return;
    }
    t->state = next_state(t);
    if (t->state == was)
        return;
    t->dirty = true;
    wake_agent(i, 0);
    if (t->state == TASK_RUNNING && (t->bad || t->once))
        step_task(i, id, t, (int64_t)below(2 * SECOND));
    else if (t->state < TASK_RUNNING || t->removed)
        step_task(i, id, t, (int64_t)below(30 * MS));
}

/* hint - gatewayd of each manager notices a lost link after a while, or a new one. */
static void hint(unsigned i, bool up, int64_t in)
{
    for (unsigned m = 0; m < MANAGERS; m++)
        schedule(sim.now + in + (int64_t)below(50 * MS), EV_LINK, m, 0, (void *)(uintptr_t)(i * 2 + up));
}

void on_link(unsigned manager, unsigned i, bool up)
{
    struct manager *m = &sim.managers[manager];
    if (!m->life[DISP].c)
        return;
    disp_hint(&m->disp, str_from(sim.agents[i].node), up);
}

/* restart_agent - its containers go on. switch_off - they do not. */
void restart_agent(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct task_life *t;
    struct str id;
    if (chance(50))
        hint(i, false, 0);
    a->gen++;
    a->began = sim.now;
    a->session[0] = 0;
    a->hello_out = a->poll_out = a->status_out = false;
    a->up = true;
    a->manager = (unsigned)below(MANAGERS);
    for (struct table_pos pos = { 0 }; table_next(&a->tasks, &pos, &id, &t);) {
        t->dirty = true;
        step_task(i, id, t, (int64_t)below(50 * MS));
    }
    wake_agent(i, (int64_t)below(100 * MS));
    hint(i, true, 100 * MS);
    if (chance(50))
        restart_mesh(i);
    else
        wake_mesh(i, 0);
}

void switch_off(unsigned i)
{
    struct agent *a = &sim.agents[i];
    struct task_life *t;
    sim.offs++;
    a->up = false;
    a->gen++;
    a->mesh_gen++;
    a->mesh_out = false;
    model_clear(&a->mesh); /* the kernel's memory */
    buf_clear(&a->answer);
    for (struct table_pos pos = { 0 }; table_next(&a->tasks, &pos, NULL, &t);)
        if (t->state >= TASK_ACCEPTED && t->state <= TASK_RUNNING)
            t->state = t->state < TASK_STARTING ? TASK_REJECTED : TASK_FAILED;
    if (chance(70))
        hint(i, false, (int64_t)below(3) * SECOND);
    schedule(sim.now + 5 * SECOND + (int64_t)below(40) * SECOND, EV_BOOT, i, a->gen, NULL);
}

/* cut_off - it runs on, and nobody hears of it. */
void cut_off(unsigned i)
{
    struct agent *a = &sim.agents[i];
    sim.cuts++;
    a->cut = true;
    if (chance(70))
        hint(i, false, (int64_t)below(3) * SECOND);
    schedule(sim.now + (int64_t)below(chance(50) ? 2 : 30) * SECOND, EV_HEAL, i, 0, NULL);
}

void heal_agent(unsigned i)
{
    struct agent *a = &sim.agents[i];
    if (!a->cut)
        return;
    a->cut = false;
    a->began = sim.now;
    hint(i, true, 0);
    if (a->up)
        wake_agent(i, (int64_t)below(300 * MS));
}

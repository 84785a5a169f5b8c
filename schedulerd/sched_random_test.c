/*
 * sched_random_test.c - the core beside a scheduler that looks at everything: random swarms, random changes, and every
 * decision must be the one that the simple algorithm takes. Then the same with priorities and levelling, where only
 * what must always hold is looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "schedulerd/sched_priv.h"

#define NODES 24
#define TASKS 400
#define SPECS 40
#define SERVICES 8
#define LEVELS 2

struct mnode {
    bool present, ready;
    unsigned label[LEVELS], disk, gpus;
    int64_t cpu, memory;
};
struct mspec {
    bool used;
    int64_t cpu, memory;
    unsigned constraint, value, spreads, max, port, gpus;
};
struct mtask {
    bool used;
    unsigned service, spec, slot;
    int node;
    enum task_state state, desired;
};
struct mfailure {
    unsigned spec, serial;
    int64_t at;
};
struct model {
    struct sched s;
    struct arena a;
    uint64_t seed;
    int64_t now;
    struct mnode node[NODES];
    struct mspec spec[SPECS];
    struct mtask task[TASKS];
    unsigned current[SERVICES], nspecs, next_task;
    struct mfailure failure[4096];
    unsigned nfailures;
    bool priorities;
    size_t placed, refused, evicted;
};

static unsigned draw(struct model *m, unsigned n)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 7;
    m->seed ^= m->seed << 17;
    return (unsigned)(m->seed >> 20) % n;
}

/* ---- documents ---- */

static void put_node(struct model *m, unsigned i)
{
    const struct mnode *n = &m->node[i];
    struct buf b = BUF_INIT;
    struct err e;
    char text[32];
    mp_map(&b, 4);
    snprintf(text, sizeof text, "n%u", i);
    mp_kv_cstr(&b, "ID", text);
    mp_cstr(&b, "Spec");
    mp_map(&b, 1);
    mp_cstr(&b, "Labels");
    mp_map(&b, 3);
    snprintf(text, sizeof text, "z%u", n->label[0]);
    mp_kv_cstr(&b, "l0", text);
    snprintf(text, sizeof text, "r%u", n->label[1]);
    mp_kv_cstr(&b, "l1", text);
    mp_kv_cstr(&b, "disk", n->disk ? "ssd" : "hdd");
    mp_cstr(&b, "Status");
    mp_map(&b, 1);
    mp_kv_cstr(&b, "State", n->ready ? "ready" : "down");
    mp_cstr(&b, "Description");
    mp_map(&b, 1);
    mp_cstr(&b, "Resources");
    mp_map(&b, 3);
    mp_kv_i64(&b, "NanoCPUs", n->cpu);
    mp_kv_i64(&b, "MemoryBytes", n->memory);
    mp_cstr(&b, "GenericResources");
    mp_array(&b, n->gpus);
    for (unsigned k = 0; k < n->gpus; k++) {
        mp_map(&b, 1);
        mp_cstr(&b, "NamedResourceSpec");
        mp_map(&b, 2);
        mp_kv_cstr(&b, "Kind", "gpu");
        snprintf(text, sizeof text, "uuid%u", k);
        mp_kv_cstr(&b, "Value", text);
    }
    assert_int_equal(sched_put_node(&m->s, buf_str(&b), &e), 0);
    buf_done(&b);
}

static void put_constraint(struct buf *b, const struct mspec *p)
{
    static const char *const text[] = { NULL, "node.labels.disk==ssd", "node.labels.l0!=z%u", "node.id==n%u",
                                        "node.labels.l1==r%u" };
    char one[64];
    mp_cstr(b, "Constraints");
    mp_array(b, p->constraint != 0);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (p->constraint) {
        snprintf(one, sizeof one, text[p->constraint], p->value);
        mp_cstr(b, one);
    }
#pragma GCC diagnostic pop
}

static void put_spec(struct model *m, unsigned i)
{
    const struct mspec *p = &m->spec[i];
    struct buf b = BUF_INIT;
    struct err e;
    char text[32];
    mp_map(&b, 2);
    mp_cstr(&b, "Spec");
    mp_map(&b, 2);
    mp_cstr(&b, "Resources");
    mp_map(&b, 1);
    mp_cstr(&b, "Reservations");
    mp_map(&b, 3);
    mp_kv_i64(&b, "NanoCPUs", p->cpu);
    mp_kv_i64(&b, "MemoryBytes", p->memory);
    mp_cstr(&b, "GenericResources");
    mp_array(&b, p->gpus != 0);
    if (p->gpus) {
        mp_map(&b, 1);
        mp_cstr(&b, "DiscreteResourceSpec");
        mp_map(&b, 2);
        mp_kv_cstr(&b, "Kind", "gpu");
        mp_kv_i64(&b, "Value", p->gpus);
    }
    mp_cstr(&b, "Placement");
    mp_map(&b, 3);
    mp_kv_u64(&b, "MaxReplicas", p->max);
    put_constraint(&b, p);
    mp_cstr(&b, "Preferences");
    mp_array(&b, p->spreads);
    for (unsigned k = 0; k < p->spreads; k++) {
        mp_map(&b, 1);
        mp_cstr(&b, "Spread");
        mp_map(&b, 1);
        snprintf(text, sizeof text, "node.labels.l%u", k);
        mp_kv_cstr(&b, "SpreadDescriptor", text);
    }
    mp_cstr(&b, "EndpointSpec");
    mp_map(&b, 1);
    mp_cstr(&b, "Ports");
    mp_array(&b, p->port != 0);
    if (p->port) {
        mp_map(&b, 2);
        mp_kv_cstr(&b, "PublishMode", "host");
        mp_kv_u64(&b, "PublishedPort", p->port);
    }
    snprintf(text, sizeof text, "p%u", i);
    assert_int_equal(sched_put_spec(&m->s, str_from(text), buf_str(&b), NULL, NULL, &e), 0);
    buf_done(&b);
}

static void put_task(struct model *m, unsigned i)
{
    const struct mtask *t = &m->task[i];
    char id[16], node[16] = "", svc[16], spec[16];
    snprintf(id, sizeof id, "t%u", i);
    snprintf(svc, sizeof svc, "s%u", t->service);
    snprintf(spec, sizeof spec, "p%u", t->spec);
    if (t->node >= 0)
        snprintf(node, sizeof node, "n%d", t->node);
    if (!sched_has_spec(&m->s, str_from(spec)))
        put_spec(m, t->spec);
    struct view_task v = { .ID = str_from(id),
                           .ServiceID = str_from(svc),
                           .TaskSpecID = str_from(spec),
                           .NodeID = str_from(node),
                           .Slot = t->slot,
                           .DesiredState = str_from(task_state_name(t->desired)),
                           .Status = { .State = str_from(task_state_name(t->state)), .AppliedAt = m->now } };
    sched_put_task(&m->s, &v, m->now);
}

/* ---- the simple algorithm ---- */

static bool holds(const struct mtask *t)
{
    return t->used && t->node >= 0 && t->state >= TASK_ASSIGNED && t->state <= TASK_RUNNING;
}

struct facts {
    int64_t cpu, memory, gpus;
    unsigned active, of_service, port_uses;
};

static struct facts facts_of(const struct model *m, unsigned node, unsigned service, unsigned port)
{
    struct facts f = { m->node[node].cpu, m->node[node].memory, m->node[node].gpus, 0, 0, 0 };
    for (unsigned i = 0; i < TASKS; i++) {
        const struct mtask *t = &m->task[i];
        if (!holds(t) || t->node != (int)node)
            continue;
        bool active = t->desired <= TASK_COMPLETE;
        f.cpu -= m->spec[t->spec].cpu;
        f.memory -= m->spec[t->spec].memory;
        f.gpus -= m->spec[t->spec].gpus;
        f.port_uses += port && m->spec[t->spec].port == port;
        f.active += active;
        f.of_service += active && t->service == service;
    }
    return f;
}

static bool meets(const struct mspec *p, const struct mnode *n, unsigned id)
{
    switch (p->constraint) {
    case 1:
        return n->disk == 1;
    case 2:
        return n->label[0] != p->value;
    case 3:
        return id == p->value;
    case 4:
        return n->label[1] == p->value;
    default:
        return true;
    }
}

static bool can(const struct model *m, unsigned node, unsigned service, const struct mspec *p)
{
    const struct mnode *n = &m->node[node];
    struct facts f = facts_of(m, node, service, p->port);
    return n->present && n->ready && (p->cpu == 0 || f.cpu >= p->cpu) && (p->memory == 0 || f.memory >= p->memory) &&
           (p->gpus == 0 || f.gpus >= (int64_t)p->gpus) && meets(p, n, node) && f.port_uses == 0 &&
           (p->max == 0 || f.of_service < p->max);
}

static const struct sched_node *core_node(struct model *m, unsigned i)
{
    char id[16];
    snprintf(id, sizeof id, "n%u", i);
    return table_get(&m->s.nodes, str_from(id));
}

struct rank {
    unsigned failures, of_service, active, number;
};

static struct rank rank_of(struct model *m, unsigned node, unsigned service, unsigned spec)
{
    struct facts f = facts_of(m, node, service, 0);
    const struct sched_node *n = core_node(m, node);
    struct rank r = { 0, f.of_service, f.active, n->number };
    for (unsigned i = 0; i < m->nfailures; i++)
        r.failures += m->failure[i].spec == spec && m->failure[i].serial == n->serial &&
                      m->now - m->failure[i].at < SCHED_FAILURE_WINDOW_NS;
    r.failures = r.failures < SCHED_FAILURES_MANY ? 0 : r.failures < 30 ? r.failures : 30;
    return r;
}

static bool less(struct rank x, struct rank y)
{
    if (x.failures != y.failures)
        return x.failures < y.failures;
    if (x.of_service != y.of_service)
        return x.of_service < y.of_service;
    return x.active != y.active ? x.active < y.active : x.number < y.number;
}

/* choose - among the nodes in @in; -1 none. Branch by branch: fewest tasks of the service, then the best node. */
static int choose(struct model *m, const bool in[NODES], unsigned level, unsigned service, unsigned spec)
{
    const struct mspec *p = &m->spec[spec];
    int best = -1;
    if (level == p->spreads) {
        for (unsigned i = 0; i < NODES; i++)
            if (in[i] && can(m, i, service, p) &&
                (best < 0 || less(rank_of(m, i, service, spec), rank_of(m, (unsigned)best, service, spec))))
                best = (int)i;
        return best;
    }
    unsigned best_value = 0, best_tasks = 0;
    for (unsigned value = 0; value < 8; value++) {
        unsigned tasks = 0;
        int first = -1;
        for (unsigned i = 0; i < NODES; i++) {
            if (!in[i] || !m->node[i].present || m->node[i].label[level] != value)
                continue;
            tasks += facts_of(m, i, service, 0).of_service;
            if (can(m, i, service, p) &&
                (first < 0 || less(rank_of(m, i, service, spec), rank_of(m, (unsigned)first, service, spec))))
                first = (int)i;
        }
        if (first < 0)
            continue;
        if (best < 0 || tasks < best_tasks ||
            (tasks == best_tasks &&
             less(rank_of(m, (unsigned)first, service, spec), rank_of(m, (unsigned)best, service, spec)))) {
            best = first;
            best_value = value;
            best_tasks = tasks;
        }
    }
    if (best < 0)
        return -1;
    bool below[NODES];
    for (unsigned i = 0; i < NODES; i++)
        below[i] = in[i] && m->node[i].label[level] == best_value;
    return choose(m, below, level + 1, service, spec);
}

static int expected(struct model *m, const struct mtask *t)
{
    bool all[NODES];
    for (unsigned i = 0; i < NODES; i++)
        all[i] = m->node[i].present;
    return choose(m, all, 0, t->service, t->spec);
}

/* ---- what happens ---- */

static void change_node(struct model *m)
{
    unsigned i = draw(m, NODES);
    struct mnode *n = &m->node[i];
    char id[16];
    snprintf(id, sizeof id, "n%u", i);
    if (n->present && draw(m, 8) == 0) {
        n->present = false;
        sched_del_node(&m->s, str_from(id));
        return;
    }
    if (!n->present || draw(m, 3) == 0)
        *n = (struct mnode){ .label = { draw(m, 3), draw(m, 4) },
                             .disk = draw(m, 2),
                             .gpus = draw(m, 3) ? 0 : draw(m, 4),
                             .cpu = 1 + draw(m, 16),
                             .memory = 1 + draw(m, 16) };
    n->present = true;
    n->ready = draw(m, 5) != 0;
    put_node(m, i);
}

static unsigned new_spec(struct model *m)
{
    unsigned i = m->nspecs++ % SPECS;
    for (unsigned k = 0; k < TASKS; k++)
        if (m->task[k].used && m->task[k].spec == i)
            return m->nspecs < SPECS ? i : (i + 1) % SPECS; /* still used: whatever it is */
    for (unsigned k = 0; k < m->nfailures; k++)
        if (m->failure[k].spec == i)
            m->failure[k].spec = UINT32_MAX;
    uint64_t hash;
    char id[16];
    snprintf(id, sizeof id, "p%u", i);
    hash = sched_print(str_from(id));
    struct sched_failures *f = table_get(&m->s.failures, (struct str){ (char *)&hash, sizeof hash });
    if (f)
        f->n = 0; /* another spec by the same name */
    m->spec[i] = (struct mspec){ .used = true,
                                 .cpu = draw(m, 3) ? draw(m, 4) : 0,
                                 .memory = draw(m, 3) ? draw(m, 4) : 0,
                                 .spreads = draw(m, 3),
                                 .constraint = draw(m, 3) ? 0 : draw(m, 5),
                                 .max = draw(m, 6) ? 0 : 1 + draw(m, 3),
                                 .port = draw(m, 8) ? 0 : 80,
                                 .gpus = draw(m, 8) ? 0 : 1 + draw(m, 2) };
    m->spec[i].value = draw(m, m->spec[i].constraint == 3 ? NODES : 4);
    return i;
}

static void new_tasks(struct model *m)
{
    unsigned service = draw(m, SERVICES), n = 1 + draw(m, 20);
    if (draw(m, 6) == 0 || !m->spec[m->current[service]].used)
        m->current[service] = new_spec(m);
    if (!m->spec[m->current[service]].used)
        return;
    for (unsigned k = 0; k < n; k++) {
        unsigned i = m->next_task++ % TASKS;
        struct mtask *t = &m->task[i];
        if (t->used)
            continue;
        *t = (struct mtask){ true, service, m->current[service], k + 1, -1, TASK_PENDING, TASK_RUNNING };
        if (!m->priorities && draw(m, 12) == 0)
            t->node = (int)draw(m, NODES);
        if (t->node >= 0 && !m->node[t->node].present)
            t->node = -1;
        put_task(m, i);
    }
}

static void fail_task(struct model *m, struct mtask *t)
{
    const struct sched_node *n = t->node >= 0 ? core_node(m, (unsigned)t->node) : NULL;
    if (n && m->nfailures < 4096)
        m->failure[m->nfailures++] = (struct mfailure){ t->spec, n->serial, m->now };
}

static void change_task(struct model *m)
{
    unsigned i = draw(m, TASKS);
    struct mtask *t = &m->task[i];
    if (!t->used)
        return;
    bool waits = t->state == TASK_PENDING;
    switch (draw(m, 5)) {
    case 0:
        t->desired = TASK_SHUTDOWN;
        break;
    case 1:
        t->state = waits ? t->state : TASK_RUNNING;
        break;
    case 2:
        if (waits && t->node < 0)
            return;
        fail_task(m, t);
        t->state = TASK_FAILED;
        break;
    default:
        if (draw(m, 3))
            return;
        t->state = TASK_COMPLETE;
    }
    put_task(m, i);
    if (t->state > TASK_RUNNING)
        t->used = false;
}

static unsigned task_of(struct str id)
{
    return (unsigned)strtoul(id.p + 1, NULL, 10);
}

static void check_decision(struct model *m, const struct sched_decision *d)
{
    struct mtask *t = &m->task[task_of(d->task)];
    if (d->obsolete) {
        assert_true(t->desired > TASK_COMPLETE);
        return;
    }
    if (d->preassigned) {
        assert_true(can(m, (unsigned)t->node, t->service, &m->spec[t->spec]));
    } else if (d->reason && t->node >= 0) {
        assert_false(can(m, (unsigned)t->node, t->service, &m->spec[t->spec]));
    } else {
        int want = expected(m, t), have = d->reason ? -1 : (int)strtol(d->node.p + 1, NULL, 10);
        if (want != have)
            fail_msg("task " STR_FMT ": node %d, not %d", STR_ARG(d->task), have, want);
        t->node = have;
    }
    m->refused += d->reason != NULL;
    m->placed += !d->reason;
    if (!d->reason)
        t->state = TASK_ASSIGNED;
}

/* after_pass - what still waits fits nowhere; and a transaction may fail. */
static void after_pass(struct model *m, const struct sched_decisions *d, bool more)
{
    for (unsigned i = 0; i < TASKS && !more; i++) {
        const struct mtask *t = &m->task[i];
        if (t->used && t->state == TASK_PENDING && t->desired == TASK_RUNNING)
            assert_true(t->node >= 0 ? !can(m, (unsigned)t->node, t->service, &m->spec[t->spec]) : expected(m, t) < 0);
    }
    bool lost = draw(m, 10) == 0;
    for (size_t i = 0; i < d->n; i++) {
        unsigned id = task_of(d->v[i].task);
        struct mtask *t = &m->task[id];
        char text[16];
        snprintf(text, sizeof text, "t%u", id);
        if (lost && !d->v[i].obsolete) {
            if (t->state == TASK_ASSIGNED && !d->v[i].preassigned)
                t->node = -1;
            t->state = TASK_PENDING;
            put_task(m, id);
            sched_again(&m->s, str_from(text));
        } else if (d->v[i].obsolete) {
            t->state = TASK_SHUTDOWN;
            put_task(m, id);
            t->used = false;
        }
    }
}

static void run_pass(struct model *m)
{
    struct sched_decisions d;
    arena_reset(&m->a);
    bool more = sched_pass(&m->s, m->now, 1 + draw(m, 60), &m->a, &d);
    sched_check(&m->s);
    for (size_t i = 0; i < d.n; i++)
        check_decision(m, &d.v[i]);
    after_pass(m, &d, more);
    assert_int_equal(d.nevict, 0);
}

static void begin(struct model *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    sched_init(&m->s);
    arena_init(&m->a, 64u << 20);
    m->seed = seed * 0x9e3779b97f4a7c15ull + 1;
    m->now = 1000000000000ll;
    for (unsigned i = 0; i < NODES; i++)
        change_node(m);
    for (unsigned i = 0; i < SERVICES; i++)
        m->current[i] = new_spec(m);
}

static void end(struct model *m)
{
    sched_done(&m->s);
    arena_done(&m->a);
}

static void test_as_simple(void **state)
{
    struct model *m = malloc(sizeof *m);
    size_t placed = 0, refused = 0;
    (void)state;
    CHECK(m != NULL);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        begin(m, seed);
        print_message("seed %llu\n", (unsigned long long)seed);
        for (unsigned step = 0; step < 400; step++) {
            unsigned what = draw(m, 10);
            m->now += draw(m, 3) * 1000000000ll;
            if (what < 1)
                change_node(m);
            else if (what < 3)
                new_tasks(m);
            else if (what < 8)
                change_task(m);
            else
                run_pass(m);
            sched_check(&m->s);
        }
        placed += m->placed;
        refused += m->refused;
        end(m);
    }
    assert_true(placed > 5000 && refused > 500);
    free(m);
}

/* ---- priorities and levelling: what must always hold ---- */

static void overbooked(struct model *m)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct facts f = facts_of(m, i, 0, 0);
        if (m->node[i].present && m->node[i].ready) /* the test does not make a node smaller here */
            assert_true(f.cpu >= 0 && f.memory >= 0 && f.gpus >= 0);
    }
}

static void policies(struct model *m)
{
    for (unsigned i = 0; i < SERVICES; i++) {
        char id[16];
        struct sched_policy p = { .priority = (int)(i % 4) * 10 - 10 };
        if (i % 2)
            p.rebalance = (struct view_budget){ .tasks = i / 2 };
        snprintf(id, sizeof id, "s%u", i);
        sched_put_service(&m->s, str_from(id), &p);
    }
}

/* take_away - what orchestratord and a node do with an evicted task: a new one is wanted, the old one ends. */
static void take_away(struct model *m, struct str id)
{
    unsigned i = task_of(id);
    struct mtask old = m->task[i];
    assert_true(old.used && old.desired == TASK_RUNNING && old.state != TASK_PENDING);
    m->task[i].state = TASK_SHUTDOWN;
    put_task(m, i);
    m->task[i] = (struct mtask){ true, old.service, old.spec, old.slot, -1, TASK_PENDING, TASK_RUNNING };
    put_task(m, i);
    m->evicted++;
}

/* end_stopped - what is told to stop does; returns how many did. */
static unsigned end_stopped(struct model *m)
{
    unsigned n = 0;
    for (unsigned i = 0; i < TASKS; i++) {
        struct mtask *t = &m->task[i];
        if (!t->used || t->desired <= TASK_COMPLETE)
            continue;
        t->state = TASK_SHUTDOWN;
        put_task(m, i);
        t->used = false;
        n++;
    }
    return n;
}

/* settle - until nothing more is moved: it must come to an end. */
static void settle(struct model *m)
{
    for (unsigned round = 0;; round++) {
        struct sched_decisions d;
        size_t n;
        assert_true(round < 500);
        arena_reset(&m->a);
        bool more = sched_pass(&m->s, m->now, 1000, &m->a, &d);
        for (size_t i = 0; i < d.n; i++) {
            struct mtask *t = &m->task[task_of(d.v[i].task)];
            if (d.v[i].reason || d.v[i].obsolete)
                continue;
            t->node = (int)strtol(d.v[i].node.p + 1, NULL, 10);
            t->state = TASK_RUNNING;
            put_task(m, task_of(d.v[i].task));
        }
        struct sched_eviction *v = sched_rebalance(&m->s, m->now, 100, &m->a, &n);
        sched_check(&m->s);
        overbooked(m);
        char ids[200][16];
        unsigned nids = 0;
        for (size_t i = 0; i < d.nevict + n && nids < 200; i++)
            str_copy(ids[nids++], 16, i < d.nevict ? d.evict[i].task : v[i - d.nevict].task);
        for (unsigned i = 0; i < nids; i++)
            take_away(m, str_from(ids[i]));
        sched_check(&m->s);
        if (end_stopped(m) == 0 && !more && nids == 0 && d.n == 0)
            break;
    }
    assert_int_equal(m->s.nnominations, 0);
}

/* in_order - nobody waits where somebody less important, or nobody, has the room. */
static void in_order(struct model *m)
{
    for (unsigned i = 0; i < TASKS; i++) {
        const struct mtask *t = &m->task[i];
        if (!t->used || t->state != TASK_PENDING || t->desired != TASK_RUNNING)
            continue;
        assert_int_equal(expected(m, t), -1);
        for (unsigned k = 0; k < TASKS; k++) {
            struct mtask *x = &m->task[k];
            if (!holds(x) || x->service % 4 >= t->service % 4)
                continue;
            enum task_state was = x->state;
            x->state = TASK_SHUTDOWN; /* as if it alone went */
            bool fits = expected(m, t) >= 0;
            x->state = was;
            assert_false(fits);
        }
    }
}

static void test_priorities(void **state)
{
    struct model *m = malloc(sizeof *m);
    size_t evicted = 0;
    (void)state;
    CHECK(m != NULL);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        begin(m, seed);
        print_message("seed %llu\n", (unsigned long long)seed);
        m->priorities = true;
        policies(m);
        for (unsigned step = 0; step < 25; step++) {
            unsigned node = draw(m, NODES);
            new_tasks(m);
            for (unsigned i = 0; i < 20; i++)
                change_task(m);
            if (m->node[node].present) {
                m->node[node].ready = !m->node[node].ready;
                put_node(m, node);
            }
            settle(m);
            in_order(m);
        }
        evicted += m->evicted;
        end(m);
    }
    assert_true(evicted > 200);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_as_simple), cmocka_unit_test(test_priorities) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

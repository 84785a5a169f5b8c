#include "apid/api_members.h"

#include <stdio.h>

#include "common/proto/msg_raftd.h"
#include "common/util/check.h"

#define MEMBERS_TIMEOUT_MS 3000u

static void count(struct managers *m)
{
    m->voters = m->reachable = 0;
    for (size_t i = 0; i < m->n; i++) {
        m->voters += !m->v[i].learner;
        m->reachable += !m->v[i].learner && m->v[i].reachable;
    }
}

static void add(struct managers *m, struct str node, struct str addr, struct manager flags)
{
    struct manager *x = &m->v[m->n];

    if (m->n == STORE_MEMBERS_MAX)
        return;
    *x = flags;
    if (str_copy(x->node, sizeof x->node, node) && str_copy(x->addr, sizeof x->addr, addr))
        m->n++;
}

void managers_of_map(struct store_snap *snap, const struct store_meta *meta, struct managers *ret)
{
    struct store_member v[STORE_MEMBERS_MAX];
    size_t n = store_members(snap, v);

    ret->n = 0;
    for (size_t i = 0; i < n; i++) {
        bool leader = str_eq(v[i].node_id, meta->leader_id);
        add(ret, v[i].node_id, v[i].addr,
            (struct manager){ .leader = leader, .reachable = leader, .learner = v[i].learner });
    }
    count(ret);
}

const struct manager *managers_find(const struct managers *m, struct str node)
{
    for (size_t i = 0; i < m->n; i++)
        if (str_is(node, m->v[i].node))
            return &m->v[i];
    return NULL;
}

bool managers_can_lose(const struct managers *m, struct str node)
{
    const struct manager *x = managers_find(m, node);

    if (!x || x->learner)
        return true;
    size_t reachable = m->reachable - x->reachable, voters = m->voters - 1;
    return voters > 0 && reachable >= voters / 2 + 1;
}

static const char two_managers[] =
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
    "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
    "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
    "         Swarm for fault-tolerance.";

const char *managers_warning(size_t managers, char *buf, size_t cap)
{
    if (managers == 2)
        return two_managers;
    if (managers == 0 || managers % 2 == 1)
        return NULL;
    (void)snprintf(buf, cap,
                   "WARNING: Running Swarm with %zu managers. An even number tolerates no more failures\n"
                   "         than %zu managers do.",
                   managers, managers - 1);
    return buf;
}

/* ---- asking ---- */

struct asked {
    managers_told_fn *fn;
    void *arg;
};

static void from_map(struct managers *m)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct store_meta meta;
    struct err e = ERR_INIT;

    m->n = 0;
    if (store_begin(api.store, &snap, &e) == 0 && store_meta(snap, &meta, &e) == 0)
        managers_of_map(snap, &meta, m);
}

static void on_members(void *arg, const void *rep, const struct err *e)
{
    struct asked a = *(struct asked *)arg;
    const struct raftd_members_reply *l = rep;
    struct managers m = { .n = 0 };
    struct err why = *e;
    bool led = false;

    free(arg);
    for (size_t i = 0; l && i < l->Members.n; i++) {
        const struct raftd_member *x = &((const struct raftd_member *)l->Members.v)[i];
        add(&m, x->NodeID, x->Addr,
            (struct manager){ .leader = x->Leader, .reachable = x->Reachable || x->Leader, .learner = x->Learner });
    }
    count(&m);
    for (size_t i = 0; i < m.n; i++)
        led |= m.v[i].leader;
    if (l && m.n > 0 && !led) /* one manager's own view, while nobody leads */
        (void)err_set(&why, ERR_UNAVAILABLE, "no leader");
    if (!l || m.n == 0)
        from_map(&m);
    a.fn(a.arg, &m, &why);
}

void managers_tell(managers_told_fn *fn, void *arg)
{
    static const struct raftd_empty none;
    struct asked *a = malloc(sizeof *a);

    CHECK(a);
    *a = (struct asked){ fn, arg };
    rpc_send(api.raftd, &op_raftd_members, &none, MEMBERS_TIMEOUT_MS, on_members, a);
}

struct asking {
    struct req *r;
    managers_fn *fn;
};

static void tell_request(void *arg, const struct managers *m, const struct err *e)
{
    struct asking a = *(struct asking *)arg;

    free(arg);
    if (!a.r->gone)
        a.fn(a.r, m, e);
    req_unref(a.r);
}

void managers_ask(struct req *r, managers_fn *fn)
{
    struct asking *a = malloc(sizeof *a);

    CHECK(a);
    *a = (struct asking){ req_ref(r), fn };
    managers_tell(tell_request, a);
}

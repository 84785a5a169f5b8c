/* orch_nodes.c - see orch_nodes.h. */
#include "orchestratord/orch_nodes.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/print.h"

void orch_nodes_init(struct orch_nodes *m)
{
    *m = (struct orch_nodes){ .mass_percent = 33, .mass_rate = 50, .stale = true };
    table_init(&m->all, sizeof(struct orch_node));
}

static void forget_all(struct orch_nodes *m)
{
    struct orch_node *n;
    for (struct table_pos p = { 0 }; table_next(&m->all, &p, NULL, &n);)
        free(n->view);
    m->ndown = m->nheld = m->norder = 0;
    m->stale = true;
    m->all_known = false;
}

void orch_nodes_clear(struct orch_nodes *m)
{
    forget_all(m);
    table_clear(&m->all);
}

void orch_nodes_done(struct orch_nodes *m)
{
    forget_all(m);
    table_done(&m->all);
    free(m->order);
    m->order = NULL;
}

const struct orch_node *orch_node_get(const struct orch_nodes *m, struct str id)
{
    return table_get(&m->all, id);
}

/* ---- traits ---- */

static size_t map_bytes(const struct strmap *l)
{
    size_t n = l->n * sizeof *l->v;
    for (size_t i = 0; i < l->n; i++)
        n += l->v[i].key.n + l->v[i].val.n;
    return n;
}

static struct str copy_text(char **at, struct str s)
{
    struct str r = { *at, s.n };
    if (s.n)
        memcpy(*at, s.p, s.n);
    *at += s.n;
    return r;
}

static void copy_map(char **at, struct strmap *l)
{
    for (size_t i = 0; i < l->n; i++) {
        l->v[i].key = copy_text(at, l->v[i].key);
        l->v[i].val = copy_text(at, l->v[i].val);
    }
}

/* The texts of a node that constraints and platforms are compared with. */
#define TRAITS 6
static void texts_of(struct view_node *v, struct str *ret[TRAITS])
{
    struct str *texts[TRAITS] = { &v->Description.Hostname,
                                  &v->Spec.Role,
                                  &v->Role,
                                  &v->Description.Platform.OS,
                                  &v->Description.Platform.Architecture,
                                  &v->Status.Addr };
    memcpy(ret, texts, sizeof texts);
}

/* copy_traits - in one block, so that ten thousand nodes cost ten thousand small blocks. */
static struct view_node *copy_traits(const struct view_node *from, struct str id)
{
    struct view_node v = { .ID = id,
                           .Role = from->Role,
                           .Spec = { .Role = from->Spec.Role, .Labels = from->Spec.Labels },
                           .Description = { .Hostname = from->Description.Hostname,
                                            .Platform = from->Description.Platform,
                                            .Engine = { .Labels = from->Description.Engine.Labels } },
                           .Status = { .Addr = from->Status.Addr } };
    struct strmap *maps[] = { &v.Spec.Labels, &v.Description.Engine.Labels };
    struct str *texts[TRAITS];
    size_t size = sizeof v + map_bytes(maps[0]) + map_bytes(maps[1]);
    texts_of(&v, texts);
    for (size_t i = 0; i < TRAITS; i++)
        size += texts[i]->n;
    struct view_node *to = malloc(size);
    CHECK(to != NULL);
    char *at = (char *)(to + 1);
    for (size_t i = 0; i < 2; i++) {
        size_t n = maps[i]->n * sizeof *maps[i]->v;
        if (n)
            memcpy(at, maps[i]->v, n);
        maps[i]->v = (void *)at;
        at += n;
    }
    for (size_t i = 0; i < TRAITS; i++)
        *texts[i] = copy_text(&at, *texts[i]);
    copy_map(&at, maps[0]);
    copy_map(&at, maps[1]);
    *to = v;
    return to;
}

static uint64_t print_of(struct view_node v)
{
    const struct strmap *maps[] = { &v.Spec.Labels, &v.Description.Engine.Labels };
    struct str *texts[TRAITS];
    uint64_t h = PRINT_NONE;
    texts_of(&v, texts);
    for (size_t i = 0; i < TRAITS; i++)
        h = print_mix(h, *texts[i]);
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < maps[k]->n; i++)
            h = print_mix(print_mix(h + k, maps[k]->v[i].key), maps[k]->v[i].val);
    return h;
}

/* ---- nodes that go down ---- */

static bool together(const struct orch_node *n, int64_t at_ns)
{
    return n->down && n->down_ns > at_ns - ORCH_MASS_WINDOW_NS && n->down_ns < at_ns + ORCH_MASS_WINDOW_NS;
}

static void hold(struct orch_nodes *m, struct orch_node *n, bool held)
{
    if (n->held != held)
        m->nheld += held ? 1 : (size_t)-1;
    n->held = held;
}

/* goes_down - the first ones of many have been moved already, or are held with the others. One dead node never counts
 * as many: in a small swarm it is more than a third, and its tasks move at once. */
static void goes_down(struct orch_nodes *m, struct orch_node *fresh, int64_t at_ns)
{
    struct orch_node *n;
    size_t count = 0;
    bool mass = m->nheld * 100 > m->all.count * m->mass_percent && m->nheld >= 2;
    if (mass && together(fresh, m->mass_ns)) { /* ten thousand of them must not look at each other */
        hold(m, fresh, true);
        return;
    }
    for (struct table_pos p = { 0 }; table_next(&m->all, &p, NULL, &n);)
        count += together(n, at_ns);
    if (count < 2 || count * 100 <= m->all.count * m->mass_percent)
        return;
    m->mass_ns = at_ns;
    for (struct table_pos p = { 0 }; table_next(&m->all, &p, NULL, &n);)
        if (together(n, at_ns))
            hold(m, n, true);
}

void orch_nodes_review(struct orch_nodes *m)
{
    struct orch_node *n;
    int64_t last = INT64_MIN;
    for (struct table_pos p = { 0 }; table_next(&m->all, &p, NULL, &n);)
        if (n->down && !n->held && n->down_ns != last)
            goes_down(m, n, last = n->down_ns);
    m->all_known = true;
}

unsigned orch_node_learn(struct orch_nodes *m, struct str id, const struct view_node *v, int64_t down_ns)
{
    bool fresh;
    struct orch_node *n = table_put(&m->all, id, &fresh), was = *n;
    uint64_t traits = print_of(*v);
    n->down = str_is(v->Status.State, "down");
    n->drain = str_is(v->Spec.Availability, "drain");
    n->open =
        str_is(v->Status.State, "ready") && (v->Spec.Availability.n == 0 || str_is(v->Spec.Availability, "active"));
    if (fresh || traits != n->traits) {
        free(n->view);
        n->view = copy_traits(v, table_key(&m->all, n));
        n->traits = traits;
    }
    m->stale |= fresh;
    m->ndown += (size_t)n->down - (size_t)was.down;
    if (n->down && !was.down) {
        n->down_ns = down_ns;
        if (m->all_known)
            goes_down(m, n, down_ns);
    } else if (!n->down) {
        hold(m, n, false);
    }
    return (n->down != was.down || n->drain != was.drain ? ORCH_NODE_TASKS : 0) |
           (fresh || n->open != was.open || traits != was.traits ? ORCH_NODE_PLACES : 0);
}

unsigned orch_node_forget(struct orch_nodes *m, struct str id)
{
    struct orch_node *n = table_get(&m->all, id);
    if (!n)
        return ORCH_NODE_SAME;
    m->ndown -= n->down;
    hold(m, n, false);
    free(n->view);
    table_del(&m->all, id);
    m->stale = true;
    return ORCH_NODE_TASKS | ORCH_NODE_PLACES;
}

/* The bucket holds the moves of one second, so that a small swarm never waits. */
size_t orch_moves_left(struct orch_nodes *m, int64_t now_ns)
{
    double rate = (double)m->mass_rate;
    if (now_ns > m->tokens_ns || m->tokens_ns > now_ns + 1000000000) { /* also when the clock went back */
        double s = m->tokens_ns == 0 || now_ns < m->tokens_ns ? 1.0 : (double)(now_ns - m->tokens_ns) / 1e9;
        m->tokens = m->tokens + s * rate < rate ? m->tokens + s * rate : rate;
        m->tokens_ns = now_ns;
    }
    return (size_t)m->tokens;
}

bool orch_may_move(struct orch_nodes *m, int64_t now_ns)
{
    if (orch_moves_left(m, now_ns) == 0)
        return false;
    m->tokens -= 1;
    return true;
}

/* Not for each single one: a decision looks at all tasks of a service. */
int64_t orch_moves_wait_ns(const struct orch_nodes *m)
{
    return m->mass_rate >= 10 ? 100000000 : 1000000000 / (int64_t)m->mass_rate + 1;
}

/* ---- places ---- */

static struct str key_of(const struct orch_node *n)
{
    return n->view->ID;
}

static int by_id(const void *a, const void *b)
{
    return str_cmp(key_of(*(struct orch_node *const *)a), key_of(*(struct orch_node *const *)b));
}

static void make_order(struct orch_nodes *m)
{
    struct orch_node *n;
    if (!m->stale)
        return;
    free(m->order);
    m->order = malloc((m->all.count + 1) * sizeof(struct orch_node *));
    CHECK(m->order != NULL);
    m->norder = 0;
    for (struct table_pos p = { 0 }; table_next(&m->all, &p, NULL, &n);)
        m->order[m->norder++] = n;
    qsort(m->order, m->norder, sizeof(struct orch_node *), by_id);
    m->stale = false;
}

struct orch_place *orch_nodes_places(struct orch_nodes *m, const struct view_placement *p, struct arena *a,
                                     size_t *ret_n)
{
    struct constraint *c = arena_array(a, p->Constraints.n + 1, sizeof *c);
    struct orch_place *v = arena_array(a, m->all.count + 1, sizeof *v);
    size_t nc = 0, n = 0;
    CHECK(c != NULL && v != NULL);
    for (size_t i = 0; i < p->Constraints.n; i++)
        if (!constraint_parse(p->Constraints.v[i], &c[nc++])) {
            nc = 0; /* as Docker, and schedulerd: one that is malformed turns them off */
            break;
        }
    make_order(m);
    for (size_t i = 0; i < m->norder; i++) {
        const struct orch_node *node = m->order[i];
        bool fits = platform_match(&p->Platforms, node->view);
        for (size_t k = 0; k < nc && fits; k++)
            fits = constraint_match(&c[k], node->view);
        if (fits)
            v[n++] = (struct orch_place){ key_of(node), node->open };
    }
    *ret_n = n;
    return v;
}

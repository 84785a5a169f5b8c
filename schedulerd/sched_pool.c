/*
 * sched_pool.c - the order in which nodes come for the specs of a class, without looking at all of them.
 *
 * A pool holds the nodes that satisfy what never changes by placing tasks: constraints, platform, plugins. They are the
 * leaves of tournaments (Knuth 5.4.1: trees of winners): at the bottom of the preference tree one over the nodes of a
 * branch, above it one over the branches. Placing a task changes one leaf and the winners above it.
 *
 * A node's key is what the order is about: failures, tasks of the service, tasks, number; NO_ROOM when it cannot take
 * a task. For a service that has no tasks there, the first two are zero, and that is what a pool holds between groups;
 * a group puts in the keys of the nodes where its service does have tasks, and takes them back at its end.
 *
 * Keys may be old, but only too small: placing makes them larger, and whoever finds an old key at the top corrects it
 * and looks again. What makes keys smaller is written to a log, which a pool reads before it is used.
 */
#include <stdlib.h>

#include "schedulerd/sched_priv.h"

#define NO_ROOM UINT64_MAX
#define NUMBER_BITS 20u
#define ACTIVE_MASK ((1u << 20) - 1)
#define POOLED_MIN (1u << 16)
#define POOL_WEIGHT 64u /* in nodes */
#define INDEXES_MAX 64u
#define INDEX_FROM 64u /* nodes: below, all are looked at */

struct sched_branch { /* of the preference tree: the values of one label below another; at the bottom of it nodes */
    unsigned parent, place; /* which of the parent's it is */
    unsigned first, n;      /* branches in kids[], or nodes */
    unsigned at;            /* of its tournaments in win[], and first[] */
    unsigned tasks;         /* of the group's service */
    uint64_t best;          /* the smallest key below */
};

struct sched_pool {
    struct sched_link link; /* in sched.pools */
    struct sched_class *class;
    uint64_t epoch, read;          /* what of the log it has read */
    int64_t cpu, memory;           /* what has to be left on a node */
    unsigned n, nbranches, bottom; /* bottom: the first branch that has nodes */
    unsigned *node;                /* numbers, by branch */
    uint64_t *key;
    unsigned *branch_of; /* NULL: there is one only */
    struct {
        unsigned node, place;
    } * find; /* by number */
    struct sched_branch *branch;
    unsigned *kids, *win, *lead; /* lead: tournaments of branches by their best node alone */
    struct table values;         /* parent and value -> branch */
};

/* ---- tournaments ---- */

static uint64_t compose(unsigned failures, unsigned of_service, const struct sched_node *n)
{
    uint64_t f = failures < 30 ? failures : 30, s = of_service < (1u << 18) ? of_service : (1u << 18) - 1,
             a = n->active < ACTIVE_MASK ? n->active : ACTIVE_MASK;
    return f << 58 | s << 40 | a << NUMBER_BITS | (n->number & ((1u << NUMBER_BITS) - 1));
}

static bool is_bottom(const struct sched_pool *p, unsigned b)
{
    return b >= p->bottom;
}

static unsigned item(const unsigned *win, unsigned n, unsigned i)
{
    return i >= n ? i - n : win[i];
}

static unsigned winner(const unsigned *win, unsigned n)
{
    return n == 1 ? 0 : win[1];
}

/* Three orders: nodes by key; branches by the group's tasks if they have room; branches by their best node. */
static bool first_node(const struct sched_pool *p, const struct sched_branch *b, unsigned x, unsigned y)
{
    return p->key[b->first + x] <= p->key[b->first + y];
}

static bool first_branch(const struct sched_pool *p, const struct sched_branch *b, unsigned x, unsigned y)
{
    const struct sched_branch *i = &p->branch[p->kids[b->first + x]], *k = &p->branch[p->kids[b->first + y]];
    if ((i->best == NO_ROOM) != (k->best == NO_ROOM))
        return k->best == NO_ROOM;
    return i->tasks != k->tasks ? i->tasks < k->tasks : i->best <= k->best;
}

static bool first_best(const struct sched_pool *p, const struct sched_branch *b, unsigned x, unsigned y)
{
    return p->branch[p->kids[b->first + x]].best <= p->branch[p->kids[b->first + y]].best;
}

#define REPLAY(win, order)                                                                                             \
    do {                                                                                                               \
        unsigned *w_ = (win) + b->at;                                                                                  \
        for (unsigned i_ = (place + b->n) >> 1; i_ >= 1; i_ >>= 1) {                                                   \
            unsigned l_ = item(w_, b->n, 2 * i_), r_ = item(w_, b->n, 2 * i_ + 1);                                     \
            unsigned x_ = order(p, b, l_, r_) ? l_ : r_;                                                               \
            if (w_[i_] == x_ && x_ != place)                                                                           \
                break;                                                                                                 \
            w_[i_] = x_;                                                                                               \
        }                                                                                                              \
    } while (0)

#define PLAY(win, order)                                                                                               \
    do {                                                                                                               \
        unsigned *w_ = (win) + b->at;                                                                                  \
        for (unsigned i_ = b->n - 1; i_ >= 1; i_--) {                                                                  \
            unsigned l_ = item(w_, b->n, 2 * i_), r_ = item(w_, b->n, 2 * i_ + 1);                                     \
            w_[i_] = order(p, b, l_, r_) ? l_ : r_;                                                                    \
        }                                                                                                              \
    } while (0)

static uint64_t best_of(const struct sched_pool *p, unsigned which)
{
    const struct sched_branch *b = &p->branch[which];
    if (b->n == 0)
        return NO_ROOM;
    if (is_bottom(p, which))
        return p->key[b->first + winner(p->win + b->at, b->n)];
    return p->branch[p->kids[b->first + winner(p->lead + b->at, b->n)]].best;
}

static void play_all(struct sched_pool *p)
{
    for (unsigned i = p->nbranches; i-- > 0;) { /* children come after their parents */
        struct sched_branch *b = &p->branch[i];
        if (b->n > 1 && is_bottom(p, i))
            PLAY(p->win, first_node);
        if (b->n > 1 && !is_bottom(p, i)) {
            PLAY(p->win, first_branch);
            PLAY(p->lead, first_best);
        }
        b->best = best_of(p, i);
    }
}

/* climb - a branch's best node or its tasks are others: who comes first above? */
static void climb(struct sched_pool *p, unsigned which, bool tasks)
{
    while (which != 0) {
        uint64_t best = best_of(p, which);
        unsigned place = p->branch[which].place;
        if (p->branch[which].best == best && !tasks)
            return;
        p->branch[which].best = best;
        which = p->branch[which].parent;
        struct sched_branch *b = &p->branch[which];
        REPLAY(p->win, first_branch);
        REPLAY(p->lead, first_best);
        tasks = false;
    }
    p->branch[0].best = best_of(p, 0);
}

static void set_key(struct sched_pool *p, unsigned at, uint64_t key)
{
    unsigned which = p->branch_of ? p->branch_of[at] : 0;
    const struct sched_branch *b = &p->branch[which];
    unsigned place = at - b->first;
    if (p->key[at] == key)
        return;
    p->key[at] = key;
    REPLAY(p->win, first_node);
    climb(p, which, false);
}

static void set_tasks(struct sched_pool *p, unsigned which, unsigned tasks)
{
    p->branch[which].tasks = tasks;
    if (which != 0)
        climb(p, which, true);
}

/* ---- which nodes ---- */

/* An index of a constraint's key: prints of values and the nodes that have them. */
struct sched_index {
    uint64_t epoch;
    bool built;
    size_t n;
    struct entry {
        uint64_t print;
        unsigned node;
    } * v;
};

void sched_index_clear(struct sched *s)
{
    struct sched_index *x;
    for (struct table_pos p = { 0 }; table_next(&s->indexes, &p, NULL, &x);)
        free(x->v);
    table_clear(&s->indexes);
    s->indexes.value_size = sizeof(struct sched_index);
}

static uint64_t folded(struct str v)
{
    uint64_t h = PRINT_NONE;
    for (size_t i = 0; i < v.n; i++) {
        unsigned char c = (unsigned char)v.p[i];
        h = (h ^ (c >= 'A' && c <= 'Z' ? c + 32u : c)) * PRINT_PRIME;
    }
    return h;
}

static int by_print(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->print != y->print)
        return x->print < y->print ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

static void build_index(struct sched *s, struct sched_index *x, const struct constraint *c)
{
    struct str value;
    free(x->v);
    x->v = calloc(s->nat + 1, sizeof *x->v);
    CHECK(x->v != NULL);
    x->n = 0;
    for (size_t i = 0; i < s->nat; i++)
        if (s->at[i] && s->at[i]->present && constraint_value(c, &s->at[i]->view, &value))
            x->v[x->n++] = (struct entry){ folded(value), (unsigned)i };
    qsort(x->v, x->n, sizeof *x->v, by_print);
    x->built = true;
}

/* index_of - of a key that is asked for again while nodes are what they were; else NULL. */
static const struct sched_index *index_of(struct sched *s, const struct constraint *c)
{
    struct str value;
    bool fresh;
    if (!c->equal || s->nat < INDEX_FROM || !constraint_value(c, &(struct view_node){ 0 }, &value))
        return NULL;
    if (s->indexes.count >= INDEXES_MAX && !table_get(&s->indexes, c->key))
        return NULL; /* spans of the others may be in use */
    struct sched_index *x = table_put(&s->indexes, c->key, &fresh);
    if (fresh || x->epoch != s->epoch) {
        free(x->v);
        *x = (struct sched_index){ .epoch = s->epoch };
        return NULL;
    }
    if (!x->built)
        build_index(s, x, c);
    return x;
}

struct span {
    const struct entry *v;
    size_t n;
};

static struct span find_span(const struct sched_index *x, struct str value)
{
    uint64_t print = folded(value);
    size_t lo = 0, hi = x->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (x->v[mid].print < print)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (hi = lo; hi < x->n && x->v[hi].print == print;)
        hi++;
    return (struct span){ x->v + lo, hi - lo };
}

/* candidates - the nodes of the constraint that leaves fewest; false: all have to be looked at. */
static bool candidates(struct sched *s, const struct sched_class *c, struct span *ret)
{
    bool found = false;
    if (s->indexes.count >= INDEXES_MAX)
        sched_index_clear(s);
    for (unsigned i = 0; i < c->nconstraints; i++) {
        const struct sched_index *x = index_of(s, &c->constraints[i]);
        if (!x)
            continue;
        struct span one = find_span(x, c->constraints[i].value);
        if (!found || one.n < ret->n)
            *ret = one;
        found = true;
    }
    return found;
}

static void collect(struct sched *s, struct sched_pool *p)
{
    struct span few = { 0 };
    bool all = !candidates(s, p->class, &few);
    size_t n = all ? s->nat : few.n;
    p->node = calloc(n + 1, sizeof *p->node);
    CHECK(p->node != NULL);
    for (size_t i = 0; i < n; i++) {
        const struct sched_node *x = s->at[all ? i : few.v[i].node];
        if (x && x->present && sched_can_ever(p->class, x))
            p->node[p->n++] = x->number;
    }
    if (p->n < n)
        p->node = reallocarray(p->node, p->n + 1, sizeof *p->node);
}

/* ---- the preference tree ---- */

static struct str value_key(unsigned parent, struct str value, struct buf *b)
{
    buf_clear(b);
    buf_put(b, &parent, sizeof parent);
    buf_put(b, value.p, value.n);
    return buf_str(b);
}

static struct str preferred(const struct sched_pool *p, unsigned level, const struct sched_node *n)
{
    struct str value = STR("");
    (void)constraint_label(p->class->spreads[level], &n->view, &value);
    return value;
}

/* grow_level - the branches below those of one level; @of: each node's branch, moved down. */
static void grow_level(struct sched *s, struct sched_pool *p, unsigned level, unsigned *of, unsigned *cap)
{
    bool fresh;
    for (unsigned i = 0; i < p->n; i++) {
        struct str key = value_key(of[i], preferred(p, level, s->at[p->node[i]]), &s->key);
        unsigned *b = table_put(&p->values, key, &fresh);
        if (fresh) {
            if (p->nbranches == *cap) {
                p->branch = reallocarray(p->branch, *cap *= 2, sizeof *p->branch);
                CHECK(p->branch != NULL);
            }
            *b = p->nbranches++;
            p->branch[*b] = (struct sched_branch){ .parent = of[i], .place = p->branch[of[i]].n++ };
        }
        of[i] = *b;
    }
}

/* lay_out - nodes by branch, branches by parent. */
static void lay_out(struct sched_pool *p, unsigned *of)
{
    unsigned *node = calloc(p->n + 1, sizeof *node), at = 0, kids = 0, nodes = 0;
    p->branch_of = calloc(p->n + 1, sizeof *p->branch_of);
    p->kids = calloc(p->nbranches, sizeof *p->kids);
    CHECK(node != NULL && p->branch_of != NULL && p->kids != NULL);
    for (unsigned i = 0; i < p->n; i++)
        p->branch[of[i]].n++;
    for (unsigned i = 0; i < p->nbranches; i++) {
        struct sched_branch *b = &p->branch[i];
        unsigned *first = is_bottom(p, i) ? &nodes : &kids;
        b->first = *first;
        *first += b->n;
        b->at = at;
        at += b->n;
    }
    for (unsigned i = 1; i < p->nbranches; i++)
        p->kids[p->branch[p->branch[i].parent].first + p->branch[i].place] = i;
    unsigned *used = calloc(p->nbranches, sizeof *used);
    CHECK(used != NULL);
    for (unsigned i = 0; i < p->n; i++) {
        unsigned place = p->branch[of[i]].first + used[of[i]]++;
        node[place] = p->node[i];
        p->branch_of[place] = of[i];
    }
    free(used);
    free(p->node);
    p->node = node;
}

static void grow_tree(struct sched *s, struct sched_pool *p)
{
    unsigned levels = p->class->nspreads, cap = 16, *of = NULL;
    p->branch = calloc(cap, sizeof *p->branch);
    CHECK(p->branch != NULL);
    p->nbranches = 1;
    if (levels == 0 || p->n == 0) {
        p->branch[0] = (struct sched_branch){ .n = p->n };
        return;
    }
    of = calloc(p->n, sizeof *of);
    CHECK(of != NULL);
    for (unsigned i = 0; i < levels; i++) {
        p->bottom = p->nbranches;
        grow_level(s, p, i, of, &cap);
    }
    lay_out(p, of);
    free(of);
}

static int by_node(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

/* place_of - where a node is in the pool; UINT32_MAX when it is not. */
static unsigned place_of(const struct sched_pool *p, unsigned node)
{
    unsigned lo = 0, hi = p->n;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2, x = p->find ? p->find[mid].node : p->node[mid];
        if (x == node)
            return p->find ? p->find[mid].place : mid;
        if (x < node)
            lo = mid + 1;
        else
            hi = mid;
    }
    return UINT32_MAX;
}

/* ---- pools ---- */

void sched_pool_free(struct sched *s, struct sched_class *c)
{
    struct sched_pool *p = c->pool;
    if (!p)
        return;
    link_del(&p->link);
    s->pooled -= p->n + POOL_WEIGHT;
    void *all[] = { p->node, p->key, p->branch_of, p->find, p->branch, p->kids, p->win, p->lead };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    table_done(&p->values);
    free(p);
    c->pool = NULL;
}

static uint64_t plain_key(const struct sched *s, const struct sched_pool *p, unsigned at)
{
    const struct sched_node *n = s->at[p->node[at]];
    return sched_has_room(p->class, n, p->cpu, p->memory) ? compose(0, 0, n) : NO_ROOM;
}

static void refresh(struct sched *s, struct sched_pool *p)
{
    p->cpu = p->class->cpu;
    p->memory = p->class->memory;
    for (unsigned i = 0; i < p->n; i++)
        p->key[i] = plain_key(s, p, i);
    play_all(p);
    p->read = s->log_read = s->log_base + s->nlog;
}

static struct sched_pool *build(struct sched *s, struct sched_class *c)
{
    struct sched_pool *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->class = c;
    p->epoch = s->epoch;
    table_init(&p->values, sizeof(unsigned));
    collect(s, p);
    grow_tree(s, p);
    p->key = calloc(p->n + 1, sizeof *p->key);
    p->win = calloc(p->n + p->nbranches + 1, sizeof *p->win);
    p->lead = p->kids ? calloc(p->n + p->nbranches + 1, sizeof *p->lead) : NULL;
    CHECK(p->key != NULL && p->win != NULL);
    if (p->branch_of) {
        p->find = calloc(p->n, sizeof *p->find);
        CHECK(p->lead != NULL && p->find != NULL);
        for (unsigned i = 0; i < p->n; i++)
            p->find[i].node = p->node[i], p->find[i].place = i;
        qsort(p->find, p->n, sizeof *p->find, by_node);
    }
    s->pooled += p->n + POOL_WEIGHT;
    link_push(&s->pools, &p->link);
    c->pool = p;
    refresh(s, p);
    return p;
}

static void make_room(struct sched *s, const struct sched_class *keep)
{
    size_t most = 32 * s->nodes.count;
    most = most > POOLED_MIN ? most : POOLED_MIN;
    while (s->pooled > most && !link_alone(&s->pools)) {
        struct sched_class *c = SCHED_OF(s->pools.next, struct sched_pool, link)->class;
        if (c == keep)
            return;
        sched_pool_free(s, c);
    }
}

static struct sched_pool *pool_of(struct sched *s, struct sched_class *c)
{
    struct sched_pool *p = c->pool;
    if (p && p->epoch != s->epoch)
        sched_pool_free(s, c);
    if (!c->pool) {
        p = build(s, c);
        make_room(s, c);
        return p;
    }
    link_del(&p->link);
    link_push(&s->pools, &p->link);
    if (p->cpu != c->cpu || p->memory != c->memory || p->read < s->log_base || s->log_base + s->nlog - p->read > p->n) {
        refresh(s, p);
        return p;
    }
    for (size_t i = p->read - s->log_base; i < s->nlog; i++) {
        unsigned at = place_of(p, s->log[i]);
        if (at != UINT32_MAX)
            set_key(p, at, plain_key(s, p, at));
    }
    p->read = s->log_read = s->log_base + s->nlog;
    return p;
}

/* ---- groups ---- */

static uint64_t group_key(const struct sched_group *g, unsigned at)
{
    const struct sched_node *n = g->s->at[g->pool->node[at]];
    unsigned of_service = sched_count_of(&g->service->counts, n->number);
    if (!sched_has_room(g->spec->class, n, g->spec->cpu, g->spec->memory) ||
        (g->spec->max_replicas && of_service >= g->spec->max_replicas))
        return NO_ROOM;
    return compose(sched_failures_on(g->failures, n, g->now_ns), of_service, n);
}

static void touch(struct sched_group *g, unsigned at)
{
    struct sched *s = g->s;
    if (g->all)
        return;
    s->touched = sched_room_unsigned(s->touched, s->ntouched, &s->touched_cap);
    s->touched[s->ntouched++] = at;
}

static void count_branch(struct sched_group *g, unsigned which, unsigned by, bool set)
{
    struct sched_branch *b = &g->pool->branch[which];
    struct sched *s = g->s;
    if (b->tasks == 0 && !g->all) {
        s->branches = sched_room_unsigned(s->branches, s->nbranches, &s->branches_cap);
        s->branches[s->nbranches++] = which;
    }
    b->tasks += by;
    if (set)
        set_tasks(g->pool, which, b->tasks);
}

/* count_node - tasks of the service in the branches above a node, be it in the pool or not. */
static void count_node(struct sched_group *g, const struct sched_node *n, unsigned tasks)
{
    struct sched_pool *p = g->pool;
    unsigned which = 0;
    for (unsigned i = 0; i < p->class->nspreads && p->kids; i++) {
        const unsigned *b = table_get(&p->values, value_key(which, preferred(p, i, n), &g->s->key));
        if (!b)
            return;
        which = *b;
        count_branch(g, which, tasks, !g->all);
    }
}

static void special(struct sched_group *g, const struct sched_node *n, unsigned tasks)
{
    unsigned at = place_of(g->pool, n->number);
    if (tasks)
        count_node(g, n, tasks);
    if (at == UINT32_MAX || g->all)
        return;
    touch(g, at);
    set_key(g->pool, at, group_key(g, at));
}

void sched_group_begin(struct sched_group *g, size_t tasks)
{
    const struct sched_counts *counts = &g->service->counts;
    const struct sched_count *c;
    struct sched *s = g->s;
    g->pool = pool_of(s, g->spec->class);
    g->failures = sched_recent(s, g->spec, g->now_ns);
    g->image = sched_image_of(s, g->spec);
    size_t many = (counts->v ? counts->used : counts->one.n != 0) + (g->failures ? g->failures->n : 0) + tasks;
    g->all = many > g->pool->n / 8;
    for (unsigned i = 0; (c = sched_count_next(counts, &i));)
        if (s->at[c->node]->present)
            special(g, s->at[c->node], c->n);
    for (unsigned i = 0; g->failures && i < g->failures->n; i++) {
        unsigned node = g->failures->v[i].node;
        if (node < s->nat && s->at[node] && sched_count_of(counts, node) == 0)
            special(g, s->at[node], 0);
    }
    if (!g->all)
        return;
    for (unsigned i = 0; i < g->pool->n; i++)
        g->pool->key[i] = group_key(g, i);
    play_all(g->pool);
}

static unsigned top(const struct sched_pool *p)
{
    unsigned which = 0;
    while (!is_bottom(p, which)) {
        const struct sched_branch *b = &p->branch[which];
        which = p->kids[b->first + winner(p->win + b->at, b->n)];
    }
    const struct sched_branch *b = &p->branch[which];
    return b->n ? b->first + winner(p->win + b->at, b->n) : UINT32_MAX;
}

/* nearer - of the nodes that are as good as the best one, in the same branch, one that has the image. */
static unsigned nearer(const struct sched_group *g, unsigned at)
{
    const struct sched_pool *p = g->pool;
    uint64_t best = p->key[at] >> NUMBER_BITS;
    unsigned found = UINT32_MAX;
    for (unsigned i = 0; i < g->image->n; i++) {
        unsigned number = g->image->at[i].node;
        const struct sched_node *n = number < g->s->nat ? g->s->at[number] : NULL;
        if (!n || n->serial != g->image->at[i].serial ||
            (compose(0, 0, n) >> NUMBER_BITS & ACTIVE_MASK) != (best & ACTIVE_MASK))
            continue;
        unsigned x = place_of(p, number);
        if (x != UINT32_MAX && (!p->branch_of || p->branch_of[x] == p->branch_of[at]) &&
            group_key(g, x) >> NUMBER_BITS == best && (found == UINT32_MAX || p->node[x] < p->node[found]))
            found = x;
    }
    return found == UINT32_MAX ? at : found;
}

struct sched_node *sched_group_best(struct sched_group *g)
{
    for (;;) {
        unsigned at = top(g->pool);
        if (at == UINT32_MAX || g->pool->key[at] == NO_ROOM)
            return NULL;
        uint64_t key = group_key(g, at);
        if (key == g->pool->key[at]) {
            g->best = g->image ? nearer(g, at) : at;
            return g->s->at[g->pool->node[g->best]];
        }
        CHECK(key > g->pool->key[at]); /* else the log told too little */
        touch(g, at);
        set_key(g->pool, at, key);
    }
}

void sched_group_placed(struct sched_group *g)
{
    unsigned at = g->best;
    touch(g, at);
    set_key(g->pool, at, group_key(g, at));
    for (unsigned which = g->pool->branch_of ? g->pool->branch_of[at] : 0; which != 0;
         which = g->pool->branch[which].parent)
        count_branch(g, which, 1, true);
}

void sched_group_end(struct sched_group *g)
{
    struct sched_pool *p = g->pool;
    struct sched *s = g->s;
    if (g->all) {
        for (unsigned i = 0; i < p->nbranches; i++)
            p->branch[i].tasks = 0;
        for (unsigned i = 0; i < p->n; i++)
            p->key[i] = plain_key(s, p, i);
        play_all(p);
    }
    for (size_t i = 0; i < s->ntouched; i++)
        set_key(p, s->touched[i], plain_key(s, p, s->touched[i]));
    for (size_t i = 0; i < s->nbranches; i++)
        set_tasks(p, s->branches[i], 0);
    s->ntouched = s->nbranches = 0;
}

const unsigned *sched_pool_nodes(struct sched *s, struct sched_class *c, size_t *ret_n)
{
    const struct sched_pool *p = pool_of(s, c);
    *ret_n = p->n;
    return p->node;
}

/* ---- level or not ---- */

/* fullest - of the service's nodes in a branch the one with most tasks; the higher number of equal ones. */
static struct sched_node *fullest(const struct sched_group *g, unsigned which, unsigned *ret_tasks)
{
    const struct sched_pool *p = g->pool;
    const struct sched_branch *b = &p->branch[which];
    struct sched_node *most = NULL;
    *ret_tasks = 0;
    for (unsigned i = 0; i < b->n; i++) {
        struct sched_node *n = g->s->at[p->node[b->first + i]];
        unsigned tasks = sched_count_of(&g->service->counts, n->number);
        if (tasks && tasks >= *ret_tasks) {
            *ret_tasks = tasks;
            most = n;
        }
    }
    return most;
}

static struct sched_node *fullest_below(const struct sched_group *g, unsigned which)
{
    const struct sched_pool *p = g->pool;
    unsigned tasks;
    while (!is_bottom(p, which)) {
        const struct sched_branch *b = &p->branch[which];
        unsigned most = p->kids[b->first];
        for (unsigned i = 1; i < b->n; i++)
            if (p->branch[p->kids[b->first + i]].tasks > p->branch[most].tasks)
                most = p->kids[b->first + i];
        which = most;
    }
    return fullest(g, which, &tasks);
}

/* uneven_in - two tasks more in one place than in another that has room, as high up in the tree as there is one. */
static struct sched_node *uneven_in(struct sched_group *g, unsigned which)
{
    struct sched_pool *p = g->pool;
    const struct sched_branch *b = &p->branch[which];
    if (b->n == 0 || b->best == NO_ROOM)
        return NULL;
    if (is_bottom(p, which)) {
        unsigned tasks, at = b->first + winner(p->win + b->at, b->n);
        struct sched_node *most = fullest(g, which, &tasks), *best = g->s->at[p->node[at]];
        unsigned least = sched_count_of(&g->service->counts, best->number);
        return most && tasks >= least + 2 && !sched_failures_on(g->failures, best, g->now_ns) ? most : NULL;
    }
    unsigned least = p->kids[b->first + winner(p->win + b->at, b->n)], most = least;
    for (unsigned i = 0; i < b->n; i++)
        if (p->branch[p->kids[b->first + i]].tasks > p->branch[most].tasks)
            most = p->kids[b->first + i];
    if (p->branch[least].best != NO_ROOM && p->branch[most].tasks >= p->branch[least].tasks + 2) {
        struct sched_node *n = fullest_below(g, most);
        if (n)
            return n;
    }
    for (unsigned i = 0; i < b->n; i++) {
        unsigned kid = p->kids[b->first + i];
        struct sched_node *n = p->branch[kid].tasks >= 2 ? uneven_in(g, kid) : NULL;
        if (n)
            return n;
    }
    return NULL;
}

struct sched_node *sched_group_uneven(struct sched_group *g)
{
    CHECK(g->all); /* what is said to have room must have it */
    return uneven_in(g, 0);
}

bool sched_group_better(const struct sched_group *g, const struct sched_node *from, const struct sched_node *to)
{
    const struct sched_pool *p = g->pool;
    unsigned x = place_of(p, from->number), y = place_of(p, to->number);
    if (x == UINT32_MAX || y == UINT32_MAX)
        return false;
    x = p->branch_of ? p->branch_of[x] : 0;
    y = p->branch_of ? p->branch_of[y] : 0;
    if (x == y)
        return sched_count_of(&g->service->counts, from->number) > sched_count_of(&g->service->counts, to->number);
    while (p->branch[x].parent != p->branch[y].parent) { /* all bottoms are equally deep */
        x = p->branch[x].parent;
        y = p->branch[y].parent;
    }
    return p->branch[x].tasks > p->branch[y].tasks;
}

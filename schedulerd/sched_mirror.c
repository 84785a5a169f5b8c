/* sched_mirror.c - what the scheduler knows: nodes, tasks, and what the tasks add up to on each node. */
#include <stdlib.h>

#include "schedulerd/sched_priv.h"

#define SCRATCH_BYTES (64u << 20)
#define LOG_MIN 4096u
#define FAILED_SPECS_MANY 1024u
#define STOCK_MAX 1024u /* generic resources of a node; more are not looked at */

void *sched_pack_room(struct sched_pack *k, size_t size)
{
    k->n = (k->n + 15) & ~(size_t)15;
    void *p = k->p ? k->p + k->n : NULL;
    k->n += size;
    return p;
}

struct str sched_pack_str(struct sched_pack *k, struct str s)
{
    char *p = k->p ? k->p + k->n : NULL;
    k->n += s.n;
    if (p && s.n)
        memcpy(p, s.p, s.n);
    return (struct str){ p, s.n };
}

uint64_t sched_print(struct str s)
{
    return print_add(PRINT_NONE, s);
}

unsigned *sched_room_unsigned(unsigned *v, size_t n, size_t *cap)
{
    if (n < *cap)
        return v;
    *cap = *cap ? *cap * 2 : 16;
    v = reallocarray(v, *cap, sizeof *v);
    CHECK(v != NULL);
    return v;
}

void sched_init(struct sched *s)
{
    *s = (struct sched){ .changes = 1 };
    table_init(&s->nodes, sizeof(struct sched_node));
    table_init(&s->tasks, sizeof(struct sched_task));
    table_init(&s->specs, sizeof(struct sched_spec));
    table_init(&s->services, sizeof(struct sched_service));
    table_init(&s->classes, sizeof(struct sched_class));
    table_init(&s->failures, sizeof(struct sched_failures));
    table_init(&s->images, sizeof(struct sched_image));
    table_init(&s->given, sizeof(struct sched_given));
    arena_init(&s->scratch, SCRATCH_BYTES);
    link_init(&s->pools);
    link_init(&s->refused);
    link_init(&s->balanced);
    link_init(&s->uneven);
    sched_index_clear(s);
}

static void free_node(struct sched_node *n)
{
    free(n->block);
    free(n->stock);
    free(n->ports);
}

static void clear_tables(struct sched *s)
{
    struct sched_node *n;
    struct sched_class *c;
    struct sched_service *svc;
    struct sched_failures *f;
    struct sched_given *g;
    for (struct table_pos p = { 0 }; table_next(&s->nodes, &p, NULL, &n);)
        free_node(n);
    for (struct table_pos p = { 0 }; table_next(&s->classes, &p, NULL, &c);) {
        sched_pool_free(s, c);
        free(c->block);
    }
    for (struct table_pos p = { 0 }; table_next(&s->services, &p, NULL, &svc);)
        free(svc->counts.v);
    for (struct table_pos p = { 0 }; table_next(&s->failures, &p, NULL, &f);)
        free(f->v);
    for (struct table_pos p = { 0 }; table_next(&s->given, &p, NULL, &g);)
        free(g->block);
    struct table *all[] = { &s->nodes,   &s->tasks,    &s->specs, &s->services,
                            &s->classes, &s->failures, &s->given, &s->images };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        table_clear(all[i]);
}

void sched_clear(struct sched *s)
{
    clear_tables(s);
    sched_index_clear(s);
    for (struct sched_priority *p = s->priorities, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    s->priorities = NULL;
    link_init(&s->refused);
    link_init(&s->balanced);
    link_init(&s->uneven);
    s->nat = s->nfree = s->nlog = s->nnominations = s->nenforce = s->nlooked = s->waiting = 0;
    s->freed = true;
    s->epoch++;
}

void sched_done(struct sched *s)
{
    sched_clear(s);
    struct table *all[] = { &s->nodes,    &s->tasks, &s->specs,  &s->services, &s->classes,
                            &s->failures, &s->given, &s->images, &s->indexes };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        table_done(all[i]);
    free(s->at);
    free(s->free_numbers);
    free(s->log);
    free(s->enforce);
    free(s->looked);
    free(s->touched);
    free(s->branches);
    free(s->nominations);
    arena_done(&s->scratch);
    buf_done(&s->key);
}

/* ---- counts of a service's tasks ---- */

static unsigned home_of(const struct sched_counts *c, unsigned node)
{
    return node * 2654435761u & (c->cap - 1);
}

static struct sched_count *find_count(const struct sched_counts *c, unsigned node)
{
    unsigned i = home_of(c, node);
    while (c->v[i].n && c->v[i].node != node)
        i = (i + 1) & (c->cap - 1);
    return &c->v[i];
}

unsigned sched_count_of(const struct sched_counts *c, unsigned node)
{
    if (c->v)
        return find_count(c, node)->n;
    return c->one.node == node ? c->one.n : 0;
}

const struct sched_count *sched_count_next(const struct sched_counts *c, unsigned *i)
{
    if (!c->v)
        return (*i)++ == 0 && c->one.n ? &c->one : NULL;
    while (*i < c->cap)
        if (c->v[(*i)++].n)
            return &c->v[*i - 1];
    return NULL;
}

static void resize_counts(struct sched_counts *c, unsigned cap)
{
    struct sched_counts old = *c;
    const struct sched_count *x;
    c->v = calloc(cap, sizeof *c->v);
    CHECK(c->v != NULL);
    c->cap = cap;
    for (unsigned i = 0; (x = sched_count_next(&old, &i));)
        *find_count(c, x->node) = *x;
    free(old.v);
}

/* drop_count - the hole is filled with what would not be found otherwise (Knuth, 6.4 R). */
static void drop_count(struct sched_counts *c, struct sched_count *x)
{
    unsigned hole = (unsigned)(x - c->v);
    c->used--;
    for (unsigned i = (hole + 1) & (c->cap - 1); c->v[i].n; i = (i + 1) & (c->cap - 1)) {
        unsigned home = home_of(c, c->v[i].node);
        if (((i - home) & (c->cap - 1)) >= ((i - hole) & (c->cap - 1))) {
            c->v[hole] = c->v[i];
            hole = i;
        }
    }
    c->v[hole].n = 0;
}

static void count_task(struct sched_counts *c, unsigned node, int by)
{
    if (!c->v && (c->one.n == 0 || c->one.node == node)) {
        c->one.node = node;
        c->one.n += (unsigned)by;
        return;
    }
    if (!c->v)
        resize_counts(c, 4), c->used = 1;
    if (c->used * 2 >= c->cap)
        resize_counts(c, c->cap * 2);
    struct sched_count *x = find_count(c, node);
    CHECK(by > 0 || x->n > 0);
    c->used += x->n == 0;
    *x = (struct sched_count){ node, x->n + (unsigned)by };
    if (x->n == 0)
        drop_count(c, x);
}

/* ---- what changes ---- */

/* note_freed - tasks that were refused may fit on this node now, and it may come earlier in the order of nodes. */
static void note_freed(struct sched *s, const struct sched_node *n)
{
    s->freed = true;
    s->changes++;
    if (s->nlog && s->log[s->nlog - 1] == n->number && s->log_read < s->log_base + s->nlog)
        return;
    if (s->nlog >= LOG_MIN && s->nlog >= 4 * s->nat) { /* whoever has not read this yet looks at all */
        s->log_base += s->nlog;
        s->nlog = 0;
    }
    s->log = sched_room_unsigned(s->log, s->nlog, &s->log_cap);
    s->log[s->nlog++] = n->number;
}

static void look_at_balance(struct sched *s, struct sched_service *svc)
{
    if (!link_alone(&svc->balanced) && link_alone(&svc->uneven))
        link_push(&s->uneven, &svc->uneven);
}

static void look_at_all_balances(struct sched *s)
{
    for (struct sched_link *l = s->balanced.next; l != &s->balanced; l = l->next)
        look_at_balance(s, SCHED_OF(l, struct sched_service, balanced));
}

/* ---- nodes ---- */

static struct sched_node *node_of(struct sched *s, struct str id)
{
    bool fresh;
    struct sched_node *n = table_put(&s->nodes, id, &fresh);
    if (!fresh)
        return n;
    link_init(&n->held);
    n->number = s->nfree ? s->free_numbers[--s->nfree] : (unsigned)s->nat++;
    n->serial = ++s->serial;
    if (s->nat > s->at_cap) {
        s->at_cap = s->at_cap ? s->at_cap * 2 : 16;
        s->at = reallocarray(s->at, s->at_cap, sizeof *s->at);
        CHECK(s->at != NULL);
    }
    s->at[n->number] = n;
    return n;
}

static uint64_t traits_of(const struct view_node *v)
{
    const struct strmap *labels[] = { &v->Spec.Labels, &v->Description.Engine.Labels };
    const struct view_plugin *p = v->Description.Engine.Plugins.v;
    uint64_t h = print_mix(print_mix(print_mix(PRINT_NONE, v->Description.Hostname), v->Spec.Role), v->Role);
    h = print_mix(print_mix(print_mix(h, v->Description.Platform.OS), v->Description.Platform.Architecture),
                  v->Status.Addr);
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < labels[k]->n; i++)
            h = print_mix(print_mix(h + k, labels[k]->v[i].key), labels[k]->v[i].val);
    for (size_t i = 0; i < v->Description.Engine.Plugins.n; i++)
        h = print_mix(print_mix(h + 2, p[i].Type), p[i].Name);
    return h;
}

static void pack_map(struct sched_pack *k, const struct strmap *from, struct strmap *to)
{
    struct strpair *v = sched_pack_room(k, from->n * sizeof *v);
    for (size_t i = 0; i < from->n; i++) {
        struct strpair p = { sched_pack_str(k, from->v[i].key), sched_pack_str(k, from->v[i].val) };
        if (v)
            v[i] = p;
    }
    *to = (struct strmap){ v, from->n };
}

static void pack_plugins(struct sched_pack *k, const struct list *from, struct list *to)
{
    const struct view_plugin *p = from->v;
    struct view_plugin *v = sched_pack_room(k, from->n * sizeof *v);
    for (size_t i = 0; i < from->n; i++) {
        struct view_plugin one = { sched_pack_str(k, p[i].Type), sched_pack_str(k, p[i].Name) };
        if (v)
            v[i] = one;
    }
    *to = (struct list){ v, from->n };
}

/* pack_node - what placement looks at; the rest of the document is not kept. */
static void pack_node(struct sched_pack *k, const struct view_node *v, struct view_node *ret)
{
    *ret = (struct view_node){ 0 };
    pack_map(k, &v->Spec.Labels, &ret->Spec.Labels);
    pack_map(k, &v->Description.Engine.Labels, &ret->Description.Engine.Labels);
    pack_plugins(k, &v->Description.Engine.Plugins, &ret->Description.Engine.Plugins);
    ret->ID = sched_pack_str(k, v->ID);
    ret->Spec.Role = sched_pack_str(k, v->Spec.Role);
    ret->Role = sched_pack_str(k, v->Role);
    ret->Description.Hostname = sched_pack_str(k, v->Description.Hostname);
    ret->Description.Platform.OS = sched_pack_str(k, v->Description.Platform.OS);
    ret->Description.Platform.Architecture = sched_pack_str(k, v->Description.Platform.Architecture);
    ret->Status.Addr = sched_pack_str(k, v->Status.Addr);
}

static struct sched_stock *stock_of(struct sched_node *n, struct str kind)
{
    for (size_t i = 0; i < n->nstock; i++)
        if (str_eq(n->stock[i].name, kind))
            return &n->stock[i];
    return NULL;
}

static size_t stock_text(const struct view_generic *g)
{
    return g->NamedResourceSpec      ? g->NamedResourceSpec->Kind.n + g->NamedResourceSpec->Value.n
           : g->DiscreteResourceSpec ? g->DiscreteResourceSpec->Kind.n
                                     : 0;
}

/* stock_kind - the kind of one resource, made when it is new; NULL: there are things of that kind that have names, and
 * this is an amount, or the other way round. dockerd refuses that, but a node may say anything; the first one counts.
 */
static struct sched_stock *stock_kind(struct sched_node *n, const struct view_generic *g, struct sched_pack *k)
{
    const struct view_named *named = g->NamedResourceSpec;
    if (!named && !g->DiscreteResourceSpec)
        return NULL;
    struct str kind = named ? named->Kind : g->DiscreteResourceSpec->Kind;
    struct sched_stock *st = stock_of(n, kind);
    if (!st) {
        st = &n->stock[n->nstock++];
        *st = (struct sched_stock){ .name = sched_pack_str(k, kind), .named = named != NULL };
    }
    return st->named == (named != NULL) ? st : NULL;
}

/* take_stock - generic resources by kind: an amount, or things with names. In one block: kinds, ids, marks, text. */
static void take_stock(struct sched_node *n, const struct list *l)
{
    const struct view_generic *g = l->v;
    size_t many = l->n < STOCK_MAX ? l->n : STOCK_MAX, text = 0;
    struct sched_stock *st;
    for (size_t i = 0; i < many; i++)
        text += stock_text(&g[i]);
    free(n->stock);
    n->stock = NULL;
    n->nstock = 0;
    if (many == 0)
        return;
    n->stock = calloc(1, many * (sizeof *st + sizeof(struct str) + sizeof(bool)) + text);
    CHECK(n->stock != NULL);
    struct str *ids = (struct str *)(n->stock + many);
    bool *taken = (bool *)(ids + many);
    struct sched_pack k = { (char *)(taken + many), 0 };
    for (size_t i = 0; i < many; i++) {
        if (!(st = stock_kind(n, &g[i], &k)))
            continue;
        int64_t more = st->named ? 1 : g[i].DiscreteResourceSpec->Value;
        if (more > 0 && __builtin_add_overflow(st->amount, more, &st->amount))
            st->amount = INT64_MAX;
    }
    for (st = n->stock; st < n->stock + n->nstock; st++) {
        if (!st->named)
            continue;
        st->ids = ids;
        st->taken = taken;
        ids += st->amount;
        taken += st->amount;
        st->amount = 0; /* counted again, as they get their names */
    }
    for (size_t i = 0; i < many; i++)
        if (g[i].NamedResourceSpec && (st = stock_kind(n, &g[i], &k)))
            st->ids[st->amount++] = sched_pack_str(&k, g[i].NamedResourceSpec->Value);
}

static void stock_add(struct sched_node *n, const struct sched_class *c, int sign)
{
    for (unsigned i = 0; i < c->nkinds; i++) {
        struct sched_stock *st = stock_of(n, c->kinds[i].name);
        if (st)
            st->used += sign * c->kinds[i].amount;
    }
}

static void claim(struct sched *s, const struct sched_task *t, struct sched_node *n, bool taken)
{
    const struct sched_given *g = t->given ? table_get(&s->given, table_key(&s->tasks, t)) : NULL;
    for (size_t i = 0; g && i < g->n; i++) {
        struct sched_stock *st = stock_of(n, g->v[i].type);
        for (int64_t k = 0; st && st->named && k < st->amount; k++)
            if (str_eq(st->ids[k], g->v[i].name))
                st->taken[k] = taken;
    }
}

static void restock(struct sched *s, struct sched_node *n, const struct list *generic)
{
    take_stock(n, generic);
    if (n->nstock == 0)
        return;
    for (struct sched_link *l = n->held.next; l != &n->held; l = l->next) {
        struct sched_task *t = SCHED_OF(l, struct sched_task, link);
        if (t->holds) {
            stock_add(n, t->spec->class, 1);
            claim(s, t, n, true);
        }
    }
    for (size_t i = 0; i < s->nnominations; i++)
        if (s->nominations[i].node == n)
            stock_add(n, s->nominations[i].task->spec->class, 1);
}

static void note_enforce(struct sched *s, struct sched_node *n)
{
    if (n->enforce)
        return;
    n->enforce = true;
    s->enforce = sched_room_unsigned(s->enforce, s->nenforce, &s->enforce_cap);
    s->enforce[s->nenforce++] = n->number;
}

static void adopt_node(struct sched *s, struct sched_node *n, const struct view_node *v)
{
    struct sched_pack k = { 0 };
    bool was_present = n->present, was_ready = n->present && n->ready, stocked = n->nstock != 0;
    int64_t cpu = n->cpu, memory = n->memory;
    pack_node(&k, v, &n->view);
    k = (struct sched_pack){ malloc(k.n + 1), 0 };
    CHECK(k.p != NULL);
    free(n->block);
    n->block = k.p;
    pack_node(&k, v, &n->view);
    restock(s, n, &v->Description.Resources.GenericResources);
    n->cpu = v->Description.Resources.NanoCPUs;
    n->memory = v->Description.Resources.MemoryBytes;
    n->present = true;
    n->ready =
        str_is(v->Status.State, "ready") && (v->Spec.Availability.n == 0 || str_is(v->Spec.Availability, "active"));
    uint64_t traits = traits_of(v);
    bool same = was_present && traits == n->traits;
    if (traits != n->traits)
        note_enforce(s, n);
    n->traits = traits;
    s->epoch += !same;
    if (!same || was_ready != n->ready)
        look_at_all_balances(s);
    if (!same || was_ready != n->ready || cpu != n->cpu || memory != n->memory || stocked || n->nstock)
        note_freed(s, n); /* else it is something that nobody here looks at, such as its liveness */
}

static void drop_unused_node(struct sched *s, struct sched_node *n)
{
    if (n->present || n->tasks)
        return;
    for (size_t i = 0; n->enforce && i < s->nenforce; i++) /* its number will be another's */
        if (s->enforce[i] == n->number) {
            s->enforce[i] = s->enforce[--s->nenforce];
            break;
        }
    free_node(n);
    s->at[n->number] = NULL;
    s->free_numbers = sched_room_unsigned(s->free_numbers, s->nfree, &s->free_cap);
    s->free_numbers[s->nfree++] = n->number;
    table_del(&s->nodes, table_key(&s->nodes, n));
}

static void leave_node(struct sched *s, struct sched_node *n)
{
    s->epoch += n->present;
    n->present = false;
    s->freed = true; /* the explanations change */
    for (size_t i = s->nnominations; i-- > 0;)
        if (s->nominations[i].node == n)
            sched_unnominate(s, s->nominations[i].task);
    drop_unused_node(s, n);
}

int sched_put_node(struct sched *s, struct str doc, struct err *e)
{
    struct view_node v;
    struct str id;
    if (!mp_get_str(doc, "ID", &id) || id.n == 0)
        return err_set(e, ERR_CORRUPT, "node without ID");
    arena_reset(&s->scratch);
    int r = view_node(doc, &v, &s->scratch, e);
    if (r != 0) {
        sched_del_node(s, id);
        return r;
    }
    adopt_node(s, node_of(s, id), &v);
    return 0;
}

void sched_del_node(struct sched *s, struct str id)
{
    struct sched_node *n = table_get(&s->nodes, id);
    if (n)
        leave_node(s, n);
}

/* ---- failures ---- */

static struct str print_key(const uint64_t *hash)
{
    return (struct str){ (const char *)hash, sizeof *hash };
}

static void forget_old(struct sched_failures *f, int64_t now_ns)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < f->n; i++)
        if (now_ns - f->v[i].at_ns < SCHED_FAILURE_WINDOW_NS)
            f->v[kept++] = f->v[i];
    f->n = kept;
}

/* sweep - specs whose failures are all forgotten: nobody asks for those that are gone. */
static void sweep(struct sched *s, int64_t now_ns)
{
    struct sched_failures *f;
    struct str key;
    s->swept_ns = now_ns;
    for (struct table_pos p = { 0 }; table_next(&s->failures, &p, &key, &f);) {
        forget_old(f, now_ns);
        if (f->n == 0) {
            free(f->v);
            table_del(&s->failures, key);
        }
    }
}

static void note_failure(struct sched *s, const struct sched_node *n, const struct view_task *v, int64_t now_ns)
{
    int64_t at = v->Status.AppliedAt ? v->Status.AppliedAt : v->Status.Timestamp;
    uint64_t hash = sched_print(v->TaskSpecID);
    if (!n || now_ns - at >= SCHED_FAILURE_WINDOW_NS)
        return;
    if (s->failures.count > FAILED_SPECS_MANY && now_ns - s->swept_ns > SCHED_FAILURE_WINDOW_NS / 5)
        sweep(s, now_ns);
    struct sched_failures *f = table_put(&s->failures, print_key(&hash), NULL);
    if (f->n == SCHED_FAILURES_KEPT) {
        f->n /= 2;
        memmove(f->v, f->v + f->n, f->n * sizeof *f->v);
    }
    if (f->n == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 4;
        f->v = reallocarray(f->v, f->cap, sizeof *f->v);
        CHECK(f->v != NULL);
    }
    f->v[f->n++] = (struct sched_failure){ n->number, n->serial, at };
}

const struct sched_failures *sched_recent(struct sched *s, const struct sched_spec *spec, int64_t now_ns)
{
    struct sched_failures *f = s->failures.count ? table_get(&s->failures, print_key(&spec->hash)) : NULL;
    if (f)
        forget_old(f, now_ns);
    return f && f->n >= SCHED_FAILURES_MANY ? f : NULL;
}

unsigned sched_failures_on(const struct sched_failures *f, const struct sched_node *n, int64_t now_ns)
{
    unsigned count = 0;
    for (unsigned i = 0; f && i < f->n; i++)
        count += f->v[i].node == n->number && f->v[i].serial == n->serial &&
                 now_ns - f->v[i].at_ns < SCHED_FAILURE_WINDOW_NS;
    return count >= SCHED_FAILURES_MANY ? count : 0;
}

/* ---- images ---- */

static void note_image(struct sched *s, const struct sched_task *t)
{
    const struct sched_node *n = t->node;
    if (!t->spec->image)
        return;
    if (s->images.count > SCHED_IMAGES_MANY)
        table_clear(&s->images);
    struct sched_image *m = table_put(&s->images, print_key(&t->spec->image), NULL);
    for (unsigned i = 0; i < m->n; i++)
        if (m->at[i].node == n->number && m->at[i].serial == n->serial)
            return;
    m->at[m->next].node = n->number;
    m->at[m->next].serial = n->serial;
    m->next = (m->next + 1) % SCHED_IMAGE_NODES;
    m->n += m->n < SCHED_IMAGE_NODES;
}

const struct sched_image *sched_image_of(const struct sched *s, const struct sched_spec *spec)
{
    return spec->image && s->images.count ? table_get(&s->images, print_key(&spec->image)) : NULL;
}

/* ---- services ---- */

static struct sched_priority *priority_of(struct sched *s, int value)
{
    struct sched_priority **p = &s->priorities;
    while (*p && (*p)->value > value)
        p = &(*p)->next;
    if (!*p || (*p)->value != value) {
        struct sched_priority *one = calloc(1, sizeof *one);
        CHECK(one != NULL);
        *one = (struct sched_priority){ .next = *p, .value = value };
        link_init(&one->todo);
        *p = one;
    }
    (*p)->services++;
    return *p;
}

static void leave_priority(struct sched *s, struct sched_priority *one)
{
    struct sched_priority **p = &s->priorities;
    if (--one->services)
        return;
    while (*p != one)
        p = &(*p)->next;
    *p = one->next;
    free(one);
}

struct sched_priority *sched_next_todo(struct sched *s)
{
    struct sched_priority *p = s->priorities;
    while (p && link_alone(&p->todo))
        p = p->next;
    return p;
}

static struct sched_service *service_of(struct sched *s, struct str id)
{
    bool fresh;
    struct sched_service *svc = table_put(&s->services, id, &fresh);
    if (!fresh)
        return svc;
    struct sched_link *links[] = { &svc->fresh, &svc->refused, &svc->todo, &svc->again, &svc->balanced, &svc->uneven };
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        link_init(links[i]);
    svc->priority = priority_of(s, 0);
    return svc;
}

static bool level_wanted(const struct sched_policy *p)
{
    return p->rebalance.tasks || p->rebalance.percent;
}

static void drop_unused_service(struct sched *s, struct sched_service *svc)
{
    if (svc->refs || svc->policy.priority || level_wanted(&svc->policy))
        return;
    link_del(&svc->todo);
    link_del(&svc->again);
    link_del(&svc->balanced);
    link_del(&svc->uneven);
    leave_priority(s, svc->priority);
    free(svc->counts.v);
    table_del(&s->services, table_key(&s->services, svc));
}

void sched_put_service(struct sched *s, struct str id, const struct sched_policy *p)
{
    struct sched_service *svc = table_get(&s->services, id);
    if (!svc && p->priority == 0 && !level_wanted(p))
        return;
    svc = svc ? svc : service_of(s, id);
    if (p->priority != svc->policy.priority) {
        struct sched_priority *old = svc->priority;
        svc->priority = priority_of(s, p->priority);
        if (!link_alone(&svc->todo)) {
            link_del(&svc->todo);
            link_push(&svc->priority->todo, &svc->todo);
        }
        leave_priority(s, old);
        s->freed = true; /* what is less important now may make room */
        s->changes++;
    }
    svc->policy = *p;
    link_del(&svc->balanced);
    if (level_wanted(p))
        link_push(&s->balanced, &svc->balanced);
    else
        link_del(&svc->uneven);
    look_at_balance(s, svc);
    drop_unused_service(s, svc);
}

/* ---- counting ---- */

static void count_port(struct sched_node *n, unsigned port, int by)
{
    unsigned i = 0;
    while (i < n->nports && n->ports[i].port != port)
        i++;
    if (i == n->nports) {
        if (n->nports == n->ports_cap) {
            n->ports_cap = n->ports_cap ? n->ports_cap * 2 : 2;
            n->ports = reallocarray(n->ports, n->ports_cap, sizeof *n->ports);
            CHECK(n->ports != NULL);
        }
        n->ports[n->nports++] = (struct sched_port){ port, 0 };
    }
    CHECK(by > 0 || n->ports[i].uses > 0);
    n->ports[i].uses += (unsigned)by;
    if (n->ports[i].uses == 0)
        n->ports[i] = n->ports[--n->nports];
}

void sched_hold(struct sched *s, struct sched_node *n, const struct sched_spec *spec, int sign)
{
    CHECK(n != NULL);
    n->used_cpu += sign * spec->cpu;
    n->used_memory += sign * spec->memory;
    stock_add(n, spec->class, sign);
    for (unsigned i = 0; i < spec->class->nports; i++)
        count_port(n, spec->class->ports[i], sign);
    if (sign < 0)
        note_freed(s, n);
}

static void wait_add(struct sched *s, struct sched_task *t, bool fresh)
{
    struct sched_service *svc = t->service;
    t->waiting = true;
    t->fresh = fresh;
    link_push(fresh ? &svc->fresh : &svc->refused, &t->link);
    if (fresh && link_alone(&svc->todo))
        link_push(&svc->priority->todo, &svc->todo);
    if (!fresh && link_alone(&svc->again))
        link_push(&s->refused, &svc->again);
    s->waiting++;
}

static void wait_del(struct sched *s, struct sched_task *t)
{
    link_del(&t->link);
    if (link_alone(&t->service->fresh))
        link_del(&t->service->todo);
    if (link_alone(&t->service->refused))
        link_del(&t->service->again);
    t->waiting = false;
    s->waiting--;
}

void sched_refuse(struct sched *s, struct sched_task *t)
{
    wait_del(s, t);
    wait_add(s, t, false);
}

static bool runs(const struct sched_task *t)
{
    return t->active && t->state == TASK_RUNNING && !t->evicted;
}

/* uncount - takes the task off its node. */
static void uncount(struct sched *s, struct sched_task *t)
{
    struct sched_service *svc = t->service;
    svc->running -= runs(t);
    if (t->holds) {
        CHECK(t->node != NULL);
        claim(s, t, t->node, false);
        sched_hold(s, t->node, t->spec, -1);
    }
    if (t->active) {
        CHECK(t->node != NULL);
        t->node->active--;
        svc->active--;
        count_task(&svc->counts, t->node->number, -1);
        note_freed(s, t->node);
    }
    if (t->node)
        t->node->tasks--;
    if (t->nominated)
        sched_unnominate(s, t);
    if (t->waiting)
        wait_del(s, t);
    else
        link_del(&t->link);
    t->holds = t->active = false;
}

static void count(struct sched *s, struct sched_task *t, struct sched_node *n)
{
    struct sched_service *svc = t->service;
    t->node = n;
    t->holds = n && t->state >= TASK_ASSIGNED && t->state <= TASK_RUNNING;
    t->active = t->holds && t->desired <= TASK_COMPLETE;
    if (n)
        n->tasks++;
    if (t->holds) {
        sched_hold(s, n, t->spec, 1);
        claim(s, t, n, true);
    }
    if (t->active) {
        n->active++;
        svc->active++;
        count_task(&svc->counts, n->number, 1);
    }
    svc->running += runs(t);
    if (t->state == TASK_PENDING)
        wait_add(s, t, true);
    else if (n)
        link_push(&n->held, &t->link);
}

void sched_set(struct sched *s, struct sched_task *t, struct sched_node *n, enum task_state state,
               enum task_state desired)
{
    struct sched_node *before = t->node;
    bool was_ready = before && t->state >= TASK_READY;
    bool holds = n && state >= TASK_ASSIGNED && state <= TASK_RUNNING;
    if (before == n && holds && t->holds && t->active == (desired <= TASK_COMPLETE)) { /* it goes on */
        t->service->running -= runs(t);
        t->state = (uint16_t)state;
        t->desired = (uint16_t)desired;
        t->service->running += runs(t);
    } else {
        uncount(s, t);
        t->state = (uint16_t)state;
        t->desired = (uint16_t)desired;
        count(s, t, n);
        if (before && before != n)
            drop_unused_node(s, before);
    }
    if (holds && state >= TASK_READY && !(was_ready && before == n))
        note_image(s, t);
    look_at_balance(s, t->service);
}

void sched_evict(struct sched *s, struct sched_task *t)
{
    t->service->running -= runs(t);
    t->evicted = true;
    t->service->running += runs(t);
    look_at_balance(s, t->service);
}

void sched_nominate(struct sched *s, struct sched_task *t, struct sched_node *n)
{
    CHECK(!t->nominated);
    if (s->nnominations == s->nominations_cap) {
        s->nominations_cap = s->nominations_cap ? s->nominations_cap * 2 : 16;
        s->nominations = reallocarray(s->nominations, s->nominations_cap, sizeof *s->nominations);
        CHECK(s->nominations != NULL);
    }
    s->nominations[s->nnominations++] = (struct sched_nomination){ t, n };
    t->nominated = true;
    sched_hold(s, n, t->spec, 1);
}

const struct sched_node *sched_nominated(const struct sched *s, const struct sched_task *t)
{
    for (size_t i = 0; t->nominated && i < s->nnominations; i++)
        if (s->nominations[i].task == t)
            return s->nominations[i].node;
    return NULL;
}

void sched_unnominate(struct sched *s, struct sched_task *t)
{
    size_t i = 0;
    while (i < s->nnominations && s->nominations[i].task != t)
        i++;
    CHECK(i < s->nnominations);
    struct sched_node *n = s->nominations[i].node;
    s->nominations[i] = s->nominations[--s->nnominations];
    t->nominated = false;
    sched_hold(s, n, t->spec, -1);
}

/* ---- generic resources that a task was given ---- */

static void forget_given(struct sched *s, struct sched_task *t)
{
    struct str id = table_key(&s->tasks, t);
    struct sched_given *g = t->given ? table_get(&s->given, id) : NULL;
    t->given = false;
    if (!g)
        return;
    free(g->block);
    table_del(&s->given, id);
}

static void pack_given(struct sched_pack *k, const struct list *l, struct sched_given *g)
{
    const struct view_generic *v = l->v;
    g->v = sched_pack_room(k, l->n * sizeof *g->v);
    g->n = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct view_named *named = v[i].NamedResourceSpec;
        if (!named)
            continue;
        struct sched_need one = { sched_pack_str(k, named->Kind), sched_pack_str(k, named->Value) };
        if (g->v)
            g->v[g->n] = one;
        g->n++;
    }
}

/* keep_given - remembers the named ones; the others are known from the spec. */
static void keep_given(struct sched *s, struct sched_task *t, const struct list *l)
{
    struct sched_given g = { 0 };
    struct sched_pack k = { 0 };
    forget_given(s, t);
    pack_given(&k, l, &g);
    if (g.n == 0)
        return;
    k = (struct sched_pack){ malloc(k.n), 0 };
    CHECK(k.p != NULL);
    g.block = k.p;
    pack_given(&k, l, &g);
    *(struct sched_given *)table_put(&s->given, table_key(&s->tasks, t), NULL) = g;
    t->given = true;
}

static void add_generic(struct arena *a, struct list *l, const struct view_generic *one)
{
    struct view_generic *v = l->v;
    CHECK(v != NULL);
    if (one->NamedResourceSpec)
        v[l->n].NamedResourceSpec =
            memcpy(arena_alloc(a, sizeof(struct view_named)), one->NamedResourceSpec, sizeof(struct view_named));
    else
        v[l->n].DiscreteResourceSpec = memcpy(arena_alloc(a, sizeof(struct view_discrete)), one->DiscreteResourceSpec,
                                              sizeof(struct view_discrete));
    l->n++;
}

struct list sched_give(struct sched *s, struct sched_task *t, struct arena *a)
{
    const struct sched_class *c = t->spec->class;
    struct list l = { 0 };
    size_t room = 0;
    if (c->nkinds == 0)
        return l;
    CHECK(t->node != NULL);
    for (unsigned i = 0; i < c->nkinds; i++) {
        const struct sched_stock *st = stock_of(t->node, c->kinds[i].name);
        room += st && st->named ? (size_t)c->kinds[i].amount : 1;
    }
    l.v = arena_array(a, room, sizeof(struct view_generic));
    for (unsigned i = 0; i < c->nkinds; i++) {
        const struct sched_stock *st = stock_of(t->node, c->kinds[i].name);
        int64_t want = c->kinds[i].amount;
        struct view_discrete d = { c->kinds[i].name, want };
        if (!st || !st->named)
            add_generic(a, &l, &(struct view_generic){ .DiscreteResourceSpec = &d });
        for (int64_t k = 0; st && st->named && k < st->amount && want > 0; k++) {
            struct view_named named = { c->kinds[i].name, st->ids[k] };
            if (st->taken[k])
                continue;
            add_generic(a, &l, &(struct view_generic){ .NamedResourceSpec = &named });
            want--;
        }
    }
    keep_given(s, t, &l);
    claim(s, t, t->node, true);
    return l;
}

/* ---- tasks ---- */

static bool interesting(enum task_state state)
{
    return state >= TASK_PENDING && state <= TASK_RUNNING;
}

static bool has_failed(enum task_state state)
{
    return state == TASK_FAILED || state == TASK_REJECTED;
}

void sched_put_failure(struct sched *s, const struct view_task *v, int64_t now_ns)
{
    if (has_failed(task_state_parse(v->Status.State)))
        note_failure(s, table_get(&s->nodes, v->NodeID), v, now_ns);
}

void sched_again(struct sched *s, struct str id)
{
    struct sched_task *t = table_get(&s->tasks, id);
    if (!t)
        return;
    t->said = 0;
    if (t->waiting && !t->fresh) {
        wait_del(s, t);
        wait_add(s, t, true);
    }
}

static struct sched_spec *spec_of(struct sched *s, struct str id)
{
    struct sched_spec *spec = table_get(&s->specs, id);
    struct err e;
    if (!spec) {
        CHECK(sched_put_spec(s, id, STR("\x80"), NULL, NULL, &e) == 0); /* unknown: an empty one */
        spec = table_get(&s->specs, id);
    }
    spec->refs++;
    return spec;
}

static void unref_class(struct sched *s, struct sched_class *c)
{
    if (--c->refs)
        return;
    sched_pool_free(s, c);
    free(c->block);
    table_del(&s->classes, table_key(&s->classes, c));
}

static void unref_spec(struct sched *s, struct sched_spec *spec)
{
    if (--spec->refs)
        return;
    unref_class(s, spec->class);
    table_del(&s->specs, table_key(&s->specs, spec));
}

static struct sched_task *new_task(struct sched *s, const struct view_task *v)
{
    struct sched_spec *spec = spec_of(s, v->TaskSpecID);
    struct sched_service *svc = service_of(s, v->ServiceID);
    struct sched_task *t = table_put(&s->tasks, v->ID, NULL);
    svc->refs++;
    *t = (struct sched_task){ .spec = spec, .service = svc };
    t->slot = v->Slot < UINT32_MAX ? (unsigned)v->Slot : UINT32_MAX;
    link_init(&t->link);
    return t;
}

void sched_put_task(struct sched *s, const struct view_task *v, int64_t now_ns)
{
    enum task_state state = task_state_parse(v->Status.State), desired = task_state_parse(v->DesiredState);
    struct sched_task *t = table_get(&s->tasks, v->ID);
    if (!interesting(state)) {
        if (t && has_failed(state)) /* seen alive before, so this counts once */
            note_failure(s, t->node, v, now_ns);
        sched_del_task(s, v->ID);
        return;
    }
    if (t && t->state == state && t->desired == desired && t->evicted == (v->Evict != NULL) && !t->given &&
        !v->GenericResources.n && (t->node ? str_eq(table_key(&s->nodes, t->node), v->NodeID) : v->NodeID.n == 0))
        return; /* nothing that matters here: a message, an address */
    t = t ? t : new_task(s, v);
    if (t->given || v->GenericResources.n) {
        sched_set(s, t, NULL, TASK_NEW, TASK_NEW);
        keep_given(s, t, &v->GenericResources);
    }
    if (t->evicted != (v->Evict != NULL)) {
        t->service->running -= runs(t);
        t->evicted = v->Evict != NULL;
        t->service->running += runs(t);
    }
    sched_set(s, t, v->NodeID.n ? node_of(s, v->NodeID) : NULL, state, desired);
}

void sched_del_task(struct sched *s, struct str id)
{
    struct sched_task *t = table_get(&s->tasks, id);
    if (!t)
        return;
    struct sched_service *svc = t->service;
    sched_set(s, t, NULL, TASK_NEW, TASK_NEW);
    forget_given(s, t);
    unref_spec(s, t->spec);
    table_del(&s->tasks, table_key(&s->tasks, t));
    svc->refs--;
    drop_unused_service(s, svc);
}

/* ---- constraints on what runs ---- */

void sched_enforce_again(struct sched *s)
{
    for (size_t i = 0; i < s->nlooked; i++)
        if (s->looked[i] < s->nat && s->at[s->looked[i]])
            note_enforce(s, s->at[s->looked[i]]);
    s->nlooked = 0;
}

static void add_id(struct str **v, size_t *n, size_t *cap, struct str id, struct arena *a)
{
    if (*n == *cap) {
        struct str *more = arena_array(a, *cap = *cap ? *cap * 2 : 64, sizeof *more);
        CHECK(more != NULL);
        if (*n)
            memcpy(more, *v, *n * sizeof *more);
        *v = more;
    }
    (*v)[(*n)++] = id;
}

struct str *sched_enforce(struct sched *s, struct arena *a, size_t *ret_n)
{
    struct str *v = NULL;
    size_t cap = 0, later = 0;
    *ret_n = s->nlooked = 0;
    for (size_t i = 0; i < s->nenforce; i++) {
        struct sched_node *n = s->at[s->enforce[i]];
        if (!n->present || !n->ready) { /* as Docker, one that is drained or down is looked at later */
            s->enforce[later++] = n->number;
            continue;
        }
        for (struct sched_link *l = n->held.next; l != &n->held; l = l->next) {
            struct sched_task *t = SCHED_OF(l, struct sched_task, link);
            if (t->active && !t->evicted && !sched_meets_constraints(t->spec->class, n))
                add_id(&v, ret_n, &cap, table_key(&s->tasks, t), a);
        }
        n->enforce = false;
        s->looked = sched_room_unsigned(s->looked, s->nlooked, &s->looked_cap);
        s->looked[s->nlooked++] = n->number;
    }
    s->nenforce = later;
    return v;
}

/* ---- invariants ---- */

struct sum {
    int64_t cpu, memory;
    unsigned active, tasks;
};

static void check_service(const struct sched *s, const struct sched_service *svc)
{
    const struct sched_count *c;
    unsigned active = 0;
    for (unsigned i = 0; (c = sched_count_next(&svc->counts, &i));) {
        CHECK(c->node < s->nat && s->at[c->node]);
        active += c->n;
    }
    CHECK(active == svc->active && svc->running <= svc->active);
    CHECK(link_alone(&svc->fresh) == link_alone(&svc->todo));
    CHECK(link_alone(&svc->refused) == link_alone(&svc->again));
}

void sched_check(const struct sched *s)
{
    struct sum *sums = calloc(s->nat + 1, sizeof *sums);
    struct sched_node *n;
    struct sched_task *t;
    struct sched_service *svc;
    size_t waiting = 0, refs = 0;
    CHECK(sums != NULL);
    for (struct table_pos q = { 0 }; table_next(&s->tasks, &q, NULL, &t);) {
        waiting += t->waiting;
        CHECK(!t->nominated || t->waiting);
        if (!t->node)
            continue;
        struct sum *x = &sums[t->node->number];
        x->tasks++;
        x->active += t->active;
        x->cpu += t->holds ? t->spec->cpu : 0;
        x->memory += t->holds ? t->spec->memory : 0;
    }
    for (size_t i = 0; i < s->nnominations; i++) {
        sums[s->nominations[i].node->number].cpu += s->nominations[i].task->spec->cpu;
        sums[s->nominations[i].node->number].memory += s->nominations[i].task->spec->memory;
    }
    for (struct table_pos p = { 0 }; table_next(&s->nodes, &p, NULL, &n);) {
        const struct sum *x = &sums[n->number];
        CHECK(x->cpu == n->used_cpu && x->memory == n->used_memory && x->active == n->active && x->tasks == n->tasks);
        CHECK((n->present || n->tasks) && s->at[n->number] == n);
    }
    for (struct table_pos p = { 0 }; table_next(&s->services, &p, NULL, &svc);) {
        check_service(s, svc);
        refs += svc->refs;
    }
    CHECK(refs == s->tasks.count && waiting == s->waiting);
    free(sums);
}

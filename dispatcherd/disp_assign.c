/* disp_assign.c - everything a node needs for a task, gathered from the documents. */
#include "common/util/check.h"
#include "dispatcherd/disp_pass.h"

/* Services and taskspecs that were read for this answer: most tasks share them. */
struct known {
    struct known *next;
    struct str id, name;
    struct strmap labels;
    struct str spec, log_driver, auth;
    bool present;
};

struct filling {
    struct disp_keeper *k;
    struct store_snap *snap;
    struct arena *a;
    struct str node, hostname, log_driver; /* log_driver: the cluster's default */
    struct known *services, *specs;
    struct disp_assignments_reply *rep;
    size_t cap_tasks, cap_removed;
};

static struct str text(struct str doc, const char *path)
{
    struct str s;
    return mp_get_str(doc, path, &s) ? s : STR("");
}

static struct str raw(struct str doc, const char *path)
{
    struct str s;
    return mp_path(doc, path, &s) ? s : STR("");
}

static uint64_t print_of(const struct disp_keeper *k, struct str id, struct str doc)
{
    return disp_print(text(doc, "DesiredState"), text(doc, "TaskSpecID"), raw(doc, "Ports")) +
           dnet_task_drained(&k->net, id, doc);
}

/* to_tell - nodes hear of a task from the moment it is assigned until its record is deleted. */
static bool to_tell(struct str doc)
{
    return task_state_parse(text(doc, "Status.State")) >= TASK_ASSIGNED;
}

void disp_note_task(struct disp_keeper *k, struct str id, struct str doc)
{
    struct str node = text(doc, "NodeID");
    if (node.n && to_tell(doc))
        disp_task(&k->core, node, id, print_of(k, id, doc));
}

static struct known *known_in(struct filling *f, struct known **list, struct str id, bool *ret_new)
{
    for (struct known *i = *list; i; i = i->next)
        if (str_eq(i->id, id)) {
            *ret_new = false;
            return i;
        }
    struct known *n = arena_alloc(f->a, sizeof *n);
    CHECK(n != NULL);
    n->id = id;
    n->next = *list;
    *list = n;
    *ret_new = true;
    return n;
}

static const struct known *service_of(struct filling *f, struct str id)
{
    struct view_service v;
    struct str doc;
    struct err e;
    bool fresh;
    struct known *s = known_in(f, &f->services, id, &fresh);
    if (fresh && store_get(f->snap, KIND_SERVICE, id, &doc) == 0 && view_service(doc, &v, f->a, &e) == 0) {
        s->present = true;
        s->name = v.Spec.Name;
        s->labels = v.Spec.Labels;
    }
    return s;
}

static const struct known *spec_of(struct filling *f, struct str id)
{
    struct str doc, credential, secret;
    bool fresh;
    struct known *s = known_in(f, &f->specs, id, &fresh);
    if (!fresh || store_get(f->snap, KIND_TASKSPEC, id, &doc) != 0)
        return s;
    s->present = true;
    s->spec = raw(doc, "Spec");
    s->log_driver = raw(doc, "Spec.LogDriver");
    credential = text(doc, "CredentialID");
    if (credential.n && store_get(f->snap, KIND_CREDENTIAL, credential, &secret) == 0)
        s->auth = text(secret, "Data");
    return s;
}

static void *one_more(struct filling *f, void *v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return v;
    *cap = *cap ? *cap * 2 : 16;
    void *more = arena_array(f->a, *cap, size);
    CHECK(more != NULL);
    if (n)
        memcpy(more, v, n * size);
    return more;
}

static void tell(struct filling *f, struct disp_peer *p, struct str id, struct str doc)
{
    struct list *l = &f->rep->Tasks;
    const struct known *service = service_of(f, text(doc, "ServiceID"));
    const struct known *spec = spec_of(f, text(doc, "TaskSpecID"));
    l->v = one_more(f, l->v, l->n, &f->cap_tasks, sizeof(struct assignment));
    struct assignment *a = &((struct assignment *)l->v)[l->n++];
    *a = (struct assignment){ .ID = id,
                              .ServiceID = text(doc, "ServiceID"),
                              .ServiceName = service->name,
                              .ServiceLabels = service->labels,
                              .NodeID = f->node,
                              .NodeHostname = f->hostname,
                              .DesiredState = text(doc, "DesiredState"),
                              .Spec = spec->spec,
                              .Ports = raw(doc, "Ports"),
                              .GenericResources = raw(doc, "GenericResources"),
                              .LogDriver = spec->log_driver.n ? spec->log_driver : f->log_driver,
                              .RegistryAuth = spec->auth,
                              .Drained = dnet_task_drained(&f->k->net, id, doc),
                              .DrainMs = dnet_drain_ms(&f->k->net, doc, text(doc, "ServiceID")) };
    dnet_attachments(f->snap, doc, f->a, &a->Networks);
    (void)mp_get_u64(doc, "Rev", &a->Rev);
    (void)mp_get_u64(doc, "Slot", &a->Slot);
    disp_tell(&f->k->core, p, id, print_of(f->k, id, doc));
    f->k->assignments++;
}

static void untell(struct filling *f, struct disp_peer *p, struct str id)
{
    struct strs *l = &f->rep->Removed;
    if (!disp_untell(&f->k->core, p, id))
        return;
    l->v = one_more(f, l->v, l->n, &f->cap_removed, sizeof *l->v);
    l->v[l->n++] = arena_str(f->a, id);
}

static void fill_all(struct filling *f, struct disp_peer *p)
{
    struct store_iter it;
    disp_told_none(&f->k->core, p);
    f->rep->Full = true;
    for (store_each_index(f->snap, IX_TASK_NODE, f->node, &it); store_next(&it);)
        if (to_tell(it.doc))
            tell(f, p, it.id, it.doc);
}

static void fill_changes(struct filling *f, struct disp_peer *p)
{
    struct str id, doc;
    for (struct table_pos pos = { 0 }; table_next(&p->dirty, &pos, &id, NULL);) {
        if (store_get(f->snap, KIND_TASK, id, &doc) != 0 || !str_eq(text(doc, "NodeID"), f->node) || !to_tell(doc))
            untell(f, p, id);
        else
            tell(f, p, arena_str(f->a, id), doc);
    }
}

void disp_fill(struct disp_keeper *k, struct store_snap *snap, struct disp_peer *p, struct str node, uint64_t revision,
               enum disp_answer plan, struct arena *a, struct disp_assignments_reply *rep)
{
    struct filling f = { .k = k, .snap = snap, .a = a, .node = node, .rep = rep };
    struct store_iter it;
    struct str doc;
    *rep = (struct disp_assignments_reply){ .Seq = p->seq };
    if (plan == DISP_NOTHING)
        return;
    if (store_get(snap, KIND_NODE, node, &doc) == 0)
        f.hostname = text(doc, "Description.Hostname");
    for (store_each(snap, KIND_CLUSTER, &it); store_next(&it);)
        f.log_driver = raw(it.doc, "Spec.TaskDefaults.LogDriver");
    if (plan == DISP_FULL)
        fill_all(&f, p);
    else
        fill_changes(&f, p);
    table_clear(&p->dirty);
    p->resync = false;
    p->seq = rep->Seq = revision > p->seq ? revision : p->seq + 1;
    k->answers++;
}

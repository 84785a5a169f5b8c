/* disp_usages.c - self-scaling services: what is to be measured goes to the nodes, what they measure to the store. */
#include "common/util/check.h"
#include "dispatcherd/disp_pass.h"

static struct str text(struct str doc, const char *path)
{
    struct str s;
    return mp_get_str(doc, path, &s) ? s : STR("");
}

int disp_usage(struct disp_keeper *k, const struct disp_usage *q, struct str node, struct err *e)
{
    struct store_snap *snap;
    struct str owner, doc;
    bool due = false;
    if (!disp_peer_of_call(k, q->SessionID, node, &owner))
        return err_set(e, ERR_GONE, DISP_NO_SESSION);
    if (store_begin(controller_store(k->controller), &snap, e) < 0)
        return -e->code;
    for (size_t i = 0; i < q->Usages.n; i++) {
        const struct task_usage *t = &((const struct task_usage *)q->Usages.v)[i];
        if (store_get(snap, KIND_TASK, t->TaskID, &doc) != 0 || !str_eq(text(doc, "NodeID"), owner) ||
            !str_is(text(doc, "DesiredState"), "running") || !table_get(&k->scaling, text(doc, "ServiceID")))
            continue;
        due |= usages_take(&k->usages, text(doc, "ServiceID"), t, k->calls->now_ms());
    }
    store_end(snap);
    if (due)
        controller_kick(k->controller);
    return 0;
}

static void write_one(struct disp_keeper *k, struct controller_pass *p, struct str service, const struct view_usage *u)
{
    struct buf *b = &k->doc;
    buf_clear(b);
    mp_map(b, 1);
    mp_cstr(b, "Usage");
    mp_map(b, 4 + (u->HasMetric ? 2 : 0) + (u->Error.n != 0));
    mp_kv_u64(b, "Tasks", u->Tasks);
    mp_kv_u64(b, "NanoCPUs", u->NanoCPUs);
    mp_kv_u64(b, "MemoryBytes", u->MemoryBytes);
    mp_kv_i64(b, "At", p->now.ns);
    if (u->HasMetric) {
        mp_kv_bool(b, "HasMetric", true);
        mp_cstr(b, "Metric");
        mp_f64(b, u->Metric);
    }
    if (u->Error.n)
        mp_kv_str(b, "Error", u->Error);
    txn_merge(p->txn, KIND_SERVICE, arena_str(&p->txn->arena, service), txn_doc(p->txn, b));
}

void disp_write_usages(struct disp_keeper *k, struct controller_pass *p)
{
    struct table_pos pos = { 0 };
    struct view_usage u;
    struct str service, doc;
    while (usages_due(&k->usages, &pos, k->calls->now_ms(), &service, &u))
        if (store_get(p->snap, KIND_SERVICE, service, &doc) == 0)
            write_one(k, p, service, &u);
}

void disp_note_use(struct disp_keeper *k, struct str id, struct str doc)
{
    if (k->usages.tasks.count && (task_state_parse(text(doc, "DesiredState")) != TASK_RUNNING ||
                                  task_state_parse(text(doc, "Status.State")) != TASK_RUNNING))
        usages_drop(&k->usages, id);
}

void disp_note_scaling(struct disp_keeper *k, struct store_snap *snap, struct str id, struct str doc)
{
    uint64_t *known = table_get(&k->scaling, id), now = usages_print(doc);
    struct store_iter it;
    if (now == (known ? *known : 0))
        return;
    if (now)
        *(uint64_t *)table_put(&k->scaling, id, NULL) = now;
    else
        table_del(&k->scaling, id);
    if (!now)
        usages_forget(&k->usages, id);
    for (store_each_index(snap, IX_TASK_SERVICE, id, &it); store_next(&it);)
        disp_task_gone(&k->core, it.id); /* its node must hear of it */
}

/* disp_node.c - what becomes of nodes: ready, unknown, down, damped, and the tasks of those that do not come back. */
#include <inttypes.h>
#include <stdio.h>

#include "common/daemon/log.h"
#include "common/util/check.h"
#include "dispatcherd/disp_pass.h"

static const char *const loss_message[] = {
    [DISP_LOSS_SILENT] = "heartbeat failure",
    [DISP_LOSS_UNKNOWN] = "Node moved to \"unknown\" state due to leadership change in cluster",
    [DISP_LOSS_NEVER_CAME] = "heartbeat failure for node in \"unknown\" state",
};

#define DESCRIPTION_MAX 65536u

int disp_check_description(struct str description, struct arena *a, struct err *e)
{
    struct buf doc = BUF_INIT;
    struct view_node v;
    struct err why;
    if (description.n > DESCRIPTION_MAX)
        return err_set(e, ERR_INVALID, "Description: %zu bytes, at most %u are allowed", description.n,
                       DESCRIPTION_MAX);
    mp_map(&doc, 1);
    mp_kv_raw(&doc, "Description", description);
    struct str copy = arena_str(a, buf_str(&doc));
    bool failed = doc.failed || copy.p == NULL;
    buf_done(&doc);
    if (failed)
        return err_set(e, ERR_NOMEM, "Description: out of memory");
    return view_node(copy, &v, a, &why) == 0 ? 0 : err_set(e, ERR_INVALID, "Description: %s", why.msg);
}

static struct str text(struct str doc, const char *path)
{
    struct str s;
    return mp_get_str(doc, path, &s) ? s : STR("");
}

static struct disp_life life_of(struct str doc)
{
    struct disp_life l = { 0 };
    (void)mp_get_u64(doc, "Liveness.Downs", &l.downs);
    (void)mp_get_i64(doc, "Liveness.DownAt", &l.down_at_ns);
    (void)mp_get_i64(doc, "Liveness.HeldUntil", &l.held_until_ns);
    (void)mp_get_i64(doc, "Liveness.OrphanAt", &l.orphan_at_ns);
    return l;
}

static void put_life(struct buf *b, const struct disp_life *l)
{
    mp_cstr(b, "Liveness");
    mp_map(b, 4);
    mp_kv_u64(b, "Downs", l->downs);
    mp_kv_i64(b, "DownAt", l->down_at_ns);
    mp_kv_i64(b, "HeldUntil", l->held_until_ns);
    mp_kv_i64(b, "OrphanAt", l->orphan_at_ns);
}

static void put_status(struct buf *b, const char *state, const char *message, struct str addr)
{
    mp_cstr(b, "Status");
    mp_map(b, 1 + (message[0] != 0) + (addr.n != 0));
    mp_kv_cstr(b, "State", state);
    if (message[0])
        mp_kv_cstr(b, "Message", message);
    if (addr.n)
        mp_kv_str(b, "Addr", addr);
}

void disp_learn_node(struct disp_keeper *k, struct str id, struct str doc)
{
    struct disp_life l = life_of(doc);
    bool down = str_is(text(doc, "Status.State"), "down");
    if (down && l.orphan_at_ns)
        *(int64_t *)table_put(&k->orphans, id, NULL) = l.orphan_at_ns;
    else
        table_del(&k->orphans, id);
    if (down && l.held_until_ns)
        *(int64_t *)table_put(&k->holds, id, NULL) = l.held_until_ns;
    else
        table_del(&k->holds, id);
}

/* ---- coming ---- */

void disp_take_hello(struct disp_keeper *k, struct controller_pass *p, struct disp_wait *w)
{
    struct buf *b = &k->doc;
    struct str doc = STR(""), stored = STR("");
    char until[WALL_TEXT_MAX], message[WALL_TEXT_MAX + 64] = "";
    if (w->node[0] == 0)
        (void)str_copy(w->node, sizeof w->node, p->meta->node_id);
    struct str id = arena_str(&p->txn->arena, str_from(w->node));
    w->vanished = store_get(p->snap, KIND_NODE, id, &doc) != 0;
    if (w->vanished)
        return;
    struct disp_life life = life_of(doc);
    w->held = life.held_until_ns > p->now.ns;
    if (w->held) {
        wall_format((struct wall_ns){ life.held_until_ns }, until);
        snprintf(message, sizeof message, "node goes up and down: not ready before %s", until);
    }
    const char *state = w->held ? "down" : "ready";
    struct str addr = text(doc, "Status.Addr"), new_addr = w->addr[0] ? str_from(w->addr) : addr;
    struct str data_addr = w->session->DataPathAddr;
    bool other_data = !str_eq(text(doc, "DataPathAddr"), data_addr);
    bool other_boot = !str_eq(text(doc, "BootID"), w->session->BootID);
    (void)mp_find(doc, "Description", &stored);
    if (str_is(text(doc, "Status.State"), state) && str_is(text(doc, "Status.Message"), message) &&
        life.orphan_at_ns == 0 && str_eq(stored, w->session->Description) && str_eq(addr, new_addr) && !other_data &&
        !other_boot)
        return;
    bool was_down = life.orphan_at_ns != 0 || (life.held_until_ns != 0 && !w->held);
    life.orphan_at_ns = 0;
    if (!w->held)
        life.held_until_ns = 0;
    buf_clear(b);
    mp_map(b, 2 + was_down + other_data + other_boot);
    mp_kv_raw(b, "Description", w->session->Description);
    if (other_data)
        mp_kv_str(b, "DataPathAddr", data_addr);
    if (other_boot)
        mp_kv_str(b, "BootID", w->session->BootID);
    put_status(b, state, message, new_addr);
    if (was_down)
        put_life(b, &life);
    txn_merge(p->txn, KIND_NODE, id, txn_doc(p->txn, b));
}

void disp_write_ready(struct disp_keeper *k, struct controller_pass *p)
{
    struct str node, doc;
    int64_t *at;
    for (struct table_pos pos = { 0 }; table_next(&k->holds, &pos, &node, &at);) {
        struct disp_peer *peer = table_get(&k->core.peers, node);
        if (!peer || !peer->session[0] || !peer->held)
            continue; /* it comes by itself, with a session */
        if (*at > p->now.ns) {
            p->next_ns = *at < p->next_ns ? *at : p->next_ns;
            continue;
        }
        if (store_get(p->snap, KIND_NODE, node, &doc) != 0)
            continue;
        struct disp_life life = life_of(doc);
        life.held_until_ns = 0;
        buf_clear(&k->doc);
        mp_map(&k->doc, 2);
        put_status(&k->doc, "ready", "", text(doc, "Status.Addr"));
        put_life(&k->doc, &life);
        txn_merge(p->txn, KIND_NODE, arena_str(&p->txn->arena, node), txn_doc(p->txn, &k->doc));
    }
}

/* ---- going ---- */

static void write_down(struct disp_keeper *k, struct controller_pass *p, struct str id, struct str doc)
{
    struct disp_life life = life_of(doc);
    bool was_unknown = str_is(text(doc, "Status.State"), "unknown");
    if (str_is(text(doc, "Status.State"), "down") && life.orphan_at_ns)
        return; /* the last transaction got through after all */
    disp_life_down(&life, &k->flap, k->orphan_after_ns, p->now.ns);
    if (life.held_until_ns > p->now.ns) {
        log_warn("node=" STR_FMT " went down %" PRIu64 " times: held back for %" PRId64 " s", STR_ARG(id), life.downs,
                 (life.held_until_ns - p->now.ns) / 1000000000);
        k->damped++;
    }
    buf_clear(&k->doc);
    mp_map(&k->doc, 2);
    put_status(&k->doc, "down", loss_message[was_unknown ? DISP_LOSS_NEVER_CAME : DISP_LOSS_SILENT],
               text(doc, "Status.Addr"));
    put_life(&k->doc, &life);
    txn_merge(p->txn, KIND_NODE, id, txn_doc(p->txn, &k->doc));
}

static void write_unknown(struct disp_keeper *k, struct controller_pass *p, struct str id, struct str doc)
{
    if (!str_is(text(doc, "Status.State"), "ready"))
        return;
    buf_clear(&k->doc);
    mp_map(&k->doc, 1);
    put_status(&k->doc, "unknown", loss_message[DISP_LOSS_UNKNOWN], text(doc, "Status.Addr"));
    txn_merge(p->txn, KIND_NODE, id, txn_doc(p->txn, &k->doc));
}

/* disp_write_losses - all nodes that were lost, at once. Limits on how many may be declared down at a time (when it is
 * rather this manager that was cut off) belong here; orchestratord moves the tasks of whatever is down. */
void disp_write_losses(struct disp_keeper *k, struct controller_pass *p)
{
    struct str node, doc;
    while (marks_pop(&k->lost, &node)) {
        const struct disp_peer *peer = table_get(&k->core.peers, node);
        const struct disp_lost *l = table_get(&k->loss, node);
        if ((peer && peer->session[0]) || !l || store_get(p->snap, KIND_NODE, node, &doc) != 0)
            continue; /* it is back already */
        struct str id = arena_str(&p->txn->arena, node);
        if (l->why == DISP_LOSS_UNKNOWN)
            write_unknown(k, p, id, doc);
        else
            write_down(k, p, id, doc);
    }
}

/* ---- tasks of which nobody will report any more ---- */

static void orphan(struct disp_keeper *k, struct controller_pass *p, struct str id, struct str status,
                   const char *message)
{
    struct buf patch = BUF_INIT;
    struct err e;
    mp_map(&patch, 4);
    mp_kv_cstr(&patch, "State", "orphaned");
    mp_kv_cstr(&patch, "Message", message);
    mp_kv_i64(&patch, "Timestamp", p->now.ns);
    mp_kv_i64(&patch, "AppliedAt", p->now.ns);
    buf_clear(&k->doc);
    mp_map(&k->doc, 1);
    mp_cstr(&k->doc, "Status");
    if (mp_merge(&k->doc, status, buf_str(&patch), &e) == 0) {
        txn_merge(p->txn, KIND_TASK, arena_str(&p->txn->arena, id), txn_doc(p->txn, &k->doc));
        k->orphaned++;
    }
    buf_done(&patch);
}

/* orphan_all - false when the transaction is full before the end. A task that is being reported about in this very
 * transaction keeps that report. */
static bool orphan_all(struct disp_keeper *k, struct controller_pass *p, struct str node, enum task_state least,
                       const char *message)
{
    struct store_iter it;
    struct str status;
    for (store_each_index(p->snap, IX_TASK_NODE, node, &it); store_next(&it);) {
        enum task_state s = task_state_parse(text(it.doc, "Status.State"));
        if (s < least || s > TASK_RUNNING || table_get(&k->best, it.id) || !mp_find(it.doc, "Status", &status))
            continue;
        if (p->txn->nchg >= CONTROLLER_CHANGES_SOFT) {
            store_iter_done(&it);
            p->more = true;
            return false;
        }
        orphan(k, p, it.id, status, message);
    }
    return true;
}

static void write_given_up(struct disp_keeper *k, struct controller_pass *p, struct str node)
{
    struct str doc;
    if (store_get(p->snap, KIND_NODE, node, &doc) != 0 ||
        !orphan_all(k, p, node, TASK_ASSIGNED, "task was given up: its node is down"))
        return;
    struct disp_life life = life_of(doc);
    log_warn("node=" STR_FMT " has been down for too long: its tasks are given up", STR_ARG(node));
    life.orphan_at_ns = 0;
    buf_clear(&k->doc);
    mp_map(&k->doc, 1);
    put_life(&k->doc, &life);
    txn_merge(p->txn, KIND_NODE, arena_str(&p->txn->arena, node), txn_doc(p->txn, &k->doc));
}

void disp_write_orphans(struct disp_keeper *k, struct controller_pass *p)
{
    struct str node, doc;
    int64_t *at;
    for (struct table_pos pos = { 0 }; table_next(&k->orphans, &pos, &node, &at);) {
        const struct disp_peer *peer = table_get(&k->core.peers, node);
        if (peer && peer->session[0])
            continue;
        if (*at > p->now.ns)
            p->next_ns = *at < p->next_ns ? *at : p->next_ns;
        else
            write_given_up(k, p, node);
    }
    while (!p->more && marks_pop(&k->gone, &node))
        if (store_get(p->snap, KIND_NODE, node, &doc) != 0 &&
            !orphan_all(k, p, node, TASK_NEW, "Task belonged to a node that has been deleted"))
            marks_add(&k->gone, node);
}

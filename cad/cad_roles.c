/* cad_roles.c - promotions, demotions, and members of the Raft group that should not be in it. */
#include <stdio.h>

#include "cad/cad_pass.h"
#include "common/daemon/log.h"
#include "common/util/check.h"

#define SAY_AFTER 3u /* failures that may pass by themselves */

/* ---- what is to be looked at ---- */

static bool differs(struct str doc)
{
    struct str role = cad_text_at(doc, "Role");

    return role.n == 0 || !str_eq(role, cad_text_at(doc, "Spec.Role")) || cad_text_at(doc, "Certificate.RoleErr").n > 0;
}

void cad_roles_note(struct cad_keeper *k, struct str id, struct str doc)
{
    if (doc.n > 0 && !differs(doc))
        return;
    marks_add(&k->roles, id);
    role_again(&k->role_core, id);
}

void cad_roles_members(struct cad_keeper *k, struct store_snap *snap)
{
    struct store_member m[STORE_MEMBERS_MAX];
    size_t n = store_members(snap, m);
    struct buf now = BUF_INIT;

    for (size_t i = 0; i < n; i++)
        buf_printf(&now, STR_FMT " %d\n", STR_ARG(m[i].node_id), m[i].learner);
    if (!str_eq(buf_str(&now), buf_str(&k->members))) {
        for (size_t i = 0; i < n; i++)
            if (m[i].node_id.n > 0)
                marks_add(&k->roles, m[i].node_id);
        buf_clear(&k->members);
        buf_put(&k->members, now.p, now.n);
        controller_kick(k->controller);
    }
    buf_done(&now);
}

/* ---- one node ---- */

struct group {
    struct store_member m[STORE_MEMBERS_MAX];
    size_t n;
    unsigned voters;
};

static struct role_view view_of(struct cad_work *w, const struct group *g, struct str id, struct str *ret_doc)
{
    struct role_view v = { .id = id, .self = str_eq(id, w->p->meta->node_id) };
    struct str role;

    *ret_doc = (struct str){ NULL, 0 };
    v.known = store_get(w->p->snap, KIND_NODE, id, ret_doc) == 0;
    if (v.known) {
        role = cad_text_at(*ret_doc, "Role");
        v.has_role = role.n > 0;
        v.is_manager = str_is(role, "manager");
        v.want_manager = str_is(cad_text_at(*ret_doc, "Spec.Role"), "manager");
    }
    for (size_t i = 0; i < g->n; i++)
        if (str_eq(g->m[i].node_id, id)) {
            v.member = true;
            v.learner = g->m[i].learner;
        }
    return v;
}

/* write_role - @role NULL: only why it can't be had. */
static void write_role(struct cad_work *w, struct str id, struct str doc, const char *role, struct str why)
{
    struct cad_cert_doc cert;
    struct buf *b = &w->k->doc;
    struct err e = ERR_INIT;

    if (cad_cert_doc(doc, &cert, w->p->arena, &e) < 0) {
        log_error("node=" STR_FMT ": %s", STR_ARG(id), e.msg);
        return;
    }
    if (!role && str_eq(cert.RoleErr, why))
        return;
    cert.RoleErr = why;
    if (role && cert.Keys.n > 0)
        cert.Status = STR("renew");
    buf_clear(b);
    mp_map(b, role ? 2 : 1);
    if (role)
        mp_kv_cstr(b, "Role", role);
    cad_put_cert_doc(b, &cert);
    txn_update(w->p->txn, KIND_NODE, arena_str(&w->p->txn->arena, id), txn_doc(w->p->txn, b));
    if (role)
        log_info("node=" STR_FMT " is a %s now", STR_ARG(id), role);
}

static void remove_member(struct cad_work *w, struct str id)
{
    role_started(&w->k->role_core, id);
    w->k->removals++;
    log_info("taking node=" STR_FMT " out of the managers", STR_ARG(id));
    w->k->calls->remove_member(id);
}

static struct str reason(struct cad_work *w, struct str id)
{
    const char *text = table_get(&w->k->role_errs, id);

    return str_from(text);
}

/* look - true when it is to be looked at again without a change. */
static bool look(struct cad_work *w, const struct group *g, struct str id, struct str *self)
{
    static const struct str last = { "attempting to demote the last manager of the swarm", 50 };
    struct str doc;
    struct role_view v = view_of(w, g, id, &doc);
    enum role_do what = role_step(&w->k->role_core, &v, g->voters, w->p->now.ns, &w->p->next_ns);

    if (what == ROLE_SET_MANAGER || what == ROLE_SET_WORKER) {
        table_del(&w->k->role_errs, id);
        write_role(w, id, doc, what == ROLE_SET_MANAGER ? "manager" : "worker", STR(""));
    } else if (what == ROLE_REFUSE && v.known) {
        write_role(w, id, doc, NULL, last);
    } else if (what == ROLE_REMOVE && v.self) {
        *self = id; /* after all others: whoever leads then goes on with the rest */
    } else if (what == ROLE_REMOVE) {
        remove_member(w, id);
    }
    bool wanted = v.member && !(v.known && v.want_manager);
    if (v.known && !wanted && what == ROLE_NOTHING) {
        table_del(&w->k->role_errs, id);
        write_role(w, id, doc, NULL, STR(""));
    } else if (v.known && wanted && what != ROLE_REFUSE) {
        write_role(w, id, doc, NULL, reason(w, id));
    }
    return wanted && what != ROLE_REFUSE;
}

void cad_roles_some(struct cad_work *w)
{
    struct cad_keeper *k = w->k;
    struct group g = { .n = 0 };
    struct str id, self = { NULL, 0 }, *again;
    size_t nagain = 0;

    if (k->roles.pending.count == 0)
        return;
    g.n = store_members(w->p->snap, g.m);
    for (size_t i = 0; i < g.n; i++)
        g.voters += !g.m[i].learner;
    again = arena_array(w->p->arena, k->roles.pending.count, sizeof *again);
    CHECK(again != NULL);
    while (marks_pop(&k->roles, &id))
        if (look(w, &g, id, &self))
            again[nagain++] = arena_str(w->p->arena, id);
    if (self.n > 0 && !k->role_core.removing.p)
        remove_member(w, self);
    for (size_t i = 0; i < nagain; i++)
        marks_add(&k->roles, again[i]);
}

void cad_member_removed(struct cad_keeper *k, struct str id, const struct err *e, int64_t now_ns)
{
    bool done = e->code == 0;

    role_answer(&k->role_core, id, done, now_ns);
    if (!done) {
        if (e->code == ERR_UNAVAILABLE) /* leadership moves first, or is moving */
            log_info("taking node=" STR_FMT " out of the managers has to wait: %s", STR_ARG(id), e->msg);
        else
            log_warn("taking node=" STR_FMT " out of the managers: %s", STR_ARG(id), e->msg);
        if (e->code == ERR_PRECONDITION || role_tries(&k->role_core, id) >= SAY_AFTER) {
            char *text = table_put(&k->role_errs, id, NULL);
            (void)snprintf(text, CAD_WHY_SIZE, "%s", e->msg);
        }
    } else {
        table_del(&k->role_errs, id);
    }
    if (k->leading) {
        marks_add(&k->roles, id);
        controller_kick(k->controller);
    }
}

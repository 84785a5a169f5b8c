/* role_core.c - see role_core.h. */
#include "cad/role_core.h"

#define RETRY_FIRST_NS 500000000ll
#define RETRY_LONGEST_NS 30000000000ll

struct role_try {
    unsigned failed; /* in a row */
    int64_t next_ns;
};

void role_init(struct role_core *c)
{
    *c = (struct role_core){ .removing = { NULL, 0 } };
    table_init(&c->tries, sizeof(struct role_try));
}

void role_done(struct role_core *c)
{
    table_done(&c->tries);
}

void role_clear(struct role_core *c)
{
    c->removing = (struct str){ NULL, 0 };
    table_clear(&c->tries);
}

static enum role_do step(const struct role_view *v, unsigned voters)
{
    if (v->known && v->want_manager)
        return v->has_role && v->is_manager ? ROLE_NOTHING : ROLE_SET_MANAGER;
    if (v->member)
        return voters == 1 && !v->learner ? ROLE_REFUSE : ROLE_REMOVE;
    return v->known && (!v->has_role || v->is_manager) ? ROLE_SET_WORKER : ROLE_NOTHING;
}

enum role_do role_step(struct role_core *c, const struct role_view *v, unsigned voters, int64_t now_ns,
                       int64_t *next_ns)
{
    enum role_do what = step(v, voters);
    const struct role_try *t = table_get(&c->tries, v->id);

    if (what != ROLE_REMOVE) {
        if (t && !str_eq(c->removing, v->id))
            table_del(&c->tries, v->id);
        return what;
    }
    if (c->removing.p) /* one change of the group at a time */
        return ROLE_NOTHING;
    if (t && t->failed > 0 && t->next_ns > now_ns) {
        if (t->next_ns < *next_ns)
            *next_ns = t->next_ns;
        return ROLE_NOTHING;
    }
    return ROLE_REMOVE;
}

void role_started(struct role_core *c, struct str id)
{
    void *t = table_put(&c->tries, id, NULL);

    c->removing = table_key(&c->tries, t);
}

void role_answer(struct role_core *c, struct str id, bool ok, int64_t now_ns)
{
    struct role_try *t = table_get(&c->tries, id);

    if (!c->removing.p || !str_eq(c->removing, id))
        return; /* of a leadership before this one */
    c->removing = (struct str){ NULL, 0 };
    if (ok) {
        table_del(&c->tries, id);
        return;
    }
    int64_t wait = RETRY_FIRST_NS << (t->failed < 10 ? t->failed : 10);
    t->failed++;
    t->next_ns = now_ns + (wait < RETRY_LONGEST_NS ? wait : RETRY_LONGEST_NS);
}

void role_again(struct role_core *c, struct str id)
{
    struct role_try *t = table_get(&c->tries, id);

    if (t)
        t->next_ns = 0;
}

unsigned role_tries(const struct role_core *c, struct str id)
{
    const struct role_try *t = table_get(&c->tries, id);

    return t ? t->failed : 0;
}

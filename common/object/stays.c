#include "common/object/stays.h"

#include "common/object/constraint.h"

static bool same_value(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static struct str value(struct str map, const char *key)
{
    struct str v = { NULL, 0 };
    return mp_find(map, key, &v) ? v : (struct str){ NULL, 0 };
}

/* within - every field of `a` is the same in `b`, but for the placement; counts them. */
static bool within(struct str a, struct str b, size_t *ret_n)
{
    struct mp_cursor c = mp_cursor(a);
    struct mp_val head, key;
    struct str val;
    char name[65];
    *ret_n = 0;
    if (mp_next(&c, &head) != 0 || head.type != MP_MAP)
        return false;
    for (size_t i = 0; i < head.n; i++) {
        if (mp_next(&c, &key) != 0 || key.type != MP_STR || mp_span(&c, &val) != 0 ||
            !str_copy(name, sizeof name, key.s))
            return false;
        if (str_is(key.s, "Placement"))
            continue;
        if (!same_value(val, value(b, name)))
            return false;
        ++*ret_n;
    }
    return true;
}

static bool same_but_placement(struct str a, struct str b)
{
    size_t na, nb;
    return within(a, b, &na) && within(b, a, &nb) && na == nb;
}

struct spec_change spec_change(struct str from, struct str to)
{
    struct str a = value(from, "Spec"), b = value(to, "Spec");
    return (struct spec_change){ .tasks = !same_but_placement(a, b) ||
                                          !same_value(value(from, "EndpointSpec"), value(to, "EndpointSpec")),
                                 .placement = !same_value(value(a, "Placement"), value(b, "Placement")),
                                 .credential = !same_value(value(from, "CredentialID"), value(to, "CredentialID")) };
}

static bool meets(const struct view_placement *p, const struct view_node *node)
{
    struct constraint c;
    if (!node)
        return false;
    for (size_t i = 0; i < p->Constraints.n; i++)
        if (!constraint_parse(p->Constraints.v[i], &c) || !constraint_match(&c, node))
            return false;
    return true;
}

bool task_stays(const struct spec_change *c, enum task_state state, enum task_state desired,
                const struct view_placement *now, const struct view_node *node)
{
    if (c->tasks)
        return false;
    if (c->credential && !(desired <= TASK_RUNNING && state >= TASK_READY && state <= TASK_RUNNING))
        return false; /* it may still have to fetch its image */
    return !c->placement || meets(now, node);
}

/* oci_user.c - see oci_user.h. */
#include "agentd/oci_user.h"

static bool next_line(struct str *s, struct str *line)
{
    if (s->n == 0)
        return false;
    const char *nl = memchr(s->p, '\n', s->n);
    line->p = s->p;
    line->n = nl ? (size_t)(nl - s->p) : s->n;
    size_t used = line->n + (nl ? 1 : 0);
    *s = (struct str){ s->p + used, s->n - used };
    return true;
}

/* the k-th ':'-separated column */
static struct str column(struct str line, int k)
{
    for (;; k--) {
        const char *c = line.n ? memchr(line.p, ':', line.n) : NULL;
        size_t n = c ? (size_t)(c - line.p) : line.n;
        if (k == 0)
            return (struct str){ line.p, n };
        if (!c)
            return (struct str){ "", 0 };
        line = (struct str){ c + 1, line.n - n - 1 };
    }
}

static bool as_id(struct str s, uint32_t *ret)
{
    uint64_t v;
    if (!str_u64(s, &v) || v > INT32_MAX)
        return false;
    *ret = (uint32_t)v;
    return true;
}

static bool find_user(struct str passwd, struct str want, struct str *ret)
{
    struct str line, by_id = { 0, 0 };
    uint32_t id = 0, lid;
    bool num = as_id(want, &id);
    while (next_line(&passwd, &line)) {
        if (str_eq(column(line, 0), want)) {
            *ret = line;
            return true;
        }
        if (num && !by_id.p && as_id(column(line, 2), &lid) && lid == id)
            by_id = line;
    }
    *ret = by_id;
    return by_id.p != NULL;
}

static bool find_group(struct str group, struct str want, uint32_t *ret)
{
    struct str line;
    while (next_line(&group, &line))
        if (str_eq(column(line, 0), want) && as_id(column(line, 2), ret))
            return true;
    return as_id(want, ret);
}

static void add_gid(struct oci_user *u, uint32_t gid)
{
    for (size_t i = 0; i < u->ngids; i++)
        if (u->gids[i] == gid)
            return;
    if (u->ngids < OCI_GIDS_MAX)
        u->gids[u->ngids++] = gid;
}

/* groups that list `name` as a member */
static void member_groups(struct str group, struct str name, struct oci_user *u)
{
    struct str line;
    uint32_t gid;
    while (next_line(&group, &line)) {
        struct str list = column(line, 3);
        while (list.n) {
            const char *c = memchr(list.p, ',', list.n);
            struct str m = { list.p, c ? (size_t)(c - list.p) : list.n };
            if (str_eq(m, name) && as_id(column(line, 2), &gid) && gid != u->gid)
                add_gid(u, gid);
            size_t used = m.n + (c ? 1 : 0);
            list = (struct str){ list.p + used, list.n - used };
        }
    }
}

/* The primary group is a supplementary one, too: else a process that gives it up (setgid, newgrp) escapes from what is
 * denied to that group by file permissions (CVE-2022-36109). */
static void prepend_gid(struct oci_user *u)
{
    if (u->ngids == OCI_GIDS_MAX)
        u->ngids--;
    memmove(u->gids + 1, u->gids, u->ngids * sizeof u->gids[0]);
    u->gids[0] = u->gid;
    u->ngids++;
}

static int no_such(struct str want, const char *what, struct err *e)
{
    uint64_t v;
    if (str_u64(want, &v))
        return err_set(e, ERR_INVALID, "uids and gids must be in range 0-%d", INT32_MAX);
    return err_set(e, ERR_INVALID, "unable to find %s " STR_FMT ": no matching entries in %s file", what, STR_ARG(want),
                   *what == 'u' ? "passwd" : what);
}

int oci_user_resolve(struct str user, const struct strs *groups, struct str passwd, struct str group,
                     struct oci_user *ret, struct err *e)
{
    struct oci_user u = { .home = "/" };
    const char *colon = user.n ? memchr(user.p, ':', user.n) : NULL;
    struct str name = { user.p, colon ? (size_t)(colon - user.p) : user.n };
    struct str grp = colon ? (struct str){ colon + 1, user.n - name.n - 1 } : (struct str){ "", 0 };
    struct str entry, want = name.n ? name : STR("0");
    if (find_user(passwd, want, &entry)) {
        if (!as_id(column(entry, 2), &u.uid) || !as_id(column(entry, 3), &u.gid)) /* not root instead */
            return err_set(e, ERR_INVALID, "unable to find user " STR_FMT ": bad uid or gid in passwd file",
                           STR_ARG(want));
        struct str home = column(entry, 5);
        if (home.n)
            str_copy(u.home, sizeof u.home, home);
        if (grp.n == 0)
            member_groups(group, column(entry, 0), &u);
    } else if (!as_id(want, &u.uid)) {
        return no_such(want, "user", e);
    }
    if (grp.n && !find_group(group, grp, &u.gid))
        return no_such(grp, "group", e);
    prepend_gid(&u);
    for (size_t i = 0; groups && i < groups->n; i++) {
        uint32_t gid;
        if (!find_group(group, groups->v[i], &gid))
            return no_such(groups->v[i], "group", e);
        add_gid(&u, gid);
    }
    *ret = u;
    return 0;
}

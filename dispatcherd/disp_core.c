/* disp_core.c - see disp_core.h. */
#include "dispatcherd/disp_core.h"

#include "common/util/check.h"

void disp_init(struct disp *d)
{
    *d = (struct disp){ .period_ms = 5000 };
    table_init(&d->peers, sizeof(struct disp_peer));
    table_init(&d->sessions, ID_SIZE);
}

static void free_peer(struct disp_peer *p)
{
    CHECK(p->poll == NULL);
    table_done(&p->sent);
    table_done(&p->dirty);
}

void disp_clear(struct disp *d)
{
    struct disp_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&d->peers, &pos, NULL, &p);)
        free_peer(p);
    table_clear(&d->peers);
    table_clear(&d->sessions);
}

void disp_done(struct disp *d)
{
    disp_clear(d);
    table_done(&d->peers);
    table_done(&d->sessions);
}

static struct disp_peer *peer_of(struct disp *d, struct str node)
{
    bool fresh;
    struct disp_peer *p = table_put(&d->peers, node, &fresh);
    if (fresh) {
        table_init(&p->sent, sizeof(uint64_t));
        table_init(&p->dirty, 0);
    }
    return p;
}

static void end_session(struct disp *d, struct disp_peer *p)
{
    if (p->session[0])
        table_del(&d->sessions, str_from(p->session));
    p->session[0] = 0;
    p->seq = 0;
    table_clear(&p->sent);
    table_clear(&p->dirty);
}

void disp_watch(struct disp *d, struct str node, uint64_t now_ms)
{
    struct disp_peer *p = peer_of(d, node);
    if (p->deadline_ms == 0)
        p->deadline_ms = now_ms + DISP_GRACE * d->period_ms;
}

void disp_forget(struct disp *d, struct str node)
{
    struct disp_peer *p = table_get(&d->peers, node);
    if (!p)
        return;
    end_session(d, p);
    free_peer(p);
    table_del(&d->peers, node);
}

struct disp_peer *disp_open(struct disp *d, struct str node, const char session[ID_SIZE], uint64_t now_ms)
{
    struct disp_peer *p = peer_of(d, node);
    end_session(d, p);
    memcpy(p->session, session, ID_SIZE);
    char *owner = table_put(&d->sessions, str_from(session), NULL);
    CHECK(str_copy(owner, ID_SIZE, node));
    p->deadline_ms = now_ms + DISP_GRACE * d->period_ms;
    return p;
}

struct disp_peer *disp_find(struct disp *d, struct str session, uint64_t now_ms, struct str *ret_node)
{
    const char *node = table_get(&d->sessions, session);
    struct disp_peer *p = node ? table_get(&d->peers, str_from(node)) : NULL;
    if (!p)
        return NULL;
    p->deadline_ms = now_ms + DISP_GRACE * d->period_ms;
    *ret_node = table_key(&d->peers, p);
    return p;
}

bool disp_expire(struct disp *d, uint64_t now_ms, struct str *ret_node)
{
    struct disp_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&d->peers, &pos, ret_node, &p);) {
        if (p->deadline_ms == 0 || p->deadline_ms > now_ms)
            continue;
        end_session(d, p);
        p->deadline_ms = 0;
        return true;
    }
    return false;
}

uint64_t disp_next_ms(const struct disp *d)
{
    uint64_t at = DISP_NEVER;
    struct disp_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&d->peers, &pos, NULL, &p);) {
        if (p->deadline_ms && p->deadline_ms < at)
            at = p->deadline_ms;
        if (p->poll && p->poll_until_ms < at)
            at = p->poll_until_ms;
    }
    return at;
}

static uint64_t mix(uint64_t h, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3ull;
    return (h ^ 0xff) * 0x100000001b3ull;
}

uint64_t disp_print(struct str desired, struct str taskspec, struct str ports)
{
    return mix(mix(mix(0xcbf29ce484222325ull, desired), taskspec), ports);
}

void disp_task(struct disp *d, struct str node, struct str task, uint64_t print)
{
    struct disp_peer *p = table_get(&d->peers, node);
    if (!p || !p->session[0])
        return;
    const uint64_t *told = table_get(&p->sent, task);
    if (!told || *told != print)
        table_put(&p->dirty, task, NULL);
}

void disp_task_gone(struct disp *d, struct str task)
{
    struct disp_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&d->peers, &pos, NULL, &p);)
        if (table_get(&p->sent, task))
            table_put(&p->dirty, task, NULL);
}

enum disp_answer disp_plan(const struct disp_peer *p, uint64_t seq)
{
    if (seq == 0 || seq != p->seq || p->resync)
        return DISP_FULL;
    return p->dirty.count ? DISP_CHANGES : DISP_NOTHING;
}

bool disp_report_counts(const struct view_task_status *now, enum task_state state, struct str message, struct str err,
                        struct str container, uint64_t pid, int64_t exit_code)
{
    static const struct view_container_status none;
    const struct view_container_status *c = now->ContainerStatus ? now->ContainerStatus : &none;
    enum task_state was = task_state_parse(now->State);
    if (state != was)
        return state > was;
    return !str_eq(now->Message, message) || !str_eq(now->Err, err) || !str_eq(c->ContainerID, container) ||
           c->PID != pid || c->ExitCode != exit_code;
}

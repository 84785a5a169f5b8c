/* disp_core.c - see disp_core.h. */
#include "dispatcherd/disp_core.h"

#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/print.h"

#define PERIOD_MS 5000u
#define SUSPECT_MS 1000u
#define LATE_MS 500u /* what is due is looked at within some milliseconds, unless this process stood still */

void disp_init(struct disp *d)
{
    *d = (struct disp){ .period_ms = PERIOD_MS, .suspect_ms = SUSPECT_MS };
    table_init(&d->peers, sizeof(struct disp_peer));
    table_init(&d->sessions, ID_SIZE);
    told_init(&d->told);
    table_init(&d->lost, 0);
}

static void free_peer(struct disp_peer *p)
{
    CHECK(p->poll == NULL);
    table_done(&p->dirty);
}

void disp_clear(struct disp *d)
{
    struct disp_peer *p;
    for (struct table_pos pos = { 0 }; table_next(&d->peers, &pos, NULL, &p);)
        free_peer(p);
    table_clear(&d->peers);
    table_clear(&d->sessions);
    told_clear(&d->told);
    d->nheap = 0;
    d->hot = NULL;
}

void disp_done(struct disp *d)
{
    disp_clear(d);
    table_done(&d->peers);
    table_done(&d->sessions);
    told_done(&d->told);
    table_done(&d->lost);
    free(d->heap);
    d->heap = NULL;
}

/* ---- what is due: a heap, in which a peer may stand too early but never too late ---- */

static void heap_set(struct disp *d, size_t at, struct disp_peer *p)
{
    d->heap[at - 1] = p;
    p->heap_at = at;
}

static void heap_up(struct disp *d, struct disp_peer *p)
{
    size_t at = p->heap_at;
    for (; at > 1 && d->heap[at / 2 - 1]->due_ms > p->due_ms; at /= 2)
        heap_set(d, at, d->heap[at / 2 - 1]);
    heap_set(d, at, p);
}

static void heap_down(struct disp *d, struct disp_peer *p)
{
    size_t at = p->heap_at;
    for (size_t c; (c = 2 * at) <= d->nheap; at = c) {
        if (c < d->nheap && d->heap[c]->due_ms < d->heap[c - 1]->due_ms)
            c++;
        if (d->heap[c - 1]->due_ms >= p->due_ms)
            break;
        heap_set(d, at, d->heap[c - 1]);
    }
    heap_set(d, at, p);
}

static void heap_remove(struct disp *d, struct disp_peer *p)
{
    size_t at = p->heap_at;
    if (at == 0)
        return;
    struct disp_peer *last = d->heap[--d->nheap];
    p->heap_at = 0;
    if (last == p)
        return;
    heap_set(d, at, last);
    heap_up(d, last);
    heap_down(d, last);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t due_of(const struct disp_peer *p)
{
    uint64_t at = p->deadline_ms ? p->deadline_ms : DISP_NEVER;
    if (p->unknown_ms)
        at = sooner(at, p->unknown_ms);
    return p->poll ? sooner(at, p->poll_until_ms) : at;
}

/* due_changed - only what became earlier moves now; the rest is found out when its time comes. */
static void due_changed(struct disp *d, struct disp_peer *p)
{
    uint64_t at = due_of(p);
    if (at == DISP_NEVER)
        return;
    if (p->heap_at == 0) {
        if (d->nheap == d->cap_heap) {
            d->cap_heap = d->cap_heap ? d->cap_heap * 2 : 64;
            d->heap = reallocarray(d->heap, d->cap_heap, sizeof *d->heap);
            CHECK(d->heap != NULL);
        }
        p->due_ms = at;
        p->heap_at = ++d->nheap;
        heap_up(d, p);
    } else if (at < p->due_ms) {
        p->due_ms = at;
        heap_up(d, p);
    }
}

uint64_t disp_next_ms(const struct disp *d)
{
    return d->nheap ? d->heap[0]->due_ms : DISP_NEVER;
}

/* ---- sessions ---- */

static struct disp_peer *peer_of(struct disp *d, struct str node)
{
    bool fresh;
    struct disp_peer *p = table_put(&d->peers, node, &fresh);
    if (fresh) {
        table_init(&p->dirty, 0);
    }
    return p;
}

void disp_told_none(struct disp *d, struct disp_peer *p)
{
    told_del_all(&d->told, p);
}

static void end_session(struct disp *d, struct disp_peer *p)
{
    if (p->session[0])
        table_del(&d->sessions, str_from(p->session));
    p->session[0] = 0;
    p->seq = 0;
    p->held = false;
    disp_told_none(d, p);
    table_clear(&p->dirty);
}

/* deadline - counted from its last word, except that a lost link leaves it a moment from now on. */
static void watch(struct disp *d, struct disp_peer *p, uint64_t now_ms)
{
    p->heard_ms = now_ms;
    p->deadline_ms = now_ms + DISP_GRACE * d->period_ms;
    due_changed(d, p);
}

static void suspect(struct disp *d, struct disp_peer *p, uint64_t until_ms)
{
    p->suspect = true;
    p->deadline_ms = sooner(p->deadline_ms, until_ms);
    due_changed(d, p);
}

void disp_watch(struct disp *d, struct str node, uint64_t now_ms)
{
    struct disp_peer *p = peer_of(d, node);
    if (p->deadline_ms != 0)
        return;
    watch(d, p, now_ms);
    p->unknown_ms = now_ms + d->period_ms;
    due_changed(d, p);
    if (table_get(&d->lost, node)) /* nobody could speak to this manager yet, so a little more than usual */
        suspect(d, p, now_ms + 2 * d->suspect_ms);
}

void disp_forget(struct disp *d, struct str node)
{
    struct disp_peer *p = table_get(&d->peers, node);
    table_del(&d->lost, node);
    if (!p)
        return;
    end_session(d, p);
    heap_remove(d, p);
    for (struct disp_peer **at = &d->hot; p->hot && *at; at = &(*at)->next_hot)
        if (*at == p) {
            *at = p->next_hot;
            break;
        }
    free_peer(p);
    table_del(&d->peers, table_key(&d->peers, p));
}

struct disp_peer *disp_open(struct disp *d, struct str node, const char session[ID_SIZE], uint64_t now_ms,
                            uint64_t jitter)
{
    struct disp_peer *p = peer_of(d, node);
    end_session(d, p);
    memcpy(p->session, session, ID_SIZE);
    char *owner = table_put(&d->sessions, str_from(session), NULL);
    CHECK(str_copy(owner, ID_SIZE, node));
    p->heartbeat_ms = d->period_ms - jitter % (d->period_ms / 5 + 1); /* the last fifth: nodes come spread over it */
    p->unknown_ms = 0;
    p->suspect = false;
    watch(d, p, now_ms);
    return p;
}

struct disp_peer *disp_find(struct disp *d, struct str session, uint64_t now_ms, struct str *ret_node)
{
    const char *node = table_get(&d->sessions, session);
    struct disp_peer *p = node ? table_get(&d->peers, str_from(node)) : NULL;
    if (!p)
        return NULL;
    p->suspect = false; /* perhaps it came another way */
    watch(d, p, now_ms);
    *ret_node = table_key(&d->peers, p);
    return p;
}

void disp_link(struct disp *d, struct str node, bool up, uint64_t now_ms)
{
    struct disp_peer *p = table_get(&d->peers, node);
    if (up)
        table_del(&d->lost, node);
    else
        table_put(&d->lost, node, NULL);
    if (!p || p->deadline_ms == 0)
        return;
    if (!up) {
        suspect(d, p, now_ms + d->suspect_ms);
    } else if (p->suspect) {
        p->suspect = false;
        uint64_t regular = p->heard_ms + DISP_GRACE * d->period_ms, soon = now_ms + d->suspect_ms;
        p->deadline_ms = regular > soon ? regular : soon;
    }
}

void disp_poll_wait(struct disp *d, struct disp_peer *p, void *call, uint64_t seq, uint64_t until_ms)
{
    CHECK(p->poll == NULL);
    p->poll = call;
    p->poll_seq = seq;
    p->poll_until_ms = until_ms;
    due_changed(d, p);
}

/* notice_late - words of nodes may wait to be read: as much time again as was missed, but no more than the grace. */
static void notice_late(struct disp *d, uint64_t now_ms)
{
    uint64_t due = disp_next_ms(d), most = DISP_GRACE * d->period_ms;
    if (due >= now_ms || now_ms - due < LATE_MS)
        return;
    uint64_t until = now_ms + sooner(now_ms - due, most);
    if (until > d->lenient_ms)
        d->lenient_ms = until;
}

/* put_off - what would be due while this process is lenient. */
static void put_off(const struct disp *d, uint64_t *at_ms, uint64_t now_ms)
{
    if (*at_ms && *at_ms <= now_ms && now_ms < d->lenient_ms)
        *at_ms = d->lenient_ms;
}

static enum disp_due due_now(struct disp *d, struct disp_peer *p, uint64_t now_ms)
{
    put_off(d, &p->deadline_ms, now_ms);
    put_off(d, &p->unknown_ms, now_ms);
    if (p->deadline_ms && p->deadline_ms <= now_ms) {
        end_session(d, p);
        p->deadline_ms = p->unknown_ms = 0;
        p->suspect = false;
        return DISP_DUE_DOWN;
    }
    if (p->unknown_ms && p->unknown_ms <= now_ms) {
        p->unknown_ms = 0;
        return DISP_DUE_UNKNOWN;
    }
    return p->poll && p->poll_until_ms <= now_ms ? DISP_DUE_POLL : DISP_DUE_NOTHING;
}

enum disp_due disp_expire(struct disp *d, uint64_t now_ms, struct str *ret_node, uint64_t *ret_silent_ms)
{
    notice_late(d, now_ms);
    while (d->nheap && d->heap[0]->due_ms <= now_ms) {
        struct disp_peer *p = d->heap[0];
        enum disp_due due = due_now(d, p, now_ms);
        if (due != DISP_DUE_NOTHING) { /* it stays first until all that is due for it was told */
            *ret_node = table_key(&d->peers, p);
            *ret_silent_ms = now_ms - p->heard_ms;
            return due;
        }
        p->due_ms = due_of(p);
        if (p->due_ms == DISP_NEVER)
            heap_remove(d, p);
        else
            heap_down(d, p);
    }
    return DISP_DUE_NOTHING;
}

/* ---- what nodes were told ---- */

uint64_t disp_print(struct str desired, struct str taskspec, struct str ports)
{
    return print_mix(print_mix(print_mix(PRINT_NONE, desired), taskspec), ports);
}

static void heat(struct disp *d, struct disp_peer *p)
{
    if (p->hot)
        return;
    p->hot = true;
    p->next_hot = d->hot;
    d->hot = p;
}

struct disp_peer *disp_hot(struct disp *d)
{
    struct disp_peer *p = d->hot;
    if (p) {
        d->hot = p->next_hot;
        p->hot = false;
        p->next_hot = NULL;
    }
    return p;
}

static void dirty(struct disp *d, struct disp_peer *p, struct str task)
{
    table_put(&p->dirty, task, NULL);
    heat(d, p);
}

void disp_resync(struct disp *d, struct disp_peer *p)
{
    p->resync = true;
    heat(d, p);
}

void disp_task(struct disp *d, struct str node, struct str task, uint64_t print)
{
    struct disp_peer *p = table_get(&d->peers, node);
    uint64_t key = told_task(task);
    bool same = false;
    for (const struct told_entry *e = told_first(&d->told, key); e; e = told_next(&d->told, e))
        if (e->peer != p)
            dirty(d, e->peer, task);
        else
            same = e->print == print;
    if (p && p->session[0] && !same)
        dirty(d, p, task);
}

void disp_task_gone(struct disp *d, struct str task)
{
    for (const struct told_entry *e = told_first(&d->told, told_task(task)); e; e = told_next(&d->told, e))
        dirty(d, e->peer, task);
}

void disp_tell(struct disp *d, struct disp_peer *p, struct str task, uint64_t print)
{
    told_put(&d->told, told_task(task), p)->print = print;
}

bool disp_untell(struct disp *d, struct disp_peer *p, struct str task)
{
    struct told_entry *e = told_of(&d->told, told_task(task), p);
    if (e)
        told_del(&d->told, e);
    return e != NULL;
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

/* ---- coming and going ---- */

void disp_life_down(struct disp_life *l, const struct disp_flap_conf *conf, int64_t orphan_after_ns, int64_t now_ns)
{
    l->orphan_at_ns = now_ns + orphan_after_ns;
    if (conf->max && l->downs && l->down_at_ns < now_ns) {
        uint64_t leaked = (uint64_t)(now_ns - l->down_at_ns) / ((uint64_t)conf->window_ns / conf->max + 1);
        l->downs -= leaked < l->downs ? leaked : l->downs;
    }
    l->down_at_ns = now_ns;
    if (l->downs < 2 * conf->max + 64) /* no overflow, and it can leak away within a few windows */
        l->downs++;
    if (conf->max == 0 || l->downs <= conf->max)
        return;
    int64_t hold = conf->hold_ns;
    for (uint64_t i = conf->max + 1; i < l->downs && hold < conf->hold_max_ns; i++)
        hold *= 2;
    l->held_until_ns = now_ns + (hold < conf->hold_max_ns ? hold : conf->hold_max_ns);
}

void disp_check(const struct disp *d)
{
    struct disp_peer *p;
    size_t in_heap = 0, hot = 0;
    for (struct table_pos pos = { 0 }; table_next(&d->peers, &pos, NULL, &p);) {
        uint64_t due = due_of(p);
        CHECK(due == DISP_NEVER || (p->heap_at && p->due_ms <= due));
        CHECK(p->heap_at == 0 || d->heap[p->heap_at - 1] == p);
        CHECK(p->session[0] == 0 || p->deadline_ms != 0);
        CHECK(p->hot || !p->resync || !p->poll);
        in_heap += p->heap_at != 0;
        hot += p->hot;
    }
    for (size_t i = 2; i <= d->nheap; i++)
        CHECK(d->heap[i / 2 - 1]->due_ms <= d->heap[i - 1]->due_ms);
    for (p = d->hot; p; p = p->next_hot)
        hot--;
    CHECK(in_heap == d->nheap && hot == 0);
    told_check(&d->told);
}

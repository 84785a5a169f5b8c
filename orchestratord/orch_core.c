/* orch_core.c - restarts, scaling, rolling update, history: in this order, over the slots of one service. */
#include "orchestratord/orch_core.h"

#include <stdlib.h>

#include "common/util/check.h"

/* A slot is the tasks that share a slot number; those being removed do not count any more. */
struct slot {
    uint64_t number;
    struct orch_task *tasks; /* oldest first */
    size_t n;
    struct orch_create *create; /* a task that this decision adds */
    bool keep;                  /* occupies one of the replicas */
    bool running;               /* for the choice of victims */
    int64_t ordinal;
};

struct pass {
    const struct orch_service *svc;
    struct orch_task *tasks;
    size_t n;
    int64_t now;
    struct slot *slots;
    size_t nslots;
    struct orch_out *out;
};

static bool live(const struct orch_task *t)
{
    return t->want <= TASK_RUNNING;
}

/* stopped - no container of it runs any more, or none ever will. */
static bool stopped(const struct orch_task *t)
{
    return t->state > TASK_RUNNING || (t->state < TASK_ASSIGNED && t->want > TASK_RUNNING);
}

static void want(struct orch_task *t, enum task_state s)
{
    if (s > t->want)
        t->want = s;
}

static void look_again(struct pass *p, int64_t at)
{
    if (at < p->out->next_ns)
        p->out->next_ns = at;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static struct orch_create *create(struct pass *p, struct slot *s)
{
    struct orch_create *c = &p->out->create[p->out->ncreate++];
    *c = (struct orch_create){ .slot = s->number, .desired = TASK_RUNNING };
    CHECK(s->create == NULL);
    s->create = c;
    return c;
}

/* ---- restarts (swarmkit.md §3.5) ---- */

/* attempts_left - all but the first task of a spec in a slot were restarts; history keeps MaxAttempts + 1 of them. */
static bool attempts_left(const struct slot *s, const struct orch_task *t, int64_t now)
{
    const struct orch_restart *r = &t->restart;
    int64_t end = t->state > TASK_RUNNING ? t->status_ns : now;
    uint64_t restarts = 0;
    bool first = true;
    if (r->max_attempts == 0)
        return true;
    for (size_t i = 0; i < s->n; i++) {
        const struct orch_task *o = &s->tasks[i];
        if (o->spec != t->spec || o->want == TASK_REMOVE)
            continue;
        if (!first && (r->window_ns == 0 || (o->created_ns > end - r->window_ns && o->created_ns < end)))
            restarts++;
        first = false;
    }
    return restarts < r->max_attempts;
}

static bool should_restart(const struct slot *s, const struct orch_task *t, int64_t now)
{
    if (t->restart.condition == ORCH_NONE || (t->restart.condition == ORCH_ON_FAILURE && t->state == TASK_COMPLETE))
        return false;
    return attempts_left(s, t, now);
}

/* quick_restarts - how many restarts in a row the replacement of t will be. Docker has no back-off (DESIGN §12). */
static uint64_t quick_restarts(const struct orch_task *t)
{
    if (t->state <= TASK_RUNNING)
        return t->restarts; /* it moves because of its node, not because it failed */
    bool stable = t->state != TASK_REJECTED && t->status_ns - later(t->created_ns, t->start_ns) >= ORCH_STABLE_NS;
    return stable ? 1 : t->restarts + 1;
}

static int64_t restart_delay(int64_t delay, uint64_t restarts)
{
    if (restarts <= ORCH_QUICK_RESTARTS)
        return delay;
    int64_t longest = later(delay, ORCH_BACKOFF_MAX_NS);
    int64_t d = later(delay, ORCH_BACKOFF_MIN_NS);
    for (uint64_t i = ORCH_QUICK_RESTARTS; i < restarts && d < longest; i++)
        d *= 2;
    return sooner(d, longest);
}

static bool has_live_current(const struct slot *s, const struct orch_task *but)
{
    for (size_t i = 0; i < s->n; i++)
        if (&s->tasks[i] != but && live(&s->tasks[i]) && s->tasks[i].current && s->tasks[i].state <= TASK_RUNNING)
            return true;
    return s->create != NULL;
}

static void restart_task(struct pass *p, struct slot *s, struct orch_task *t)
{
    bool dead = t->state > TASK_RUNNING;
    if (t->want < TASK_RUNNING && t->start_ns > p->now) { /* it ended before its turn came: never restart faster */
        look_again(p, t->start_ns);
        return;
    }
    want(t, TASK_SHUTDOWN);
    if (has_live_current(s, t) || !should_restart(s, t, p->now))
        return;
    struct orch_create *c = create(p, s);
    c->restarts = quick_restarts(t);
    c->replaces = t->id;
    c->start_ns = later(dead ? t->status_ns : p->now, 0);
    if (dead) /* what only has to move does not wait; Docker lets it when the node is down */
        c->start_ns += restart_delay(t->restart.delay_ns, c->restarts);
    if (c->start_ns > p->now || !(dead || t->node_down)) {
        c->desired = TASK_READY;
        if (c->start_ns > p->now)
            look_again(p, c->start_ns);
    }
}

/* start_task - a task that waits in READY may run when its delay is over and the one it replaces has stopped. */
static void start_task(struct pass *p, struct slot *s, struct orch_task *t)
{
    const struct orch_task *old = NULL;
    int64_t patience = later(t->created_ns, t->start_ns) + ORCH_STOP_WAIT_NS;
    for (size_t i = 0; i < s->n && t->replaces.n; i++)
        if (str_eq(s->tasks[i].id, t->replaces))
            old = &s->tasks[i];
    if (t->start_ns > p->now)
        look_again(p, t->start_ns);
    else if (old && !stopped(old) && !old->node_down && patience > p->now)
        look_again(p, patience);
    else
        want(t, TASK_RUNNING);
}

static void restart_slot(struct pass *p, struct slot *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (live(t) && (t->state > TASK_RUNNING || t->node_down || t->node_drain))
            restart_task(p, s, t);
    }
    for (size_t i = 0; i < s->n; i++)
        if (s->tasks[i].want < TASK_RUNNING)
            start_task(p, s, &s->tasks[i]);
}

/* ---- scaling (swarmkit.md §3.2) ---- */

static size_t count_live(const struct slot *s)
{
    size_t n = s->create != NULL;
    for (size_t i = 0; i < s->n; i++)
        n += live(&s->tasks[i]);
    return n;
}

/* newest - the youngest task that is not being removed; NULL if there is none. */
static struct orch_task *newest(const struct slot *s)
{
    for (size_t i = s->n; i-- > 0;)
        if (s->tasks[i].want != TASK_REMOVE)
            return &s->tasks[i];
    return NULL;
}

/* occupied - it has a live task, or its last one has ended for good (a job well done, or out of attempts). */
static bool occupied(const struct pass *p, const struct slot *s)
{
    const struct orch_task *t = newest(s);
    if (count_live(s) > 0)
        return true;
    return t && p->svc->update != ORCH_UPDATE_ROLLBACK && !should_restart(s, t, p->now);
}

static void remove_slot(struct pass *p, struct slot *s)
{
    s->keep = false;
    for (size_t i = 0; i < s->n; i++)
        want(&s->tasks[i], TASK_REMOVE);
    if (s->create) {
        *s->create = p->out->create[--p->out->ncreate];
        for (size_t i = 0; i < p->nslots; i++)
            if (p->slots[i].create == &p->out->create[p->out->ncreate])
                p->slots[i].create = s->create;
        s->create = NULL;
    }
}

static const struct orch_task *only_live(const struct slot *s)
{
    const struct orch_task *t = NULL;
    if (count_live(s) != 1)
        return NULL;
    for (size_t i = 0; i < s->n; i++)
        if (live(&s->tasks[i]))
            t = &s->tasks[i];
    return t && t->node_id.n ? t : NULL;
}

static int by_running(const void *a, const void *b)
{
    const struct slot *x = *(struct slot *const *)a, *y = *(struct slot *const *)b;
    if (x->running != y->running)
        return x->running ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int by_node(const void *a, const void *b)
{
    const struct orch_task *x = only_live(*(struct slot *const *)a), *y = only_live(*(struct slot *const *)b);
    if (!x || !y)
        return x ? -1 : y ? 1 : by_running(a, b);
    int c = str_cmp(x->node_id, y->node_id);
    return c ? c : by_running(a, b);
}

static int by_ordinal(const void *a, const void *b)
{
    const struct slot *x = *(struct slot *const *)a, *y = *(struct slot *const *)b;
    if (x->ordinal != y->ordinal)
        return x->ordinal < y->ordinal ? -1 : 1;
    return by_running(a, b);
}

/* scale_down - victims in this order: not yet placed or in the middle of a change, most crowded node, not running,
 * high slot number. */
static void scale_down(struct pass *p, size_t occupied_slots, struct arena *a)
{
    struct slot **v = arena_array(a, occupied_slots, sizeof(struct slot *));
    size_t n = 0;
    CHECK(v != NULL);
    for (size_t i = 0; i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        if (!s->keep)
            continue;
        for (size_t j = 0; j < s->n; j++)
            s->running |= live(&s->tasks[j]) && s->tasks[j].state == TASK_RUNNING;
        v[n++] = s;
    }
    qsort(v, n, sizeof *v, by_node);
    const struct orch_task *before = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct orch_task *t = only_live(v[i]);
        v[i]->ordinal = !t ? ORCH_NEVER : before && str_eq(before->node_id, t->node_id) ? v[i - 1]->ordinal + 1 : 0;
        before = t;
    }
    qsort(v, n, sizeof *v, by_ordinal);
    for (size_t i = p->svc->replicas; i < n; i++)
        remove_slot(p, v[i]);
}

/* scale_up - the lowest free slot numbers from 1; a dead slot that gets a task again keeps its history. The slots are
 * sorted by number, new ones come behind them. */
static void scale_up(struct pass *p, size_t missing)
{
    size_t known = p->nslots, i = 0;
    for (uint64_t number = 1; missing > 0; number++) {
        while (i < known && p->slots[i].number < number)
            i++;
        struct slot *s = i < known && p->slots[i].number == number ? &p->slots[i] : NULL;
        if (s && s->keep)
            continue;
        if (!s) {
            s = &p->slots[p->nslots++];
            *s = (struct slot){ .number = number };
        }
        s->keep = true;
        create(p, s);
        missing--;
    }
}

static void scale(struct pass *p, struct arena *a)
{
    size_t n = 0;
    for (size_t i = 0; i < p->nslots; i++)
        n += p->slots[i].keep = occupied(p, &p->slots[i]);
    if (n > p->svc->replicas)
        scale_down(p, n, a);
    else if (n < p->svc->replicas)
        scale_up(p, p->svc->replicas - n < ORCH_CREATE_MAX ? p->svc->replicas - n : ORCH_CREATE_MAX);
    p->out->more = p->svc->replicas > n && p->svc->replicas - n > ORCH_CREATE_MAX;
    for (size_t i = 0; i < p->nslots; i++)
        if (!p->slots[i].keep)
            remove_slot(p, &p->slots[i]);
}

/* ---- rolling update (swarmkit.md §4) ---- */

/* clean_task - the live task with the current spec that is furthest on. */
static struct orch_task *clean_task(const struct slot *s)
{
    struct orch_task *best = NULL;
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (live(t) && t->current &&
            (!best || t->want > best->want || (t->want == best->want && t->state > best->state)))
            best = t;
    }
    return best;
}

/* stop_doubles - a daemon that was killed may have left a transaction on its way to raftd, and its successor decided
 * without it: then a slot has two tasks of the current spec. The one that is furthest on stays. */
static void stop_doubles(struct slot *s)
{
    const struct orch_task *clean = clean_task(s);
    for (size_t i = 0; clean && i < s->n; i++)
        if (live(&s->tasks[i]) && s->tasks[i].current && &s->tasks[i] != clean)
            want(&s->tasks[i], TASK_SHUTDOWN);
}

static size_t count_others(const struct slot *s, const struct orch_task *clean)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += live(&s->tasks[i]) && &s->tasks[i] != clean;
    return n;
}

static bool slot_dirty(const struct slot *s)
{
    const struct orch_task *clean = clean_task(s), *last = newest(s);
    if (count_live(s) == 0)
        return last && !last->current;
    return count_others(s, clean) > 0;
}

/* was_updated - the task got here by replacing another one, so the update waits for it. */
static bool was_updated(const struct slot *s, const struct orch_task *clean)
{
    if (clean->replaces.n)
        return true;
    for (size_t i = 0; i < s->n; i++)
        if (!s->tasks[i].current)
            return true;
    return false;
}

enum progress { SLOT_IDLE, SLOT_STARTING, SLOT_DELAY };

static enum progress slot_progress(struct pass *p, const struct slot *s)
{
    const struct orch_task *clean = clean_task(s);
    if (s->create)
        return s->create->replaces.n ? SLOT_STARTING : SLOT_IDLE;
    if (!clean || !was_updated(s, clean))
        return SLOT_IDLE;
    if (clean->state != TASK_RUNNING)
        return SLOT_STARTING;
    if (clean->status_ns + p->svc->update_delay_ns <= p->now)
        return SLOT_IDLE;
    look_again(p, clean->status_ns + p->svc->update_delay_ns);
    return SLOT_DELAY;
}

static void stop_others(struct slot *s, const struct orch_task *clean)
{
    for (size_t i = 0; i < s->n; i++)
        if (live(&s->tasks[i]) && &s->tasks[i] != clean)
            want(&s->tasks[i], TASK_SHUTDOWN);
}

/* replace_slot - begins the update of a slot that has no clean task. */
static void replace_slot(struct pass *p, struct slot *s)
{
    struct orch_create *c = create(p, s);
    bool wait = false;
    const struct orch_task *last = newest(s);
    if (last)
        c->replaces = last->id;
    if (p->svc->start_first)
        return;
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (!live(t))
            continue;
        want(t, TASK_SHUTDOWN);
        if (!stopped(t) && !t->node_down) {
            c->replaces = t->id;
            wait = true;
        }
    }
    if (wait)
        c->desired = TASK_READY;
}

/* The update's own verdict. Pausing and rolling back after failures will be decided here, from the failed tasks of the
 * current spec in the slots' history; until then a task that does not come up holds its place in the parallelism. */
static enum orch_update update_verdict(struct pass *p, bool dirty, bool starting, int64_t last_ns)
{
    enum orch_update u = p->svc->update;
    if (dirty && u != ORCH_UPDATE_ROLLBACK)
        return ORCH_UPDATE_UPDATING;
    if (dirty || starting)
        return u;
    if ((u == ORCH_UPDATE_UPDATING || u == ORCH_UPDATE_ROLLBACK) && last_ns + p->svc->monitor_ns > p->now) {
        look_again(p, last_ns + p->svc->monitor_ns);
        return u;
    }
    return u == ORCH_UPDATE_UPDATING   ? ORCH_UPDATE_COMPLETED
           : u == ORCH_UPDATE_ROLLBACK ? ORCH_UPDATE_ROLLBACK_COMPLETED
                                       : u;
}

static void update(struct pass *p)
{
    bool dirty = false, starting = false;
    uint64_t busy = 0;
    int64_t last_ns = 0; /* when the last updated task began to run */
    if (p->svc->update == ORCH_UPDATE_PAUSED || p->svc->update == ORCH_UPDATE_ROLLBACK_PAUSED)
        return;
    for (size_t i = 0; i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        enum progress g = s->keep ? slot_progress(p, s) : SLOT_IDLE;
        busy += g != SLOT_IDLE;
        starting |= g == SLOT_STARTING;
        dirty |= s->keep && slot_dirty(s);
        const struct orch_task *clean = s->keep ? clean_task(s) : NULL;
        if (clean && clean->state == TASK_RUNNING && was_updated(s, clean))
            last_ns = later(last_ns, clean->status_ns);
    }
    for (size_t i = 0; dirty && i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        struct orch_task *clean = clean_task(s);
        if (!s->keep || !slot_dirty(s))
            continue;
        if (clean && (clean->state == TASK_RUNNING || !p->svc->start_first))
            stop_others(s, clean);
        else if (!clean && !s->create && (p->svc->parallelism == 0 || busy < p->svc->parallelism)) {
            replace_slot(p, s);
            busy++;
        }
    }
    p->out->update = update_verdict(p, dirty, starting, last_ns);
    p->out->updating = dirty || p->out->update == ORCH_UPDATE_UPDATING || p->out->update == ORCH_UPDATE_ROLLBACK;
}

/* ---- history (swarmkit.md §3.6) ---- */

static struct orch_task *oldest_ended(const struct slot *s)
{
    struct orch_task *old = NULL;
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (t->want != TASK_REMOVE && !t->drop && !live(t) && stopped(t) && (!old || t->status_ns < old->status_ns))
            old = t;
    }
    return old;
}

/* Docker lets MaxAttempts + 1 replace the limit, even downwards; here it only raises it. */
static void trim_history(struct pass *p, struct slot *s)
{
    int64_t limit = p->svc->history_limit;
    uint64_t attempts = p->svc->restart.max_attempts;
    size_t n = s->create != NULL;
    if (limit < 0)
        return;
    if (attempts > 0 && attempts < INT64_MAX - 1)
        limit = later(limit, (int64_t)attempts + 1);
    for (size_t i = 0; i < s->n; i++)
        n += s->tasks[i].want != TASK_REMOVE;
    for (struct orch_task *t; n > (uint64_t)limit && (t = oldest_ended(s)); n--)
        t->drop = true;
}

static void reap(struct pass *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct orch_task *t = &p->tasks[i];
        if (t->want == TASK_REMOVE && (stopped(t) || t->node_gone))
            t->drop = true;
    }
}

/* ---- the whole ---- */

static int by_slot(const void *a, const void *b)
{
    const struct orch_task *x = a, *y = b;
    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    if (x->created_ns != y->created_ns)
        return x->created_ns < y->created_ns ? -1 : 1;
    return str_cmp(x->id, y->id);
}

static void make_slots(struct pass *p)
{
    for (size_t i = 0, j; i < p->n; i = j) {
        size_t staying = 0;
        for (j = i; j < p->n && p->tasks[j].slot == p->tasks[i].slot; j++)
            staying += p->tasks[j].want != TASK_REMOVE;
        if (staying)
            p->slots[p->nslots++] = (struct slot){ .number = p->tasks[i].slot, .tasks = &p->tasks[i], .n = j - i };
    }
}

void orch_reconcile(const struct orch_service *svc, struct orch_task *tasks, size_t n, int64_t now_ns, struct arena *a,
                    struct orch_out *out)
{
    struct pass p = { .svc = svc, .tasks = tasks, .n = n, .now = now_ns, .out = out };
    *out = (struct orch_out){ .update = svc->update, .next_ns = ORCH_NEVER };
    if (n)
        qsort(tasks, n, sizeof *tasks, by_slot);
    for (size_t i = 0; i < n; i++) {
        tasks[i].want = svc->exists ? tasks[i].desired : TASK_REMOVE;
        tasks[i].drop = false;
    }
    if (svc->exists) {
        size_t most = n + ORCH_CREATE_MAX;
        if (svc->replicas < ORCH_CREATE_MAX)
            most = n + svc->replicas;
        p.slots = arena_array(a, most + 1, sizeof *p.slots);
        out->create = arena_array(a, most + 1, sizeof *out->create);
        CHECK(p.slots != NULL && out->create != NULL);
        make_slots(&p);
        for (size_t i = 0; i < p.nslots; i++)
            restart_slot(&p, &p.slots[i]);
        scale(&p, a);
        for (size_t i = 0; i < p.nslots; i++)
            stop_doubles(&p.slots[i]);
        update(&p);
        for (size_t i = 0; i < p.nslots; i++)
            trim_history(&p, &p.slots[i]);
    }
    reap(&p);
}

static const struct {
    const char *name, *message;
} update_text[] = {
    [ORCH_UPDATE_NONE] = { "", "" },
    [ORCH_UPDATE_UPDATING] = { "updating", "update in progress" },
    [ORCH_UPDATE_PAUSED] = { "paused", "update paused" },
    [ORCH_UPDATE_COMPLETED] = { "completed", "update completed" },
    [ORCH_UPDATE_ROLLBACK] = { "rollback_started", "manually requested rollback" },
    [ORCH_UPDATE_ROLLBACK_PAUSED] = { "rollback_paused", "rollback paused" },
    [ORCH_UPDATE_ROLLBACK_COMPLETED] = { "rollback_completed", "rollback completed" },
};

enum orch_update orch_update_parse(struct str state)
{
    for (unsigned i = 0; i < sizeof update_text / sizeof update_text[0]; i++)
        if (str_is(state, update_text[i].name))
            return (enum orch_update)i;
    return ORCH_UPDATE_NONE;
}

const char *orch_update_name(enum orch_update u)
{
    return update_text[u].name;
}

const char *orch_update_message(enum orch_update u)
{
    return update_text[u].message;
}

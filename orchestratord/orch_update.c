/* orch_update.c - the rolling update (swarmkit.md §4). */
#include "orchestratord/orch_priv.h"

/* stop_doubles - a daemon that was killed may have left a transaction on its way to raftd, and its successor decided
 * without it: then a slot has two tasks of the current spec. The one that is furthest on stays. */
void orch_stop_doubles(struct slot *s)
{
    const struct orch_task *clean = orch_clean_task(s);
    for (size_t i = 0; clean && i < s->n; i++)
        if (orch_live(&s->tasks[i]) && s->tasks[i].current && &s->tasks[i] != clean)
            orch_want(&s->tasks[i], TASK_SHUTDOWN);
}

static size_t count_others(const struct slot *s, const struct orch_task *clean)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += orch_live(&s->tasks[i]) && &s->tasks[i] != clean;
    return n;
}

static bool slot_dirty(const struct slot *s)
{
    const struct orch_task *clean = orch_clean_task(s), *last = orch_newest(s);
    if (orch_count_live(s) == 0)
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
    const struct orch_task *clean = orch_clean_task(s);
    if (s->create)
        return s->create->replaces.n ? SLOT_STARTING : SLOT_IDLE;
    if (!clean || !was_updated(s, clean))
        return SLOT_IDLE;
    if (clean->state != TASK_RUNNING)
        return SLOT_STARTING;
    if (clean->status_ns + p->svc->update_delay_ns <= p->now)
        return SLOT_IDLE;
    orch_look_again(p, clean->status_ns + p->svc->update_delay_ns);
    return SLOT_DELAY;
}

static void stop_others(struct slot *s, const struct orch_task *clean)
{
    for (size_t i = 0; i < s->n; i++)
        if (orch_live(&s->tasks[i]) && &s->tasks[i] != clean)
            orch_want(&s->tasks[i], TASK_SHUTDOWN);
}

/* replace_slot - begins the update of a slot that has no clean task. */
static void replace_slot(struct pass *p, struct slot *s)
{
    struct orch_create *c = orch_new_task(p, s);
    bool wait = false;
    const struct orch_task *last = orch_newest(s);
    if (last)
        c->replaces = last->id;
    if (p->svc->start_first)
        return;
    for (size_t i = 0; i < s->n; i++) {
        struct orch_task *t = &s->tasks[i];
        if (!orch_live(t))
            continue;
        orch_want(t, TASK_SHUTDOWN);
        if (!orch_stopped(t) && !t->node_down) {
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
        orch_look_again(p, last_ns + p->svc->monitor_ns);
        return u;
    }
    return u == ORCH_UPDATE_UPDATING   ? ORCH_UPDATE_COMPLETED
           : u == ORCH_UPDATE_ROLLBACK ? ORCH_UPDATE_ROLLBACK_COMPLETED
                                       : u;
}

void orch_update_slots(struct pass *p)
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
        const struct orch_task *clean = s->keep ? orch_clean_task(s) : NULL;
        if (clean && clean->state == TASK_RUNNING && was_updated(s, clean))
            last_ns = later(last_ns, clean->status_ns);
    }
    for (size_t i = 0; dirty && i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        struct orch_task *clean = orch_clean_task(s);
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

/*
 * orch_update.c - the rolling update and the rollback (swarmkit.md §4).
 *
 * A phase is an update or a rollback that is under way. Slots that do not have the current spec are replaced, so many
 * at a time; a slot is done when its new task runs or has failed, and makes room for the next one the update's delay
 * later. Nothing of this is remembered but in the documents: what a slot has come to follows from its tasks, how many
 * slots there were and how many tasks have failed is in the service's UpdateStatus, counted in the transaction that
 * shuts the failed task down, so each failure counts once whoever dies.
 *
 * Different from Docker: every failure counts, also that of a restarted task (a crash loop counted once per slot
 * there); and a task that does not come to run within the progress deadline has failed.
 */
#include "orchestratord/orch_priv.h"

#include "common/util/check.h"

/* orch_stop_doubles - a daemon that was killed may have left a transaction on its way to raftd, and its successor
 * decided without it: then a slot has two tasks of the current spec. The one that is furthest on stays. */
void orch_stop_doubles(struct slot *s)
{
    const struct orch_task *clean = orch_clean_task(s);
    for (size_t i = 0; clean && i < s->n; i++)
        if (orch_live(&s->tasks[i]) && s->tasks[i].current && &s->tasks[i] != clean)
            orch_want(&s->tasks[i], TASK_SHUTDOWN);
}

static bool in_phase(const struct pass *p)
{
    return p->svc->update == ORCH_UPDATE_UPDATING || p->svc->update == ORCH_UPDATE_ROLLBACK;
}

static bool is_paused(const struct pass *p)
{
    return p->svc->update == ORCH_UPDATE_PAUSED || p->svc->update == ORCH_UPDATE_ROLLBACK_PAUSED;
}

/* monitor - a delay must not be longer than what a failure is waited for. */
static int64_t monitor(const struct pass *p)
{
    const struct orch_service *s = p->svc;
    return s->monitor_ns > s->update_delay_ns ? s->monitor_ns : after(s->update_delay_ns, 1000000000ll);
}

static size_t count_others(const struct slot *s, const struct orch_task *clean)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += orch_live(&s->tasks[i]) && &s->tasks[i] != clean;
    return n;
}

/* since_change - the first of the tasks that came after the last one with another spec. A spec may come back (a
 * rollback), and tasks that ended before it left say nothing about its return. */
static size_t since_change(const struct slot *s)
{
    size_t first = s->n;
    while (first > 0 && s->tasks[first - 1].current)
        first--;
    return first;
}

/* replaces_current - a restart within the current spec; the record of what failed may be gone by now. */
static bool replaces_current(const struct slot *s, uint64_t restarts, struct str replaces)
{
    for (size_t i = 0; i < s->n && restarts > 0; i++)
        if (!s->tasks[i].current && str_eq(s->tasks[i].id, replaces))
            return false;
    return restarts > 0;
}

/* attempt_end - when this task came to run, or failed; 0: neither. */
static int64_t attempt_end(const struct slot *s, const struct orch_task *t)
{
    return t->running_ns                                   ? t->running_ns
           : orch_ended_itself(t)                          ? t->status_ns
           : replaces_current(s, t->restarts, t->replaces) ? t->created_ns
                                                           : 0;
}

/* attempt - the task that decided what this slot has come to since the spec changed; NULL: none did yet. */
static struct orch_task *attempt(const struct slot *s)
{
    struct orch_task *found = NULL;
    for (size_t i = s->tasks ? since_change(s) : s->n; i < s->n; i++) { /* a slot of this decision has no tasks yet */
        struct orch_task *t = &s->tasks[i];
        if (t->want != TASK_REMOVE && attempt_end(s, t) && (!found || attempt_end(s, t) < attempt_end(s, found)))
            found = t;
    }
    return found;
}

/* slot_done - when the slot had its new task running, or failed; 0: not yet. */
static int64_t slot_done(const struct pass *p, const struct slot *s)
{
    const struct orch_task *t = attempt(s);
    if (t)
        return attempt_end(s, t);
    return s->create && replaces_current(s, s->create->restarts, s->create->replaces) ? p->now : 0;
}

/* slot_dirty - it is still to be replaced. One that failed is not tried again, but by the restart policy. */
static bool slot_dirty(const struct pass *p, const struct slot *s)
{
    const struct orch_task *clean = orch_clean_task(s), *last = orch_newest(s);
    if (orch_count_live(s) == 0)
        return last && !last->current;
    if (count_others(s, clean) == 0)
        return false;
    return clean || s->create || slot_done(p, s) == 0;
}

/* was_updated - the new task got here by replacing another one, so the update waits for it. */
static bool was_updated(const struct slot *s, struct str replaces)
{
    if (replaces.n)
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
    int64_t done = slot_done(p, s);
    if (done) {
        if (after(done, p->svc->update_delay_ns) <= p->now)
            return SLOT_IDLE;
        orch_look_again(p, after(done, p->svc->update_delay_ns));
        return SLOT_DELAY;
    }
    if (!clean && !s->create)
        return SLOT_IDLE;
    if (clean && clean->state == TASK_RUNNING) /* it was never taken away: the spec came back before its turn */
        return SLOT_IDLE;
    return was_updated(s, clean ? clean->replaces : s->create->replaces) ? SLOT_STARTING : SLOT_IDLE;
}

static void stop_others(struct slot *s, const struct orch_task *clean)
{
    for (size_t i = 0; i < s->n; i++)
        if (orch_live(&s->tasks[i]) && &s->tasks[i] != clean)
            orch_want(&s->tasks[i], TASK_SHUTDOWN);
}

/* finish_slot - what is left of the slot's update once its new task is there. */
static void finish_slot(struct pass *p, struct slot *s)
{
    const struct orch_task *clean = orch_clean_task(s);
    if (clean && (clean->state == TASK_RUNNING || !p->svc->start_first))
        stop_others(s, clean);
}

/* replace_slot - begins the update of a slot that has no clean task. */
static void replace_slot(struct pass *p, struct slot *s)
{
    struct orch_create *c = orch_new_task(p, s);
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
        if (orch_holds_slot(t))
            c->replaces = t->id;
    }
    if (orch_slot_stopping(s))
        c->desired = TASK_READY;
}

/* ---- failures ---- */

/* has_failed - it ended by itself, just now, and too early. */
static bool has_failed(const struct pass *p, const struct orch_task *t)
{
    if (!t->current || t->desired > TASK_RUNNING || t->want <= TASK_RUNNING || t->want == TASK_REMOVE ||
        !orch_ended_itself(t))
        return false;
    return t->running_ns == 0 || t->status_ns - t->running_ns <= monitor(p);
}

/* fail_stuck - a new task that does not come to run is given up, and replaced as one that failed would be. */
static const struct orch_task *fail_stuck(struct pass *p, struct slot *s)
{
    struct orch_task *t = orch_clean_task(s);
    if (!t || t->state >= TASK_RUNNING || t->want < TASK_RUNNING || s->create || p->svc->progress_ns <= 0)
        return NULL;
    int64_t due = after(later(t->created_ns, t->start_ns), p->svc->progress_ns);
    if (t->node_id.n) /* it may run already */
        due = later(due, p->svc->reports_ns + ORCH_HEAR_NS);
    if (due > p->now) {
        orch_look_again(p, due);
        return NULL;
    }
    bool again = orch_should_restart(p, s, t);
    orch_want(t, TASK_SHUTDOWN);
    if (again) {
        struct orch_create *c = orch_new_task(p, s);
        c->restarts = t->restarts + 1;
        c->attempts = t->attempts + 1;
        c->replaces = t->id;
        c->start_ns = after(p->now, t->restart.delay_ns);
        c->desired = TASK_READY;
        orch_look_again(p, c->start_ns);
    }
    return t;
}

/* count_failures - those that this decision learns of; true when they are too many. */
static bool count_failures(struct pass *p)
{
    struct orch_out *out = p->out;
    bool counts = p->svc->on_failure != ORCH_CONTINUE && p->svc->max_failure_ratio < 1;
    for (size_t i = 0; i < p->n; i++)
        if (counts && has_failed(p, &p->tasks[i])) {
            out->failures++;
            out->culprit = p->tasks[i].id;
        }
    for (size_t i = 0; i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        const struct orch_task *t = s->keep && slot_progress(p, s) == SLOT_STARTING ? fail_stuck(p, s) : NULL;
        if (t && counts) {
            out->failures++;
            out->culprit = t->id;
            out->stuck = true;
        }
    }
    return counts && out->culprit.n && (double)out->failures / (double)out->slots > p->svc->max_failure_ratio;
}

/* give_up - what the failure action says. New tasks of this decision have the spec that failed: in a rollback the next
 * decision makes them with the one before. */
static void give_up(struct pass *p)
{
    struct orch_out *out = p->out;
    if (p->svc->update == ORCH_UPDATE_ROLLBACK) {
        out->update = ORCH_UPDATE_ROLLBACK_PAUSED;
    } else if (p->svc->on_failure == ORCH_ROLLBACK && p->svc->can_roll_back) {
        out->update = ORCH_UPDATE_ROLLBACK;
        out->failures = out->slots = 0;
        out->ncreate = 0;
        for (size_t i = 0; i < p->nslots; i++)
            p->slots[i].create = NULL;
    } else {
        out->update = ORCH_UPDATE_PAUSED;
    }
}

/* ---- one decision ---- */

struct tally {
    size_t dirty, starting;
    uint64_t busy;
    int64_t last_ns; /* when the last slot was done */
};

static struct tally take_stock(struct pass *p)
{
    struct tally t = { 0 };
    for (size_t i = 0; i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        if (!s->keep)
            continue;
        enum progress g = slot_progress(p, s);
        t.busy += g != SLOT_IDLE;
        t.starting += g == SLOT_STARTING;
        t.dirty += slot_dirty(p, s);
        t.last_ns = later(t.last_ns, slot_done(p, s));
        struct orch_task *proof = in_phase(p) ? attempt(s) : NULL;
        if (proof)
            proof->proof = true;
    }
    return t;
}

/* slot_down - an earlier update took its task away, and what came instead does not run yet. */
static bool slot_down(const struct slot *s)
{
    bool down = false;
    for (size_t i = 0; i < s->n; i++) {
        const struct orch_task *t = &s->tasks[i];
        if (orch_live(t) && t->state == TASK_RUNNING)
            return false;
        down |= orch_live(t) && t->replaces.n;
    }
    return down;
}

/* replace_slots - those first that are down anyway, so that updates in quick succession never take more away at a time
 * than one may. */
static void replace_slots(struct pass *p, const struct tally *now)
{
    uint64_t busy = now->busy, most = p->svc->parallelism ? p->svc->parallelism : UINT64_MAX;
    for (unsigned up = 0; now->dirty && up < 2; up++) {
        uint64_t waiting = 0;
        for (size_t i = 0; i < p->nslots; i++) {
            struct slot *s = &p->slots[i];
            if (!s->keep || !slot_dirty(p, s))
                continue;
            if (orch_clean_task(s)) {
                finish_slot(p, s);
            } else if (!s->create && !slot_down(s) == up) {
                if (busy < most) {
                    replace_slot(p, s);
                    busy++;
                } else {
                    waiting++;
                }
            }
        }
        busy += waiting;
    }
}

static enum orch_update verdict(struct pass *p, const struct tally *t)
{
    enum orch_update u = p->svc->update;
    if (t->dirty && u != ORCH_UPDATE_ROLLBACK)
        return ORCH_UPDATE_UPDATING;
    if (t->dirty || t->starting || !in_phase(p))
        return u;
    if (after(t->last_ns, monitor(p)) > p->now) {
        orch_look_again(p, after(t->last_ns, monitor(p)));
        return u;
    }
    return u == ORCH_UPDATE_UPDATING ? ORCH_UPDATE_COMPLETED : ORCH_UPDATE_ROLLBACK_COMPLETED;
}

/* stay_paused - no slot is begun any more, those under way are finished, as Docker's workers do. */
static void stay_paused(struct pass *p)
{
    for (size_t i = 0; i < p->nslots; i++) {
        struct slot *s = &p->slots[i];
        const struct orch_task *clean = s->keep ? orch_clean_task(s) : NULL;
        if (!clean || count_others(s, clean) == 0)
            continue;
        if (clean->state == TASK_RUNNING)
            stop_others(s, clean);
        p->out->updating = true;
    }
}

void orch_update_slots(struct pass *p)
{
    struct orch_out *out = p->out;
    out->failures = p->svc->failures;
    out->slots = p->svc->slots;
    if (is_paused(p)) {
        stay_paused(p);
        return;
    }
    struct tally t = take_stock(p);
    if ((t.dirty && !in_phase(p)) || (in_phase(p) && out->slots == 0)) {
        out->slots = t.dirty + t.starting ? t.dirty + t.starting : 1;
        out->failures = 0;
    }
    if (in_phase(p) && count_failures(p)) {
        give_up(p);
        return;
    }
    t = take_stock(p);
    replace_slots(p, &t);
    out->update = verdict(p, &t);
    out->updating = t.dirty || out->update == ORCH_UPDATE_UPDATING || out->update == ORCH_UPDATE_ROLLBACK;
}

static const struct {
    const char *name, *message;
} update_text[] = {
    [ORCH_UPDATE_NONE] = { "", "" },
    [ORCH_UPDATE_UPDATING] = { "updating", "update in progress" },
    [ORCH_UPDATE_PAUSED] = { "paused", "update paused" },
    [ORCH_UPDATE_COMPLETED] = { "completed", "update completed" },
    [ORCH_UPDATE_ROLLBACK] = { "rollback_started", "update rolled back" },
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

void orch_update_message(const struct orch_service *svc, const struct orch_out *out, struct buf *ret)
{
    buf_puts(ret, update_text[out->update].message);
    if (out->culprit.n == 0 || out->update == ORCH_UPDATE_UPDATING)
        return;
    buf_printf(ret, " due to failure or early termination of task " STR_FMT, STR_ARG(out->culprit));
    if (out->stuck)
        buf_printf(ret, ": it did not run within %lld s", (long long)(svc->progress_ns / 1000000000));
}

/* orch_explain.c - see orch_explain.h. */
#include "orchestratord/orch_explain.h"

#include <inttypes.h>

#include "common/util/clock.h"

static void put_time(struct buf *b, const char *key, int64_t ns)
{
    char text[WALL_TEXT_MAX];
    wall_format((struct wall_ns){ ns }, text);
    buf_printf(b, ",\"%s\":\"%s\"", key, text);
}

static void put_text(struct buf *b, const char *key, struct str s)
{
    buf_printf(b, ",\"%s\":", key);
    buf_json_str(b, s);
}

static const char *mode_name(enum orch_mode m)
{
    static const char *const names[] = { "replicated", "global", "replicated-job", "global-job" };
    return names[m];
}

static const char *why_of(const struct orch_task *t)
{
    return t->held    ? "its node went down with many others at once: tasks are moved little by little"
           : t->why   ? t->why
           : t->evict ? "it is wanted elsewhere"
           : t->drop  ? "its record is not needed any more"
                      : NULL;
}

static void put_task(struct buf *b, const struct orch_task *t)
{
    buf_puts(b, "{\"id\":");
    buf_json_str(b, t->id);
    buf_printf(b, ",\"state\":\"%s\",\"desired\":\"%s\"", task_state_name(t->state), task_state_name(t->desired));
    if (t->node_id.n)
        put_text(b, "node", t->node_id);
    if (t->drop || t->want != t->desired)
        buf_printf(b, ",\"next\":\"%s\"", t->drop ? "deleted" : task_state_name(t->want));
    if (!t->current)
        buf_puts(b, ",\"outdated\":true");
    if (t->node_down || t->node_drain)
        buf_printf(b, ",\"its_node\":\"%s\"", t->node_gone ? "removed" : t->node_down ? "down" : "drained");
    if (t->restarts)
        buf_printf(b, ",\"quick_restarts\":%" PRIu64, t->restarts);
    if (t->attempts)
        buf_printf(b, ",\"attempts\":%" PRIu64 ",\"max_attempts\":%" PRIu64, t->attempts, t->restart.max_attempts);
    if (why_of(t))
        put_text(b, "why", str_from(why_of(t)));
    if (t->why_until_ns)
        put_time(b, "until", t->why_until_ns);
    buf_putc(b, '}');
}

static bool same_slot(const struct orch_account *a, const struct orch_task *x, const struct orch_task *y)
{
    return orch_is_global(a->svc) ? str_eq(x->node_id, y->node_id) : x->slot == y->slot;
}

static const struct orch_task *task_of(const struct orch_account *a)
{
    for (size_t i = 0; i < a->n && a->task.n; i++)
        if (str_eq(a->tasks[i].id, a->task))
            return &a->tasks[i];
    return NULL;
}

static void put_slots(const struct orch_account *a, struct buf *b)
{
    const struct orch_task *only = task_of(a);
    size_t left = 0, listed = 0;
    bool first = true, boring = a->n > ORCH_EXPLAIN_MAX;
    buf_puts(b, ",\"slots\":[");
    for (size_t i = 0, j; i < a->n; i = j) {
        const struct orch_task *t = &a->tasks[i];
        bool say = !boring;
        for (j = i; j < a->n && same_slot(a, t, &a->tasks[j]); j++)
            say |= why_of(&a->tasks[j]) != NULL || a->tasks[j].want != a->tasks[j].desired;
        if (only && !same_slot(a, t, only))
            continue;
        if (!only && (!say || listed >= ORCH_EXPLAIN_MAX)) {
            left++;
            continue;
        }
        buf_printf(b, "%s{\"slot\":%" PRIu64 ",\"tasks\":[", first ? "" : ",", t->slot);
        first = false;
        for (size_t k = i; k < j; k++, listed++) {
            if (k > i)
                buf_putc(b, ',');
            put_task(b, &a->tasks[k]);
        }
        buf_puts(b, "]}");
    }
    buf_printf(b, "],\"slots_left_out\":%zu", left);
}

static void put_job(const struct orch_account *a, struct buf *b)
{
    const struct orch_job *j = &a->out->job;
    const struct orch_schedule *s = &a->svc->schedule;
    buf_printf(b,
               ",\"job\":{\"iteration\":%" PRIu64 ",\"slots\":%" PRIu64 ",\"complete\":%" PRIu64 ",\"active\":%" PRIu64
               ",\"given_up\":%" PRIu64 ",\"rest\":%s}",
               a->iteration, j->slots, j->complete, j->active, j->given_up, j->rest ? "true" : "false");
    if (!s->given)
        return;
    buf_printf(b, ",\"schedule\":{\"overlap\":\"%s\",\"begun\":%s", s->replace ? "replace" : "skip",
               a->svc->begun ? "true" : "false");
    put_time(b, "dealt_with_until", s->from_ns);
    put_time(b, "next", a->out->due_ns);
    buf_putc(b, '}');
}

void orch_explain(const struct orch_account *a, struct buf *b)
{
    const struct orch_service *svc = a->svc;
    size_t held = 0, open = 0;
    buf_puts(b, "{\"service\":");
    buf_json_str(b, a->service);
    if (!svc->exists) {
        buf_puts(b, ",\"why\":\"it was removed; its tasks are on their way out\"");
    } else {
        put_text(b, "name", a->name);
        buf_printf(b, ",\"mode\":\"%s\"", mode_name(svc->mode));
    }
    if (svc->exists && svc->mode == ORCH_REPLICATED)
        buf_printf(b, ",\"replicas\":%" PRIu64, svc->replicas);
    for (size_t i = 0; i < svc->nplaces; i++)
        open += svc->places[i].open;
    if (orch_is_global(svc))
        buf_printf(b, ",\"places\":%zu,\"places_open\":%zu", svc->nplaces, open);
    if (a->update_message.n) {
        buf_printf(b, ",\"update\":{\"state\":\"%s\"", orch_update_name(svc->update));
        put_text(b, "message", a->update_message);
        buf_printf(b, ",\"slots\":%" PRIu64 ",\"failures\":%" PRIu64 "}", svc->slots, svc->failures);
    }
    if (orch_is_job(svc))
        put_job(a, b);
    for (size_t i = 0; i < a->n; i++)
        held += a->tasks[i].held;
    if (held)
        buf_printf(b, ",\"waiting_to_be_moved\":%zu,\"moved_a_second\":%" PRIu64, held, a->nodes->mass_rate);
    buf_printf(b, ",\"new_tasks\":%zu", a->out->ncreate);
    if (a->out->next_ns != ORCH_NEVER)
        put_time(b, "next_look", a->out->next_ns);
    put_slots(a, b);
    buf_puts(b, "}");
}

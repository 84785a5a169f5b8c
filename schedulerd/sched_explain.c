/* sched_explain.c - why a task is where it is, or nowhere. */
#include "schedulerd/sched_priv.h"

static void put_kinds(const struct sched_class *c, struct buf *out)
{
    buf_puts(out, "\"generic\":{");
    for (unsigned i = 0; i < c->nkinds; i++) {
        buf_puts(out, i ? "," : "");
        buf_json_str(out, c->kinds[i].name);
        buf_printf(out, ":%lld", (long long)c->kinds[i].amount);
    }
    buf_putc(out, '}');
}

static void put_needs(const struct sched_spec *spec, struct buf *out)
{
    const struct sched_class *c = spec->class;
    buf_printf(out, "\"needs\":{\"nano_cpus\":%lld,\"memory_bytes\":%lld,", (long long)spec->cpu,
               (long long)spec->memory);
    put_kinds(c, out);
    buf_puts(out, ",\"constraints\":[");
    for (unsigned i = 0; i < c->nconstraints; i++) {
        struct buf text = BUF_INIT;
        buf_printf(&text, STR_FMT "%s" STR_FMT, STR_ARG(c->constraints[i].key),
                   c->constraints[i].equal ? "==" : "!=", STR_ARG(c->constraints[i].value));
        buf_puts(out, i ? "," : "");
        buf_json_str(out, buf_str(&text));
        buf_done(&text);
    }
    buf_puts(out, "],\"plugins\":[");
    for (unsigned i = 0; i < c->nneeds; i++) {
        struct buf text = BUF_INIT;
        buf_printf(&text, STR_FMT "/" STR_FMT, STR_ARG(c->needs[i].type), STR_ARG(c->needs[i].name));
        buf_puts(out, i ? "," : "");
        buf_json_str(out, buf_str(&text));
        buf_done(&text);
    }
    buf_printf(out, "],\"max_replicas_per_node\":%llu},\"preferences\":[", (unsigned long long)spec->max_replicas);
    for (unsigned i = 0; i < c->nspreads; i++) {
        buf_puts(out, i ? "," : "");
        buf_json_str(out, c->spreads[i]);
    }
    buf_putc(out, ']');
}

static void put_node(struct sched *s, const struct sched_task *t, const struct sched_node *n, enum sched_filter f,
                     int64_t now_ns, struct buf *out)
{
    buf_puts(out, "{\"id\":");
    buf_json_str(out, table_key(&s->nodes, n));
    buf_puts(out, ",\"hostname\":");
    buf_json_str(out, n->present ? n->view.Description.Hostname : STR(""));
    buf_printf(out, ",\"verdict\":\"%s\",\"tasks\":%u,\"tasks_of_service\":%u,\"failures\":%u",
               f == SCHED_FILTER_COUNT ? "fits" : sched_filter_name[f], n->active,
               sched_count_of(&t->service->counts, n->number),
               sched_failures_on(sched_recent(s, t->spec, now_ns), n, now_ns));
    buf_printf(out, ",\"nano_cpus_free\":%lld,\"memory_bytes_free\":%lld}",
               (long long)(n->present ? n->cpu - n->used_cpu : 0),
               (long long)(n->present ? n->memory - n->used_memory : 0));
}

static void put_nodes(struct sched *s, const struct sched_task *t, int64_t now_ns, struct buf *out)
{
    unsigned counts[SCHED_FILTER_COUNT + 1] = { 0 }, said = 0;
    buf_puts(out, "\"nodes\":[");
    for (unsigned fit = 0; fit < 2; fit++) /* those that fit first */
        for (size_t i = 0; i < s->nat; i++) {
            const struct sched_node *n = s->at[i];
            enum sched_filter f = n ? sched_filter_node(t->spec, t->service, n) : 0;
            if (!n || (f == SCHED_FILTER_COUNT) != (fit == 0))
                continue;
            counts[f]++;
            if (said == SCHED_EXPLAIN_NODES)
                continue;
            buf_puts(out, said++ ? "," : "");
            put_node(s, t, n, f, now_ns, out);
        }
    buf_puts(out, "],\"verdicts\":{\"fits\":");
    buf_printf(out, "%u", counts[SCHED_FILTER_COUNT]);
    for (unsigned f = 0; f < SCHED_FILTER_COUNT; f++)
        if (counts[f])
            buf_printf(out, ",\"%s\":%u", sched_filter_name[f], counts[f]);
    buf_putc(out, '}');
}

static void put_task(struct sched *s, const struct sched_task *t, struct buf *out)
{
    buf_puts(out, "{\"task\":");
    buf_json_str(out, table_key(&s->tasks, t));
    buf_printf(out, ",\"state\":\"%s\",\"desired\":\"%s\",\"service\":", task_state_name(t->state),
               task_state_name(t->desired));
    buf_json_str(out, table_key(&s->services, t->service));
    buf_puts(out, ",\"node\":");
    buf_json_str(out, t->node ? table_key(&s->nodes, t->node) : STR(""));
    buf_printf(out, ",\"priority\":%d,\"evicted\":%s,\"room_kept_on\":", t->service->policy.priority,
               t->evicted ? "true" : "false");
    const struct sched_node *kept = sched_nominated(s, t);
    buf_json_str(out, kept ? table_key(&s->nodes, kept) : STR(""));
    buf_putc(out, ',');
}

void sched_explain(struct sched *s, struct str task, int64_t now_ns, struct buf *out)
{
    struct sched_task *t = table_get(&s->tasks, task);
    struct arena a;
    if (!t) {
        buf_puts(out, "{\"error\":\"no such waiting or placed task\"}");
        return;
    }
    arena_init(&a, 1 << 20);
    put_task(s, t, out);
    put_needs(t->spec, out);
    /* a task that has its place is told about as if it had not: its own node may be full with it */
    struct sched_node *n = t->waiting || !t->node || !t->node->present ? NULL : t->node;
    enum task_state state = t->state, desired = t->desired;
    bool freed = s->freed;
    if (n)
        sched_set(s, t, NULL, state, desired);
    buf_puts(out, ",\"reason\":");
    buf_json_str(out, t->waiting ? str_from(sched_reason(s, t->spec, t->service, t->node, &a)) : STR(""));
    buf_putc(out, ',');
    put_nodes(s, t, now_ns, out);
    if (n)
        sched_set(s, t, n, state, desired);
    s->freed = freed;
    buf_putc(out, '}');
    arena_done(&a);
}

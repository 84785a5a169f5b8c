/* disp_usage.c - see disp_usage.h. */
#include "dispatcherd/disp_usage.h"

#include <math.h>

#include "common/object/autoscale.h"
#include "common/util/check.h"

#define OLD_GRACE_MS 1000u /* three reports are missing: the task does not count any more */

void usages_init(struct usages *u)
{
    u->period_ms = AUTOSCALE_PERIOD_MS;
    table_init(&u->tasks, sizeof(struct usage_task));
    table_init(&u->services, sizeof(struct usage_service));
}

void usages_done(struct usages *u)
{
    table_done(&u->tasks);
    table_done(&u->services);
}

void usages_clear(struct usages *u)
{
    table_clear(&u->tasks);
    table_clear(&u->services);
}

static void drop(struct usages *u, struct usage_task *t)
{
    if ((*t->pprev = t->next))
        t->next->pprev = t->pprev;
    table_del(&u->tasks, table_key(&u->tasks, t));
}

void usages_drop(struct usages *u, struct str task)
{
    struct usage_task *t = table_get(&u->tasks, task);
    if (!t)
        return;
    t->of->dirty = true;
    drop(u, t);
}

void usages_forget(struct usages *u, struct str service)
{
    struct usage_service *s = table_get(&u->services, service);
    while (s && s->tasks)
        drop(u, s->tasks);
    table_del(&u->services, service);
}

/* Reports do not come to the millisecond. */
static bool due(const struct usages *u, const struct usage_service *s, uint64_t now_ms)
{
    return s->dirty && (s->written_ms == 0 || now_ms - s->written_ms >= u->period_ms - u->period_ms / 10);
}

bool usages_take(struct usages *u, struct str service, const struct task_usage *t, uint64_t now_ms)
{
    bool is_new;
    struct usage_service *s = table_put(&u->services, service, NULL);
    struct usage_task *x = table_put(&u->tasks, t->TaskID, &is_new);
    if (is_new) {
        if ((x->next = s->tasks))
            x->next->pprev = &x->next;
        x->pprev = &s->tasks;
        s->tasks = x;
        x->of = s;
    }
    x->at_ms = now_ms;
    x->cpu = t->NanoCPUs;
    x->memory = t->MemoryBytes;
    x->has_metric = t->HasMetric && isfinite(t->Metric);
    x->metric = x->has_metric ? t->Metric : 0;
    struct str error = t->HasMetric && !x->has_metric ? STR("not a number") : t->Error;
    if (error.n > sizeof x->error - 1)
        error.n = sizeof x->error - 1;
    CHECK(str_copy(x->error, sizeof x->error, error));
    s->dirty = true;
    return due(u, s, now_ms);
}

/* mean - of those that have reported lately; the others are forgotten. */
static struct view_usage mean(struct usages *u, struct usage_service *s, uint64_t now_ms)
{
    struct view_usage m = { 0 };
    double cpu = 0, memory = 0, metric = 0, metrics = 0;
    for (struct usage_task *t = s->tasks, *next; t; t = next) {
        next = t->next;
        if (now_ms - t->at_ms > 3 * u->period_ms + OLD_GRACE_MS) {
            drop(u, t);
            continue;
        }
        m.Tasks++;
        cpu += (double)t->cpu;
        memory += (double)t->memory;
        if (t->has_metric) {
            metric += t->metric;
            metrics++;
        } else if (t->error[0]) {
            m.Error = str_from(t->error);
        }
    }
    if (m.Tasks == 0)
        return m;
    m.NanoCPUs = (uint64_t)(cpu / (double)m.Tasks);
    m.MemoryBytes = (uint64_t)(memory / (double)m.Tasks);
    m.HasMetric = metrics > 0 && isfinite(metric);
    m.Metric = m.HasMetric ? metric / metrics : 0;
    return m;
}

static bool moved(double from, double to, double floor)
{
    double d = fabs(to - from);
    return d > floor && d > 0.03 * fabs(from);
}

static bool news(const struct usage_service *s, const struct view_usage *now, uint64_t now_ms)
{
    const struct view_usage *was = &s->written;
    return s->written_ms == 0 || now_ms - s->written_ms >= USAGE_AT_LEAST_MS || was->Tasks != now->Tasks ||
           was->HasMetric != now->HasMetric || !str_is(now->Error, s->error) ||
           moved((double)was->NanoCPUs, (double)now->NanoCPUs, 1e7) ||
           moved((double)was->MemoryBytes, (double)now->MemoryBytes, 1 << 20) || moved(was->Metric, now->Metric, 0);
}

bool usages_due(struct usages *u, struct table_pos *pos, uint64_t now_ms, struct str *ret_service,
                struct view_usage *ret)
{
    struct usage_service *s;
    while (table_next(&u->services, pos, ret_service, &s)) {
        if (!due(u, s, now_ms))
            continue;
        s->dirty = false;
        *ret = mean(u, s, now_ms);
        if (s->tasks == NULL) {
            table_del(&u->services, *ret_service);
            continue;
        }
        if (!news(s, ret, now_ms))
            continue;
        s->written = *ret;
        s->written_ms = now_ms;
        CHECK(str_copy(s->error, sizeof s->error, ret->Error));
        ret->Error = str_from(s->error);
        return true;
    }
    return false;
}

uint64_t usages_print(struct str service_doc)
{
    uint64_t h = 0;
    struct str labels, key, val;
    struct mp_val v;
    if (!mp_path(service_doc, "Spec.Labels", &labels))
        return 0;
    struct mp_cursor c = mp_cursor(labels);
    if (mp_next(&c, &v) != 0 || v.type != MP_MAP)
        return 0;
    for (size_t i = 0; i < v.n && mp_span(&c, &key) == 0 && mp_span(&c, &val) == 0; i++) {
        struct str name, text, both[2];
        if (!mp_as_str(key, &name) || !str_starts(name, STR(AUTOSCALE_PREFIX)) || !mp_as_str(val, &text))
            continue;
        uint64_t one = 1469598103934665603u;
        both[0] = name;
        both[1] = text;
        for (size_t k = 0; k < 2; k++)
            for (size_t j = 0; j <= both[k].n; j++) /* an end to each */
                one = (one ^ (j < both[k].n ? (unsigned char)both[k].p[j] : 0x100u)) * 1099511628211u;
        h += one; /* in any order */
    }
    return h;
}

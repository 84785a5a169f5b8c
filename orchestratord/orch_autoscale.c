/* orch_autoscale.c - see orch_autoscale.h. */
#include "orchestratord/orch_autoscale.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What one signal asks for. */
struct signal {
    const char *name;
    double value, target; /* of one task */
};

/* wish - the number of replicas by this signal, as it is when there is nothing to do. */
static double wish(const struct scale_in *in, const struct signal *s)
{
    double now = (double)in->replicas, tasks = (double)in->usage->Tasks, ratio = s->value / s->target;
    double missing = tasks < now ? now - tasks : 0;
    if (fabs(ratio - 1) <= SCALE_TOLERANCE)
        return now;
    double n = ratio > 1 ? tasks * ratio : tasks * ratio + missing;
    if (ratio > 1)
        return n > now ? n : now;
    return n < now ? n : now;
}

static uint64_t step(uint64_t now, double n)
{
    uint64_t most = now * 2 > now + SCALE_STEP ? now * 2 : now + SCALE_STEP, least = (now + 1) / 2;
    n = ceil(n - 1e-9);
    if (!(n < (double)most)) /* not a number, too: it was looked for before, and does not get out of hand here */
        return most;
    return n < (double)least ? least : (uint64_t)n;
}

static void say_nothing(struct scale_out *out, const char *why)
{
    snprintf(out->reason, sizeof out->reason, SCALE_BLIND "%s", why);
}

/* signals - how many can be read; @ret_blind: one that was asked for cannot. */
static size_t signals(const struct scale_in *in, struct signal v[3], bool *ret_blind, struct scale_out *out)
{
    const struct view_usage *u = in->usage;
    double cpu = in->cpu_limit_ns > 0 ? (double)in->cpu_limit_ns : 1e9;
    size_t n = 0;
    *ret_blind = false;
    if (in->conf.cpu)
        v[n++] = (struct signal){ "cpu", 100 * (double)u->NanoCPUs / cpu, (double)in->conf.cpu };
    if (in->conf.memory && in->memory_limit > 0)
        v[n++] = (struct signal){ "memory", 100 * (double)u->MemoryBytes / (double)in->memory_limit,
                                  (double)in->conf.memory };
    else if (in->conf.memory) {
        say_nothing(out, "memory: the service has no memory limit");
        *ret_blind = true;
    }
    if (!in->conf.has_metric)
        return n;
    if (u->HasMetric && isfinite(u->Metric) && u->Metric >= 0) {
        v[n++] = (struct signal){ "metric", u->Metric, in->conf.target };
        return n;
    }
    *ret_blind = true;
    if (u->HasMetric)
        say_nothing(out, "metric: not a number that can be scaled by");
    else
        snprintf(out->reason, sizeof out->reason, SCALE_BLIND "metric: " STR_FMT,
                 (int)(u->Error.n > 150 ? 150 : u->Error.n), u->Error.n ? u->Error.p : "not known");
    return n;
}

void scale_decide(const struct scale_in *in, struct scale_out *out)
{
    struct signal v[3], *why = NULL;
    bool blind;
    double most = 0;
    *out = (struct scale_out){ .replicas = in->replicas, .next_ns = INT64_MAX };
    if (!in->usage || in->usage->Tasks == 0 || in->now_ns - in->usage->At > SCALE_FRESH_NS || in->replicas == 0)
        return;
    if (in->before && in->usage->At <= in->before->ChangedAt && in->before->ChangedAt <= in->now_ns)
        return; /* measured before the last change */
    out->measured = true;
    size_t n = signals(in, v, &blind, out);
    for (size_t i = 0; i < n; i++) {
        double w = wish(in, &v[i]);
        if (!why || w > most) {
            most = w;
            why = &v[i];
        }
    }
    if (!why || (blind && most < (double)in->replicas)) /* what is not known might speak against fewer */
        return;
    uint64_t wanted = autoscale_replicas(&in->conf, step(in->replicas, most), 0);
    if (wanted == in->replicas)
        return;
    int64_t changed = in->before ? in->before->ChangedAt : 0, due = changed + in->conf.cooldown_ns;
    if (changed > in->now_ns) /* by another clock */
        due = in->now_ns + in->conf.cooldown_ns;
    if (changed && due > in->now_ns) {
        out->next_ns = due;
        return;
    }
    out->replicas = wanted;
    snprintf(out->reason, sizeof out->reason, "%s: %.4g a task, target %.4g, %llu of %llu replicas measured", why->name,
             why->value, why->target, (unsigned long long)in->usage->Tasks, (unsigned long long)in->replicas);
}

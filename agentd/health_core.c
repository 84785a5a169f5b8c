/* health_core.c - see health_core.h. */
#include "agentd/health_core.h"

#include <stdlib.h>

#define SECOND_NS 1000000000ll
#define RETRIES_DEFAULT 3
#define RETRIES_MAX 1000000

static int64_t first_of(int64_t service, int64_t image, int64_t otherwise)
{
    return service > 0 ? service : image > 0 ? image : otherwise;
}

static struct strs behind(struct strs before, struct strs test, struct arena *a)
{
    struct strs r = { arena_array(a, before.n + test.n, sizeof(struct str)), 0 };
    if (!r.v)
        return r;
    for (size_t i = 0; i < before.n; i++)
        r.v[r.n++] = before.v[i];
    for (size_t i = 1; i < test.n; i++)
        r.v[r.n++] = test.v[i];
    return r;
}

bool health_conf_of(const struct health_spec *service, const struct health_spec *image, const struct strs *shell,
                    struct arena *a, struct health_conf *ret)
{
    static struct str sh[] = { { "/bin/sh", 7 }, { "-c", 2 } };
    static const struct health_spec nothing = { 0 };
    const struct health_spec *s = service ? service : &nothing;
    struct strs test = s->Test.n ? s->Test : image->Test, before = { NULL, 0 };

    if (test.n < 2)
        return false; /* NONE, or nothing to run */
    if (str_is(test.v[0], "CMD-SHELL"))
        before = shell->n ? *shell : (struct strs){ sh, 2 };
    else if (!str_is(test.v[0], "CMD"))
        return false; /* as Docker: a word that it does not know is no check */
    *ret = (struct health_conf){
        .test = test,
        .argv = behind(before, test, a),
        .interval_ns = first_of(s->Interval, image->Interval, 30 * SECOND_NS),
        .timeout_ns = first_of(s->Timeout, image->Timeout, 30 * SECOND_NS),
        .start_period_ns = first_of(s->StartPeriod, image->StartPeriod, 0),
        .start_interval_ns = first_of(s->StartInterval, image->StartInterval, 5 * SECOND_NS),
        .retries = (uint64_t)first_of(s->Retries, image->Retries, RETRIES_DEFAULT),
    };
    if (ret->retries > RETRIES_MAX)
        ret->retries = RETRIES_MAX;
    return ret->argv.n > 0;
}

const char *health_state_name(enum health_state s)
{
    static const char *const names[] = { "none", "starting", "healthy", "unhealthy" };
    return names[s];
}

void health_done(struct health *h)
{
    for (unsigned i = 0; i < h->nlog; i++)
        free(h->log[i].output);
    *h = (struct health){ 0 };
}

static void remember(struct health *h, const struct health_result *r)
{
    if (h->nlog == HEALTH_LOG) {
        free(h->log[0].output);
        for (unsigned i = 1; i < HEALTH_LOG; i++)
            h->log[i - 1] = h->log[i];
        h->nlog--;
    }
    h->log[h->nlog++] = *r;
}

bool health_take(struct health *h, const struct health_conf *c, const struct health_result *r, int64_t age_ns)
{
    enum health_state before = h->state;
    remember(h, r);
    if (r->exit_code == 0) {
        h->streak = 0;
        h->state = HEALTH_HEALTHY;
    } else if (h->state != HEALTH_STARTING || age_ns >= c->start_period_ns) {
        if (++h->streak >= c->retries)
            h->state = HEALTH_UNHEALTHY;
    }
    return h->state != before;
}

int64_t health_pause_ns(const struct health *h, const struct health_conf *c, int64_t age_ns)
{
    return h->state == HEALTH_STARTING && age_ns < c->start_period_ns ? c->start_interval_ns : c->interval_ns;
}

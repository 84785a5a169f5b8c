#include "apid/api_reach.h"

#include "apid/api_resources.h"
#include "common/util/check.h"

#define LOOK_MS 2000u

static struct {
    struct managers last;
    bool wanted, primed, asking;
    struct timer *timer;
} reach;

void reach_compare(const struct managers *old, const struct managers *now, reach_tell_fn *tell, void *arg)
{
    for (size_t i = 0; i < now->n; i++) {
        const struct manager *x = &now->v[i], *was = managers_find(old, str_from(x->node));
        if (was && !was->learner && !x->learner && was->reachable != x->reachable)
            tell(arg, x);
    }
}

static void tell(void *arg, const struct manager *now)
{
    (void)arg;
    events_reachability(str_from(now->node), now->reachable);
}

static void told(void *arg, const struct managers *m, const struct err *e)
{
    (void)arg;
    reach.asking = false;
    if (!reach.wanted)
        return;
    if (e->code == 0) { /* while nobody leads nobody knows: then it is compared with what was known before */
        if (reach.primed)
            reach_compare(&reach.last, m, tell, NULL);
        reach.last = *m;
        reach.primed = true;
    }
    timer_arm(reach.timer, clock_mono().ms + LOOK_MS);
}

static void look(void *arg)
{
    (void)arg;
    if (!reach.wanted || reach.asking)
        return;
    reach.asking = true;
    managers_tell(told, NULL);
}

void reach_soon(void)
{
    look(NULL);
}

void reach_watch(bool wanted)
{
    struct err e = ERR_INIT;

    if (reach.wanted == wanted)
        return;
    reach.wanted = wanted;
    reach.primed = false;
    if (wanted && !reach.timer)
        CHECK(timer_open(&reach.timer, look, NULL, &e) == 0);
    if (wanted)
        look(NULL);
    else
        timer_arm(reach.timer, UINT64_MAX);
}

void reach_close(void)
{
    reach.wanted = false;
    reach.timer = timer_free(reach.timer);
}

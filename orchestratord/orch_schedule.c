/*
 * orch_schedule.c - jobs that run at times.
 *
 * What was missed while there was no leader is made up for once, however often it was due. The shell stores a new run
 * and the time it is for in one change of the service, so that no due time is served twice.
 */
#include "orchestratord/orch_priv.h"

void orch_keep_schedule(struct pass *p)
{
    const struct orch_schedule *s = &p->svc->schedule;
    if (!s->given)
        return;
    p->out->due_ns = cron_last(&s->cron, s->from_ns, p->now);
    if (p->out->due_ns == CRON_NEVER)
        orch_look_again(p, p->out->due_ns = cron_next(&s->cron, s->from_ns));
    else if (p->svc->begun && !p->out->job.rest && !s->replace)
        p->out->run = ORCH_RUN_SKIP;
    else
        p->out->run = ORCH_RUN_START;
    if (p->out->run == ORCH_RUN_START) /* they would be of the run that ends now */
        p->out->ncreate = 0;
}

/* sched_shell.c - see sched_shell.h. */
#include "schedulerd/sched_shell.h"

#include "schedulerd/sched_pass.h"

static struct sched_keeper keeper;
static struct controller *controller;

int sched_shell_start(struct err *e)
{
    sched_keeper_init(&keeper);
    return controller_open(&controller, daemon_loop(), daemon_run_dir(), &sched_ops, &keeper, e);
}

void sched_shell_stop(void)
{
    controller = controller_free(controller);
    sched_keeper_done(&keeper);
}

void sched_shell_status(struct buf *out)
{
    controller_status(controller, out);
    buf_printf(out, ",\"nodes\":%zu,\"tasks\":%zu,\"waiting\":%zu", keeper.core.nodes.count, keeper.core.tasks.count,
               keeper.core.waiting);
}

void sched_shell_metrics(struct buf *out)
{
    controller_metrics(controller, out);
    buf_printf(out,
               "# TYPE microswarm_schedulerd_tasks_placed_total counter\n"
               "microswarm_schedulerd_tasks_placed_total %llu\n"
               "# TYPE microswarm_schedulerd_tasks_refused_total counter\n"
               "microswarm_schedulerd_tasks_refused_total %llu\n"
               "# TYPE microswarm_schedulerd_tasks_evicted_total counter\n"
               "microswarm_schedulerd_tasks_evicted_total %llu\n"
               "# TYPE microswarm_schedulerd_tasks_waiting gauge\n"
               "microswarm_schedulerd_tasks_waiting %zu\n",
               (unsigned long long)keeper.placed, (unsigned long long)keeper.refused,
               (unsigned long long)keeper.evicted, keeper.core.waiting);
}

void sched_shell_explain(const char *args, struct buf *out)
{
    sched_explain(&keeper.core, str_from(args), clock_wall().ns, out);
}

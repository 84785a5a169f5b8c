/* orch_shell.c - see orch_shell.h. */
#include "orchestratord/orch_shell.h"

#include "orchestratord/orch_pass.h"

static struct orch orch;
static struct controller *controller;

int orch_shell_start(struct err *e)
{
    orch_init(&orch);
    return controller_open(&controller, daemon_loop(), daemon_run_dir(), &orch_ops, &orch, e);
}

void orch_shell_stop(void)
{
    controller = controller_free(controller);
    orch_done(&orch);
}

void orch_shell_status(struct buf *out)
{
    controller_status(controller, out);
    buf_printf(out, ",\"services_marked\":%zu,\"services_watched\":%zu,\"nodes_unavailable\":%zu",
               orch.services.pending.count, orch.watch.count, orch.nodes.ndown);
}

void orch_shell_metrics(struct buf *out)
{
    controller_metrics(controller, out);
    buf_printf(out,
               "# TYPE microswarm_orchestratord_tasks_created_total counter\n"
               "microswarm_orchestratord_tasks_created_total %llu\n"
               "# TYPE microswarm_orchestratord_tasks_restarted_total counter\n"
               "microswarm_orchestratord_tasks_restarted_total %llu\n"
               "# TYPE microswarm_orchestratord_tasks_deleted_total counter\n"
               "microswarm_orchestratord_tasks_deleted_total %llu\n"
               "# TYPE microswarm_orchestratord_services_scaled_total counter\n"
               "microswarm_orchestratord_services_scaled_total %llu\n",
               (unsigned long long)orch.created, (unsigned long long)orch.restarted, (unsigned long long)orch.deleted,
               (unsigned long long)orch.scaled);
}

/* orch_shell.c - see orch_shell.h. */
#include "orchestratord/orch_shell.h"

#include "orchestratord/orch_pass.h"

struct orch_conf orch_conf;
static struct orch orch;
static struct controller *controller;

int orch_shell_start(struct err *e)
{
    orch_init(&orch);
    orch.nodes.mass_percent = orch_conf.mass_percent;
    orch.nodes.mass_rate = orch_conf.mass_rate;
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
    buf_printf(out,
               ",\"services_marked\":%zu,\"services_watched\":%zu,\"global_services\":%zu,\"nodes\":%zu,"
               "\"nodes_down\":%zu,\"nodes_held\":%zu,\"services_waiting_to_move\":%zu,\"moves_per_second_of_held\":%"
               "llu,\"scheduled_runs\":%llu,"
               "\"scheduled_skipped\":%llu",
               orch.services.pending.count, orch.watch.count, orch.globals.count, orch.nodes.all.count,
               orch.nodes.ndown, orch.nodes.nheld, orch.waiting.count, (unsigned long long)orch.nodes.mass_rate,
               (unsigned long long)orch.runs, (unsigned long long)orch.skipped);
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

void orch_shell_explain(const char *args, struct buf *out)
{
    struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    if (store_begin(controller_store(controller), &snap, &e) == 0) {
        orch_pass_explain(&orch, snap, clock_wall().ns, str_from(args), out);
        store_end(snap);
        return;
    }
    buf_puts(out, "{\"error\":");
    buf_json_str(out, str_from(e.msg));
    buf_puts(out, "}");
}

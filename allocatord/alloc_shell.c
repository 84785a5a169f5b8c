/* alloc_shell.c - see alloc_shell.h. */
#include "allocatord/alloc_shell.h"

#include "allocatord/alloc_pass.h"

static struct alloc alloc;
static struct controller *controller;

int alloc_shell_start(struct err *e)
{
    alloc_init(&alloc);
    return controller_open(&controller, daemon_loop(), daemon_run_dir(), &alloc_ops, &alloc, e);
}

void alloc_shell_stop(void)
{
    controller = controller_free(controller);
    alloc_done(&alloc);
}

void alloc_shell_status(struct buf *out)
{
    struct str id;
    bool first = true;
    controller_status(controller, out);
    buf_puts(out, ",\"waiting_for_a_port\":[");
    for (struct table_pos p = { 0 }; table_next(&alloc.stuck, &p, &id, NULL); first = false) {
        if (!first)
            buf_putc(out, ',');
        buf_json_str(out, id);
    }
    buf_putc(out, ']');
}

void alloc_shell_metrics(struct buf *out)
{
    controller_metrics(controller, out);
    buf_printf(out,
               "# TYPE microswarm_allocatord_tasks_allocated_total counter\n"
               "microswarm_allocatord_tasks_allocated_total %llu\n"
               "# TYPE microswarm_allocatord_tasks_refused_total counter\n"
               "microswarm_allocatord_tasks_refused_total %llu\n"
               "# TYPE microswarm_allocatord_services_waiting gauge\n"
               "microswarm_allocatord_services_waiting %zu\n",
               (unsigned long long)alloc.allocated, (unsigned long long)alloc.refused, alloc.stuck.count);
}

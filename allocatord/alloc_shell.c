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

static void put_keys(struct buf *out, const char *name, const struct table *t)
{
    struct str id;
    bool first = true;
    buf_printf(out, ",\"%s\":[", name);
    for (struct table_pos p = { 0 }; table_next(t, &p, &id, NULL); first = false) {
        if (!first)
            buf_putc(out, ',');
        buf_json_str(out, id);
    }
    buf_putc(out, ']');
}

/* count_addresses - in use, the few that nobody can get included; and how many there are. */
static void count_addresses(uint64_t *ret_used, uint64_t *ret_all)
{
    const struct alloc_net *net;
    *ret_used = *ret_all = 0;
    for (struct table_pos p = { 0 }; table_next(&alloc.space.nets, &p, NULL, &net);)
        for (size_t i = 0; i < net->npools; i++) {
            *ret_used += net->pools[i].used;
            *ret_all += net->pools[i].size;
        }
}

void alloc_shell_status(struct buf *out)
{
    uint64_t used, all;
    controller_status(controller, out);
    count_addresses(&used, &all);
    put_keys(out, "services_waiting", &alloc.stuck);
    put_keys(out, "networks_waiting", &alloc.homeless);
    buf_printf(out, ",\"tasks_waiting\":%zu,\"networks\":%zu,\"addresses\":%llu,\"addresses_used\":%llu",
               alloc.waiting.count, alloc.space.nets.count, (unsigned long long)all, (unsigned long long)used);
}

void alloc_shell_metrics(struct buf *out)
{
    uint64_t used, all;
    controller_metrics(controller, out);
    count_addresses(&used, &all);
    buf_printf(out,
               "# TYPE microswarm_allocatord_tasks_allocated_total counter\n"
               "microswarm_allocatord_tasks_allocated_total %llu\n"
               "# TYPE microswarm_allocatord_tasks_refused_total counter\n"
               "microswarm_allocatord_tasks_refused_total %llu\n"
               "# TYPE microswarm_allocatord_services_waiting gauge\n"
               "microswarm_allocatord_services_waiting %zu\n"
               "# TYPE microswarm_allocatord_networks gauge\n"
               "microswarm_allocatord_networks %zu\n"
               "# TYPE microswarm_allocatord_networks_waiting gauge\n"
               "microswarm_allocatord_networks_waiting %zu\n"
               "# TYPE microswarm_allocatord_addresses gauge\n"
               "microswarm_allocatord_addresses %llu\n"
               "# TYPE microswarm_allocatord_addresses_used gauge\n"
               "microswarm_allocatord_addresses_used %llu\n",
               (unsigned long long)alloc.allocated, (unsigned long long)alloc.refused, alloc.stuck.count,
               alloc.space.nets.count, alloc.homeless.count, (unsigned long long)all, (unsigned long long)used);
}

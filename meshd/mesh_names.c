#include "meshd/mesh_names.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/util/cleanup.h"
#include "meshd/mesh_resolv.h"

#define RESOLV_MAX 65536u

void mesh_names_host(struct mesh_names *n)
{
    _cleanup_(closep) int fd = open(n->resolv, O_RDONLY | O_CLOEXEC);
    static char text[RESOLV_MAX];
    ssize_t len = fd >= 0 ? read(fd, text, sizeof text) : 0;
    struct str servers[DNS_SERVERS_MAX];
    struct strs list = { servers, 0 };

    list.n = mesh_resolv_servers((struct str){ text, len > 0 ? (size_t)len : 0 }, servers, DNS_SERVERS_MAX);
    if (list.n == 0)
        list.n = mesh_resolv_words(str_from(n->fallback), servers, DNS_SERVERS_MAX);
    dns_server_host(n->server, &list);
}

int mesh_names_open(struct mesh_names *n, sd_event *loop, const char *run_dir, const char *resolv, const char *fallback,
                    const struct netmap *map, struct err *e)
{
    *n = (struct mesh_names){ .resolv = resolv, .fallback = fallback };
    if (snprintf(n->sandboxes, sizeof n->sandboxes, "%s/netns", run_dir) >= (int)sizeof n->sandboxes)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    int r = dns_server_open(&n->server, loop, map, e);
    if (r == 0)
        mesh_names_host(n);
    return r;
}

void mesh_names_close(struct mesh_names *n)
{
    n->server = dns_server_free(n->server);
}

/* single_inside - its own "ndots:1" or more: names without a dot are completed with its search list (as with Docker) */
static bool single_inside(const struct strs *options)
{
    static const struct str ndots = STR("ndots:");
    for (size_t i = 0; i < options->n; i++) {
        struct str o = options->v[i];
        uint64_t n;
        if (str_starts(o, ndots) && str_u64((struct str){ o.p + ndots.n, o.n - ndots.n }, &n))
            return n > 0;
    }
    return false;
}

int mesh_names_add(struct mesh_names *n, const struct attach *at, struct err *e)
{
    char pin[512], (*networks)[ID_SIZE];
    struct arena a;
    struct dns_sandbox sb = { .task = at->task, .netns = pin, .nameservers = at->up.Nameservers };
    int r;

    arena_init(&a, 1u << 20);
    networks = arena_array(&a, at->nnets + 1, sizeof *networks);
    struct str hostname = networks ? arena_str(&a, at->up.Hostname) : (struct str){ 0 };
    if (!networks) {
        arena_done(&a);
        return err_set(e, ERR_NOMEM, "nameserver of task %s", at->task);
    }
    for (size_t i = 0; i < at->nnets; i++) {
        memcpy(networks[i], at->nets[i].id, sizeof networks[i]);
        sb.outside = sb.outside || !at->nets[i].internal;
    }
    snprintf(pin, sizeof pin, "%s/%s", n->sandboxes, at->task);
    sb.networks = (const char(*)[ID_SIZE])networks;
    sb.nnetworks = at->nnets;
    sb.hostname = hostname.p ? hostname.p : "";
    sb.single_inside = single_inside(&at->up.Options);
    mesh_names_host(n);
    r = dns_server_add(n->server, &sb, e);
    n->failures += r < 0;
    arena_done(&a);
    return r;
}

void mesh_names_del(struct mesh_names *n, struct str task)
{
    if (n->server)
        dns_server_del(n->server, task);
}

static void metric(struct buf *out, const char *name, uint64_t v)
{
    buf_printf(out, "microswarm_meshd_dns_%s %llu\n", name, (unsigned long long)v);
}

void mesh_names_metrics(const struct mesh_names *n, struct buf *out)
{
    struct dns_counts c;
    dns_server_counts(n->server, &c);
    metric(out, "sandboxes", c.sandboxes);
    metric(out, "questions_total", c.questions);
    metric(out, "answered_total", c.answered);
    metric(out, "forwarded_total", c.forwarded);
    metric(out, "failed_total", c.failed);
    metric(out, "dropped_total", c.dropped);
    metric(out, "connections_total", c.connections);
}

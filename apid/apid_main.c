/* apid - the Docker Engine HTTP API on a Unix socket. See apid.8. */
#include <stdio.h>

#include "apid/api_resources.h"
#include "apid/api_state.h"

static uint64_t connections_max;
static char socket_path[CONF_TEXT_MAX];
static struct store_wake *wake;

static const struct conf_item conf[] = {
    CONF_COUNT("connections_max", &connections_max, "1024", 1, 65536, "clients at a time; more wait to be accepted"),
    CONF_TEXT("socket", socket_path, "", "where clients connect; empty: docker.sock in the run folder"),
    /* docker asks for the digest before every create: a registry that is out of reach must not hold that up. */
    CONF_MS("registry_timeout", &api.registry_timeout_ms, "3s", 100, 60000, "for a registry to name an image's digest"),
    CONF_END,
};

static void on_wake(void *arg)
{
    (void)arg;
    state_turn();
    events_turn();
    api_wake_all();
}

static int start(struct err *e)
{
    char path[CONF_TEXT_MAX + 16];
    const char *run = daemon_run_dir();
    sd_event *loop = daemon_loop();
    int r;

    (void)snprintf(path, sizeof path, "%s", socket_path);
    if (!socket_path[0])
        (void)snprintf(path, sizeof path, "%s/docker.sock", run);
    if ((r = store_open(&api.store, run, false, e)) < 0 ||
        (r = rpc_client_open(&api.raftd, loop, run, "raftd", e)) < 0 ||
        (r = rpc_client_open(&api.agentd, loop, run, "agentd", e)) < 0 ||
        (r = rpc_client_open(&api.meshd, loop, run, "meshd", e)) < 0 ||
        (r = rpc_client_open(&api.gatewayd, loop, run, "gatewayd", e)) < 0 ||
        (r = rpc_client_open(&api.cad, loop, run, "cad", e)) < 0 || (r = state_open(e)) < 0 ||
        (r = store_wake_open(&wake, loop, run, on_wake, NULL, e)) < 0)
        return r;
    rpc_client_share(api.raftd, &op_raftd_txn);
    return api_http_open(path, (unsigned)connections_max, e);
}

static void stop(void)
{
    api_http_close();
    wake = store_wake_free(wake);
    state_close();
    api.dispatcherd = rpc_client_free(api.dispatcherd);
    api.cad = rpc_client_free(api.cad);
    api.gatewayd = rpc_client_free(api.gatewayd);
    api.meshd = rpc_client_free(api.meshd);
    api.agentd = rpc_client_free(api.agentd);
    api.raftd = rpc_client_free(api.raftd);
    req_free_all();
    events_close();
    api.store = store_close(api.store);
}

static void status(struct buf *out)
{
    buf_printf(out, ",\"requests\":%llu,\"errors\":%llu,\"writes\":%llu,\"retries\":%llu",
               (unsigned long long)api.count.requests, (unsigned long long)api.count.errors,
               (unsigned long long)api.count.writes, (unsigned long long)api.count.retries);
}

static void metrics(struct buf *out)
{
    buf_printf(out,
               "# TYPE microswarm_apid_requests_total counter\nmicroswarm_apid_requests_total %llu\n"
               "# TYPE microswarm_apid_errors_total counter\nmicroswarm_apid_errors_total %llu\n"
               "# TYPE microswarm_apid_writes_total counter\nmicroswarm_apid_writes_total %llu\n"
               "# TYPE microswarm_apid_write_retries_total counter\nmicroswarm_apid_write_retries_total %llu\n",
               (unsigned long long)api.count.requests, (unsigned long long)api.count.errors,
               (unsigned long long)api.count.writes, (unsigned long long)api.count.retries);
}

int main(int argc, char **argv)
{
    static const struct daemon_spec spec = {
        .name = "apid", .conf = conf, .start = start, .stop = stop, .status = status, .metrics = metrics
    };
    return daemon_main(argc, argv, &spec);
}

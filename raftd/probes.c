#include "raftd/probes.h"

#include <stdio.h>
#include <string.h>

#include "common/proto/mp.h"
#include "common/util/clock.h"
#include "raftd/node.h"
#include "raftd/peers.h"

#define LIST_MAX 1000u
#define READERS_MAX 256u

static void error_json(struct buf *out, const char *msg)
{
    buf_puts(out, "{\"error\":");
    buf_json_str(out, str_from(msg));
    buf_putc(out, '}');
}

void probes_status(struct buf *out)
{
    struct node_status s;
    struct sm_reader readers[READERS_MAX];
    size_t n = node_sm() ? sm_readers(node_sm(), clock_mono().ms, readers, READERS_MAX) : 0;
    unsigned slow = 0;
    node_status(&s);
    for (size_t i = 0; i < n; i++)
        slow += readers[i].age_ms >= node_conf.slow_reader_ms;
    buf_printf(out, ",\"state\":\"%s\"", node_state(&s));
    if (s.initialized)
        buf_printf(out,
                   ",\"cluster\":\"%s\",\"node\":\"%s\",\"leader\":\"%s\",\"members\":%zu,\"waiting\":%zu,"
                   "\"term\":%llu,\"ready\":%s,\"committed\":%llu,\"applied\":%llu,"
                   "\"first_index\":%llu,\"last_index\":%llu,\"snapshot_index\":%llu,\"snapshotting\":%s",
                   s.id.cluster_id, s.id.node_id, s.leader, s.raft.members.n, s.waiting,
                   (unsigned long long)s.raft.term, s.raft.ready ? "true" : "false",
                   (unsigned long long)s.raft.committed, (unsigned long long)s.raft.applied,
                   (unsigned long long)s.raft.first_index, (unsigned long long)s.raft.last_index,
                   (unsigned long long)s.snapshot_index, s.snapshotting ? "true" : "false");
    if (s.unlock_key_epoch != 0)
        buf_printf(out, ",\"unlock_key_epoch\":%llu", (unsigned long long)s.unlock_key_epoch);
    buf_printf(out, ",\"revision\":%llu,\"map_bytes\":%llu,\"readers\":%zu,\"slow_readers\":%u",
               (unsigned long long)s.revision, (unsigned long long)s.map_bytes, n, slow);
    if (s.stalled[0] != 0) {
        buf_puts(out, ",\"stalled\":");
        buf_json_str(out, str_from(s.stalled));
    }
}

static void metric(struct buf *out, const char *name, const char *type, uint64_t v)
{
    buf_printf(out, "# TYPE microswarm_raftd_%s %s\nmicroswarm_raftd_%s %llu\n", name, type, name,
               (unsigned long long)v);
}

static void metric_seconds(struct buf *out, const char *name, const char *type, double v)
{
    buf_printf(out, "# TYPE microswarm_raftd_%s %s\nmicroswarm_raftd_%s %.6f\n", name, type, name, v);
}

static void metrics_readers(struct buf *out)
{
    struct sm_reader readers[READERS_MAX];
    uint64_t oldest = 0;
    size_t n = node_sm() ? sm_readers(node_sm(), clock_mono().ms, readers, READERS_MAX) : 0;
    for (size_t i = 0; i < n; i++)
        oldest = readers[i].age_ms > oldest ? readers[i].age_ms : oldest;
    metric(out, "readers", "gauge", n);
    metric_seconds(out, "reader_oldest_seconds", "gauge", (double)oldest / 1000);
    metric(out, "stale_readers_total", "counter", node_counts.stale_readers);
}

void probes_metrics(struct buf *out)
{
    struct node_status s;
    struct raft_log_counts lc;
    node_status(&s);
    node_log_counts(&lc);
    metric(out, "leader", "gauge", s.initialized && s.raft.ready);
    metric(out, "term", "gauge", s.raft.term);
    metric(out, "committed_index", "gauge", s.raft.committed);
    metric(out, "applied_index", "gauge", s.raft.applied);
    metric(out, "log_first_index", "gauge", s.raft.first_index);
    metric(out, "log_last_index", "gauge", s.raft.last_index);
    metric(out, "log_file_bytes", "gauge", lc.file_bytes);
    metric(out, "log_writes_total", "counter", lc.writes);
    metric(out, "log_bytes_total", "counter", lc.bytes);
    metric_seconds(out, "log_write_seconds_total", "counter", (double)lc.write_ns_sum / 1e9);
    metric_seconds(out, "log_write_seconds_max", "gauge", (double)lc.write_ns_max / 1e9);
    metric(out, "revision", "gauge", s.revision);
    metric(out, "map_bytes", "gauge", s.map_bytes);
    metric(out, "transactions_total", "counter", node_counts.txns);
    metric(out, "conflicts_total", "counter", node_counts.conflicts);
    metric(out, "refused_total", "counter", node_counts.refused);
    metric(out, "batches_total", "counter", node_counts.batches);
    metric(out, "batch_max", "gauge", node_counts.batch_max);
    metric(out, "snapshots_total", "counter", node_counts.snapshots);
    metric(out, "snapshot_failures_total", "counter", node_counts.snapshot_failures);
    metric_seconds(out, "snapshot_seconds", "gauge", (double)node_counts.snapshot_ms / 1000);
    metric(out, "stalled", "gauge", s.stalled[0] != 0);
    metric(out, "members", "gauge", s.raft.members.n);
    metric(out, "requests_waiting", "gauge", s.waiting);
    metric(out, "forwarded_total", "counter", node_counts.forwarded);
    metric(out, "forward_failures_total", "counter", node_counts.forward_failures);
    metric(out, "snapshots_sent_total", "counter", node_counts.snapshots_sent);
    metric(out, "snapshots_received_total", "counter", node_counts.snapshots_received);
    metric(out, "bad_messages_total", "counter", node_counts.bad_messages);
    metric(out, "peer_messages_sent_total", "counter", peers_counts.sent);
    metric(out, "peer_bytes_sent_total", "counter", peers_counts.sent_bytes);
    metric(out, "peer_messages_received_total", "counter", peers_counts.received);
    metric(out, "peer_bytes_received_total", "counter", peers_counts.received_bytes);
    metric(out, "peer_messages_dropped_total", "counter", peers_counts.dropped);
    for (enum kind k = 0; node_sm() && k < KIND_COUNT; k++)
        buf_printf(out, "microswarm_raftd_objects{kind=\"%s\"} %llu\n", kind_info[k].name,
                   (unsigned long long)sm_count(node_sm(), k));
    metrics_readers(out);
}

static void probe_members(const char *args, struct buf *out)
{
    struct node_member v[RAFT_MEMBERS_MAX];
    size_t n = node_member_list(v);
    (void)args;
    buf_puts(out, "{\"members\":[");
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "%s{\"id\":\"%s\",\"raft_id\":\"%016llx\",\"addr\":", i ? "," : "", v[i].m.node,
                   (unsigned long long)v[i].m.id);
        buf_json_str(out, str_from(v[i].m.addr));
        buf_printf(out, ",\"voter\":%s,\"leader\":%s,\"self\":%s,\"reachable\":%s", v[i].m.learner ? "false" : "true",
                   v[i].leader ? "true" : "false", v[i].self ? "true" : "false", v[i].reachable ? "true" : "false");
        if (v[i].raft.state[0] != 0)
            buf_printf(out, ",\"match\":%llu,\"next\":%llu,\"state\":\"%s\",\"inflight_bytes\":%llu",
                       (unsigned long long)v[i].raft.match, (unsigned long long)v[i].raft.next, v[i].raft.state,
                       (unsigned long long)v[i].raft.inflight_bytes);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

static void probe_transfer(const char *args, struct buf *out)
{
    struct err e = ERR_INIT;
    if (node_transfer(str_from(args), &e) < 0)
        error_json(out, e.msg);
    else
        buf_puts(out, "{}");
}

/* doc_json - without what lets people in. */
static void doc_json(enum kind k, struct str doc, struct buf *out)
{
    struct buf patch = BUF_INIT, shown = BUF_INIT;
    if (k != KIND_CLUSTER) {
        mp_to_json(out, doc);
        return;
    }
    mp_map(&patch, 3);
    mp_cstr(&patch, "JoinTokens");
    mp_nil(&patch);
    mp_cstr(&patch, "UnlockKeys");
    mp_nil(&patch);
    mp_cstr(&patch, "NetworkKeys");
    mp_nil(&patch);
    if (mp_merge(&shown, doc, buf_str(&patch), NULL) == 0)
        mp_to_json(out, buf_str(&shown));
    else
        buf_puts(out, "null");
    buf_done(&patch);
    buf_done(&shown);
}

static enum kind kind_arg(const char *args, size_t n, struct buf *out)
{
    enum kind k = kind_by_name(args, n);
    if (k == KIND_COUNT)
        error_json(out, "there is no such kind");
    else if (kind_info[k].secret)
        error_json(out, "objects of this kind are secret");
    else if (node_sm() != NULL)
        return k;
    return KIND_COUNT;
}

static void probe_get(const char *args, struct buf *out)
{
    const char *slash = strchr(args, '/');
    struct buf doc = BUF_INIT;
    struct err e = ERR_INIT;
    if (slash == NULL || slash[1] == 0 || strlen(slash + 1) > STORE_ID_MAX) {
        error_json(out, "get <kind>/<id>");
        return;
    }
    enum kind k = kind_arg(args, (size_t)(slash - args), out);
    if (k == KIND_COUNT)
        return;
    if (sm_get(node_sm(), k, str_from(slash + 1), &doc, &e) == 0)
        doc_json(k, buf_str(&doc), out);
    else
        error_json(out, e.msg);
    buf_done(&doc);
}

struct lister {
    struct buf *out;
    size_t n;
};

static bool list_one(void *arg, struct str id, struct str doc)
{
    struct lister *l = arg;
    struct str name;
    uint64_t rev = 0;
    if (l->n == LIST_MAX)
        return false;
    buf_puts(l->out, l->n++ ? ",{\"id\":" : "{\"id\":");
    buf_json_str(l->out, id);
    if (mp_get_str(doc, "Spec.Name", &name)) {
        buf_puts(l->out, ",\"name\":");
        buf_json_str(l->out, name);
    }
    (void)mp_get_u64(doc, "Rev", &rev);
    buf_printf(l->out, ",\"rev\":%llu}", (unsigned long long)rev);
    return true;
}

static void probe_list(const char *args, struct buf *out)
{
    struct lister l = { out, 0 };
    struct err e = ERR_INIT;
    enum kind k = kind_arg(args, strlen(args), out);
    if (k == KIND_COUNT)
        return;
    buf_printf(out, "{\"kind\":\"%s\",\"count\":%llu,\"objects\":[", kind_info[k].name,
               (unsigned long long)sm_count(node_sm(), k));
    (void)sm_list(node_sm(), k, list_one, &l, &e);
    buf_puts(out, "]}");
}

static void probe_readers(const char *args, struct buf *out)
{
    struct sm_reader v[READERS_MAX];
    (void)args;
    if (node_sm() != NULL)
        node_counts.stale_readers += sm_clear_readers(node_sm());
    size_t n = node_sm() ? sm_readers(node_sm(), clock_mono().ms, v, READERS_MAX) : 0;
    buf_puts(out, "{\"readers\":[");
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "%s{\"pid\":%d,\"commits_behind\":%llu,\"age_ms\":%llu}", i ? "," : "", v[i].pid,
                   (unsigned long long)v[i].lag, (unsigned long long)v[i].age_ms);
    buf_puts(out, "]}");
}

const struct probe probes[] = {
    { "members", "", "the Raft group, and at the leader how far each member is", probe_members },
    { "transfer", "[<node>]", "hands leadership to this node, or to whoever is furthest", probe_transfer },
    { "get", "<kind>/<id>", "one object; secrets are not shown", probe_get },
    { "list", "<kind>", "the objects of a kind, the first 1000", probe_list },
    { "readers", "", "processes that hold a snapshot of the map now, and for how long", probe_readers },
    { 0 },
};

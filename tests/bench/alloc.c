/*
 * alloc - what allocation costs: 1,000 services on 10 networks, 100 tasks each, in a store as raftd keeps it.
 *
 * One JSON line a figure. CPU time of the passes alone: transactions are applied outside of the clock. "reference" is
 * the same with a tenth of the tasks: the cost of an address must not grow with how many are in use.
 *
 *   alloc [SERVICES [TASKS]]
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "allocatord/alloc_pass.h"
#include "common/daemon/log.h"
#include "common/util/check.h"
#include "common/util/id.h"
#include "raftd/entry.h"
#include "raftd/sm.h"

#define NETWORKS 10

static struct world {
    struct sm *sm;
    struct store *store;
    struct controller *c;
    struct alloc alloc;
    uint64_t index, revision;
    int64_t applying_ns; /* CPU time that is not allocatord's */
    bool wants_turn;
    rpc_done_fn *done;
    void *done_arg;
    char services[10000][ID_SIZE], networks[NETWORKS][ID_SIZE];
} w;

static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void apply(struct list requires, struct list changes, struct err *result)
{
    struct entry en = { .At = 1, .By = STR("bench"), .Term = 1, .Requires = requires, .Changes = changes };
    struct buf bytes = BUF_INIT;
    struct err e = ERR_INIT;
    int64_t from = cpu_ns();
    bytes.limit = 1u << 30;
    entry_encode(&en, &bytes);
    CHECK(!bytes.failed);
    struct raft_log_entry le = { .index = ++w.index, .term = 1, .type = RAFT_ENTRY_DATA, .data = buf_str(&bytes) };
    *result = (struct err)ERR_INIT;
    CHECK(sm_begin(w.sm, &e) == 0 && sm_apply(w.sm, &le, result, &w.revision, &e) == 0 && sm_commit(w.sm, &e) == 0);
    buf_done(&bytes);
    w.applying_ns += cpu_ns() - from;
}

static struct wall_ns io_now(void *arg)
{
    (void)arg;
    return (struct wall_ns){ 1 };
}

static void io_send(void *arg, struct txn *txn, rpc_done_fn *done, void *done_arg)
{
    struct list req = { txn->req, txn->nreq }, chg = { txn->chg, txn->nchg };
    struct err result;
    (void)arg;
    CHECK(!txn->failed);
    apply(req, chg, &result);
    CHECK(result.code == 0);
    w.done = done;
    w.done_arg = done_arg;
}

static void io_arm(void *arg, int64_t at_ns)
{
    (void)arg, (void)at_ns;
}

static void io_kick(void *arg)
{
    (void)arg;
    w.wants_turn = true;
}

/* run - until nothing is left to allocate; the CPU time that it took. */
static int64_t run(void)
{
    int64_t from = cpu_ns(), other = w.applying_ns;
    w.wants_turn = true;
    while (w.wants_turn || w.done) {
        rpc_done_fn *done = w.done;
        w.done = NULL;
        w.wants_turn = false;
        if (done) {
            struct raftd_txn_reply rep = { w.revision };
            struct err ok = ERR_INIT;
            done(w.done_arg, &rep, &ok);
        } else {
            controller_turn(w.c);
        }
    }
    return cpu_ns() - from - (w.applying_ns - other);
}

/* ---- what users and orchestratord declare ---- */

struct batch {
    struct arena a;
    struct txn_change v[20000];
    size_t n;
};

static void flush(struct batch *b)
{
    struct err result;
    apply((struct list){ 0 }, (struct list){ b->v, b->n }, &result);
    CHECK(result.code == 0);
    b->n = 0;
    arena_reset(&b->a);
}

static void add(struct batch *b, const char *op, enum kind kind, const char *id, struct buf *doc)
{
    if (b->n == sizeof b->v / sizeof *b->v)
        flush(b);
    b->v[b->n++] = (struct txn_change){ .Op = str_from(op),
                                        .Kind = str_from(kind_info[kind].name),
                                        .ID = arena_str(&b->a, str_from(id)),
                                        .Doc = arena_str(&b->a, buf_str(doc)) };
    buf_clear(doc);
}

static void put_template(struct buf *d, unsigned service)
{
    mp_map(d, 1);
    mp_cstr(d, "Networks");
    mp_array(d, 1);
    mp_map(d, 1);
    mp_kv_cstr(d, "Target", w.networks[service % NETWORKS]);
}

static void declare_networks(struct batch *b, struct buf *d)
{
    for (unsigned i = 0; i < NETWORKS; i++) {
        char text[32];
        id_new(w.networks[i]);
        mp_map(d, 2);
        mp_kv_cstr(d, "ID", w.networks[i]);
        mp_cstr(d, "Spec");
        mp_map(d, 3);
        mp_kv_cstr(d, "Name", w.networks[i]);
        mp_kv_cstr(d, "Driver", "overlay");
        mp_cstr(d, "IPAM");
        mp_map(d, 1);
        mp_cstr(d, "Config");
        mp_array(d, 1);
        mp_map(d, 1);
        (void)snprintf(text, sizeof text, "10.%u.0.0/16", i + 1);
        mp_kv_cstr(d, "Subnet", text);
        add(b, "create", KIND_NETWORK, w.networks[i], d);
    }
}

static void declare_services(struct batch *b, struct buf *d, unsigned services)
{
    for (unsigned i = 0; i < services; i++) {
        id_new(w.services[i]);
        mp_map(d, 3);
        mp_kv_cstr(d, "ID", w.services[i]);
        mp_kv_cstr(d, "ServiceID", w.services[i]);
        mp_cstr(d, "Spec");
        put_template(d, i);
        add(b, "create", KIND_TASKSPEC, w.services[i], d);
        mp_map(d, 3);
        mp_kv_cstr(d, "ID", w.services[i]);
        mp_kv_cstr(d, "TaskSpecID", w.services[i]);
        mp_cstr(d, "Spec");
        mp_map(d, 2);
        mp_kv_cstr(d, "Name", w.services[i]);
        mp_cstr(d, "TaskTemplate");
        put_template(d, i);
        add(b, "create", KIND_SERVICE, w.services[i], d);
    }
}

static void declare_tasks(struct batch *b, struct buf *d, unsigned services, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char id[ID_SIZE];
        id_new(id);
        mp_map(d, 6);
        mp_kv_cstr(d, "ID", id);
        mp_kv_cstr(d, "ServiceID", w.services[i % services]);
        mp_kv_cstr(d, "TaskSpecID", w.services[i % services]);
        mp_kv_u64(d, "Slot", i / services + 1);
        mp_kv_cstr(d, "DesiredState", "running");
        mp_cstr(d, "Status");
        mp_map(d, 1);
        mp_kv_cstr(d, "State", "new");
        add(b, "create", KIND_TASK, id, d);
    }
    flush(b);
}

/* fail_tasks - every tenth one ends: its address comes back. */
static unsigned fail_tasks(struct batch *b, struct buf *d)
{
    struct store_snap *snap;
    struct store_iter it;
    struct err e;
    unsigned n = 0, failed = 0;
    CHECK(store_begin(w.store, &snap, &e) == 0);
    for (store_each(snap, KIND_TASK, &it); store_next(&it);) {
        if (n++ % 10 || b->n == sizeof b->v / sizeof *b->v)
            continue;
        char id[ID_SIZE];
        CHECK(str_copy(id, sizeof id, it.id));
        mp_map(d, 1);
        mp_cstr(d, "Status");
        mp_map(d, 1);
        mp_kv_cstr(d, "State", "failed");
        add(b, "merge", KIND_TASK, id, d);
        failed++;
    }
    store_end(snap);
    flush(b);
    return failed;
}

static void figure(const char *name, double value, const char *unit, double limit)
{
    printf("{\"name\":\"allocatord %s\",\"value\":%.2f,\"unit\":\"%s\",\"limit\":%.2f,\"ok\":%s}\n", name, value, unit,
           limit, value <= limit ? "true" : "false");
    fflush(stdout);
}

/* memory_kib - what is neither the store's map nor code. */
static long memory_kib(void)
{
    char line[128] = "", *end = line;
    FILE *f = fopen("/proc/self/statm", "re");
    malloc_trim(0);
    CHECK(f && fgets(line, sizeof line, f));
    fclose(f);
    (void)strtol(end, &end, 10); /* the address space */
    long resident = strtol(end, &end, 10), shared = strtol(end, &end, 10);
    return (resident - shared) * (sysconf(_SC_PAGESIZE) / 1024);
}

static void open_world(char *dir)
{
    struct raft_log_identity id = { .cluster_id = "benchcluster", .node_id = "benchnode", .id = 1 };
    struct sm_conf conf = { .run_dir = dir, .secret_gid = (gid_t)-1, .map_bytes = 1ull << 30 };
    struct err why = ERR_INIT, e = ERR_INIT;
    bool fresh;
    CHECK(mkdtemp(dir) != NULL);
    if (sm_open(&w.sm, &conf, &id, 1, UINT64_MAX, &fresh, &why, &e) != 0 || sm_publish(w.sm, &e) != 0 ||
        store_open(&w.store, dir, false, &e) != 0 || sm_set_role(w.sm, 1, true, "benchnode", &e) != 0) {
        printf("%s\n", e.msg);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static struct batch b;
    static const struct controller_io io = { NULL, io_now, io_send, io_arm, io_kick };
    unsigned services = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000;
    unsigned tasks = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 100000;
    char dir[] = "/dev/shm/alloc-bench-XXXXXX", cmd[64];
    struct buf d = BUF_INIT;
    CHECK(services <= sizeof w.services / sizeof *w.services);
    log_init("alloc");
    log_set_level("error");
    arena_init(&b.a, 256u << 20);
    open_world(dir);
    alloc_init(&w.alloc);
    w.c = controller_new(w.store, &io, &alloc_ops, &w.alloc);
    declare_networks(&b, &d);
    declare_services(&b, &d, services);
    flush(&b);
    figure("a service with a virtual address", (double)run() / 1000 / services, "us", 100);
    declare_tasks(&b, &d, services, 0, tasks / 10);
    double few = (double)run() * 10 / 1000 / tasks;
    figure("a task with an address, few in use", few, "us", 50);
    declare_tasks(&b, &d, services, tasks / 10, tasks);
    double many = (double)run() * 10 / 9 / 1000 / tasks;
    figure("a task with an address, many in use", many, "us", 50);
    figure("the same, to that with few", many / few, "ratio", 2);
    unsigned failed = fail_tasks(&b, &d);
    figure("an address given back", (double)run() / 1000 / failed, "us", 50);
    declare_tasks(&b, &d, services, 0, 1);
    figure("one task more", (double)run() / 1000, "us", 1000);
    controller_free(w.c);
    alloc_done(&w.alloc);
    long before = memory_kib();
    alloc_init(&w.alloc);
    w.c = controller_new(w.store, &io, &alloc_ops, &w.alloc);
    figure("a start with all of them", (double)run() / 1e6, "ms", 2000);
    figure("memory, anonymous, of a leader that has just started", (double)(memory_kib() - before) / 1024, "MiB", 64);
    controller_free(w.c);
    alloc_done(&w.alloc);
    buf_done(&d);
    arena_done(&b.a);
    store_close(w.store);
    sm_close(w.sm);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd) == 0 ? 0 : 1;
}

/*
 * raftd_bench - durable transactions, applies and snapshot reads a second, each beside the limit measured in this run.
 *
 *   raftd_bench [-d FOLDER] [-t SECONDS] [-b RAFTD]
 *
 * FOLDER holds the log and must be on a disk (default: the working folder); the map goes to /dev/shm. One line of JSON
 * per figure; "ratio" is to the reference named in it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/daemon/rpc.h"
#include "common/store/store.h"
#include "common/store/txn.h"
#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/id.h"
#include "raftd/entry.h"
#include "raftd/sm.h"

#define PATH_SIZE 512
#define CLIENTS_MAX 64
#define ROUNDS 5

static double seconds = 1.5;
static char base[PATH_SIZE], run_dir[PATH_SIZE], state_dir[PATH_SIZE], raftd_path[PATH_SIZE];

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "raftd_bench: %s: %s\n", what, why);
    exit(1);
}

static void print(const char *name, double value, const char *unit, const char *ref_name, double ref, double ratio)
{
    printf("{\"name\":\"%s\",\"value\":%.1f,\"unit\":\"%s\",\"reference\":\"%s\",\"reference_value\":%.1f,"
           "\"ratio\":%.3f}\n",
           name, value, unit, ref_name, ref, ratio);
    fflush(stdout);
}

static double median(double *v, int n)
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && v[j] < v[j - 1]; j--) {
            double t = v[j];
            v[j] = v[j - 1];
            v[j - 1] = t;
        }
    return v[n / 2];
}

/* print_rounds - medians; the ratio is that of the rounds, since the machine may be slower for a while. */
static void print_rounds(const char *name, const double *v, const char *ref_name, const double *ref)
{
    double a[ROUNDS], b[ROUNDS], q[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        a[i] = v[i];
        b[i] = ref[i];
        q[i] = ref[i] > 0 ? v[i] / ref[i] : 0;
    }
    print(name, median(a, ROUNDS), "1/s", ref_name, median(b, ROUNDS), median(q, ROUNDS));
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL) {
        unlink(path);
        return;
    }
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        char sub[PATH_SIZE * 2];
        if (strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0)
            continue;
        snprintf(sub, sizeof sub, "%s/%s", path, f->d_name);
        if (f->d_type == DT_DIR)
            remove_tree(sub);
        else
            unlink(sub);
    }
    closedir(d);
    rmdir(path);
}

/* ---- the documents: about 300 bytes, a task as it is created ---- */

static size_t task_doc(struct buf *b)
{
    char id[ID_SIZE];
    id_new(id);
    buf_clear(b);
    mp_map(b, 6);
    mp_kv_cstr(b, "ServiceID", "s0123456789abcdefghijklmn");
    mp_kv_cstr(b, "TaskSpecID", "t0123456789abcdefghijklmn");
    mp_kv_u64(b, "Slot", 1);
    mp_kv_cstr(b, "DesiredState", "running");
    mp_kv_cstr(b, "NodeID", id);
    mp_cstr(b, "Status");
    mp_map(b, 3);
    mp_kv_cstr(b, "State", "new");
    mp_kv_cstr(b, "Message", "created");
    mp_kv_i64(b, "Timestamp", 1760000000000000000);
    return b->n;
}

/* ---- LMDB by itself ---- */

static double lmdb_commits(const char *dir, size_t bytes, unsigned flags, unsigned per_txn)
{
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *txn;
    char value[4096] = { 1 };
    uint64_t n = 0;
    mkdir(dir, 0700);
    CHECK(mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, 4ull << 30) == 0);
    if (mdb_env_open(env, dir, flags, 0600) != 0)
        die(dir, "cannot open LMDB");
    double t0 = now_s(), t = t0;
    for (; t - t0 < seconds; t = now_s()) {
        CHECK(mdb_txn_begin(env, NULL, 0, &txn) == 0 && mdb_dbi_open(txn, NULL, 0, &dbi) == 0);
        for (unsigned i = 0; i < per_txn; i++, n++) {
            uint64_t key = __builtin_bswap64(n);
            MDB_val k = { 8, &key }, v = { bytes, value };
            CHECK(mdb_put(txn, dbi, &k, &v, 0) == 0);
        }
        if (mdb_txn_commit(txn) != 0)
            die(dir, "LMDB cannot commit");
    }
    mdb_env_close(env);
    remove_tree(dir);
    return (double)n / (t - t0);
}

/* The puts that applying one task costs, and nothing else: the document, four index entries, the change log, meta. */
static double lmdb_same_puts(const char *dir, size_t bytes, unsigned per_txn)
{
    static const char *const names[] = { "task", "a", "b", "c", "d", "log", "meta" };
    static const size_t sizes[] = { 25, 51, 51, 62, 51, 12, 8 };
    MDB_env *env;
    MDB_dbi dbi[7];
    MDB_txn *txn;
    char value[4096] = { 1 }, key[64];
    uint64_t n = 0;
    mkdir(dir, 0700);
    CHECK(mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, 4ull << 30) == 0 && mdb_env_set_maxdbs(env, 8) == 0);
    CHECK(mdb_env_open(env, dir, MDB_NOSYNC, 0600) == 0);
    double t0 = now_s(), t = t0;
    for (; t - t0 < seconds; t = now_s()) {
        CHECK(mdb_txn_begin(env, NULL, 0, &txn) == 0);
        for (int d = 0; d < 7 && n == 0; d++)
            CHECK(mdb_dbi_open(txn, names[d], MDB_CREATE, &dbi[d]) == 0);
        for (unsigned i = 0; i < per_txn; i++, n++) {
            char id[ID_SIZE];
            uint64_t be = __builtin_bswap64(n);
            id_new(id);
            for (int d = 0; d < 6; d++) {
                memset(key, 'k', sizeof key);
                memcpy(key + (d == 5 ? 0 : sizes[d] - 25), d == 5 ? (const char *)&be : id, d == 5 ? 8 : 25);
                if (d == 2) /* by node: as random as the id */
                    memcpy(key, id + 5, 20);
                MDB_val k = { sizes[d], key }, v = { d == 0 ? bytes : d == 5 ? 50 : 0, value };
                CHECK(mdb_put(txn, dbi[d], &k, &v, 0) == 0);
            }
        }
        MDB_val k = { sizes[6], "revision" }, v = { 9, value };
        CHECK(mdb_put(txn, dbi[6], &k, &v, 0) == 0);
        CHECK(mdb_txn_commit(txn) == 0);
    }
    mdb_env_close(env);
    remove_tree(dir);
    return (double)n / (t - t0);
}

/* ---- raftd ---- */

static pid_t raftd_start(void)
{
    char opt[64];
    snprintf(opt, sizeof opt, "user_apid=%u", getuid());
    char opt2[64];
    snprintf(opt2, sizeof opt2, "user_orchestratord=%u", getuid());
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(raftd_path, "raftd", "-c", "/dev/null", "-r", run_dir, "-s", state_dir, "-o", opt, "-o", opt2, "-o",
              "secret_group=", "-o", "log_level=warn", (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void bootstrap(void)
{
    struct buf b = BUF_INIT;
    struct arena a;
    struct raftd_txn_reply rep;
    struct err e = ERR_INIT;
    arena_init(&a, 1 << 20);
    mp_map(&b, 1);
    mp_cstr(&b, "Spec");
    mp_map(&b, 0);
    struct txn_change ch = { STR("create"), STR("cluster"), STR("c"), buf_str(&b) };
    struct raftd_bootstrap req = { .ClusterID = STR("c"), .NodeID = STR("n"), .Changes = { &ch, 1 } };
    if (rpc_call_sync(run_dir, "raftd", &op_raftd_bootstrap, &req, 10000, &rep, &a, &e) < 0)
        die("bootstrap", e.msg);
    buf_done(&b);
    arena_done(&a);
}

struct client {
    struct rpc_client *rpc;
    struct txn txn;
    struct buf doc;
    uint64_t done;
};

static struct client clients[CLIENTS_MAX];
static double bench_until;
static unsigned in_flight;
static sd_event *loop;

static void send_one(struct client *c);

static void on_done(void *arg, const void *rep, const struct err *e)
{
    struct client *c = arg;
    if (rep == NULL)
        die("transaction", e->msg);
    c->done++;
    in_flight--;
    if (now_s() < bench_until)
        send_one(c);
}

static void send_one(struct client *c)
{
    char id[ID_SIZE];
    id_new(id);
    task_doc(&c->doc);
    txn_reset(&c->txn);
    txn_create(&c->txn, KIND_TASK, str_from(id), buf_str(&c->doc));
    in_flight++;
    txn_send(&c->txn, c->rpc, 30000, on_done, c);
}

static void run_for(unsigned n, double s)
{
    bench_until = now_s() + s;
    for (unsigned i = 0; i < n; i++) {
        clients[i].done = 0;
        send_one(&clients[i]);
    }
    while (in_flight > 0)
        CHECK(sd_event_run(loop, UINT64_MAX) >= 0);
}

static double raftd_txns(unsigned n)
{
    uint64_t total = 0;
    struct err e = ERR_INIT;
    CHECK(sd_event_default(&loop) >= 0);
    for (unsigned i = 0; i < n; i++) {
        if (rpc_client_open(&clients[i].rpc, loop, run_dir, "raftd", &e) < 0)
            die("connect", e.msg);
        txn_init(&clients[i].txn);
    }
    run_for(n, 0.1); /* connections come up with the first requests: these are not counted */
    double t0 = now_s();
    run_for(n, seconds);
    double t = now_s() - t0;
    for (unsigned i = 0; i < n; i++) {
        total += clients[i].done;
        clients[i].rpc = rpc_client_free(clients[i].rpc);
        txn_done(&clients[i].txn);
        buf_done(&clients[i].doc);
    }
    loop = sd_event_unref(loop);
    return (double)total / t;
}

/* ---- reading from another process ---- */

static double snapshot_reads(void)
{
    struct store *s;
    struct err e = ERR_INIT;
    uint64_t n = 0;
    if (store_open(&s, run_dir, false, &e) < 0)
        die("store", e.msg);
    double t0 = now_s(), t = t0;
    while (t - t0 < seconds) {
        for (int i = 0; i < 256; i++, n++) {
            struct store_snap *snap;
            struct store_meta m;
            struct str doc;
            if (store_begin(s, &snap, &e) < 0 || store_meta(snap, &m, &e) < 0)
                die("snapshot", e.msg);
            CHECK(store_get(snap, KIND_CLUSTER, STR("c"), &doc) == 0);
            store_end(snap);
        }
        t = now_s();
    }
    store_close(s);
    return (double)n / (t - t0);
}

static double raw_reads(void)
{
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *txn;
    char path[PATH_SIZE + 16];
    uint64_t n = 0;
    snprintf(path, sizeof path, "%s/state", run_dir);
    CHECK(mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, STORE_DBS_MAX) == 0);
    CHECK(mdb_env_open(env, path, MDB_RDONLY, 0) == 0);
    CHECK(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0 && mdb_dbi_open(txn, "cluster", 0, &dbi) == 0);
    CHECK(mdb_txn_commit(txn) == 0);
    CHECK(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0);
    mdb_txn_reset(txn);
    double t0 = now_s(), t = t0;
    while (t - t0 < seconds) {
        for (int i = 0; i < 256; i++, n++) {
            MDB_val k = { 1, "c" }, v;
            CHECK(mdb_txn_renew(txn) == 0 && mdb_get(txn, dbi, &k, &v) == 0);
            mdb_txn_reset(txn);
        }
        t = now_s();
    }
    mdb_txn_abort(txn);
    mdb_env_close(env);
    return (double)n / (t - t0);
}

/* ---- the state machine by itself ---- */

static double applies(unsigned batch)
{
    char dir[PATH_SIZE + 16];
    struct sm *sm;
    struct err e = ERR_INIT, why, result;
    struct raft_log_identity id = { "c", "n", 1 };
    struct buf doc = BUF_INIT, entry = BUF_INIT;
    uint64_t n = 0, revision;
    bool fresh;
    snprintf(dir, sizeof dir, "%s/sm", run_dir);
    mkdir(dir, 0700);
    struct sm_conf c = { .run_dir = dir, .secret_private = true, .secret_gid = (gid_t)-1 };
    if (sm_open(&sm, &c, &id, 1, UINT64_MAX, &fresh, &why, &e) < 0 || sm_publish(sm, &e) < 0)
        die("maps", e.msg);
    double spent = 0;
    while (spent < seconds) {
        double t0 = now_s();
        if (sm_begin(sm, &e) < 0)
            die("apply", e.msg);
        for (unsigned i = 0; i < batch; i++) {
            char tid[ID_SIZE];
            id_new(tid);
            task_doc(&doc);
            buf_clear(&entry);
            struct txn_change ch = { STR("create"), STR("task"), str_from(tid), buf_str(&doc) };
            struct entry en = { .At = 1, .By = STR("orchestratord"), .Changes = { &ch, 1 } };
            entry_encode(&en, &entry);
            struct raft_log_entry le = { ++n, 1, RAFT_ENTRY_DATA, buf_str(&entry) };
            if (sm_apply(sm, &le, &result, &revision, &e) < 0 || result.code != 0)
                die("apply", e.code ? e.msg : result.msg);
        }
        if (sm_commit(sm, &e) < 0)
            die("apply", e.msg);
        spent += now_s() - t0;
    }
    sm_close(sm);
    remove_tree(dir);
    buf_done(&doc);
    buf_done(&entry);
    return (double)n / spent;
}

static void in_child(double (*fn)(void), double *ret)
{
    int p[2];
    CHECK(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        double v = fn();
        _exit(write(p[1], &v, sizeof v) == sizeof v ? 0 : 1);
    }
    close(p[1]);
    if (read(p[0], ret, sizeof *ret) != sizeof *ret)
        die("reader", "no answer");
    close(p[0]);
    waitpid(pid, NULL, 0);
}

static void paths(void)
{
    char exe[PATH_SIZE - 64], *slash;
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    CHECK(n > 0);
    exe[n] = 0;
    for (int i = 0; i < 2; i++)
        if ((slash = strrchr(exe, '/')) != NULL)
            *slash = 0;
    if (raftd_path[0] == 0)
        snprintf(raftd_path, sizeof raftd_path, "%s/bin/raftd", exe);
    snprintf(state_dir, sizeof state_dir, "%.400s/raftd-bench-XXXXXX", base[0] ? base : ".");
    snprintf(run_dir, sizeof run_dir, "/dev/shm/raftd-bench-XXXXXX");
    if (mkdtemp(state_dir) == NULL || mkdtemp(run_dir) == NULL)
        die(state_dir, strerror(errno));
}

static void measure(void)
{
    double raw[ROUNDS], one[ROUNDS], many[ROUNDS], a1[ROUNDS], a64[ROUNDS], l1[ROUNDS], l64[ROUNDS], rd[ROUNDS],
        rr[ROUNDS];
    char lmdb[PATH_SIZE + 16], shm[PATH_SIZE + 16];
    struct buf b = BUF_INIT;
    size_t bytes = task_doc(&b) + 120; /* what the log holds: with the transaction around it, and sealed */
    snprintf(lmdb, sizeof lmdb, "%s/lmdb", state_dir);
    snprintf(shm, sizeof shm, "%s/lmdb", run_dir);
    for (int i = 0; i < ROUNDS; i++) { /* interleaved, so that a slow disk is slow for all */
        raw[i] = lmdb_commits(lmdb, bytes, 0, 1);
        one[i] = raftd_txns(1);
        many[i] = raftd_txns(CLIENTS_MAX);
        l1[i] = lmdb_same_puts(shm, bytes, 1);
        a1[i] = applies(1);
        l64[i] = lmdb_same_puts(shm, bytes, 64);
        a64[i] = applies(64);
        in_child(raw_reads, &rr[i]);
        in_child(snapshot_reads, &rd[i]);
    }
    print_rounds("raftd_txn_durable_1_client", one, "lmdb_synced_commits", raw);
    print_rounds("raftd_txn_durable_64_clients", many, "raftd_txn_durable_1_client", one);
    print_rounds("raftd_apply_batch_of_1", a1, "lmdb_same_puts_unsynced", l1);
    print_rounds("raftd_apply_batch_of_64", a64, "lmdb_same_puts_unsynced", l64);
    print_rounds("store_snapshot_reads", rd, "lmdb_renew_get_reset", rr);
    buf_done(&b);
}

int main(int argc, char **argv)
{
    int c;
    while ((c = getopt(argc, argv, "d:t:b:")) != -1) {
        if (c == 'd')
            snprintf(base, sizeof base, "%s", optarg);
        else if (c == 't')
            seconds = strtod(optarg, NULL);
        else if (c == 'b')
            snprintf(raftd_path, sizeof raftd_path, "%s", optarg);
        else
            die("usage", "raftd_bench [-d FOLDER] [-t SECONDS] [-b RAFTD]");
    }
    paths();
    pid_t pid = raftd_start();
    bootstrap();
    measure();
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    remove_tree(state_dir);
    remove_tree(run_dir);
    return 0;
}

/*
 * disp_network_test.c - scenarios (testdata/network): each line that writes a document is one revision of a real map;
 * answers are printed sorted, and taken in by a model of the node, which asks again with what it then has.
 *
 *   node ID ADDR [HOSTNAME]          net ID [vni=N] [ingress=1] [encrypted=1] [mtu=N]
 *   service ID [nets=A,B] [alias=X] [vip=NET:ADDR] [port=PUBLISHED:TARGET] [mode=M] [drain=D]
 *   task ID SERVICE NODE NET:ADDR[,NET:ADDR] DESIRED OBSERVED
 *   keys EPOCH                       gone KIND ID
 *   load      a new leader: reads everything; nodes must be `live` again
 *   live NODE, dead NODE             at MS
 *   ask NODE [WAIT_MS] [held=A,B] [seq=N]    as its model is, or as told
 *   hold NODE                        its next answer is on its way until `ask`
 *   drain TASK                       prints whether it may stop, and its period
 */
#include "dispatcherd/disp_network.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <lmdb.h>

#include "common/util/check.h"
#include "common/util/scenario.h"

/* ---- a map: written by children, since LMDB can be opened once in a process ---- */

static void db_put(MDB_txn *txn, const char *name, struct str key, struct str val)
{
    MDB_dbi d;
    MDB_val k = { key.n, (void *)key.p }, v = { val.n, (void *)val.p };
    CHECK(mdb_dbi_open(txn, name, MDB_CREATE, &d) == 0 && (key.n == 0 || mdb_put(txn, d, &k, &v, 0) == 0));
}

static void put_log(MDB_txn *txn, uint64_t revision, enum kind kind, struct str id, const char *op)
{
    struct buf b = BUF_INIT;
    uint8_t key[STORE_LOG_KEY];
    log_key(revision, 0, key);
    log_put(&b, kind, id, *op);
    db_put(txn, STORE_DB_LOG, (struct str){ (char *)key, sizeof key }, buf_str(&b));
    buf_done(&b);
}

static MDB_env *map_open(const char *dir, bool secret, MDB_txn **ret_txn)
{
    char path[128];
    MDB_env *env;
    snprintf(path, sizeof path, "%s/%s", dir, secret ? STORE_SECRET_DIR : STORE_STATE_DIR);
    mkdir(path, 0700);
    CHECK(mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, STORE_DBS_MAX) == 0);
    CHECK(mdb_env_set_mapsize(env, 16 << 20) == 0 && mdb_env_open(env, path, MDB_NOSYNC, 0600) == 0);
    CHECK(mdb_txn_begin(env, NULL, 0, ret_txn) == 0);
    return env;
}

static void write_map(const char *dir, uint64_t revision, bool secret, enum kind kind, struct str id, struct str doc)
{
    char name[STORE_DB_NAME_MAX];
    struct buf b = BUF_INIT;
    MDB_txn *txn;
    MDB_env *env = map_open(dir, secret, &txn);
    mp_u64(&b, revision);
    db_put(txn, STORE_DB_META, STR(META_REVISION), buf_str(&b));
    for (enum kind k = 0; k < KIND_COUNT; k++)
        if (kind_info[k].secret == secret)
            db_put(txn, kind_info[k].name, STR(""), STR(""));
    for (enum index ix = 0; ix < IX_COUNT && !secret; ix++)
        db_put(txn, index_db_name(ix, name), STR(""), STR(""));
    if (!secret)
        db_put(txn, STORE_DB_LOG, STR(""), STR(""));
    if (kind != KIND_COUNT && kind_info[kind].secret == secret) {
        MDB_dbi d;
        MDB_val k = { id.n, (void *)id.p };
        CHECK(mdb_dbi_open(txn, kind_info[kind].name, 0, &d) == 0);
        if (doc.n == 0)
            CHECK(mdb_del(txn, d, &k, NULL) == 0);
        else
            db_put(txn, kind_info[kind].name, id, doc);
    }
    if (kind != KIND_COUNT && !secret)
        put_log(txn, revision, kind, id, doc.n ? "u" : "d");
    CHECK(mdb_txn_commit(txn) == 0);
    mdb_env_close(env);
    buf_done(&b);
}

static void write_revision(const char *dir, uint64_t revision, enum kind kind, struct str id, struct str doc)
{
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        write_map(dir, revision, true, kind, id, doc);
        write_map(dir, revision, false, kind, id, doc);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* ---- the world ---- */

struct model {
    char id[ID_SIZE];
    uint64_t seq;
    struct table nets;
    struct disp_network req;
    struct str held[16];
    bool holding;
};

struct world {
    char dir[64];
    struct store *store;
    struct disp_net d;
    uint64_t revision, now;
    struct model models[8];
    size_t nmodels;
    struct arena arena;
};

static void *begin(void)
{
    struct world *w = calloc(1, sizeof *w);
    struct err e;
    CHECK(w != NULL);
    snprintf(w->dir, sizeof w->dir, "/tmp/disp-network-XXXXXX");
    CHECK(mkdtemp(w->dir) != NULL);
    w->revision = 1;
    write_revision(w->dir, 1, KIND_COUNT, STR(""), STR(""));
    CHECK(store_open(&w->store, w->dir, true, &e) == 0);
    dnet_init(&w->d);
    dnet_turn(&w->d, 1);
    arena_init(&w->arena, 16 << 20);
    return w;
}

static void end(void *arg, struct buf *out)
{
    struct world *w = arg;
    char cmd[128];
    (void)out;
    while (dnet_withdraw_any(&w->d))
        ;
    dnet_done(&w->d);
    store_close(w->store);
    for (size_t i = 0; i < w->nmodels; i++)
        table_done(&w->models[i].nets);
    arena_done(&w->arena);
    snprintf(cmd, sizeof cmd, "rm -rf %s", w->dir);
    CHECK(system(cmd) == 0);
    free(w);
}

static struct model *model_of(struct world *w, const char *id)
{
    for (size_t i = 0; i < w->nmodels; i++)
        if (strcmp(w->models[i].id, id) == 0)
            return &w->models[i];
    struct model *m = &w->models[w->nmodels++];
    CHECK(w->nmodels <= 8);
    snprintf(m->id, sizeof m->id, "%s", id);
    table_init(&m->nets, 0);
    return m;
}

static struct store_snap *look(struct world *w)
{
    struct store_snap *snap;
    struct err e;
    CHECK(store_begin(w->store, &snap, &e) == 0);
    return snap;
}

/* ---- answers ---- */

struct lines {
    char *v[64];
    size_t n;
};

static void line_add(struct lines *l, struct arena *a, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void line_add(struct lines *l, struct arena *a, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    CHECK(l->n < 64);
    l->v[l->n++] = arena_printf(a, "%s", text);
}

static const char *joined(const struct strs *s, struct arena *a)
{
    const char *text = "";
    for (size_t i = 0; i < s->n; i++)
        text = arena_printf(a, "%s%s" STR_FMT, text, i ? "," : "", STR_ARG(s->v[i]));
    return text;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void print_things(struct world *w, const struct disp_network_reply *r, struct lines *l)
{
    const struct net_network *n = r->Networks.v;
    const struct net_service *s = r->Services.v;
    const struct net_endpoint *p = r->Endpoints.v;
    const struct net_node *o = r->Nodes.v;
    const struct net_key *k = r->Keys.v;
    for (size_t i = 0; i < r->Networks.n; i++)
        line_add(l, &w->arena, "network " STR_FMT " vni=%" PRIu64 "%s%s mtu=%" PRIu64 " subnets=%zu", STR_ARG(n[i].ID),
                 n[i].VNI, n[i].Ingress ? " ingress" : "", n[i].Encrypted ? " encrypted" : "", n[i].MTU,
                 n[i].Subnets.n);
    for (size_t i = 0; i < r->Services.n; i++) {
        const struct net_port *port = s[i].Ports.v;
        const char *ports = "";
        for (size_t x = 0; x < s[i].Ports.n; x++)
            ports = arena_printf(&w->arena, "%s " STR_FMT "/%" PRIu64 ":%" PRIu64, ports, STR_ARG(port[x].Protocol),
                                 port[x].PublishedPort, port[x].TargetPort);
        line_add(l, &w->arena, "service " STR_FMT "/" STR_FMT " " STR_FMT " " STR_FMT " vips=%s aliases=%s ports=%s",
                 STR_ARG(s[i].NetworkID), STR_ARG(s[i].ID), STR_ARG(s[i].Name), STR_ARG(s[i].Mode),
                 joined(&s[i].VIPs, &w->arena), joined(&s[i].Aliases, &w->arena), ports);
    }
    for (size_t i = 0; i < r->Endpoints.n; i++)
        line_add(l, &w->arena,
                 "task " STR_FMT "/" STR_FMT " of " STR_FMT " on " STR_FMT " " STR_FMT " %s \"" STR_FMT "\"",
                 STR_ARG(p[i].NetworkID), STR_ARG(p[i].ID), STR_ARG(p[i].ServiceID), STR_ARG(p[i].NodeID),
                 STR_ARG(p[i].State), joined(&p[i].Addresses, &w->arena), STR_ARG(p[i].Name));
    for (size_t i = 0; i < r->Nodes.n; i++)
        line_add(l, &w->arena, "node " STR_FMT " " STR_FMT " " STR_FMT, STR_ARG(o[i].ID), STR_ARG(o[i].Addr),
                 STR_ARG(o[i].Hostname));
    for (size_t i = 0; i < r->Keys.n; i++)
        line_add(l, &w->arena, "key " STR_FMT " %" PRIu64, STR_ARG(k[i].Purpose), k[i].Epoch);
}

static void print_gone(struct world *w, const char *what, const struct strs *s, struct lines *l)
{
    for (size_t i = 0; i < s->n; i++)
        line_add(l, &w->arena, "gone %s " STR_FMT, what, STR_ARG(s->v[i]));
}

static void print_answer(struct world *w, struct model *m, const struct disp_network_reply *r, struct buf *out)
{
    struct lines l = { .n = 0 };
    print_things(w, r, &l);
    print_gone(w, "network", &r->GoneNetworks, &l);
    print_gone(w, "node", &r->GoneNodes, &l);
    print_gone(w, "service", &r->GoneServices, &l);
    print_gone(w, "task", &r->GoneEndpoints, &l);
    qsort(l.v, l.n, sizeof l.v[0], by_text);
    buf_printf(out, "%s: %" PRIu64 "%s%s\n", m->id, r->Seq, r->Full ? " full" : "", l.n ? "" : " nothing");
    for (size_t i = 0; i < l.n; i++)
        buf_printf(out, "  %s\n", l.v[i]);
}

static void take_in(struct model *m, const struct disp_network_reply *r)
{
    m->seq = r->Seq;
    if (r->Full)
        table_clear(&m->nets);
    for (size_t i = 0; i < r->Networks.n; i++)
        table_put(&m->nets, ((const struct net_network *)r->Networks.v)[i].ID, NULL);
    for (size_t i = 0; i < r->GoneNetworks.n; i++)
        table_del(&m->nets, r->GoneNetworks.v[i]);
}

static void check_answer(const struct disp_network_reply *r)
{
    struct buf b = BUF_INIT;
    struct disp_network_reply back;
    struct arena a;
    struct err e;
    arena_init(&a, 16 << 20);
    fields_encode(r, op_disp_network.rep, &b);
    if (fields_decode(&back, op_disp_network.rep, sizeof back, buf_str(&b), FIELDS_STRICT, &a, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(back.Endpoints.n, r->Endpoints.n);
    buf_done(&b);
    arena_done(&a);
}

static void answer(struct world *w, struct store_snap *snap, struct buf *out)
{
    struct dnet_node *n;
    while ((n = dnet_next(&w->d, w->now))) {
        struct model *m = n->poll;
        struct disp_network_reply rep;
        dnet_fill(&w->d, snap, n, &w->arena, &rep);
        check_answer(&rep);
        print_answer(w, m, &rep, out);
        CHECK(dnet_answered(&w->d, n) == m);
        dnet_spent(&w->d, 0, false);
        if (!m->holding)
            take_in(m, &rep);
    }
}

static void print_drained(struct world *w, struct buf *out)
{
    struct str task;
    while (dnet_drained(&w->d, &task)) {
        const struct dnet_task *t = table_get(&w->d.tasks, task);
        if (t)
            buf_printf(out, "%s: " STR_FMT "\n", t->drained ? "drained" : "not drained any more", STR_ARG(task));
    }
}

/* ---- documents ---- */

static void note(struct world *w, struct store_snap *snap, enum kind kind, struct str id)
{
    struct str doc;
    if (store_get(snap, kind, id, &doc) != 0)
        doc = STR("");
    if (kind == KIND_NETWORK)
        dnet_note_network(&w->d, id, doc);
    else if (kind == KIND_SERVICE)
        dnet_note_service(&w->d, id, doc);
    else if (kind == KIND_NODE)
        dnet_note_node(&w->d, id, doc);
    else if (kind == KIND_TASK)
        dnet_note_task(&w->d, id, doc, w->now);
    else
        dnet_note_keys(&w->d, doc);
}

static void written(struct world *w, enum kind kind, const char *id, struct buf *doc, struct buf *out)
{
    CHECK(!doc->failed);
    write_revision(w->dir, ++w->revision, kind, str_from(id), buf_str(doc));
    buf_done(doc);
    struct store_snap *snap = look(w);
    dnet_turn(&w->d, w->revision);
    note(w, snap, kind, str_from(id));
    dnet_settle(&w->d);
    answer(w, snap, out);
    store_end(snap);
    print_drained(w, out);
}

static void load(struct world *w, struct buf *out)
{
    static const enum kind kinds[] = { KIND_NETWORK, KIND_SERVICE, KIND_NODE, KIND_TASK };
    struct store_snap *snap = look(w);
    struct store_iter it;
    struct str doc;
    while (dnet_withdraw_any(&w->d))
        ;
    dnet_load(&w->d, snap, w->revision);
    if (store_get(snap, KIND_CREDENTIAL, STR(STORE_NETWORK_KEYS_ID), &doc) == 0)
        dnet_note_keys(&w->d, doc);
    for (size_t i = 0; i < 4; i++)
        for (store_each(snap, kinds[i], &it); store_next(&it);) {
            note(w, snap, kinds[i], it.id);
            if (kinds[i] == KIND_NODE)
                dnet_live(&w->d, it.id, true, w->now);
        }
    dnet_loaded(&w->d);
    dnet_settle(&w->d);
    store_end(snap);
    print_drained(w, out);
}

static const char *arg_of(char **w, unsigned n, const char *key)
{
    size_t len = strlen(key);
    for (unsigned i = 0; i < n; i++)
        if (strncmp(w[i], key, len) == 0 && w[i][len] == '=')
            return w[i] + len + 1;
    return NULL;
}

static size_t split(char *text, char **v, size_t max)
{
    size_t n = 0;
    char *save;
    for (char *p = strtok_r(text, ",", &save); p && n < max; p = strtok_r(NULL, ",", &save))
        v[n++] = p;
    return n;
}

static void head(struct world *w, struct buf *d, size_t more, const char *id)
{
    mp_map(d, 2 + more);
    mp_kv_cstr(d, "ID", id);
    mp_kv_u64(d, "Rev", w->revision + 1);
}

static void do_node(struct world *w, char **v, unsigned n, struct buf *out)
{
    struct buf d = BUF_INIT;
    head(w, &d, 2, v[1]);
    mp_cstr(&d, "Status");
    mp_map(&d, 1);
    mp_kv_cstr(&d, "Addr", v[2]);
    mp_cstr(&d, "Description");
    mp_map(&d, 1);
    mp_kv_cstr(&d, "Hostname", n > 3 ? v[3] : v[1]);
    written(w, KIND_NODE, v[1], &d, out);
}

static void do_net(struct world *w, char **v, unsigned n, struct buf *out)
{
    struct buf d = BUF_INIT;
    const char *vni = arg_of(v, n, "vni"), *mtu = arg_of(v, n, "mtu");
    bool encrypted = arg_of(v, n, "encrypted");
    head(w, &d, 3, v[1]);
    mp_cstr(&d, "Spec");
    mp_map(&d, 3);
    mp_kv_cstr(&d, "Name", v[1]);
    mp_kv_bool(&d, "Ingress", arg_of(v, n, "ingress") != NULL);
    mp_cstr(&d, "Options");
    mp_map(&d, encrypted + (mtu != NULL));
    if (encrypted)
        mp_kv_cstr(&d, "encrypted", "");
    if (mtu)
        mp_kv_cstr(&d, "com.docker.network.driver.mtu", mtu);
    mp_cstr(&d, "IPAM");
    mp_map(&d, 1);
    mp_cstr(&d, "Config");
    mp_array(&d, 1);
    mp_map(&d, 2);
    mp_kv_cstr(&d, "Subnet", "10.0.1.0/24");
    mp_kv_cstr(&d, "Gateway", "10.0.1.1");
    mp_cstr(&d, "State");
    mp_map(&d, 1);
    mp_kv_u64(&d, "VNI", vni ? strtoull(vni, NULL, 10) : 0);
    written(w, KIND_NETWORK, v[1], &d, out);
}

static void put_service_spec(struct buf *d, char **v, unsigned n)
{
    const char *drain = arg_of(v, n, "drain"), *alias = arg_of(v, n, "alias"), *mode = arg_of(v, n, "mode");
    char nets[64] = "", *net[8];
    if (arg_of(v, n, "nets"))
        snprintf(nets, sizeof nets, "%s", arg_of(v, n, "nets"));
    size_t k = split(nets, net, 8);
    mp_cstr(d, "Spec");
    mp_map(d, 3 + (drain != NULL));
    mp_kv_cstr(d, "Name", v[1]);
    mp_cstr(d, "EndpointSpec");
    mp_map(d, mode != NULL);
    if (mode)
        mp_kv_cstr(d, "Mode", mode);
    mp_cstr(d, "TaskTemplate");
    mp_map(d, 1);
    mp_cstr(d, "Networks");
    mp_array(d, k);
    for (size_t i = 0; i < k; i++) {
        mp_map(d, 1 + (alias != NULL));
        mp_kv_cstr(d, "Target", net[i]);
        if (alias) {
            mp_cstr(d, "Aliases");
            mp_array(d, 1);
            mp_cstr(d, alias);
        }
    }
    if (drain) {
        mp_cstr(d, "Labels");
        mp_map(d, 2);
        mp_kv_cstr(d, "other", "x");
        mp_kv_cstr(d, "microswarm.drain-period", drain);
    }
}

static void do_service(struct world *w, char **v, unsigned n, struct buf *out)
{
    struct buf d = BUF_INIT;
    const char *vip = arg_of(v, n, "vip"), *port = arg_of(v, n, "port");
    char net[64];
    head(w, &d, 2, v[1]);
    put_service_spec(&d, v, n);
    mp_cstr(&d, "Endpoint");
    mp_map(&d, 2);
    mp_cstr(&d, "VirtualIPs");
    mp_array(&d, vip != NULL);
    if (vip) {
        snprintf(net, sizeof net, "%.*s", (int)strcspn(vip, ":"), vip);
        mp_map(&d, 2);
        mp_kv_cstr(&d, "NetworkID", net);
        mp_kv_cstr(&d, "Addr", vip + strlen(net) + 1);
    }
    mp_cstr(&d, "Ports");
    mp_array(&d, port != NULL);
    if (port) {
        mp_map(&d, 3);
        mp_kv_cstr(&d, "Protocol", "tcp");
        mp_kv_u64(&d, "PublishedPort", strtoull(port, NULL, 10));
        mp_kv_u64(&d, "TargetPort", strtoull(strchr(port, ':') + 1, NULL, 10));
    }
    written(w, KIND_SERVICE, v[1], &d, out);
}

static void do_task(struct world *w, char **v, unsigned n, struct buf *out)
{
    struct buf d = BUF_INIT;
    char *net[8];
    CHECK(n == 7);
    size_t k = strcmp(v[4], "-") == 0 ? 0 : split(v[4], net, 8);
    head(w, &d, 6, v[1]);
    mp_kv_cstr(&d, "ServiceID", v[2]);
    mp_kv_cstr(&d, "NodeID", v[3]);
    mp_kv_u64(&d, "Slot", 1);
    mp_kv_cstr(&d, "DesiredState", v[5]);
    mp_cstr(&d, "Status");
    mp_map(&d, 1);
    mp_kv_cstr(&d, "State", v[6]);
    mp_cstr(&d, "NetworksAttachments");
    mp_array(&d, k);
    for (size_t i = 0; i < k; i++) {
        char *colon = strchr(net[i], ':');
        *colon = 0;
        mp_map(&d, 2);
        mp_kv_cstr(&d, "NetworkID", net[i]);
        mp_cstr(&d, "Addresses");
        mp_array(&d, 1);
        mp_cstr(&d, colon + 1);
    }
    written(w, KIND_TASK, v[1], &d, out);
}

static void do_keys(struct world *w, char **v, struct buf *out)
{
    struct buf d = BUF_INIT;
    head(w, &d, 1, STORE_NETWORK_KEYS_ID);
    mp_cstr(&d, "Keys");
    mp_array(&d, 1);
    mp_map(&d, 3);
    mp_kv_cstr(&d, "Purpose", "gossip");
    mp_kv_u64(&d, "Epoch", strtoull(v[1], NULL, 10));
    mp_cstr(&d, "Key");
    mp_bin(&d, STR("0123456789abcdef0123456789abcdef"));
    written(w, KIND_CREDENTIAL, STORE_NETWORK_KEYS_ID, &d, out);
}

static void do_ask(struct world *w, char **v, unsigned n, struct buf *out)
{
    struct model *m = model_of(w, v[1]);
    const char *held = arg_of(v, n, "held"), *seq = arg_of(v, n, "seq");
    uint64_t wait = n > 2 && v[2][0] >= '0' && v[2][0] <= '9' ? strtoull(v[2], NULL, 10) : 0, before_seq;
    static char text[128];
    char *id[8];
    void *before;
    struct str net;
    m->holding = false;
    m->req = (struct disp_network){ .Seq = seq ? strtoull(seq, NULL, 10) : m->seq, .WaitMs = wait };
    m->req.Networks.v = m->held;
    snprintf(text, sizeof text, "%s", held ? held : "");
    for (size_t i = 0, k = split(text, id, 8); i < k; i++)
        m->held[m->req.Networks.n++] = arena_str(&w->arena, str_from(id[i]));
    for (struct table_pos pos = { 0 }; !held && table_next(&m->nets, &pos, &net, NULL);)
        m->held[m->req.Networks.n++] = net;
    if (!dnet_ask(&w->d, str_from(v[1]), m, &m->req, w->now, &before, &before_seq)) {
        buf_printf(out, "%s: no such node\n", v[1]);
        return;
    }
    struct store_snap *snap = look(w);
    answer(w, snap, out);
    store_end(snap);
    print_drained(w, out);
}

static void do_at(struct world *w, uint64_t ms, struct buf *out)
{
    for (uint64_t due; (due = dnet_due(&w->d, w->now)) <= ms;) {
        w->now = due > w->now ? due : w->now;
        dnet_tick(&w->d, w->now);
        struct store_snap *snap = look(w);
        answer(w, snap, out);
        store_end(snap);
        print_drained(w, out);
    }
    w->now = ms;
}

static void line(void *arg, char **v, unsigned n, struct buf *out)
{
    struct world *w = arg;
    struct store_snap *snap;
    struct buf none = BUF_INIT;
    struct str doc;
    if (strcmp(v[0], "node") == 0) {
        do_node(w, v, n, out);
    } else if (strcmp(v[0], "net") == 0) {
        do_net(w, v, n, out);
    } else if (strcmp(v[0], "service") == 0) {
        do_service(w, v, n, out);
    } else if (strcmp(v[0], "task") == 0) {
        do_task(w, v, n, out);
    } else if (strcmp(v[0], "keys") == 0) {
        do_keys(w, v, out);
    } else if (strcmp(v[0], "gone") == 0) {
        if (strcmp(v[1], "node") == 0)
            (void)dnet_withdraw(&w->d, str_from(v[2]));
        written(w, kind_by_name(v[1], strlen(v[1])), v[2], &none, out);
    } else if (strcmp(v[0], "load") == 0) {
        load(w, out);
    } else if (strcmp(v[0], "live") == 0 || strcmp(v[0], "dead") == 0) {
        dnet_live(&w->d, str_from(v[1]), v[0][0] == 'l', w->now);
        print_drained(w, out);
    } else if (strcmp(v[0], "ask") == 0) {
        do_ask(w, v, n, out);
    } else if (strcmp(v[0], "hold") == 0) {
        model_of(w, v[1])->holding = true;
    } else if (strcmp(v[0], "at") == 0) {
        do_at(w, strtoull(v[1], NULL, 10), out);
    } else if (strcmp(v[0], "drain") == 0) {
        snap = look(w);
        CHECK(store_get(snap, KIND_TASK, str_from(v[1]), &doc) == 0);
        struct str service = STR("");
        (void)mp_get_str(doc, "ServiceID", &service);
        buf_printf(out, "%s %s, %" PRIu64 " ms\n", v[1],
                   dnet_task_drained(&w->d, str_from(v[1]), doc) ? "may stop" : "waits",
                   dnet_drain_ms(&w->d, doc, service));
        store_end(snap);
    } else {
        CHECK(!"a line of a scenario");
    }
    dnet_check(&w->d);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, line, end };
    (void)state;
    assert_true(scenario_run("dispatcherd/testdata/network/*.txt", &ops));
}

/* Many nodes that wait are answered a few at a time, in the order in which they asked. */
static void test_answers_are_paced(void **state)
{
    struct world *w = begin();
    struct disp_network reqs[1000];
    struct disp_network_reply rep;
    struct store_snap *snap = look(w);
    uint64_t seq, answered = 0, now = 1;
    char id[16];
    void *before;
    struct buf doc = BUF_INIT;
    (void)state;
    mp_map(&doc, 0);
    dnet_turn(&w->d, 2);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(id, sizeof id, "n%u", i);
        dnet_note_node(&w->d, str_from(id), buf_str(&doc));
    }
    dnet_settle(&w->d);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(id, sizeof id, "n%u", i);
        reqs[i] = (struct disp_network){ .Seq = 2, .WaitMs = 30000 };
        assert_true(dnet_ask(&w->d, str_from(id), &reqs[i], &reqs[i], now, &before, &seq));
        assert_null(before);
    }
    assert_null(w->d.hot); /* nothing is new */
    assert_int_equal(dnet_due(&w->d, now), now + 30000);
    dnet_turn(&w->d, 3);
    dnet_note_keys(&w->d, buf_str(&doc));
    dnet_settle(&w->d);
    while (w->d.nhot) {
        struct dnet_node *n;
        uint64_t due = dnet_due(&w->d, now);
        now = due > now ? due : now;
        assert_in_range(now, 1, 150);
        while ((n = dnet_next(&w->d, now))) {
            dnet_fill(&w->d, snap, n, &w->arena, &rep);
            assert_int_equal(rep.Seq, 3);
            dnet_answered(&w->d, n);
            dnet_spent(&w->d, 100, true);
            answered++;
        }
        dnet_check(&w->d);
        assert_in_range(answered, 1, 300 + now * 10);
    }
    assert_int_equal(answered, 1000);
    assert_in_range(now, 50, 150);
    store_end(snap);
    buf_done(&doc);
    end(w, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_answers_are_paced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

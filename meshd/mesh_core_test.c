/*
 * Scenarios in testdata/core: commands, then ---- and what comes of them; REWRITE=1 rewrites the expected part.
 * And a model of the kernel's table that checks, over random lives of tasks, that no transaction changes a slot that
 * may still be drawn, and that crashes between any two transactions are made good.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <glob.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"
#include "common/util/id.h"
#include "meshd/mesh_core.h"

#define SCENARIOS "meshd/testdata/core/*.txt"
#define WORDS_MAX 12

/* ---- scenarios ---- */

static void put_edits(struct buf *out, const char *when, const struct mesh_edits *es)
{
    char addr[MESH_ADDR_TEXT];
    for (size_t i = 0; i < es->n; i++) {
        const struct mesh_edit *ed = &es->v[i];
        buf_printf(out, "  %s ", when);
        if (ed->type == MESH_SLOT_ADD || ed->type == MESH_SLOT_DEL) {
            mesh_addr_text(ed->to.addr, addr);
            buf_printf(out, "%s slot %s/%u #%s%u %s:%u\n", ed->type == MESH_SLOT_ADD ? "add" : "del",
                       mesh_proto_name(ed->proto), ed->port, ed->slot >= MESH_HALF ? "b" : "a", ed->slot % MESH_HALF,
                       addr, ed->to.port);
        } else if (ed->type == MESH_PORT_SET) {
            buf_printf(out, "%s port %s/%u draws %u%c\n", ed->replaces ? "switch" : "add", mesh_proto_name(ed->proto),
                       ed->port, ed->nslots, ed->half ? 'b' : 'a');
        } else {
            buf_printf(out, "del port %s/%u\n", mesh_proto_name(ed->proto), ed->port);
        }
    }
}

static void put_plan(struct buf *out, struct mesh_plan *p)
{
    put_edits(out, "now", &p->now);
    put_edits(out, "later", &p->later);
    if (p->now.n + p->later.n == 0)
        buf_puts(out, "  nothing\n");
    mesh_plan_done(p);
}

static uint16_t number(const char *text)
{
    uint64_t v = 0;
    CHECK(str_u64(str_from(text), &v) && v <= UINT16_MAX);
    return (uint16_t)v;
}

/* parse_sandbox - "t1 svc ingress:tcp:8080:80 ..." or with "host-net"/"no-net" among the words */
static struct mesh_sandbox parse_sandbox(struct mesh_core *c, char **w, int n)
{
    struct mesh_sandbox sb = { .ports = calloc((size_t)n, sizeof *sb.ports) };
    CHECK(sb.ports != NULL);
    snprintf(sb.task, sizeof sb.task, "%s", w[0]);
    snprintf(sb.service, sizeof sb.service, "%s", n > 1 ? w[1] : "");
    for (int i = 2; i < n; i++) {
        struct mesh_publish *p = &sb.ports[sb.nports];
        if (strcmp(w[i], "host-net") == 0) {
            sb.mode = MESH_HOST;
            continue;
        }
        char *save = NULL, *mode = strtok_r(w[i], ":", &save), *proto = strtok_r(NULL, ":", &save);
        CHECK(proto && mesh_proto_parse(str_from(proto), &p->proto));
        p->host_mode = strcmp(mode, "host") == 0;
        p->published = number(strtok_r(NULL, ":", &save));
        p->target = number(strtok_r(NULL, ":", &save));
        sb.nports++;
    }
    if (sb.mode == MESH_BRIDGE)
        sb.addr = mesh_core_addr_next(c);
    return sb;
}

static void cmd_add(struct mesh_core *c, char **w, int n, struct buf *out)
{
    struct err e = ERR_INIT;
    struct mesh_sandbox sb = parse_sandbox(c, w, n);
    char addr[MESH_ADDR_TEXT];
    mesh_addr_text(sb.addr, addr);
    if (sb.addr == 0 && sb.mode == MESH_BRIDGE)
        buf_puts(out, "  no free address\n");
    else if (mesh_core_check(c, &sb, &e) < 0)
        buf_printf(out, "  %s: %s\n", err_name(e.code), e.msg);
    else {
        mesh_core_add(c, &sb);
        buf_printf(out, "  %s\n", addr);
        return;
    }
    free(sb.ports);
}

static void cmd_ready(struct mesh_core *c, const char *task, bool yes, struct buf *out)
{
    struct err e = ERR_INIT;
    if (mesh_core_set_ready(c, mesh_core_get(c, str_from(task)), yes, &e) < 0)
        buf_printf(out, "  %s: %s\n", err_name(e.code), e.msg);
}

/* cmd_dump - "tcp/8080 b2" draws two of the other half; "tcp/8080 b0 10.0.0.2:80" is a slot. */
static void cmd_dump(struct mesh_dump *d, char **w, int n)
{
    CHECK(n >= 2 && w[0] && w[1]);
    char *save = NULL, half = w[1][0], *proto = strtok_r(w[0], "/", &save);
    uint16_t port = number(strtok_r(NULL, "/", &save)), slots = number(w[1] + 1);
    struct in_addr in;
    uint8_t p;
    CHECK(mesh_proto_parse(str_from(proto), &p));
    if (n == 2) {
        mesh_dump_port(d, (struct mesh_dump_port){ p, half == 'b', port, slots });
        return;
    }
    CHECK(w[2] != NULL);
    char *addr = strtok_r(w[2], ":", &save);
    CHECK(inet_pton(AF_INET, addr, &in) == 1);
    mesh_dump_slot(d, (struct mesh_dump_slot){ p,
                                               port,
                                               slots + (half == 'b' ? MESH_HALF : 0),
                                               { ntohl(in.s_addr), number(strtok_r(NULL, ":", &save)) } });
}

static void cmd_load(struct mesh_core *c, struct mesh_dump *d, struct buf *out)
{
    struct mesh_plan strays = { 0 };
    buf_printf(out, "  %s\n", mesh_core_load(c, d, &strays) ? "sound" : "damaged");
    if (strays.later.n)
        put_plan(out, &strays);
    mesh_plan_done(&strays);
    mesh_dump_done(d);
}

/* cmd_service - "web tcp:8080:80 t1=here r1=10.9.0.1 r2=10.9.0.2!": an address or here, ! when it is not usable */
static void cmd_service(struct mesh_core *c, char **w, int n)
{
    struct mesh_publish *ports = calloc((size_t)n, sizeof *ports);
    struct mesh_backend *backends = calloc((size_t)n, sizeof *backends);
    size_t nports = 0, nbackends = 0;
    CHECK(ports && backends && w[0]);
    for (int i = 1; i < n; i++) {
        char *save = NULL, *at = strchr(w[i], '=');
        if (!at) {
            struct mesh_publish *p = &ports[nports++];
            CHECK(mesh_proto_parse(str_from(strtok_r(w[i], ":", &save)), &p->proto));
            p->published = number(strtok_r(NULL, ":", &save));
            p->target = number(strtok_r(NULL, ":", &save));
            continue;
        }
        struct mesh_backend *b = &backends[nbackends++];
        struct in_addr in = { 0 };
        *at++ = '\0';
        size_t len = strlen(at);
        b->usable = at[len - 1] != '!';
        at[b->usable ? len : len - 1] = '\0';
        b->here = strcmp(at, "here") == 0;
        CHECK(b->here || inet_pton(AF_INET, at, &in) == 1);
        b->addr = ntohl(in.s_addr);
        snprintf(b->task, sizeof b->task, "%s", w[i]);
    }
    mesh_core_service(c, str_from(w[0]), ports, nports, backends, nbackends);
}

static void command(struct mesh_core *c, struct mesh_dump *d, char **w, int n, struct buf *out)
{
    struct mesh_plan p = { 0 };
    struct mesh_subnet s;
    struct err e = ERR_INIT;
    CHECK(n > 0 && w[0] != NULL);
    if (strcmp(w[0], "subnet") == 0) {
        if (mesh_subnet_parse(w[1], &s, &e) < 0)
            buf_printf(out, "  %s\n", e.msg);
        else
            mesh_core_set_subnet(c, s);
    } else if (strcmp(w[0], "add") == 0) {
        cmd_add(c, w + 1, n - 1, out);
    } else if (strcmp(w[0], "ready") == 0 || strcmp(w[0], "drain") == 0) {
        for (int i = 1; i < n; i++)
            cmd_ready(c, w[i], w[0][0] == 'r', out);
    } else if (strcmp(w[0], "service") == 0) {
        cmd_service(c, w + 1, n - 1);
    } else if (strcmp(w[0], "weight") == 0) {
        c->local_weight = number(w[1]);
    } else if (strcmp(w[0], "del") == 0) {
        for (int i = 1; i < n; i++)
            mesh_core_del(c, mesh_core_get(c, str_from(w[i])));
    } else if (strcmp(w[0], "plan") == 0) {
        mesh_core_plan(c, &p);
        put_plan(out, &p);
    } else if (strcmp(w[0], "plan-all") == 0) {
        mesh_core_plan_all(c, &p);
        put_plan(out, &p);
    } else if (strcmp(w[0], "kernel") == 0) {
        cmd_dump(d, w + 1, n - 1);
    } else if (strcmp(w[0], "load") == 0) {
        cmd_load(c, d, out);
    } else if (strcmp(w[0], "free-port") == 0) {
        buf_printf(out, "  %u\n", mesh_core_port_next(c, IPPROTO_TCP, number(w[1]), number(w[2]), number(w[3])));
    } else {
        fail_msg("unknown command %s", w[0]);
    }
    mesh_core_verify(c);
}

static void scenario(const char *text, struct buf *out)
{
    struct mesh_core c;
    struct mesh_dump d = { 0 };
    char line[512];
    mesh_core_init(&c);
    while (*text && strncmp(text, "----", 4) != 0) {
        size_t len = strcspn(text, "\n");
        char *w[WORDS_MAX] = { NULL }, *save = NULL;
        int n = 0;
        CHECK(len < sizeof line);
        memcpy(line, text, len);
        line[len] = '\0';
        text += len + (text[len] == '\n');
        if (line[0] == '#' || line[0] == '\0')
            continue;
        buf_printf(out, "%s\n", line);
        for (char *tok = strtok_r(line, " ", &save); tok && n < WORDS_MAX; tok = strtok_r(NULL, " ", &save))
            w[n++] = tok;
        command(&c, &d, w, n, out);
    }
    mesh_dump_done(&d);
    mesh_core_done(&c);
}

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "r");
    struct buf b = BUF_INIT;
    CHECK(f != NULL);
    for (char *p; (p = buf_reserve(&b, 4096));) {
        size_t n = fread(p, 1, 4096, f);
        b.n += n;
        if (n == 0)
            break;
    }
    fclose(f);
    char *s = str_dup(buf_str(&b));
    buf_done(&b);
    return s;
}

static bool run_file(const char *path, bool rewrite)
{
    char *text = slurp(path), *want = strstr(text, "----\n");
    struct buf out = BUF_INIT;
    CHECK(want != NULL);
    scenario(text, &out);
    bool same = strcmp(want + 5, buf_cstr(&out)) == 0;
    if (!same && rewrite) {
        FILE *f = fopen(path, "w");
        CHECK(f != NULL);
        fprintf(f, "%.*s----\n%s", (int)(want - text), text, buf_cstr(&out));
        fclose(f);
    } else if (!same) {
        print_error("%s: got\n%s", path, buf_cstr(&out));
    }
    buf_done(&out);
    free(text);
    return same || rewrite;
}

static void test_scenarios(void **state)
{
    glob_t g = { 0 };
    bool ok = true;
    (void)state;
    assert_int_equal(glob(SCENARIOS, 0, NULL, &g), 0);
    for (size_t i = 0; i < g.gl_pathc; i++)
        ok &= run_file(g.gl_pathv[i], getenv("REWRITE") != NULL);
    globfree(&g);
    assert_true(ok);
}

/* ---- the model ---- */

#define M_PORTS 3
#define M_SLOTS (2 * 64)
#define M_TASKS 12

struct model {
    struct {
        bool there;
        uint32_t n;
        uint8_t half;
        struct mesh_slot slots[M_SLOTS]; /* addr 0: none */
    } p[M_PORTS];
};

static unsigned model_slot(uint32_t slot)
{
    CHECK(slot % MESH_HALF < M_SLOTS / 2);
    return (slot >= MESH_HALF ? M_SLOTS / 2 : 0) + slot % MESH_HALF;
}

static bool drawn(const struct model *m, unsigned port, unsigned slot)
{
    unsigned first = m->p[port].half ? M_SLOTS / 2 : 0;
    return m->p[port].there && slot >= first && slot < first + m->p[port].n;
}

/* model_apply - one transaction, as the kernel would take it. */
static void model_apply(struct model *m, const struct mesh_edits *es)
{
    struct model before = *m;
    for (size_t i = 0; i < es->n; i++) {
        const struct mesh_edit *ed = &es->v[i];
        unsigned port = ed->port - 8000u, slot = ed->type <= MESH_SLOT_DEL ? model_slot(ed->slot) : 0;
        CHECK(port < M_PORTS);
        if (ed->type == MESH_SLOT_ADD) {
            CHECK(m->p[port].slots[slot].addr == 0); /* the kernel would refuse it */
            m->p[port].slots[slot] = ed->to;
        } else if (ed->type == MESH_SLOT_DEL) {
            CHECK(m->p[port].slots[slot].addr != 0);
            CHECK(!drawn(&before, port, slot)); /* a lookup may be on its way */
            m->p[port].slots[slot] = (struct mesh_slot){ 0 };
        } else if (ed->type == MESH_PORT_SET) {
            CHECK(m->p[port].there == ed->replaces);
            m->p[port].there = true;
            m->p[port].n = ed->nslots;
            m->p[port].half = ed->half;
        } else {
            CHECK(m->p[port].there);
            m->p[port].there = false;
        }
    }
    for (unsigned p = 0; p < M_PORTS; p++)
        for (unsigned s = 0; s < M_SLOTS; s++)
            CHECK(!drawn(m, p, s) || m->p[p].slots[s].addr != 0);
}

static void model_dump(const struct model *m, struct mesh_dump *d)
{
    for (unsigned p = 0; p < M_PORTS; p++) {
        uint16_t port = (uint16_t)(8000 + p);
        if (m->p[p].there)
            mesh_dump_port(d, (struct mesh_dump_port){ IPPROTO_TCP, m->p[p].half, port, m->p[p].n });
        for (unsigned s = 0; s < M_SLOTS; s++)
            if (m->p[p].slots[s].addr)
                mesh_dump_slot(d, (struct mesh_dump_slot){ IPPROTO_TCP, port,
                                                           s < M_SLOTS / 2 ? s : MESH_HALF + s - M_SLOTS / 2,
                                                           m->p[p].slots[s] });
    }
}

/* model_check - each port draws exactly the ready tasks of its owner, and nothing is left over. */
static void model_check(const struct model *m, struct mesh_core *c)
{
    for (unsigned p = 0; p < M_PORTS; p++) {
        struct mesh_entry *en = mesh_core_port(c, IPPROTO_TCP, (uint16_t)(8000 + p));
        struct mesh_sandbox *sb;
        unsigned slots = 0, ready = 0;
        CHECK(m->p[p].there == (en && en->members > 0));
        for (unsigned s = 0; s < M_SLOTS; s++)
            slots += m->p[p].slots[s].addr != 0;
        CHECK(slots == (m->p[p].there ? m->p[p].n : 0));
        for (struct table_pos pos = { 0 }; en && table_next(&c->sandboxes, &pos, NULL, &sb);)
            for (size_t i = 0; i < sb->nports; i++) {
                bool mine = sb->ports[i].published == 8000 + p && sb->state == MESH_READY &&
                            strcmp(en->owner, sb->ports[i].host_mode ? sb->task : sb->service) == 0;
                bool found = false;
                for (unsigned s = 0; s < M_SLOTS; s++)
                    found |= m->p[p].slots[s].addr == sb->addr;
                ready += mine;
                CHECK(sb->ports[i].published != 8000 + p || found == mine);
            }
        CHECK(ready == slots);
    }
}

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return *seed;
}

static void random_op(struct mesh_core *c, uint64_t *seed)
{
    char task[16], service[16];
    struct err e = ERR_INIT;
    snprintf(task, sizeof task, "t%u", (unsigned)(next(seed) % M_TASKS));
    struct mesh_sandbox *sb = mesh_core_get(c, str_from(task));
    if (sb && next(seed) % 4 == 0) {
        mesh_core_del(c, sb);
    } else if (sb) {
        (void)mesh_core_set_ready(c, sb, next(seed) % 2, &e);
    } else {
        struct mesh_sandbox fresh = { .addr = mesh_core_addr_next(c), .ports = calloc(1, sizeof *fresh.ports) };
        CHECK(fresh.ports != NULL);
        fresh.nports = 1;
        snprintf(service, sizeof service, "s%u", (unsigned)(next(seed) % 2));
        memcpy(fresh.task, task, sizeof task);
        memcpy(fresh.service, service, sizeof service);
        fresh.ports[0] = (struct mesh_publish){ .proto = IPPROTO_TCP,
                                                .host_mode = next(seed) % 8 == 0,
                                                .target = 80,
                                                .published = (uint16_t)(8000 + next(seed) % M_PORTS) };
        if (mesh_core_check(c, &fresh, &e) == 0)
            mesh_core_add(c, &fresh);
        else
            free(fresh.ports);
    }
}

/* random_service - what the managers may say of one: other ports, other tasks, here and elsewhere, or that it is gone.
 */
static void random_service(struct mesh_core *c, uint64_t *seed)
{
    struct mesh_publish *ports = calloc(M_PORTS, sizeof *ports);
    struct mesh_backend *backends = calloc(8, sizeof *backends);
    size_t nports = 0, nbackends = 0;
    char id[8];
    CHECK(ports && backends);
    snprintf(id, sizeof id, "s%u", (unsigned)(next(seed) % 2));
    for (uint16_t p = 0; p < M_PORTS; p++)
        if (next(seed) % 3 == 0)
            ports[nports++] = (struct mesh_publish){ .proto = IPPROTO_TCP, .target = 80, .published = 8000 + p };
    for (unsigned i = 0; i < 8; i++) {
        struct mesh_backend *b = &backends[nbackends];
        if (next(seed) % 2)
            continue;
        b->here = i < 3;
        b->usable = next(seed) % 3;
        b->addr = b->here ? 0 : (10u << 24 | 9u << 16) + i;
        snprintf(b->task, sizeof b->task, b->here ? "t%u" : "r%u", i);
        nbackends++;
    }
    mesh_core_service(c, str_from(id), ports, nports, backends, nbackends);
}

static const struct mesh_backend *backend_of(const struct mesh_service *s, const char *task)
{
    for (size_t i = 0; s && i < s->nbackends; i++)
        if (strcmp(s->backends[i].task, task) == 0)
            return &s->backends[i];
    return NULL;
}

static unsigned times_in(const struct model *m, unsigned port, uint32_t addr)
{
    unsigned n = 0;
    for (unsigned s = 0; s < M_SLOTS; s++)
        n += m->p[port].slots[s].addr == addr;
    return n;
}

/* model_check_services - the same with what the managers say: a port that a service publishes is drawn among its usable
 * tasks elsewhere and its ready ones here, the latter as often as their weight says when there are both. */
static void model_check_services(const struct model *m, struct mesh_core *c)
{
    for (unsigned p = 0; p < M_PORTS; p++) {
        struct mesh_entry *en = mesh_core_port(c, IPPROTO_TCP, (uint16_t)(8000 + p));
        const struct mesh_service *s = en && !en->host_mode ? table_get(&c->services, str_from(en->owner)) : NULL;
        struct mesh_sandbox *sb;
        unsigned remote = 0, local = 0, slots = 0;
        bool publishes = false;
        for (unsigned k = 0; k < M_SLOTS; k++)
            slots += m->p[p].slots[k].addr != 0;
        CHECK(m->p[p].there == (en && en->members + en->services > 0));
        CHECK(slots == (m->p[p].there ? m->p[p].n : 0));
        for (size_t i = 0; s && i < s->nports; i++)
            publishes |= s->ports[i].published == 8000 + p;
        CHECK(!en || !en->services || publishes); /* who owns it is one of those who publish it */
        for (size_t i = 0; publishes && i < s->nbackends; i++) {
            bool want = !s->backends[i].here && s->backends[i].usable;
            CHECK(s->backends[i].here || times_in(m, p, s->backends[i].addr) == want);
            remote += want;
        }
        for (struct table_pos pos = { 0 }; en && table_next(&c->sandboxes, &pos, NULL, &sb);) {
            const struct mesh_backend *b = backend_of(s, sb->task);
            bool want = sb->ports[0].published == 8000 + p && sb->ports[0].host_mode == en->host_mode &&
                        strcmp(en->owner, en->host_mode ? sb->task : sb->service) == 0 && sb->state == MESH_READY &&
                        (!b || b->usable);
            unsigned weight = remote ? c->local_weight : 1;
            CHECK(times_in(m, p, sb->addr) == (want ? weight : 0));
            local += want ? weight : 0;
        }
        CHECK(slots == remote + local);
    }
}

/* recover - as after a crash: what the core knew of the kernel is read back. */
static void recover(struct mesh_core *c, struct model *m)
{
    struct mesh_dump d = { 0 };
    struct mesh_plan strays = { 0 }, p = { 0 };
    model_dump(m, &d);
    CHECK(mesh_core_load(c, &d, &strays));
    model_apply(m, &strays.later);
    mesh_core_plan(c, &p);
    model_apply(m, &p.now);
    model_apply(m, &p.later);
    mesh_dump_done(&d);
    mesh_plan_done(&strays);
    mesh_plan_done(&p);
}

static void random_life(uint64_t seed, int steps, bool services)
{
    struct mesh_core c;
    struct model m = { 0 };
    mesh_core_init(&c);
    mesh_core_set_subnet(&c, (struct mesh_subnet){ 10u << 24, 24 });
    c.local_weight = 1 + (unsigned)(seed % 3);
    for (int i = 0; i < steps; i++) {
        struct mesh_plan p = { 0 };
        for (uint64_t n = next(&seed) % 4; n > 0; n--)
            services &&next(&seed) % 3 == 0 ? random_service(&c, &seed) : random_op(&c, &seed);
        mesh_core_verify(&c);
        mesh_core_plan(&c, &p);
        uint64_t fate = next(&seed) % 8; /* 0: dies before, 1: between the transactions */
        if (fate != 0)
            model_apply(&m, &p.now);
        if (fate > 1)
            model_apply(&m, &p.later);
        else
            recover(&c, &m);
        services ? model_check_services(&m, &c) : model_check(&m, &c);
        mesh_plan_done(&p);
    }
    mesh_core_done(&c);
}

static void test_random_lives(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++)
        random_life(seed * 0x9e3779b97f4a7c15ull, 300, seed % 2);
    uint64_t fresh;
    random_bytes(&fresh, sizeof fresh);
    fresh |= 1;
    print_message("seed %" PRIu64 "\n", fresh);
    random_life(fresh, 20000, false);
    random_life(fresh, 20000, true);
}

/* ---- small things ---- */

static void test_names(void **state)
{
    char path[64];
    uint32_t addr = 172u << 24 | 18u << 16 | 5;
    char text[MESH_ADDR_TEXT];
    (void)state;
    mesh_addr_text(addr, text);
    assert_string_equal(text, "172.18.0.5");
    assert_true(mesh_sysctl_path(STR("net.ipv4.ip_forward"), path, sizeof path));
    assert_string_equal(path, "net/ipv4/ip_forward");
    assert_true(mesh_sysctl_path(STR("net.ipv4.conf.eth0/1.rp_filter"), path, sizeof path));
    assert_string_equal(path, "net/ipv4/conf/eth0.1/rp_filter");
    static const char *const bad[] = { "kernel.x",        "net.",     "net..x",  "net.x.", "net./x", "net.a//b",
                                       "net/../kernel.x", "net.a/.b", "net.a b", "netfoo" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(mesh_sysctl_path(str_from(bad[i]), path, sizeof path));
}

static void test_subnets(void **state)
{
    struct mesh_subnet s, t;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(mesh_subnet_parse("172.18.0.0/16", &s, &e), 0);
    assert_int_equal(mesh_subnet_parse("172.18.255.0/24", &t, &e), 0);
    assert_true(mesh_subnet_overlaps(s, t) && mesh_subnet_overlaps(t, s));
    assert_int_equal(mesh_subnet_parse("172.19.0.0/16", &t, &e), 0);
    assert_false(mesh_subnet_overlaps(s, t));
    static const char *const bad[] = { "",
                                       "x",
                                       "10.0.0.0",
                                       "10.0.0.0/15",
                                       "10.0.0.0/30",
                                       "10.0.0.1/24",
                                       "10.0.0.256/24",
                                       "10.0.0.0/24x",
                                       "0.0.0.0/16",
                                       "10.0.0/24" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(mesh_subnet_parse(bad[i], &s, &e), -ERR_INVALID);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_random_lives),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_subnets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

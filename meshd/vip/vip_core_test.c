/* Service addresses against a model of the kernel that is as strict as the kernel, and looks between transactions. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "meshd/vip/vip_core.h"

/* ---- maps ---- */

struct svc {
    const char *vip; /* NULL: no such service */
    const char *vip6;
    unsigned ready;    /* bits: its tasks 0..7 */
    unsigned draining; /* of those */
};

static struct netmap map;
static uint64_t seq;
static struct vip_core core;

static void tell(const struct svc *svcs, size_t n)
{
    struct net_network net = { .ID = STR("n"), .Name = STR("n"), .VNI = 5000 };
    struct net_service in[8];
    struct net_endpoint eps[64];
    struct str vips[8][2], addrs[64][2];
    char ids[8][8], tasks[64][8], text[64][2][24];
    size_t ns = 0, ne = 0;
    struct netmap_change c;
    struct err e = ERR_INIT;
    for (size_t i = 0; i < n; i++) {
        snprintf(ids[i], sizeof ids[i], "s%zu", i);
        for (unsigned k = 0; svcs[i].vip && k < 8; k++) {
            if (!((svcs[i].ready | svcs[i].draining) >> k & 1))
                continue;
            snprintf(tasks[ne], sizeof tasks[ne], "t%zu_%u", i, k);
            snprintf(text[ne][0], sizeof text[ne][0], "10.0.%zu.%u", i + 1, k + 1);
            snprintf(text[ne][1], sizeof text[ne][1], "fd00:%zu::%u", i + 1, k + 1);
            addrs[ne][0] = str_from(text[ne][0]);
            addrs[ne][1] = str_from(text[ne][1]);
            eps[ne] = (struct net_endpoint){ .ID = str_from(tasks[ne]),
                                             .NetworkID = STR("n"),
                                             .ServiceID = str_from(ids[i]),
                                             .NodeID = STR("a"),
                                             .State = svcs[i].draining >> k & 1 ? STR("draining") : STR("ready"),
                                             .Addresses = { addrs[ne], 2 } };
            ne++;
        }
        if (!svcs[i].vip)
            continue;
        vips[ns][0] = str_from(svcs[i].vip);
        vips[ns][1] = str_from(svcs[i].vip6);
        in[ns] = (struct net_service){ .ID = str_from(ids[i]),
                                       .NetworkID = STR("n"),
                                       .Name = str_from(ids[i]),
                                       .Mode = STR("vip"),
                                       .VIPs = { vips[ns], svcs[i].vip6 ? 2 : 1 } };
        ns++;
    }
    struct disp_network_reply rep = { .Seq = ++seq,
                                      .Full = true,
                                      .DataPathPort = 4789,
                                      .Networks = { &net, 1 },
                                      .Services = { in, ns },
                                      .Endpoints = { eps, ne } };
    if (netmap_apply(&map, &rep, &e) < 0)
        fail_msg("%s", e.msg);
    while (netmap_next(&map, &c))
        ;
}

/* ---- the model ---- */

struct mvip {
    uint32_t n;
    uint8_t half;
};
struct mslot {
    uint8_t to[16];
};
struct model {
    struct table vips, slots, chains;
};

static struct str key_of(const struct netmap_ip *ip, const uint32_t *slot, char buf[21])
{
    size_t n = ip->family == AF_INET6 ? 16 : 4;
    buf[0] = (char)ip->family;
    memcpy(buf + 1, ip->b, n);
    if (slot)
        memcpy(buf + 1 + n, slot, 4);
    return (struct str){ buf, 1 + n + (slot ? 4 : 0) };
}

static struct str chain_of(const struct vip_edit *ed, char buf[VIP_CHAIN_NAME + 1])
{
    buf[0] = ed->vip.family == AF_INET6 ? '6' : '4';
    vip_chain_name(ed->n, ed->half, buf + 1);
    return str_from(buf);
}

static void whole(const struct model *m)
{
    struct str key;
    struct mvip *v;
    for (struct table_pos pos = { 0 }; table_next(&m->vips, &pos, &key, &v);) {
        char buf[VIP_CHAIN_NAME + 1], sk[21];
        buf[0] = key.p[0] == AF_INET6 ? '6' : '4';
        vip_chain_name(v->n, v->half, buf + 1);
        assert_non_null(table_get(&m->chains, str_from(buf)));
        for (uint32_t i = 0; i < v->n; i++) {
            uint32_t slot = v->half * VIP_HALF + i;
            memcpy(sk, key.p, key.n);
            memcpy(sk + key.n, &slot, 4);
            assert_non_null(table_get(&m->slots, (struct str){ sk, key.n + 4 }));
        }
    }
}

static void carry_out(struct model *m, const struct vip_edits *es)
{
    char buf[21], name[VIP_CHAIN_NAME + 1];
    for (size_t i = 0; i < es->n; i++) {
        const struct vip_edit *ed = &es->v[i];
        struct mvip *v = table_get(&m->vips, key_of(&ed->vip, NULL, buf));
        bool fresh;
        switch (ed->type) {
        case VIP_CHAIN_ADD:
            table_put(&m->chains, chain_of(ed, name), &fresh);
            assert_true(fresh);
            break;
        case VIP_SLOT_ADD: {
            /* never one that is drawn: neither a new content nor again */
            struct mslot *s = table_put(&m->slots, key_of(&ed->vip, &ed->slot, buf), &fresh);
            assert_true(fresh);
            memcpy(s->to, ed->to, 16);
            break;
        }
        case VIP_SET:
            assert_int_equal(v != NULL, ed->replaces);
            *(struct mvip *)table_put(&m->vips, key_of(&ed->vip, NULL, buf), NULL) = (struct mvip){ ed->n, ed->half };
            break;
        case VIP_DEL:
            assert_true(table_del(&m->vips, key_of(&ed->vip, NULL, buf)));
            break;
        case VIP_SLOT_DEL: /* nobody draws it */
            assert_true(!v || ed->slot < v->half * VIP_HALF || ed->slot >= v->half * VIP_HALF + v->n);
            assert_true(table_del(&m->slots, key_of(&ed->vip, &ed->slot, buf)));
            break;
        case VIP_CHAIN_DEL:
            assert_true(table_del(&m->chains, chain_of(ed, name)));
            break;
        }
    }
    whole(m);
}

/* carry_now - what connections draw while the verdict is being switched stays as it was. */
static void carry_now(struct model *m, const struct vip_edits *es)
{
    for (size_t i = 0; i < es->n; i++)
        assert_true(es->v[i].type != VIP_SLOT_DEL && es->v[i].type != VIP_CHAIN_DEL);
    carry_out(m, es);
}

static size_t exact(const struct model *m)
{
    struct mvip *v;
    size_t slots = 0;
    for (struct table_pos pos = { 0 }; table_next(&m->vips, &pos, NULL, &v);)
        slots += v->n;
    assert_int_equal(slots, m->slots.count); /* nothing lies about */
    return slots;
}

static size_t work(struct model *m, struct vip_sandbox *sb, bool all)
{
    struct vip_plan p = { 0 };
    if (all)
        vip_core_plan_all(sb, &p);
    else
        vip_core_plan(sb, &p);
    size_t n = p.now.n + p.later.n;
    carry_now(m, &p.now);
    carry_out(m, &p.later);
    vip_plan_done(&p);
    exact(m);
    vip_core_verify(&core);
    return n;
}

static void dump_of(const struct model *m, struct vip_dump *d)
{
    struct str key;
    struct mvip *v;
    struct mslot *s;
    for (struct table_pos pos = { 0 }; table_next(&m->chains, &pos, &key, NULL);) {
        struct vip_chain c = { .family = key.p[0] == '6' ? AF_INET6 : AF_INET };
        char name[VIP_CHAIN_NAME];
        assert_true(str_copy(name, sizeof name, (struct str){ key.p + 1, key.n - 1 }));
        assert_true(vip_chain_parse(name, &c.n, &c.half));
        vip_dump_chain(d, &c);
    }
    for (struct table_pos pos = { 0 }; table_next(&m->vips, &pos, &key, &v);) {
        struct vip_dump_vip dv = { .vip = { .family = (uint8_t)key.p[0] }, .n = v->n, .half = v->half };
        memcpy(dv.vip.b, key.p + 1, key.n - 1);
        vip_dump_vip(d, &dv);
    }
    for (struct table_pos pos = { 0 }; table_next(&m->slots, &pos, &key, &s);) {
        struct vip_dump_slot ds = { .vip = { .family = (uint8_t)key.p[0] } };
        memcpy(ds.vip.b, key.p + 1, key.n - 5);
        memcpy(&ds.slot, key.p + key.n - 4, 4);
        memcpy(ds.to, s->to, 16);
        vip_dump_slot(d, &ds);
    }
}

static struct model model;
static struct vip_sandbox *sb;
static const char nets[1][ID_SIZE] = { "n" };

static int setup(void **state)
{
    (void)state;
    netmap_init(&map);
    vip_core_init(&core);
    table_init(&model.vips, sizeof(struct mvip));
    table_init(&model.slots, sizeof(struct mslot));
    table_init(&model.chains, 1);
    tell(NULL, 0);
    sb = vip_core_add(&core, &map, STR("task"), nets, 1, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vip_core_done(&core);
    netmap_done(&map);
    table_done(&model.vips);
    table_done(&model.slots);
    table_done(&model.chains);
    return 0;
}

static char gone_text[500];
static void on_gone(void *arg, const char *network, const struct netmap_ip *b)
{
    char ip[NETMAP_IP_TEXT];
    (void)arg;
    assert_string_equal(network, "n");
    size_t n = strlen(gone_text);
    snprintf(gone_text + n, sizeof gone_text - n, "%s ", netmap_ip_text(b, ip));
}

static size_t turn(const struct svc *svcs, size_t n)
{
    tell(svcs, n);
    gone_text[0] = '\0';
    vip_core_network(&core, &map, "n", on_gone, NULL);
    size_t edits = work(&model, sb, false);
    vip_core_settled(&core);
    assert_int_equal(vip_core_differences(sb, NULL, 0), 0);
    return edits;
}

static struct mvip *vip_at(const char *text)
{
    struct netmap_ip ip;
    char buf[21];
    assert_true(netmap_ip_parse(str_from(text), &ip));
    return table_get(&model.vips, key_of(&ip, NULL, buf));
}

/* ---- tests ---- */

static void test_grow_and_shrink(void **state)
{
    (void)state;
    struct svc s = { .vip = "10.0.0.2", .ready = 1 };
    assert_int_equal(turn(&s, 1), 3); /* chain, slot, verdict */
    s.ready = 3;
    assert_int_equal(turn(&s, 1), 3); /* one slot behind the other */
    assert_int_equal(vip_at("10.0.0.2")->half, 0);
    assert_int_equal(vip_at("10.0.0.2")->n, 2);
    assert_string_equal(gone_text, "");
    s.ready = 2; /* the first goes: all of it to the other half */
    turn(&s, 1);
    assert_int_equal(vip_at("10.0.0.2")->half, 1);
    assert_string_equal(gone_text, "10.0.1.1 ");
    s.ready = 0; /* none: refused */
    turn(&s, 1);
    assert_int_equal(vip_at("10.0.0.2")->n, 0);
    s.ready = 4;
    turn(&s, 1);
    assert_int_equal(vip_at("10.0.0.2")->n, 1);
    assert_int_equal(turn(&s, 1), 0); /* nothing new */
    s.vip = NULL;
    turn(&s, 1);
    assert_null(vip_at("10.0.0.2"));
    assert_int_equal(model.slots.count, 0);
}

static void test_draining(void **state)
{
    (void)state;
    struct svc s = { .vip = "10.0.0.2", .ready = 7 };
    turn(&s, 1);
    s.draining = 2;
    turn(&s, 1);
    assert_int_equal(vip_at("10.0.0.2")->n, 2);
    assert_string_equal(gone_text, "10.0.1.2 ");
}

static void test_both_families(void **state)
{
    (void)state;
    struct svc s = { .vip = "10.0.0.2", .vip6 = "fd00::2", .ready = 3 };
    turn(&s, 1);
    assert_int_equal(vip_at("10.0.0.2")->n, 2);
    assert_int_equal(vip_at("fd00::2")->n, 2);
}

static void test_vip_moves(void **state)
{
    (void)state;
    struct svc s[2] = { { .vip = "10.0.0.2", .ready = 3 }, { .vip = "10.0.0.3", .ready = 1 } };
    turn(s, 2);
    s[0].vip = "10.0.0.3"; /* they change places in one go */
    s[1].vip = "10.0.0.2";
    turn(s, 2);
    assert_int_equal(vip_at("10.0.0.3")->n, 2);
    assert_int_equal(vip_at("10.0.0.2")->n, 1);
    s[0].vip = NULL; /* and one inherits the other's */
    s[1].vip = "10.0.0.3";
    turn(s, 2);
    assert_null(vip_at("10.0.0.2"));
    assert_int_equal(vip_at("10.0.0.3")->n, 1);
}

static void test_random(void **state)
{
    (void)state;
    static const char *const vips[] = { "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5" };
    uint64_t r = 42;
    for (int round = 0; round < 2000; round++) {
        struct svc s[4];
        for (int i = 0; i < 4; i++) {
            r = r * 6364136223846793005ull + 1442695040888963407ull;
            s[i] = (struct svc){ .vip = r >> 40 & 7 ? vips[(i + round / 100) % 4] : NULL,
                                 .vip6 = r >> 44 & 1 && i == 0 ? "fd00::2" : NULL,
                                 .ready = (unsigned)(r >> 48 & 255),
                                 .draining = (unsigned)(r >> 56 & 255) };
        }
        turn(s, 4);
        if (round % 10 == 0) { /* a restarted meshd reads back what is there, and finds nothing to do */
            struct vip_dump d = { 0 };
            struct vip_edits strays = { 0 };
            dump_of(&model, &d);
            assert_true(vip_core_load(sb, &d, &strays));
            assert_int_equal(strays.n, 0);
            assert_int_equal(work(&model, sb, true), 0);
            vip_dump_done(&d);
        }
        if (round % 50 == 0) {
            struct vip_edits idle = { 0 };
            vip_core_idle(sb, &idle);
            carry_out(&model, &idle);
            free(idle.v);
            assert_int_equal(sb->chains.count, model.chains.count);
        }
    }
    assert_true(sb->chains.count < 64);
}

/* A crash between the two transactions, and somebody else's hands in the table. */
static void test_strays_and_holes(void **state)
{
    (void)state;
    struct svc s = { .vip = "10.0.0.2", .ready = 7 };
    struct vip_dump d = { 0 };
    struct vip_edits strays = { 0 };
    struct vip_plan p = { 0 };
    struct netmap_ip ip;
    char buf[21];
    uint32_t slot = 1;
    turn(&s, 1);
    s.ready = 6;
    tell(&s, 1);
    vip_core_network(&core, &map, "n", NULL, NULL);
    vip_core_plan(sb, &p);
    carry_now(&model, &p.now); /* killed here */
    vip_plan_done(&p);
    dump_of(&model, &d);
    assert_true(vip_core_load(sb, &d, &strays));
    assert_int_equal(strays.n, 3);
    carry_out(&model, &strays);
    assert_int_equal(work(&model, sb, true), 0);
    free(strays.v);
    strays = (struct vip_edits){ 0 };
    vip_dump_done(&d);
    /* a slot deleted by hand */
    slot += VIP_HALF;
    assert_true(netmap_ip_parse(STR("10.0.0.2"), &ip));
    assert_true(table_del(&model.slots, key_of(&ip, &slot, buf)));
    dump_of(&model, &d);
    assert_false(vip_core_load(sb, &d, &strays));
    vip_dump_done(&d);
    vip_core_forget(sb);
    vip_core_verify(&core);
}

static void test_two_networks(void **state)
{
    (void)state;
    static const char both[2][ID_SIZE] = { "other", "n" };
    struct svc s = { .vip = "10.0.0.2", .ready = 7 };
    struct vip_sandbox *two = vip_core_add(&core, &map, STR("two"), both, 2, false);
    struct vip_plan p = { 0 };
    turn(&s, 1);
    vip_core_plan_all(two, &p);
    assert_int_equal(two->vips.count, 1);
    vip_plan_done(&p);
    s.vip6 = "fd00::2"; /* it has no IPv6 */
    turn(&s, 1);
    vip_core_plan_all(two, &p);
    assert_int_equal(p.now.n, 0);
    vip_plan_done(&p);
    vip_core_verify(&core);
    vip_core_del(&core, STR("task"));
    vip_core_del(&core, STR("two"));
    assert_int_equal(core.nets.count, 0);
}

static void test_names(void **state)
{
    (void)state;
    char name[VIP_CHAIN_NAME];
    uint32_t n;
    uint8_t half;
    vip_chain_name(12, 1, name);
    assert_string_equal(name, "n12b");
    assert_true(vip_chain_parse("n12b", &n, &half));
    assert_true(n == 12 && half == 1);
    static const char *const bad[] = { "", "n", "out", "n1", "n1c", "n1ab", "n99999a", "na", "n-1a" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(vip_chain_parse(bad[i], &n, &half));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_grow_and_shrink), T(test_draining),         T(test_both_families), T(test_vip_moves),
        T(test_random),          T(test_strays_and_holes), T(test_two_networks),  T(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "meshd/mesh_nft.h"

#include <errno.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"
#include "meshd/mesh_nl.h"

#define TABLE "microswarm"
#define LAYOUT 4 /* of the tables: others are made anew */
#define COMMENT_SIZE 80
#define STEER_CHAIN "out"
#define ETHER_DST 0
#define ETHER_SRC 6

/* Concatenations live in 32-bit registers side by side. */
enum { R_PROTO = NFT_REG32_00, R_PORT, R_SLOT, R_ADDR = NFT_REG32_00 + 4, R_TARGET };

struct port_key {
    uint8_t proto, pad0[3];
    uint16_t port_be, pad1;
};
struct slot_key {
    struct port_key port;
    uint32_t slot; /* host byte order, as numgen gives it */
};
struct slot_value {
    uint32_t addr_be;
    uint16_t port_be, pad;
};
_Static_assert(sizeof(struct port_key) == 8 && sizeof(struct slot_key) == 12 && sizeof(struct slot_value) == 8,
               "kernel registers");

/* ---- the fixed part ---- */

static const struct nfx_set sets[] = {
    { "ports", 1, NFT_SET_MAP, NFX_PAIR(NFX_PROTO, NFX_SERVICE), sizeof(struct port_key), NFT_DATA_VERDICT, 16 },
    { "slots", 2, NFT_SET_MAP, NFX_PAIR(NFX_PAIR(NFX_PROTO, NFX_SERVICE), NFX_MARK), sizeof(struct slot_key),
      NFX_PAIR(NFX_IPADDR, NFX_SERVICE), sizeof(struct slot_value) },
    { "published", 3, 0, NFX_PAIR(NFX_PROTO, NFX_SERVICE), sizeof(struct port_key), 0, 0 },
    { "nodes", 4, NFT_SET_MAP, NFX_ETHERADDR, 6, NFX_MARK, 4 },
};
static const struct nfx_set macs = { "macs", 5, NFT_SET_MAP, NFX_MARK, 4, NFX_ETHERADDR, 6 };

static const struct {
    const char *name, *type;
    uint32_t hook;
    int32_t prio;
    unsigned rules;
} chains[] = {
    { "forward_port", NULL, 0, 0, 2 },
    { "guard", "filter", NF_INET_PRE_ROUTING, -300, 3 },
    { "steer", "filter", NF_INET_PRE_ROUTING, -150, 2 },
    { "pre", "nat", NF_INET_PRE_ROUTING, -105, 1 },
    { "post", "nat", NF_INET_POST_ROUTING, 95, 6 },
};
#define NCHAINS (sizeof chains / sizeof *chains)
#define DRAW_RULES 2

static void comment(const struct mesh_nft *t, char text[COMMENT_SIZE])
{
    char addr[MESH_ADDR_TEXT];
    mesh_addr_text(t->self, addr);
    snprintf(text, COMMENT_SIZE, "layout %d, node %s", LAYOUT, addr);
}

/* x_key - protocol and destination port into R_PROTO, R_PORT */
static void x_key(struct nftnl_rule *r)
{
    nfx_meta(r, NFT_META_L4PROTO, R_PROTO);
    nfx_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, R_PORT);
}

static void x_sender(struct nftnl_rule *r)
{
    nfx_payload(r, NFT_PAYLOAD_LL_HEADER, ETHER_SRC, 6, NFT_REG32_00);
    nfx_lookup(r, "nodes", NFT_REG32_00, NFT_REG32_02);
}

static void put_port_rules(const struct nfx *t)
{
    struct nftnl_rule *r = nfx_rule(t, "forward_port");
    x_key(r);
    nfx_lookup(r, "ports", R_PROTO, NFT_REG_VERDICT);
    nfx_add(t, r);
    r = nfx_rule(t, "forward_port"); /* a lookup may miss while its element is being switched */
    x_key(r);
    nfx_lookup(r, "published", R_PROTO, -1);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(t, r);
    r = nfx_rule(t, "pre");
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_NEQ, MESH_VXLAN);
    nfx_local(r, true);
    nfx_verdict(r, NFT_JUMP, "forward_port");
    nfx_add(t, r);
}

/* put_guard_rules - the zone is the node's number: of a 32-bit mark the kernel takes the first two bytes. */
static void put_guard_rules(const struct nfx *t)
{
    struct nftnl_rule *r = nfx_rule(t, "guard");
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_NEQ, MESH_VXLAN);
    nfx_verdict(r, NF_ACCEPT, NULL);
    nfx_add(t, r);
    r = nfx_rule(t, "guard");
    x_sender(r);
    nfx_ct_set(r, NFT_CT_ZONE, NFT_REG32_02, IP_CT_DIR_ORIGINAL);
    nfx_verdict(r, NF_ACCEPT, NULL);
    nfx_add(t, r);
    r = nfx_rule(t, "guard"); /* nobody of the swarm */
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(t, r);
}

static void put_steer_rules(const struct nfx *t)
{
    uint8_t reply = IP_CT_DIR_REPLY;
    uint32_t mark = MESH_MARK;
    struct nftnl_rule *r = nfx_rule(t, "steer");
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_EQ, MESH_VXLAN);
    nfx_ct_bits(r, NFT_CT_STATE, NFX_CT_NEW, true);
    x_sender(r);
    nfx_ct_set(r, NFT_CT_MARK, NFT_REG32_02, -1);
    nfx_add(t, r);
    r = nfx_rule(t, "steer"); /* what most packets are not comes first */
    nfx_ct(r, NFT_CT_MARK, NFT_REG_1);
    nfx_mask(r, NFT_REG_1, MESH_MARK_MASK);
    nfx_cmp(r, NFT_REG_1, NFT_CMP_EQ, &mark, sizeof mark);
    nfx_ct(r, NFT_CT_DIRECTION, NFT_REG_1);
    nfx_cmp(r, NFT_REG_1, NFT_CMP_EQ, &reply, sizeof reply);
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_NEQ, MESH_VXLAN);
    nfx_ct(r, NFT_CT_MARK, NFT_REG_1);
    nfx_meta_set(r, NFT_META_MARK, NFT_REG_1);
    nfx_add(t, r);
}

static void x_snat(struct nftnl_rule *r, uint32_t addr)
{
    uint32_t be = htonl(addr);
    nfx_value(r, R_ADDR, &be, sizeof be);
    nfx_nat4(r, NFT_NAT_SNAT, R_ADDR, 0);
}

static void put_post_rules(const struct mesh_nft *t)
{
    struct nftnl_rule *r = nfx_rule(&t->ip, "post"); /* what tasks send out: the host's masquerading sees one address */
    nfx_ifname(r, NFT_META_OIFNAME, NFT_CMP_EQ, MESH_UPLINK);
    x_snat(r, MESH_UP_GATE);
    nfx_add(&t->ip, r);
    /* What comes from the host's end is from its localhost, or from a task of ours: no address that a task's node could
     * answer to. */
    r = nfx_rule(&t->ip, "post");
    nfx_ifname(r, NFT_META_OIFNAME, NFT_CMP_NEQ, MESH_UPLINK);
    nfx_net4(r, 12, MESH_UP_HOST, 32, true);
    x_snat(r, t->self);
    nfx_add(&t->ip, r);
    r = nfx_rule(&t->ip, "post"); /* a task that calls a published port at its gateway, where it may get itself */
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_NEQ, MESH_UPLINK);
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_NEQ, MESH_VXLAN);
    nfx_ct_bits(r, NFT_CT_STATUS, NFX_CT_DNAT, true);
    x_snat(r, t->self);
    nfx_add(&t->ip, r);
}

/* put_way_rules - what may begin: a chain of type nat sees the first packet of a connection only, so this costs the
 * others nothing. */
static void put_way_rules(const struct nfx *t)
{
    static const char *const ways_out[] = { MESH_UPLINK, MESH_VXLAN };
    struct nftnl_rule *r = nfx_rule(t, "post");
    nfx_forwarded(r);
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_NEQ, MESH_VXLAN);
    nfx_ifname(r, NFT_META_OIFNAME, NFT_CMP_NEQ, MESH_UPLINK);
    nfx_ct_bits(r, NFT_CT_STATUS, NFX_CT_DNAT, false);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(t, r);
    for (size_t i = 0; i < 2; i++) {
        r = nfx_rule(t, "post");
        nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_EQ, MESH_VXLAN);
        nfx_ifname(r, NFT_META_OIFNAME, NFT_CMP_EQ, ways_out[i]);
        nfx_verdict(r, NF_DROP, NULL);
        nfx_add(t, r);
    }
}

static void put_base(struct mesh_nft *t)
{
    char text[COMMENT_SIZE];
    comment(t, text);
    nfx_table_del(&t->ip);
    nfx_table_new(&t->ip, text);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        nfx_set(&t->ip, &sets[i]);
    for (size_t i = 0; i < NCHAINS; i++)
        nfx_chain(&t->ip, chains[i].name, chains[i].type, chains[i].hook, chains[i].prio, NULL);
    put_port_rules(&t->ip);
    put_guard_rules(&t->ip);
    put_steer_rules(&t->ip);
    put_way_rules(&t->ip);
    put_post_rules(t);
}

static void put_steering(struct mesh_nft *t)
{
    char text[COMMENT_SIZE];
    comment(t, text);
    nfx_table_del(&t->dev);
    if (!t->steering)
        return;
    nfx_table_new(&t->dev, text);
    nfx_set(&t->dev, &macs);
    nfx_chain(&t->dev, STEER_CHAIN, "filter", NF_NETDEV_EGRESS, 0, MESH_VXLAN);
    struct nftnl_rule *r = nfx_rule(&t->dev, STEER_CHAIN);
    nfx_payload(r, NFT_PAYLOAD_LL_HEADER, ETHER_DST, 6, NFT_REG32_00);
    nfx_cmp(r, NFT_REG32_00, NFT_CMP_EQ, MESH_STEER_MAC, 6);
    nfx_meta(r, NFT_META_MARK, NFT_REG32_00);
    nfx_lookup(r, "macs", NFT_REG32_00, NFT_REG32_02);
    nfx_payload_set(r, NFT_PAYLOAD_LL_HEADER, ETHER_DST, 6, NFT_REG32_02);
    nfx_add(&t->dev, r);
}

static void put_nodes(struct mesh_nft *t, bool ip, const struct mesh_nft_node *v, size_t n, int type)
{
    bool add = type == NFT_MSG_NEWSETELEM;
    struct nfx_elems es = { ip ? &t->ip : &t->dev, type, ip ? "nodes" : "macs", NULL, 0 };
    for (size_t i = 0; i < n; i++) {
        uint32_t mark = MESH_MARK | v[i].number;
        if (ip)
            nfx_elem(&es, v[i].mac, 6, add ? &mark : NULL, sizeof mark);
        else
            nfx_elem(&es, &mark, sizeof mark, add ? v[i].mac : NULL, 6);
    }
    nfx_elems_end(&es);
}

/* ---- drawing chains ---- */

#define DRAW_NAME 16
static void draw_name(uint32_t n, uint8_t half, char name[DRAW_NAME])
{
    snprintf(name, DRAW_NAME, "n%u%c", n, half && n ? 'b' : 'a');
}

static bool draw_parse(const char *name, uint32_t *ret_n, uint8_t *ret_half)
{
    char *end;
    if (name[0] != 'n' || name[1] < '0' || name[1] > '9')
        return false;
    unsigned long n = strtoul(name + 1, &end, 10);
    if (n > MESH_SLOTS_MAX || (end[0] != 'a' && end[0] != 'b') || end[1])
        return false;
    *ret_n = (uint32_t)n;
    *ret_half = end[0] == 'b';
    return true;
}

static void put_refuse_rules(const struct nfx *t, const char *name)
{
    struct nftnl_rule *r = nfx_rule(t, name);
    nfx_proto(r, IPPROTO_TCP);
    nfx_reject(r, NFT_REJECT_TCP_RST, 0);
    nfx_add(t, r);
    r = nfx_rule(t, name);
    nfx_reject(r, NFT_REJECT_ICMP_UNREACH, 3); /* port unreachable */
    nfx_add(t, r);
}

static void put_draw(struct mesh_nft *t, uint32_t n, uint8_t half)
{
    char name[DRAW_NAME];
    bool fresh;
    draw_name(n, half, name);
    table_put(&t->chains, str_from(name), &fresh);
    if (!fresh)
        return;
    nfx_chain(&t->ip, name, NULL, 0, 0, NULL);
    if (n == 0) {
        put_refuse_rules(&t->ip, name);
        return;
    }
    struct nftnl_rule *r = nfx_rule(&t->ip, name);
    x_key(r);
    nfx_random(r, n, half ? MESH_HALF : 0, R_SLOT);
    nfx_lookup(r, "slots", R_PROTO, R_ADDR);
    nfx_nat4(r, NFT_NAT_DNAT, R_ADDR, R_TARGET);
    nfx_add(&t->ip, r);
    r = nfx_rule(&t->ip, name);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(&t->ip, r);
}

/* ---- elements ---- */

static struct port_key port_key(const struct mesh_edit *ed)
{
    return (struct port_key){ .proto = ed->proto, .port_be = htons(ed->port) };
}

static void put_slots(struct mesh_nft *t, const struct mesh_edits *es, enum mesh_edit_type type)
{
    bool add = type == MESH_SLOT_ADD;
    struct nfx_elems out = { &t->ip, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, "slots", NULL, 0 };
    for (size_t i = 0; i < es->n; i++) {
        const struct mesh_edit *ed = &es->v[i];
        if (ed->type != type)
            continue;
        struct slot_key k = { port_key(ed), ed->slot };
        struct slot_value v = { .addr_be = htonl(ed->to.addr), .port_be = htons(ed->to.port) };
        nfx_elem(&out, &k, sizeof k, add ? &v : NULL, sizeof v);
    }
    nfx_elems_end(&out);
}

static void put_ports_away(struct mesh_nft *t, const struct mesh_edits *es)
{
    struct nfx_elems out = { &t->ip, NFT_MSG_DELSETELEM, "ports", NULL, 0 };
    for (size_t i = 0; i < es->n; i++) {
        struct port_key k = port_key(&es->v[i]);
        if (es->v[i].type == MESH_PORT_DEL || (es->v[i].type == MESH_PORT_SET && es->v[i].replaces))
            nfx_elem(&out, &k, sizeof k, NULL, 0);
    }
    nfx_elems_end(&out);
    out.set = "published";
    for (size_t i = 0; i < es->n; i++) {
        struct port_key k = port_key(&es->v[i]);
        if (es->v[i].type == MESH_PORT_DEL)
            nfx_elem(&out, &k, sizeof k, NULL, 0);
    }
    nfx_elems_end(&out);
}

static void put_ports(struct mesh_nft *t, const struct mesh_edits *es)
{
    struct nfx_elems out = { &t->ip, NFT_MSG_NEWSETELEM, "ports", NULL, 0 };
    for (size_t i = 0; i < es->n; i++) {
        const struct mesh_edit *ed = &es->v[i];
        struct port_key k = port_key(ed);
        char name[DRAW_NAME];
        draw_name(ed->nslots, ed->half, name);
        if (ed->type == MESH_PORT_SET)
            nfx_elem_goto(&out, &k, sizeof k, name);
    }
    nfx_elems_end(&out);
    out.set = "published";
    for (size_t i = 0; i < es->n; i++) {
        struct port_key k = port_key(&es->v[i]);
        if (es->v[i].type == MESH_PORT_SET && !es->v[i].replaces)
            nfx_elem(&out, &k, sizeof k, NULL, 0);
    }
    nfx_elems_end(&out);
}

static void put_edits(struct mesh_nft *t, const struct mesh_edits *es)
{
    for (size_t i = 0; i < es->n; i++)
        if (es->v[i].type == MESH_PORT_SET)
            put_draw(t, es->v[i].nslots, es->v[i].half);
    put_slots(t, es, MESH_SLOT_ADD);
    put_ports_away(t, es);
    put_ports(t, es);
    put_slots(t, es, MESH_SLOT_DEL);
}

int mesh_nft_rebuild(struct mesh_nft *t, const struct mesh_edits *now, struct err *e)
{
    table_clear(&t->chains);
    t->rebuilds++;
    t->transactions++;
    nfx_begin(&t->req);
    put_base(t);
    put_nodes(t, true, t->nodes.v, t->nodes.n, NFT_MSG_NEWSETELEM);
    put_edits(t, now);
    int r = nfx_commit(&t->req, "make the gateway's nftables table", NULL, e);
    return r < 0 ? r : mesh_nft_steer(t, e);
}

static int apply_half(struct mesh_nft *t, const struct mesh_edits *es, struct err *e)
{
    if (es->n == 0)
        return 0;
    t->transactions++;
    nfx_begin(&t->req);
    put_edits(t, es);
    return nfx_commit(&t->req, "change the gateway's nftables table", NULL, e);
}

int mesh_nft_apply(struct mesh_nft *t, const struct mesh_plan *p, struct err *e)
{
    int r = apply_half(t, &p->now, e);
    return r < 0 ? r : apply_half(t, &p->later, e);
}

/* ---- nodes ---- */

static struct mesh_nft_node *node_of(struct mesh_nft *t, const uint8_t mac[6])
{
    for (size_t i = 0; i < t->nodes.n; i++)
        if (memcmp(t->nodes.v[i].mac, mac, 6) == 0)
            return &t->nodes.v[i];
    return NULL;
}

static void node_note(struct mesh_nft *t, const struct mesh_nft_node *node)
{
    if (node_of(t, node->mac))
        return;
    t->nodes.v = realloc(t->nodes.v, (t->nodes.n + 1) * sizeof *t->nodes.v);
    CHECK(t->nodes.v != NULL);
    t->nodes.v[t->nodes.n++] = *node;
}

int mesh_nft_node(struct mesh_nft *t, const struct mesh_nft_node *node, bool add, struct err *e)
{
    struct mesh_nft_node *had = node_of(t, node->mac);
    int type = add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM;
    if ((had != NULL) == add && (!had || had->number == node->number))
        return 0;
    if (had && add) { /* under another number */
        int r = mesh_nft_node(t, had, false, e);
        if (r < 0)
            return r;
    }
    struct mesh_nft_node one = had && !add ? *had : *node;
    t->transactions++;
    nfx_begin(&t->req);
    put_nodes(t, true, &one, 1, type);
    if (t->steering)
        put_nodes(t, false, &one, 1, type);
    int r = nfx_commit(&t->req, "change the gateway's nodes", NULL, e);
    if (r < 0)
        return r;
    had = node_of(t, node->mac);
    if (add)
        node_note(t, &one);
    else
        *had = t->nodes.v[--t->nodes.n];
    return 0;
}

int mesh_nft_steer(struct mesh_nft *t, struct err *e)
{
    t->transactions++;
    nfx_begin(&t->req);
    put_steering(t);
    if (t->steering)
        put_nodes(t, false, t->nodes.v, t->nodes.n, NFT_MSG_NEWSETELEM);
    return nfx_commit(&t->req, "make the gateway's steering table", NULL, e);
}

/* ---- reading back ---- */

struct reading {
    struct mesh_nft *t;
    struct mesh_dump *d;
    bool intact;
    unsigned rules[NCHAINS], seen_chains, draw_rules, published, dev_chains, dev_rules, dev_macs;
};

static int chain_index(const char *name)
{
    for (size_t i = 0; i < NCHAINS; i++)
        if (strcmp(chains[i].name, name) == 0)
            return (int)i;
    return -1;
}

static void see_chain(const char *name, void *arg)
{
    struct reading *rd = arg;
    uint32_t n;
    uint8_t half;
    if (chain_index(name) >= 0)
        rd->seen_chains++;
    else if (draw_parse(name, &n, &half))
        table_put(&rd->t->chains, str_from(name), NULL);
    else
        rd->intact = false;
}

static void see_rule(const char *chain, void *arg)
{
    struct reading *rd = arg;
    int i = chain_index(chain);
    if (i >= 0)
        rd->rules[i]++;
    else
        rd->draw_rules++;
}

static void see_port(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    struct mesh_dump_port p = { 0 };
    struct port_key k;
    if (!el->key || el->key_len != sizeof k || !el->chain || !draw_parse(el->chain, &p.nslots, &p.half)) {
        rd->intact = false;
        return;
    }
    memcpy(&k, el->key, sizeof k);
    p.proto = k.proto;
    p.port = ntohs(k.port_be);
    mesh_dump_port(rd->d, p);
}

static void see_slot(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    struct slot_key k;
    struct slot_value v;
    if (!el->key || el->key_len != sizeof k || !el->data || el->data_len != sizeof v) {
        rd->intact = false;
        return;
    }
    memcpy(&k, el->key, sizeof k);
    memcpy(&v, el->data, sizeof v);
    mesh_dump_slot(rd->d, (struct mesh_dump_slot){ .proto = k.port.proto,
                                                   .port = ntohs(k.port.port_be),
                                                   .slot = k.slot,
                                                   .to = { ntohl(v.addr_be), ntohs(v.port_be) } });
}

static void see_published(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    (void)el;
    rd->published++;
}

static void see_node(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    struct mesh_nft_node node;
    uint32_t mark;
    if (!el->key || el->key_len < 6 || !el->data || el->data_len != sizeof mark) {
        rd->intact = false;
        return;
    }
    memcpy(&mark, el->data, sizeof mark);
    memcpy(node.mac, el->key, 6);
    node.number = mark & ~MESH_MARK_MASK;
    rd->intact &= (mark & MESH_MARK_MASK) == MESH_MARK;
    node_note(rd->t, &node);
}

static void see_mac(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    uint32_t mark = 0;
    const struct mesh_nft_node *node = el->data && el->data_len >= 6 ? node_of(rd->t, el->data) : NULL;
    if (el->key && el->key_len == sizeof mark)
        memcpy(&mark, el->key, sizeof mark);
    rd->intact &= node && mark == (MESH_MARK | node->number);
    rd->dev_macs++;
}

static void see_dev_chain(const char *name, void *arg)
{
    ((struct reading *)arg)->dev_chains += strcmp(name, STEER_CHAIN) == 0 ? 1 : 2;
}

static void see_dev_rule(const char *chain, void *arg)
{
    (void)chain;
    ((struct reading *)arg)->dev_rules++;
}

static void check_counts(struct reading *rd)
{
    rd->intact = rd->intact && rd->seen_chains == NCHAINS && rd->draw_rules == DRAW_RULES * rd->t->chains.count &&
                 rd->published == rd->d->nports;
    for (size_t i = 0; i < NCHAINS; i++)
        rd->intact = rd->intact && rd->rules[i] == chains[i].rules;
    if (rd->t->steering)
        rd->intact = rd->intact && rd->dev_chains == 1 && rd->dev_rules == 1 && rd->dev_macs == rd->t->nodes.n;
}

static int read_set(struct reading *rd, bool ip, const char *set, nfx_elem_fn *fn, int *ret_errno, struct err *e)
{
    int r = nfx_look_elems(ip ? &rd->t->ip : &rd->t->dev, set, fn, rd, ret_errno, e);
    rd->intact &= *ret_errno != ENOENT;
    return r;
}

static int read_steering(struct reading *rd, int *ret_errno, struct err *e)
{
    struct mesh_nft *t = rd->t;
    char text[COMMENT_SIZE];
    bool same = false;
    if (!t->steering)
        return 0;
    comment(t, text);
    int r = nfx_look_table(&t->dev, text, &same, e);
    rd->intact &= same;
    if (r == 0)
        r = nfx_look_chains(&t->dev, see_dev_chain, rd, ret_errno, e);
    if (r == 0)
        r = nfx_look_rules(&t->dev, see_dev_rule, rd, ret_errno, e);
    return r < 0 ? r : read_set(rd, false, "macs", see_mac, ret_errno, e);
}

static int read_all(struct reading *rd, int *ret_errno, struct err *e)
{
    static const struct {
        const char *set;
        nfx_elem_fn *fn;
    } all[] = { { "nodes", see_node }, { "ports", see_port }, { "slots", see_slot }, { "published", see_published } };
    struct mesh_nft *t = rd->t;
    char text[COMMENT_SIZE];
    comment(t, text);
    table_clear(&t->chains);
    t->nodes.n = 0;
    int r = nfx_look_table(&t->ip, text, &rd->intact, e);
    for (size_t i = 0; r == 0 && i < sizeof all / sizeof *all; i++)
        r = read_set(rd, true, all[i].set, all[i].fn, ret_errno, e);
    if (r == 0)
        r = nfx_look_chains(&t->ip, see_chain, rd, ret_errno, e);
    if (r == 0)
        r = nfx_look_rules(&t->ip, see_rule, rd, ret_errno, e);
    if (r == 0)
        r = read_steering(rd, ret_errno, e);
    check_counts(rd);
    return r;
}

int mesh_nft_read(struct mesh_nft *t, struct mesh_dump *d, bool *ret_intact, struct err *e)
{
    for (int tries = 0;; tries++) {
        struct reading rd = { .t = t, .d = d };
        int errnum = 0, r = read_all(&rd, &errnum, e);
        *ret_intact = r == 0 && rd.intact;
        if (errnum != EINTR || tries == 20) /* EINTR: someone changed some table meanwhile */
            return r;
        mesh_dump_done(d);
    }
}

/* ---- life ---- */

bool mesh_nft_watch_read(struct mesh_nft *t)
{
    struct nfx both[] = { t->ip, t->dev };
    return nfx_watch_read(&t->watch, t->req.portid, both, 2);
}

int mesh_nft_open(struct mesh_nft *t, uint32_t self_addr, struct err *e)
{
    *t = (struct mesh_nft){ .self = self_addr };
    t->ip = (struct nfx){ &t->req, NFPROTO_IPV4, TABLE };
    t->dev = (struct nfx){ &t->req, NFPROTO_NETDEV, TABLE };
    table_init(&t->chains, 0);
    int r = mesh_msg_open(&t->req, NETLINK_NETFILTER, e);
    return r < 0 ? r : nfx_watch_open(&t->watch, e);
}

void mesh_nft_close(struct mesh_nft *t)
{
    mesh_msg_close(&t->req);
    mesh_msg_close(&t->watch);
    table_done(&t->chains);
    free(t->nodes.v);
    t->nodes = (struct mesh_nft_nodes){ 0 };
}

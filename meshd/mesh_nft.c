#include "meshd/mesh_nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/util/check.h"

#define TABLE "microswarm"
#define LAYOUT 1             /* of the table: a newer daemon makes it anew */
#define CT_STATE_NEW 8u      /* NF_CT_STATE_BIT(IP_CT_NEW) */
#define CT_STATUS_DNAT 0x20u /* IPS_DST_NAT */
#define ICMP_REDIRECT_TYPE 5
#define RULE_ROOM 2048u
#define ELEMS_ROOM 40000u
#define ELEMS_MAX 400u /* a nested attribute holds at most 64 KiB */
#define TAG_SIZE 64

/* nft(8)'s numbers for the types it shows. */
#define TYPE_IPADDR 7u
#define TYPE_PROTO 12u
#define TYPE_SERVICE 13u
#define TYPE_MARK 19u
#define TYPE_KEY (TYPE_PROTO << 6 | TYPE_SERVICE)

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

/* ---- one message ---- */

static struct nlmsghdr *put(struct mesh_msg *m, int type, uint16_t flags, uint8_t family, uint16_t res, size_t room)
{
    struct nlmsghdr *h = mesh_msg_put(m, (uint16_t)type, flags, sizeof(struct nfgenmsg), room);
    *(struct nfgenmsg *)mnl_nlmsg_get_payload(h) =
        (struct nfgenmsg){ .nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(res) };
    return h;
}

static struct nlmsghdr *put_nft(struct mesh_nft *t, int type, uint16_t flags, size_t room)
{
    return put(&t->req, NFNL_SUBSYS_NFTABLES << 8 | type, flags, NFPROTO_IPV4, 0, room);
}

static void begin(struct mesh_nft *t)
{
    put(&t->req, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, RULE_ROOM);
}

/* commit - asks for the acknowledgement on the last real message: kernels before 6.10 don't acknowledge the batch's
 * end. */
static int commit(struct mesh_nft *t, const char *what, int *ret_errno, struct err *e)
{
    CHECK(t->req.cur != NULL);
    t->req.cur->nlmsg_flags |= NLM_F_ACK;
    put(&t->req, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, RULE_ROOM);
    t->transactions++;
    return mesh_msg_send(&t->req, what, ret_errno, e);
}

static void tag_of(const struct mesh_nft *t, char tag[TAG_SIZE])
{
    char addr[MESH_ADDR_TEXT];
    mesh_addr_text(t->subnet.base, addr);
    snprintf(tag, TAG_SIZE, "layout %d, %s, %s/%u", LAYOUT, t->bridge, addr, t->subnet.prefix);
}

/* ---- expressions ---- */

static struct nftnl_expr *expr(struct nftnl_rule *r, const char *name)
{
    struct nftnl_expr *x = nftnl_expr_alloc(name);
    CHECK(x != NULL);
    nftnl_rule_add_expr(r, x);
    return x;
}

static void x_meta(struct nftnl_rule *r, uint32_t key, uint32_t dreg)
{
    struct nftnl_expr *x = expr(r, "meta");
    nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(x, NFTNL_EXPR_META_DREG, dreg);
}

static void x_cmp(struct nftnl_rule *r, uint32_t sreg, uint32_t op, const void *data, uint32_t len)
{
    struct nftnl_expr *x = expr(r, "cmp");
    nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_SREG, sreg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_OP, op);
    nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, data, len);
}

static void x_payload(struct nftnl_rule *r, uint32_t base, uint32_t off, uint32_t len, uint32_t dreg)
{
    struct nftnl_expr *x = expr(r, "payload");
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_BASE, base);
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_OFFSET, off);
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_LEN, len);
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_DREG, dreg);
}

static void x_mask(struct nftnl_rule *r, uint32_t reg, uint32_t mask)
{
    struct nftnl_expr *x = expr(r, "bitwise");
    uint32_t zero = 0;
    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_SREG, reg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_DREG, reg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_LEN, sizeof mask);
    nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, &mask, sizeof mask);
    nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, &zero, sizeof zero);
}

static void x_lookup(struct nftnl_rule *r, const char *set, uint32_t sreg, int dreg)
{
    struct nftnl_expr *x = expr(r, "lookup");
    nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_SREG, sreg);
    if (dreg >= 0)
        nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_DREG, (uint32_t)dreg);
    nftnl_expr_set_str(x, NFTNL_EXPR_LOOKUP_SET, set);
}

static void x_verdict(struct nftnl_rule *r, int verdict, const char *chain)
{
    struct nftnl_expr *x = expr(r, "immediate");
    nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
    if (chain)
        nftnl_expr_set_str(x, NFTNL_EXPR_IMM_CHAIN, chain);
}

static void x_reject(struct nftnl_rule *r, uint32_t type, uint8_t code)
{
    struct nftnl_expr *x = expr(r, "reject");
    nftnl_expr_set_u32(x, NFTNL_EXPR_REJECT_TYPE, type);
    nftnl_expr_set_u8(x, NFTNL_EXPR_REJECT_CODE, code);
}

static void x_ifname(struct nftnl_rule *r, uint32_t key, uint32_t op, const char *name)
{
    char text[IFNAMSIZ] = { 0 };
    snprintf(text, sizeof text, "%s", name);
    x_meta(r, key, NFT_REG_1);
    x_cmp(r, NFT_REG_1, op, text, sizeof text);
}

/* x_net - source (12) or destination (16) address within a net */
static void x_net(struct nftnl_rule *r, uint32_t off, struct mesh_subnet s)
{
    uint32_t base = htonl(s.base);
    x_payload(r, NFT_PAYLOAD_NETWORK_HEADER, off, 4, NFT_REG_1);
    x_mask(r, NFT_REG_1, htonl((uint32_t)(0xffffffffull << (32 - s.prefix))));
    x_cmp(r, NFT_REG_1, NFT_CMP_EQ, &base, sizeof base);
}

static void x_ct(struct nftnl_rule *r, uint32_t key, uint32_t bits, bool set)
{
    uint32_t zero = 0;
    struct nftnl_expr *x = expr(r, "ct");
    nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(x, NFTNL_EXPR_CT_DREG, NFT_REG_1);
    x_mask(r, NFT_REG_1, bits);
    x_cmp(r, NFT_REG_1, set ? NFT_CMP_NEQ : NFT_CMP_EQ, &zero, sizeof zero);
}

static void x_local(struct nftnl_rule *r)
{
    uint32_t local = RTN_LOCAL;
    struct nftnl_expr *x = expr(r, "fib");
    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
    x_cmp(r, NFT_REG_1, NFT_CMP_EQ, &local, sizeof local);
}

/* x_key - protocol and destination port into R_PROTO, R_PORT */
static void x_key(struct nftnl_rule *r)
{
    x_meta(r, NFT_META_L4PROTO, R_PROTO);
    x_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, R_PORT);
}

static void x_draw(struct nftnl_rule *r, uint32_t n, uint32_t offset)
{
    struct nftnl_expr *x = expr(r, "numgen");
    nftnl_expr_set_u32(x, NFTNL_EXPR_NG_DREG, R_SLOT);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NG_MODULUS, n);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NG_TYPE, NFT_NG_RANDOM);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NG_OFFSET, offset);
    x_lookup(r, "slots", R_PROTO, R_ADDR);
}

static void x_dnat(struct nftnl_rule *r)
{
    struct nftnl_expr *x = expr(r, "nat");
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_TYPE, NFT_NAT_DNAT);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_FAMILY, NFPROTO_IPV4);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_REG_ADDR_MIN, R_ADDR);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_REG_PROTO_MIN, R_TARGET);
}

/* ---- tables, chains, rules, sets ---- */

static struct nftnl_rule *rule(const char *chain)
{
    struct nftnl_rule *r = nftnl_rule_alloc();
    CHECK(r != NULL);
    nftnl_rule_set_u32(r, NFTNL_RULE_FAMILY, NFPROTO_IPV4);
    nftnl_rule_set_str(r, NFTNL_RULE_TABLE, TABLE);
    nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain);
    return r;
}

static void put_rule(struct mesh_nft *t, struct nftnl_rule *r)
{
    nftnl_rule_nlmsg_build_payload(put_nft(t, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, RULE_ROOM), r);
    nftnl_rule_free(r);
}

static void put_chain(struct mesh_nft *t, const char *name, const char *type, uint32_t hook, int32_t prio)
{
    struct nftnl_chain *c = nftnl_chain_alloc();
    CHECK(c != NULL);
    nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, TABLE);
    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name);
    if (type) {
        nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, type);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, hook);
        nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, prio);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, NF_ACCEPT);
    }
    nftnl_chain_nlmsg_build_payload(put_nft(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE, RULE_ROOM), c);
    nftnl_chain_free(c);
}

struct set_form {
    const char *name;
    uint32_t id, flags, key_type, key_len, data_type, data_len;
};

static void put_set(struct mesh_nft *t, const struct set_form *f)
{
    struct nftnl_set *s = nftnl_set_alloc();
    CHECK(s != NULL);
    nftnl_set_set_str(s, NFTNL_SET_TABLE, TABLE);
    nftnl_set_set_str(s, NFTNL_SET_NAME, f->name);
    nftnl_set_set_u32(s, NFTNL_SET_FAMILY, NFPROTO_IPV4);
    nftnl_set_set_u32(s, NFTNL_SET_ID, f->id);
    nftnl_set_set_u32(s, NFTNL_SET_FLAGS, f->flags);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, f->key_type);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, f->key_len);
    if (f->flags & NFT_SET_MAP) {
        nftnl_set_set_u32(s, NFTNL_SET_DATA_TYPE, f->data_type);
        nftnl_set_set_u32(s, NFTNL_SET_DATA_LEN, f->data_len);
    }
    nftnl_set_nlmsg_build_payload(put_nft(t, NFT_MSG_NEWSET, NLM_F_CREATE, RULE_ROOM), s);
    nftnl_set_free(s);
}

static void put_table(struct mesh_nft *t, int type, uint16_t flags)
{
    struct nftnl_table *x = nftnl_table_alloc();
    char tag[TAG_SIZE], tlv[TAG_SIZE + 4];
    CHECK(x != NULL);
    nftnl_table_set_str(x, NFTNL_TABLE_NAME, TABLE);
    nftnl_table_set_u32(x, NFTNL_TABLE_FAMILY, NFPROTO_IPV4);
    if (type == NFT_MSG_NEWTABLE && flags & NLM_F_EXCL) { /* shown by nft(8) as the table's comment */
        tag_of(t, tag);
        size_t n = strlen(tag) + 1;
        tlv[0] = NFTNL_UDATA_TABLE_COMMENT;
        tlv[1] = (char)n;
        memcpy(tlv + 2, tag, n);
        nftnl_table_set_data(x, NFTNL_TABLE_USERDATA, tlv, (uint32_t)n + 2);
    }
    nftnl_table_nlmsg_build_payload(put_nft(t, type, flags, RULE_ROOM), x);
    nftnl_table_free(x);
}

/* ---- the fixed part ---- */

static const struct set_form sets[] = {
    { "ports", 1, NFT_SET_MAP, TYPE_KEY, sizeof(struct port_key), NFT_DATA_VERDICT, 16 },
    { "slots", 2, NFT_SET_MAP, TYPE_KEY << 6 | TYPE_MARK, sizeof(struct slot_key), TYPE_IPADDR << 6 | TYPE_SERVICE,
      sizeof(struct slot_value) },
    { "published", 3, 0, TYPE_KEY, sizeof(struct port_key), 0, 0 },
};

/* Just before the host's own chains of the same kind, so that its NAT does not take our ports away. */
static const struct {
    const char *name, *type;
    uint32_t hook;
    int32_t prio;
    unsigned rules;
} chains[] = {
    { "forward_port", NULL, 0, 0, 2 },
    { "guard", "filter", NF_INET_PRE_ROUTING, -300, 1 },
    { "pre", "nat", NF_INET_PRE_ROUTING, -105, 1 },
    { "out", "nat", NF_INET_LOCAL_OUT, -105, 1 },
    { "post", "nat", NF_INET_POST_ROUTING, 95, 3 },
    { "forward", "filter", NF_INET_FORWARD, 0, 1 },
    { "icmp", "filter", NF_INET_LOCAL_OUT, 0, 1 },
};
#define NCHAINS (sizeof chains / sizeof *chains)
#define DRAW_RULES 2

static const struct mesh_subnet loopback = { .base = 127u << 24, .prefix = 8 };

static void put_port_rules(struct mesh_nft *t)
{
    struct nftnl_rule *r = rule("forward_port");
    x_key(r);
    x_lookup(r, "ports", R_PROTO, NFT_REG_VERDICT);
    put_rule(t, r);
    r = rule("forward_port"); /* a lookup may miss while its element is being switched */
    x_key(r);
    x_lookup(r, "published", R_PROTO, -1);
    x_verdict(r, NF_DROP, NULL);
    put_rule(t, r);
    for (int i = 0; i < 2; i++) {
        r = rule(i ? "out" : "pre");
        x_local(r);
        x_verdict(r, NFT_JUMP, "forward_port");
        put_rule(t, r);
    }
}

static void put_masquerade(struct mesh_nft *t, uint32_t oif_op, struct mesh_subnet from, bool only_dnat)
{
    struct nftnl_rule *r = rule("post");
    x_ifname(r, NFT_META_OIFNAME, oif_op, t->bridge);
    x_net(r, 12, from);
    if (only_dnat)
        x_ct(r, NFT_CT_STATUS, CT_STATUS_DNAT, true);
    expr(r, "masq");
    put_rule(t, r);
}

static void put_guard_rules(struct mesh_nft *t)
{
    uint8_t icmp = IPPROTO_ICMP, redirect = ICMP_REDIRECT_TYPE;
    struct nftnl_rule *r =
        rule("guard"); /* route_localnet opens 127/8 to the bridge: close it to what comes from there */
    x_ifname(r, NFT_META_IIFNAME, NFT_CMP_EQ, t->bridge);
    x_net(r, 16, loopback);
    x_verdict(r, NF_DROP, NULL);
    put_rule(t, r);
    r = rule("forward"); /* from outside: published ports only */
    x_ifname(r, NFT_META_IIFNAME, NFT_CMP_NEQ, t->bridge);
    x_ifname(r, NFT_META_OIFNAME, NFT_CMP_EQ, t->bridge);
    x_ct(r, NFT_CT_STATE, CT_STATE_NEW, true);
    x_ct(r, NFT_CT_STATUS, CT_STATUS_DNAT, false);
    x_verdict(r, NF_DROP, NULL);
    put_rule(t, r);
    r = rule("icmp"); /* a hairpin goes out where it came in: a redirect would lead the client past the translation */
    x_ifname(r, NFT_META_OIFNAME, NFT_CMP_EQ, t->bridge);
    x_meta(r, NFT_META_L4PROTO, NFT_REG_1);
    x_cmp(r, NFT_REG_1, NFT_CMP_EQ, &icmp, sizeof icmp);
    x_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
    x_cmp(r, NFT_REG_1, NFT_CMP_EQ, &redirect, sizeof redirect);
    x_verdict(r, NF_DROP, NULL);
    put_rule(t, r);
}

static void put_base(struct mesh_nft *t)
{
    put_table(t, NFT_MSG_NEWTABLE, NLM_F_CREATE); /* so that the deletion always finds one */
    put_table(t, NFT_MSG_DELTABLE, 0);
    put_table(t, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        put_set(t, &sets[i]);
    for (size_t i = 0; i < NCHAINS; i++)
        put_chain(t, chains[i].name, chains[i].type, chains[i].hook, chains[i].prio);
    put_port_rules(t);
    put_masquerade(t, NFT_CMP_EQ, loopback, false);
    put_masquerade(t, NFT_CMP_EQ, t->subnet, true);
    put_masquerade(t, NFT_CMP_NEQ, t->subnet, false);
    put_guard_rules(t);
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

static void put_refuse_rules(struct mesh_nft *t, const char *name)
{
    uint8_t tcp = IPPROTO_TCP;
    struct nftnl_rule *r = rule(name);
    x_meta(r, NFT_META_L4PROTO, NFT_REG_1);
    x_cmp(r, NFT_REG_1, NFT_CMP_EQ, &tcp, sizeof tcp);
    x_reject(r, NFT_REJECT_TCP_RST, 0);
    put_rule(t, r);
    r = rule(name);
    x_reject(r, NFT_REJECT_ICMP_UNREACH, 3); /* port unreachable */
    put_rule(t, r);
}

static void put_draw(struct mesh_nft *t, uint32_t n, uint8_t half)
{
    char name[DRAW_NAME];
    bool fresh;
    draw_name(n, half, name);
    table_put(&t->chains, str_from(name), &fresh);
    if (!fresh)
        return;
    put_chain(t, name, NULL, 0, 0);
    if (n == 0) {
        put_refuse_rules(t, name);
        return;
    }
    struct nftnl_rule *r = rule(name);
    x_key(r);
    x_draw(r, n, half ? MESH_HALF : 0);
    x_dnat(r);
    put_rule(t, r);
    r = rule(name);
    x_verdict(r, NF_DROP, NULL);
    put_rule(t, r);
}

/* ---- elements ---- */

struct elems { /* a run of element messages to one set */
    struct mesh_nft *t;
    int type;
    const char *set;
    struct nlattr *list;
    unsigned n;
};

static void elems_end(struct elems *es)
{
    if (es->list)
        mnl_attr_nest_end(es->t->req.cur, es->list);
    es->list = NULL;
    es->n = 0;
}

static struct nlmsghdr *elem_start(struct elems *es, const void *key, uint16_t len, struct nlattr **ret_elem)
{
    if (es->n == ELEMS_MAX)
        elems_end(es);
    if (!es->list) {
        struct nlmsghdr *n = put_nft(es->t, es->type, es->type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0, ELEMS_ROOM);
        mnl_attr_put_strz(n, NFTA_SET_ELEM_LIST_TABLE, TABLE);
        mnl_attr_put_strz(n, NFTA_SET_ELEM_LIST_SET, es->set);
        es->list = mnl_attr_nest_start(n, NFTA_SET_ELEM_LIST_ELEMENTS);
    }
    struct nlmsghdr *h = es->t->req.cur;
    es->n++;
    *ret_elem = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
    struct nlattr *k = mnl_attr_nest_start(h, NFTA_SET_ELEM_KEY);
    mnl_attr_put(h, NFTA_DATA_VALUE, len, key);
    mnl_attr_nest_end(h, k);
    return h;
}

static struct port_key port_key(const struct mesh_edit *ed)
{
    return (struct port_key){ .proto = ed->proto, .port_be = htons(ed->port) };
}

static void elem_port(struct elems *es, const struct mesh_edit *ed, bool verdict)
{
    struct port_key k = port_key(ed);
    struct nlattr *el;
    struct nlmsghdr *h = elem_start(es, &k, sizeof k, &el);
    if (verdict) {
        char name[DRAW_NAME];
        draw_name(ed->nslots, ed->half, name);
        struct nlattr *d = mnl_attr_nest_start(h, NFTA_SET_ELEM_DATA);
        struct nlattr *v = mnl_attr_nest_start(h, NFTA_DATA_VERDICT);
        mnl_attr_put_u32(h, NFTA_VERDICT_CODE, htonl((uint32_t)NFT_GOTO));
        mnl_attr_put_strz(h, NFTA_VERDICT_CHAIN, name);
        mnl_attr_nest_end(h, v);
        mnl_attr_nest_end(h, d);
    }
    mnl_attr_nest_end(h, el);
}

static void elem_slot(struct elems *es, const struct mesh_edit *ed, bool value)
{
    struct slot_key k = { port_key(ed), ed->slot };
    struct nlattr *el;
    struct nlmsghdr *h = elem_start(es, &k, sizeof k, &el);
    if (value) {
        struct slot_value v = { .addr_be = htonl(ed->to.addr), .port_be = htons(ed->to.port) };
        struct nlattr *d = mnl_attr_nest_start(h, NFTA_SET_ELEM_DATA);
        mnl_attr_put(h, NFTA_DATA_VALUE, sizeof v, &v);
        mnl_attr_nest_end(h, d);
    }
    mnl_attr_nest_end(h, el);
}

static void put_slots(struct mesh_nft *t, const struct mesh_edits *es, enum mesh_edit_type type)
{
    bool add = type == MESH_SLOT_ADD;
    struct elems out = { .t = t, .type = add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, .set = "slots" };
    for (size_t i = 0; i < es->n; i++)
        if (es->v[i].type == type)
            elem_slot(&out, &es->v[i], add);
    elems_end(&out);
}

static void put_ports_away(struct mesh_nft *t, const struct mesh_edits *es)
{
    struct elems out = { .t = t, .type = NFT_MSG_DELSETELEM, .set = "ports" };
    for (size_t i = 0; i < es->n; i++)
        if (es->v[i].type == MESH_PORT_DEL || (es->v[i].type == MESH_PORT_SET && es->v[i].replaces))
            elem_port(&out, &es->v[i], false);
    elems_end(&out);
    out.set = "published";
    for (size_t i = 0; i < es->n; i++)
        if (es->v[i].type == MESH_PORT_DEL)
            elem_port(&out, &es->v[i], false);
    elems_end(&out);
}

static void put_ports(struct mesh_nft *t, const struct mesh_edits *es)
{
    struct elems out = { .t = t, .type = NFT_MSG_NEWSETELEM, .set = "ports" };
    for (size_t i = 0; i < es->n; i++)
        if (es->v[i].type == MESH_PORT_SET)
            elem_port(&out, &es->v[i], true);
    elems_end(&out);
    out.set = "published";
    for (size_t i = 0; i < es->n; i++)
        if (es->v[i].type == MESH_PORT_SET && !es->v[i].replaces)
            elem_port(&out, &es->v[i], false);
    elems_end(&out);
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
    begin(t);
    put_base(t);
    put_edits(t, now);
    return commit(t, "make nftables table " TABLE, NULL, e);
}

static int apply_half(struct mesh_nft *t, const struct mesh_edits *es, struct err *e)
{
    if (es->n == 0)
        return 0;
    begin(t);
    put_edits(t, es);
    return commit(t, "change nftables table " TABLE, NULL, e);
}

int mesh_nft_apply(struct mesh_nft *t, const struct mesh_plan *p, struct err *e)
{
    int r = apply_half(t, &p->now, e);
    return r < 0 ? r : apply_half(t, &p->later, e);
}

/* ---- reading back ---- */

struct reading {
    struct mesh_nft *t;
    struct mesh_dump *d;
    bool intact;
    int errnum;
    unsigned rules[NCHAINS], seen_chains, draw_rules, published;
};

static void read_table(const struct nlmsghdr *h, void *arg)
{
    struct reading *rd = arg;
    struct nftnl_table *x = nftnl_table_alloc();
    char tag[TAG_SIZE];
    uint32_t len = 0;
    CHECK(x != NULL);
    if (nftnl_table_nlmsg_parse(h, x) == 0) {
        const char *u = nftnl_table_get_data(x, NFTNL_TABLE_USERDATA, &len);
        tag_of(rd->t, tag);
        rd->intact = u && len == strlen(tag) + 3 && memcmp(u + 2, tag, strlen(tag)) == 0 &&
                     (nftnl_table_get_u32(x, NFTNL_TABLE_FLAGS) & NFT_TABLE_F_DORMANT) == 0;
    }
    nftnl_table_free(x);
}

static int chain_index(const char *name)
{
    for (size_t i = 0; i < NCHAINS; i++)
        if (strcmp(chains[i].name, name) == 0)
            return (int)i;
    return -1;
}

static bool is_ours(const struct nlmsghdr *h)
{
    const struct nfgenmsg *g = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    if (g->nfgen_family != NFPROTO_IPV4)
        return false;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *g); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == 1) /* the table's name, in every kind of message */
            return mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0 && strcmp(mnl_attr_get_str(a), TABLE) == 0;
    return false;
}

static void read_chain(const struct nlmsghdr *h, void *arg)
{
    struct reading *rd = arg;
    struct nftnl_chain *c = nftnl_chain_alloc();
    uint32_t n;
    uint8_t half;
    CHECK(c != NULL);
    if (is_ours(h) && nftnl_chain_nlmsg_parse(h, c) == 0) {
        const char *name = nftnl_chain_get_str(c, NFTNL_CHAIN_NAME);
        if (chain_index(name) >= 0)
            rd->seen_chains++;
        else if (draw_parse(name, &n, &half))
            table_put(&rd->t->chains, str_from(name), NULL);
        else
            rd->intact = false;
    }
    nftnl_chain_free(c);
}

static void read_rule(const struct nlmsghdr *h, void *arg)
{
    struct reading *rd = arg;
    struct nftnl_rule *r = nftnl_rule_alloc();
    CHECK(r != NULL);
    if (is_ours(h) && nftnl_rule_nlmsg_parse(h, r) == 0) {
        int i = chain_index(nftnl_rule_get_str(r, NFTNL_RULE_CHAIN));
        if (i >= 0)
            rd->rules[i]++;
        else
            rd->draw_rules++;
    }
    nftnl_rule_free(r);
}

static int read_port_elem(struct nftnl_set_elem *el, void *arg)
{
    struct reading *rd = arg;
    struct mesh_dump_port p = { 0 };
    struct port_key k;
    uint32_t len = 0;
    const void *key = nftnl_set_elem_get(el, NFTNL_SET_ELEM_KEY, &len);
    const char *chain = nftnl_set_elem_get_str(el, NFTNL_SET_ELEM_CHAIN);
    if (!key || len != sizeof k || !chain || !draw_parse(chain, &p.nslots, &p.half)) {
        rd->intact = false;
        return 0;
    }
    memcpy(&k, key, sizeof k);
    p.proto = k.proto;
    p.port = ntohs(k.port_be);
    mesh_dump_port(rd->d, p);
    return 0;
}

static int read_slot_elem(struct nftnl_set_elem *el, void *arg)
{
    struct reading *rd = arg;
    struct slot_key k;
    struct slot_value v;
    uint32_t klen = 0, vlen = 0;
    const void *key = nftnl_set_elem_get(el, NFTNL_SET_ELEM_KEY, &klen);
    const void *val = nftnl_set_elem_get(el, NFTNL_SET_ELEM_DATA, &vlen);
    if (!key || klen != sizeof k || !val || vlen != sizeof v) {
        rd->intact = false;
        return 0;
    }
    memcpy(&k, key, sizeof k);
    memcpy(&v, val, sizeof v);
    mesh_dump_slot(rd->d, (struct mesh_dump_slot){ .proto = k.port.proto,
                                                   .port = ntohs(k.port.port_be),
                                                   .slot = k.slot,
                                                   .to = { ntohl(v.addr_be), ntohs(v.port_be) } });
    return 0;
}

static int read_published_elem(struct nftnl_set_elem *el, void *arg)
{
    struct reading *rd = arg;
    (void)el;
    rd->published++;
    return 0;
}

struct elem_reading {
    struct reading *rd;
    int (*fn)(struct nftnl_set_elem *el, void *arg);
};

static void read_elems(const struct nlmsghdr *h, void *arg)
{
    struct elem_reading *er = arg;
    struct nftnl_set *s = nftnl_set_alloc();
    CHECK(s != NULL);
    if (nftnl_set_elems_nlmsg_parse(h, s) == 0)
        nftnl_set_elem_foreach(s, er->fn, er->rd);
    nftnl_set_free(s);
}

static int read_set(struct reading *rd, const char *set, int (*fn)(struct nftnl_set_elem *, void *), struct err *e)
{
    struct elem_reading er = { rd, fn };
    struct nlmsghdr *h = put_nft(rd->t, NFT_MSG_GETSETELEM, NLM_F_DUMP, RULE_ROOM);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, TABLE);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set);
    int r = mesh_msg_dump(&rd->t->req, "read nftables elements", read_elems, &er, &rd->errnum, e);
    if (r < 0 && rd->errnum == ENOENT) {
        rd->intact = false;
        return 0;
    }
    return r;
}

static void check_counts(struct reading *rd)
{
    rd->intact = rd->intact && rd->seen_chains == NCHAINS && rd->draw_rules == DRAW_RULES * rd->t->chains.count &&
                 rd->published == rd->d->nports;
    for (size_t i = 0; i < NCHAINS; i++)
        rd->intact = rd->intact && rd->rules[i] == chains[i].rules;
}

/* get_table - one table by name; missing is no error. */
static int get_table(struct reading *rd, struct err *e)
{
    int errnum = 0;
    struct nlmsghdr *h = put_nft(rd->t, NFT_MSG_GETTABLE, NLM_F_ACK, RULE_ROOM);
    mnl_attr_put_strz(h, NFTA_TABLE_NAME, TABLE);
    int r = mesh_msg_dump(&rd->t->req, "read nftables table", read_table, rd, &errnum, e);
    return r < 0 && errnum == ENOENT ? 0 : r;
}

static int read_all(struct reading *rd, struct err *e)
{
    struct mesh_nft *t = rd->t;
    table_clear(&t->chains);
    int r = get_table(rd, e);
    if (r < 0 || !rd->intact)
        return r;
    put_nft(t, NFT_MSG_GETCHAIN, NLM_F_DUMP, RULE_ROOM);
    r = mesh_msg_dump(&t->req, "read nftables chains", read_chain, rd, &rd->errnum, e);
    if (r == 0) {
        mnl_attr_put_strz(put_nft(t, NFT_MSG_GETRULE, NLM_F_DUMP, RULE_ROOM), NFTA_RULE_TABLE, TABLE);
        r = mesh_msg_dump(&t->req, "read nftables rules", read_rule, rd, &rd->errnum, e);
    }
    if (r == 0)
        r = read_set(rd, "ports", read_port_elem, e);
    if (r == 0)
        r = read_set(rd, "slots", read_slot_elem, e);
    if (r == 0)
        r = read_set(rd, "published", read_published_elem, e);
    check_counts(rd);
    return r;
}

int mesh_nft_read(struct mesh_nft *t, struct mesh_dump *d, bool *ret_intact, struct err *e)
{
    for (int tries = 0;; tries++) {
        struct reading rd = { .t = t, .d = d };
        int r = read_all(&rd, e);
        *ret_intact = r == 0 && rd.intact;
        if (rd.errnum != EINTR || tries == 20) /* EINTR: someone changed some table meanwhile */
            return r;
        mesh_dump_done(d);
    }
}

/* ---- watching ---- */

bool mesh_nft_watch_read(struct mesh_nft *t)
{
    char in[16384] __attribute__((aligned(8)));
    bool touched = false;
    for (;;) {
        ssize_t len = recv(mnl_socket_get_fd(t->watch.sock), in, sizeof in, MSG_DONTWAIT);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            return touched || errno == ENOBUFS;
        int left = (int)len;
        for (struct nlmsghdr *h = (struct nlmsghdr *)in; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left))
            touched |= h->nlmsg_pid != t->req.portid && h->nlmsg_type >> 8 == NFNL_SUBSYS_NFTABLES &&
                       (h->nlmsg_type & 0xff) != NFT_MSG_NEWGEN && is_ours(h);
    }
}

struct drops {
    struct buf *out;
    unsigned n;
};

static void drop_chain(const struct nlmsghdr *h, void *arg)
{
    struct drops *d = arg;
    struct nftnl_chain *c = nftnl_chain_alloc();
    CHECK(c != NULL);
    if (nftnl_chain_nlmsg_parse(h, c) == 0 && nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) &&
        nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM) == NF_INET_FORWARD &&
        nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) == NF_DROP) {
        char name[300];
        int n = snprintf(name, sizeof name, "%s %s", nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE),
                         nftnl_chain_get_str(c, NFTNL_CHAIN_NAME));
        buf_puts(d->out, d->n++ ? "," : "");
        buf_json_str(d->out, (struct str){ name, n < (int)sizeof name ? (size_t)n : sizeof name - 1 });
    }
    nftnl_chain_free(c);
}

int mesh_nft_foreign_drops(struct mesh_nft *t, struct buf *out, unsigned *ret_count, struct err *e)
{
    struct drops d = { out, 0 };
    buf_putc(out, '[');
    int r = 0;
    static const uint8_t families[] = { NFPROTO_IPV4, NFPROTO_INET };
    for (size_t i = 0; r == 0 && i < sizeof families; i++) {
        put(&t->req, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, NLM_F_DUMP, families[i], 0, RULE_ROOM);
        r = mesh_msg_dump(&t->req, "read nftables chains", drop_chain, &d, NULL, e);
    }
    buf_putc(out, ']');
    *ret_count = d.n;
    return r;
}

int mesh_nft_open(struct mesh_nft *t, const char *bridge, struct mesh_subnet s, struct err *e)
{
    int group = NFNLGRP_NFTABLES;
    *t = (struct mesh_nft){ .subnet = s };
    snprintf(t->bridge, sizeof t->bridge, "%s", bridge);
    table_init(&t->chains, 0);
    int r = mesh_msg_open(&t->req, NETLINK_NETFILTER, e);
    if (r == 0)
        r = mesh_msg_open(&t->watch, NETLINK_NETFILTER, e);
    if (r == 0 && mnl_socket_setsockopt(t->watch.sock, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
        r = err_errno(e, errno, "watch nftables");
    return r;
}

void mesh_nft_close(struct mesh_nft *t)
{
    mesh_msg_close(&t->req);
    mesh_msg_close(&t->watch);
    table_done(&t->chains);
}

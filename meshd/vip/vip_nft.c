#include "meshd/vip/vip_nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/expr.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <string.h>

#include "common/util/check.h"

#define TABLE "microswarm"
#define COMMENT "service addresses, layout 1"
#define DRAW_RULES 2
#define NFX_IP6ADDR 8u
#define PRIO_OUT (-100)
#define PRIO_DNS (-105) /* before ours, and whatever else the container has at -100 */

/* Registers: the address, the slot behind it, and what comes out. */
enum { R_ADDR = NFT_REG32_00, R_SLOT4 = NFT_REG32_00 + 1, R_SLOT6 = NFT_REG32_00 + 4, R_OUT = NFT_REG32_00 + 8 };

static struct nfx table_of(struct mesh_msg *m, uint8_t family)
{
    return (struct nfx){ .m = m, .family = family == AF_INET6 ? NFPROTO_IPV6 : NFPROTO_IPV4, .table = TABLE };
}

static uint16_t addr_size(uint8_t family)
{
    return family == AF_INET6 ? 16 : 4;
}

/* ---- the fixed part ---- */

static void put_sets(const struct nfx *t, uint8_t family)
{
    uint32_t type = family == AF_INET6 ? NFX_IP6ADDR : NFX_IPADDR, len = addr_size(family);
    nfx_set(t, &(struct nfx_set){ .name = "slots",
                                  .id = 1,
                                  .flags = NFT_SET_MAP,
                                  .key_type = NFX_PAIR(type, NFX_MARK),
                                  .key_len = len + 4,
                                  .data_type = type,
                                  .data_len = len });
    nfx_set(t, &(struct nfx_set){ .name = "vips",
                                  .id = 2,
                                  .flags = NFT_SET_MAP,
                                  .key_type = type,
                                  .key_len = len,
                                  .data_type = NFT_DATA_VERDICT,
                                  .data_len = 16 });
    nfx_set(t, &(struct nfx_set){ .name = "known", .id = 3, .key_type = type, .key_len = len });
}

static void put_daddr(struct nftnl_rule *r, uint8_t family)
{
    nfx_payload(r, NFT_PAYLOAD_NETWORK_HEADER, family == AF_INET6 ? 24 : 16, addr_size(family), R_ADDR);
}

static void put_dnat(struct nftnl_rule *r, uint8_t family, uint32_t addr_reg, uint32_t port_reg)
{
    if (family == AF_INET) {
        nfx_nat4(r, NFT_NAT_DNAT, addr_reg, port_reg);
        return;
    }
    struct nftnl_expr *x = nfx_expr(r, "nat");
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_TYPE, NFT_NAT_DNAT);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_FAMILY, NFPROTO_IPV6);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_REG_ADDR_MIN, addr_reg);
}

static void put_dns(const struct nfx *t, uint8_t proto)
{
    static const uint8_t server[4] = { 127, 0, 0, 11 };
    uint16_t from = htons(53), to = htons(VIP_DNS_PORT);
    struct nftnl_rule *r = nfx_rule(t, "dns");
    put_daddr(r, AF_INET);
    nfx_cmp(r, R_ADDR, NFT_CMP_EQ, server, sizeof server);
    nfx_proto(r, proto);
    nfx_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
    nfx_cmp(r, NFT_REG_1, NFT_CMP_EQ, &from, sizeof from);
    nfx_value(r, R_ADDR, server, sizeof server);
    nfx_value(r, R_OUT, &to, sizeof to);
    put_dnat(r, AF_INET, R_ADDR, R_OUT);
    nfx_add(t, r);
}

static void put_base(const struct nfx *t, uint8_t family)
{
    nfx_table_del(t);
    nfx_table_new(t, COMMENT);
    put_sets(t, family);
    nfx_chain(t, "out", "nat", NF_INET_LOCAL_OUT, PRIO_OUT, NULL);
    struct nftnl_rule *r = nfx_rule(t, "out");
    put_daddr(r, family);
    nfx_lookup(r, "vips", R_ADDR, NFT_REG_VERDICT);
    nfx_add(t, r);
    r = nfx_rule(t, "out"); /* a lookup may miss while its element is being switched */
    put_daddr(r, family);
    nfx_lookup(r, "known", R_ADDR, -1);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(t, r);
    if (family == AF_INET) {
        nfx_chain(t, "dns", "nat", NF_INET_LOCAL_OUT, PRIO_DNS, NULL);
        put_dns(t, IPPROTO_UDP);
        put_dns(t, IPPROTO_TCP);
    }
}

/* ---- edits ---- */

static void put_refuse(const struct nfx *t, const char *chain, uint8_t family)
{
    struct nftnl_rule *r = nfx_rule(t, chain);
    nfx_proto(r, IPPROTO_TCP);
    nfx_reject(r, NFT_REJECT_TCP_RST, 0);
    nfx_add(t, r);
    r = nfx_rule(t, chain);
    nfx_reject(r, NFT_REJECT_ICMP_UNREACH, family == AF_INET6 ? ICMP6_DST_UNREACH_NOPORT : ICMP_PORT_UNREACH);
    nfx_add(t, r);
}

static void put_chain(const struct nfx *t, const struct vip_edit *ed)
{
    uint8_t family = ed->vip.family;
    char name[VIP_CHAIN_NAME];
    vip_chain_name(ed->n, ed->half, name);
    nfx_chain(t, name, NULL, 0, 0, NULL);
    if (ed->n == 0) {
        put_refuse(t, name, family);
        return;
    }
    struct nftnl_rule *r = nfx_rule(t, name);
    put_daddr(r, family);
    nfx_random(r, ed->n, ed->half ? VIP_HALF : 0, family == AF_INET6 ? R_SLOT6 : R_SLOT4);
    nfx_lookup(r, "slots", R_ADDR, R_OUT);
    put_dnat(r, family, R_OUT, 0);
    nfx_add(t, r);
    r = nfx_rule(t, name);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(t, r);
}

static void del_chain(const struct nfx *t, const struct vip_edit *ed)
{
    char name[VIP_CHAIN_NAME];
    vip_chain_name(ed->n, ed->half, name);
    nfx_chain_flush(t, name);
    struct nlmsghdr *h = nfx_put(t, NFT_MSG_DELCHAIN, 0, NFX_ROOM);
    mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, TABLE);
    mnl_attr_put_strz(h, NFTA_CHAIN_NAME, name);
}

static bool is_for(const struct vip_edit *ed, uint8_t family, enum vip_edit_type type)
{
    return ed->type == type && ed->vip.family == family;
}

static void put_slots(const struct nfx *t, uint8_t family, const struct vip_edits *es, bool add)
{
    struct nfx_elems out = { .t = t, .type = add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, .set = "slots" };
    uint16_t n = addr_size(family);
    uint8_t key[20];
    for (size_t i = 0; i < es->n; i++)
        if (is_for(&es->v[i], family, add ? VIP_SLOT_ADD : VIP_SLOT_DEL)) {
            memcpy(key, es->v[i].vip.b, n);
            memcpy(key + n, &es->v[i].slot, 4); /* host byte order, as numgen gives it */
            nfx_elem(&out, key, (uint16_t)(n + 4), add ? es->v[i].to : NULL, add ? n : 0);
        }
    nfx_elems_end(&out);
}

static void put_verdicts(const struct nfx *t, uint8_t family, const struct vip_edits *es)
{
    struct nfx_elems out = { .t = t, .type = NFT_MSG_DELSETELEM, .set = "vips" };
    uint16_t n = addr_size(family);
    for (size_t i = 0; i < es->n; i++)
        if (is_for(&es->v[i], family, VIP_DEL) || (is_for(&es->v[i], family, VIP_SET) && es->v[i].replaces))
            nfx_elem(&out, es->v[i].vip.b, n, NULL, 0);
    nfx_elems_end(&out);
    out = (struct nfx_elems){ .t = t, .type = NFT_MSG_NEWSETELEM, .set = "vips" };
    for (size_t i = 0; i < es->n; i++)
        if (is_for(&es->v[i], family, VIP_SET)) {
            char name[VIP_CHAIN_NAME];
            vip_chain_name(es->v[i].n, es->v[i].half, name);
            nfx_elem_goto(&out, es->v[i].vip.b, n, name);
        }
    nfx_elems_end(&out);
}

static void put_known(const struct nfx *t, uint8_t family, const struct vip_edits *es, bool add)
{
    struct nfx_elems out = { .t = t, .type = add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, .set = "known" };
    for (size_t i = 0; i < es->n; i++)
        if (add ? is_for(&es->v[i], family, VIP_SET) && !es->v[i].replaces : is_for(&es->v[i], family, VIP_DEL))
            nfx_elem(&out, es->v[i].vip.b, addr_size(family), NULL, 0);
    nfx_elems_end(&out);
}

static void put_edits(struct mesh_msg *m, uint8_t family, const struct vip_edits *es)
{
    struct nfx t = table_of(m, family);
    for (size_t i = 0; i < es->n; i++)
        if (is_for(&es->v[i], family, VIP_CHAIN_ADD))
            put_chain(&t, &es->v[i]);
    put_slots(&t, family, es, true);
    put_verdicts(&t, family, es);
    put_known(&t, family, es, true);
    put_known(&t, family, es, false);
    put_slots(&t, family, es, false);
    for (size_t i = 0; i < es->n; i++)
        if (is_for(&es->v[i], family, VIP_CHAIN_DEL))
            del_chain(&t, &es->v[i]);
}

int vip_nft_make(struct mesh_msg *m, bool ipv6, const struct vip_edits *es, struct err *e)
{
    struct nfx t = table_of(m, AF_INET), t6 = table_of(m, AF_INET6);
    nfx_begin(m);
    put_base(&t, AF_INET);
    put_edits(m, AF_INET, es);
    if (ipv6) {
        put_base(&t6, AF_INET6);
        put_edits(m, AF_INET6, es);
    }
    return nfx_commit(m, "make service addresses", NULL, e);
}

int vip_nft_apply(struct mesh_msg *m, const struct vip_edits *es, struct err *e)
{
    if (es->n == 0)
        return 0;
    nfx_begin(m);
    put_edits(m, AF_INET, es);
    put_edits(m, AF_INET6, es);
    return nfx_commit(m, "change service addresses", NULL, e);
}

/* ---- reading back ---- */

struct reading {
    struct vip_dump *d;
    uint8_t family;
    bool intact;
    unsigned fixed_chains, fixed_rules, draw_chains, draw_rules, known, vips;
};

static bool is_fixed(const char *name)
{
    return strcmp(name, "out") == 0 || strcmp(name, "dns") == 0;
}

static void read_chain(const char *name, void *arg)
{
    struct reading *rd = arg;
    struct vip_chain c = { .family = rd->family };
    if (is_fixed(name)) {
        rd->fixed_chains++;
    } else if (vip_chain_parse(name, &c.n, &c.half)) {
        rd->draw_chains++;
        vip_dump_chain(rd->d, &c);
    } else {
        rd->intact = false;
    }
}

static void read_rule(const char *chain, void *arg)
{
    struct reading *rd = arg;
    if (is_fixed(chain))
        rd->fixed_rules++;
    else
        rd->draw_rules++;
}

static struct netmap_ip ip_at(const struct reading *rd, const void *p)
{
    struct netmap_ip ip = { .family = rd->family, .prefix = rd->family == AF_INET6 ? 128 : 32 };
    memcpy(ip.b, p, addr_size(rd->family));
    return ip;
}

static void read_vip(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    struct vip_dump_vip v = { 0 };
    if (el->key_len != addr_size(rd->family) || !el->chain || !vip_chain_parse(el->chain, &v.n, &v.half)) {
        rd->intact = false;
        return;
    }
    v.vip = ip_at(rd, el->key);
    rd->vips++;
    vip_dump_vip(rd->d, &v);
}

static void read_slot(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    uint16_t n = addr_size(rd->family);
    struct vip_dump_slot s = { 0 };
    if (el->key_len != n + 4u || !el->data || el->data_len != n) {
        rd->intact = false;
        return;
    }
    s.vip = ip_at(rd, el->key);
    memcpy(&s.slot, (const char *)el->key + n, 4);
    memcpy(s.to, el->data, n);
    vip_dump_slot(rd->d, &s);
}

static void read_known(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    (void)el;
    rd->known++;
}

static int read_family(struct mesh_msg *m, struct reading *rd, int *ret_errno, struct err *e)
{
    struct nfx t = table_of(m, rd->family);
    int r = nfx_look_table(&t, COMMENT, &rd->intact, e);
    if (r < 0 || !rd->intact)
        return r;
    r = nfx_look_chains(&t, read_chain, rd, ret_errno, e);
    if (r == 0 && *ret_errno == 0)
        r = nfx_look_rules(&t, read_rule, rd, ret_errno, e);
    if (r == 0 && *ret_errno == 0)
        r = nfx_look_elems(&t, "vips", read_vip, rd, ret_errno, e);
    if (r == 0 && *ret_errno == 0)
        r = nfx_look_elems(&t, "slots", read_slot, rd, ret_errno, e);
    if (r == 0 && *ret_errno == 0)
        r = nfx_look_elems(&t, "known", read_known, rd, ret_errno, e);
    unsigned chains = rd->family == AF_INET ? 2 : 1;
    rd->intact = rd->intact && *ret_errno == 0 && rd->fixed_chains == chains && rd->fixed_rules == 2 * chains &&
                 rd->draw_rules == DRAW_RULES * rd->draw_chains && rd->known == rd->vips;
    return r;
}

int vip_nft_read(struct mesh_msg *m, bool ipv6, struct vip_dump *d, bool *ret_intact, struct err *e)
{
    for (int tries = 0;; tries++) {
        struct reading rd = { .d = d, .family = AF_INET }, rd6 = { .d = d, .family = AF_INET6, .intact = true };
        int errnum = 0, r = read_family(m, &rd, &errnum, e);
        if (r == 0 && ipv6 && rd.intact)
            r = read_family(m, &rd6, &errnum, e);
        *ret_intact = r == 0 && rd.intact && rd6.intact;
        if (errnum != EINTR || tries == 20) /* EINTR: someone changed some table meanwhile */
            return r;
        vip_dump_done(d);
    }
}

static void gen_one(const struct nlmsghdr *h, void *arg)
{
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof(struct nfgenmsg)); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == NFTA_GEN_ID)
            *(uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
}

int vip_nft_gen(struct mesh_msg *m, uint32_t *ret, struct err *e)
{
    struct nfx t = table_of(m, AF_INET);
    nfx_put(&t, NFT_MSG_GETGEN, NLM_F_ACK, NFX_ROOM);
    return mesh_msg_dump(m, "read the rules' generation", gen_one, ret, NULL, e);
}

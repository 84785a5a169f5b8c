#include "meshd/mesh_ct.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util/check.h"

#define ROOM 1024
#define BATCH 200 /* deletions per message burst */

/* The kernel's filter bit; its header keeps it to itself (net/netfilter/nf_internals.h). */
#define FILTER_IP_SRC (1u << 0)

struct forget {
    const struct mesh_ct *what;
    char *tuples; /* reply tuples, each behind its length */
    size_t n, cap;
    unsigned count;
};

struct entry {
    uint32_t reply_src_be, orig_dst_be;
    uint16_t orig_dport_be;
    uint8_t proto;
    uint8_t tcp_state;
    uint32_t status;
    const struct nlattr *reply;
};

static void parse_field(unsigned group, const struct nlattr *a, bool reply, struct entry *en)
{
    unsigned type = mnl_attr_get_type(a);
    if (group == CTA_TUPLE_IP && type == CTA_IP_V4_SRC && reply)
        en->reply_src_be = mnl_attr_get_u32(a);
    else if (group == CTA_TUPLE_IP && type == CTA_IP_V4_DST && !reply)
        en->orig_dst_be = mnl_attr_get_u32(a);
    else if (group == CTA_TUPLE_PROTO && type == CTA_PROTO_DST_PORT && !reply)
        en->orig_dport_be = mnl_attr_get_u16(a);
    else if (group == CTA_TUPLE_PROTO && type == CTA_PROTO_NUM)
        en->proto = mnl_attr_get_u8(a);
}

static void parse_tuple(const struct nlattr *tuple, bool reply, struct entry *en)
{
    const struct nlattr *a, *b;
    for (struct mesh_attrs it = mesh_attrs_in(tuple); mesh_attrs_next(&it, &a);)
        for (struct mesh_attrs in = mesh_attrs_in(a); mesh_attrs_next(&in, &b);)
            parse_field(mnl_attr_get_type(a), b, reply, en);
}

static int addr_cmp(const void *a, const void *b)
{
    const struct mesh_ct_addr *x = a, *y = b;
    return (x->addr > y->addr) - (x->addr < y->addr);
}

static bool at_its_end(const struct entry *en)
{
    return en->proto == IPPROTO_TCP &&
           (en->tcp_state == TCP_CONNTRACK_TIME_WAIT || en->tcp_state == TCP_CONNTRACK_CLOSE);
}

static bool matches(const struct mesh_ct *c, const struct entry *en)
{
    struct mesh_ct_addr key = { .addr = ntohl(en->reply_src_be) };
    const struct mesh_ct_addr *a = c->naddrs ? bsearch(&key, c->addrs, c->naddrs, sizeof key, addr_cmp) : NULL;
    if (a && ((a->what & MESH_CT_ALL) || ((a->what & MESH_CT_UDP) && en->proto == IPPROTO_UDP) ||
              ((a->what & MESH_CT_CLOSED) && at_its_end(en))))
        return true;
    if (en->proto != IPPROTO_UDP)
        return false;
    bool as_it_was = !(en->status & IPS_DST_NAT) && en->reply_src_be == en->orig_dst_be;
    if (!as_it_was && !(c->gate && en->reply_src_be == htonl(c->gate)))
        return false;
    for (size_t i = 0; i < c->nports; i++)
        if (en->orig_dport_be == htons(c->ports[i]))
            return true;
    return false;
}

static uint8_t tcp_state(const struct nlattr *info)
{
    const struct nlattr *a, *b;
    for (struct mesh_attrs it = mesh_attrs_in(info); mesh_attrs_next(&it, &a);)
        for (struct mesh_attrs in = mesh_attrs_in(a); mesh_attrs_next(&in, &b);)
            if (mnl_attr_get_type(a) == CTA_PROTOINFO_TCP && mnl_attr_get_type(b) == CTA_PROTOINFO_TCP_STATE)
                return mnl_attr_get_u8(b);
    return 0;
}

static void found(const struct nlmsghdr *h, void *arg)
{
    struct forget *f = arg;
    struct entry en = { 0 };
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof(struct nfgenmsg)); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == CTA_TUPLE_ORIG)
            parse_tuple(a, false, &en);
        else if (mnl_attr_get_type(a) == CTA_TUPLE_REPLY)
            parse_tuple(en.reply = a, true, &en);
        else if (mnl_attr_get_type(a) == CTA_PROTOINFO)
            en.tcp_state = tcp_state(a);
        else if (mnl_attr_get_type(a) == CTA_STATUS)
            en.status = ntohl(mnl_attr_get_u32(a));
    }
    if (!en.reply || !matches(f->what, &en))
        return;
    uint16_t len = mnl_attr_get_payload_len(en.reply);
    if (f->n + len + sizeof len > f->cap) {
        f->cap = f->cap * 2 + 4096;
        f->tuples = realloc(f->tuples, f->cap);
        CHECK(f->tuples != NULL);
    }
    memcpy(f->tuples + f->n, &len, sizeof len);
    memcpy(f->tuples + f->n + sizeof len, mnl_attr_get_payload(en.reply), len);
    f->n += sizeof len + len;
    f->count++;
}

static struct nlmsghdr *put(struct mesh_msg *nf, int type, uint16_t flags)
{
    struct nlmsghdr *h =
        mesh_msg_put(nf, (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type), flags, sizeof(struct nfgenmsg), ROOM);
    *(struct nfgenmsg *)mnl_nlmsg_get_payload(h) =
        (struct nfgenmsg){ .nfgen_family = AF_INET, .version = NFNETLINK_V0 };
    return h;
}

/* put_filter - lets the kernel pick (since 5.8) when it is one address, the common case; matches() has the last word.
 */
static void put_filter(struct nlmsghdr *h, uint32_t addr)
{
    struct nlattr *t = mnl_attr_nest_start(h, CTA_TUPLE_REPLY), *in = mnl_attr_nest_start(h, CTA_TUPLE_IP);
    mnl_attr_put_u32(h, CTA_IP_V4_SRC, htonl(addr));
    mnl_attr_nest_end(h, in);
    mnl_attr_nest_end(h, t);
    t = mnl_attr_nest_start(h, CTA_FILTER);
    mnl_attr_put_u32(h, CTA_FILTER_ORIG_FLAGS, 0);
    mnl_attr_put_u32(h, CTA_FILTER_REPLY_FLAGS, FILTER_IP_SRC);
    mnl_attr_nest_end(h, t);
}

static int list(struct mesh_msg *nf, struct forget *f, struct err *e)
{
    int errnum = 0, r;
    if (f->what->naddrs == 1 && f->what->nports == 0) {
        put_filter(put(nf, IPCTNL_MSG_CT_GET, NLM_F_DUMP), f->what->addrs[0].addr);
        r = mesh_msg_dump(nf, "list connections", found, f, &errnum, e);
        if (errnum != EOPNOTSUPP && errnum != EINVAL)
            return r;
    }
    put(nf, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    return mesh_msg_dump(nf, "list connections", found, f, NULL, e);
}

int mesh_ct_forget(struct mesh_ct *c, struct mesh_msg *nf, unsigned *ret_count, struct err *e)
{
    struct forget f = { .what = c };
    if (c->naddrs > 1)
        qsort(c->addrs, c->naddrs, sizeof *c->addrs, addr_cmp);
    int r = list(nf, &f, e);
    unsigned i = 0;
    for (size_t off = 0; off < f.n;) {
        uint16_t len;
        memcpy(&len, f.tuples + off, sizeof len);
        mnl_attr_put(put(nf, IPCTNL_MSG_CT_DELETE, 0), CTA_TUPLE_REPLY | NLA_F_NESTED, len,
                     f.tuples + off + sizeof len);
        off += sizeof len + len;
        if (++i % BATCH == 0 || off == f.n)
            (void)mesh_msg_send(nf, "forget connections", NULL, NULL); /* gone meanwhile: as good */
    }
    free(f.tuples);
    mesh_ct_done(c);
    *ret_count = f.count;
    return r;
}

void mesh_ct_addr(struct mesh_ct *c, uint32_t addr, enum mesh_ct_what what)
{
    for (size_t i = 0; i < c->naddrs; i++)
        if (c->addrs[i].addr == addr) {
            c->addrs[i].what |= what;
            return;
        }
    c->addrs = realloc(c->addrs, (c->naddrs + 1) * sizeof *c->addrs);
    CHECK(c->addrs != NULL);
    c->addrs[c->naddrs++] = (struct mesh_ct_addr){ addr, what };
}

void mesh_ct_port(struct mesh_ct *c, uint16_t port)
{
    c->ports = realloc(c->ports, (c->nports + 1) * sizeof *c->ports);
    CHECK(c->ports != NULL);
    c->ports[c->nports++] = port;
}

void mesh_ct_done(struct mesh_ct *c)
{
    free(c->addrs);
    free(c->ports);
    *c = (struct mesh_ct){ .gate = c->gate };
}

#include "meshd/vip/vip_ct.h"

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
    const struct vip_stale *what;
    size_t nwhat;
    uint8_t family;
    char *tuples; /* reply tuples, each behind its length */
    size_t n, cap;
    unsigned count;
};

struct entry {
    uint8_t src[16]; /* of replies: the backend */
    uint8_t proto, tcp_state;
    uint32_t status;
    const struct nlattr *reply;
};

static size_t addr_size(uint8_t family)
{
    return family == AF_INET6 ? 16 : 4;
}

static void parse_reply(const struct nlattr *tuple, uint8_t family, struct entry *en)
{
    unsigned src = family == AF_INET6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC;
    const struct nlattr *a, *b;
    for (struct mesh_attrs it = mesh_attrs_in(tuple); mesh_attrs_next(&it, &a);)
        for (struct mesh_attrs in = mesh_attrs_in(a); mesh_attrs_next(&in, &b);) {
            unsigned type = mnl_attr_get_type(b);
            if (mnl_attr_get_type(a) == CTA_TUPLE_IP && type == src && mnl_attr_get_payload_len(b) == addr_size(family))
                memcpy(en->src, mnl_attr_get_payload(b), addr_size(family));
            else if (mnl_attr_get_type(a) == CTA_TUPLE_PROTO && type == CTA_PROTO_NUM)
                en->proto = mnl_attr_get_u8(b);
        }
}

static void parse_state(const struct nlattr *info, struct entry *en)
{
    const struct nlattr *a, *b;
    for (struct mesh_attrs it = mesh_attrs_in(info); mesh_attrs_next(&it, &a);)
        for (struct mesh_attrs in = mesh_attrs_in(a); mesh_attrs_next(&in, &b);)
            if (mnl_attr_get_type(a) == CTA_PROTOINFO_TCP && mnl_attr_get_type(b) == CTA_PROTOINFO_TCP_STATE)
                en->tcp_state = mnl_attr_get_u8(b);
}

static bool is_meant(const struct vip_stale *what, const struct entry *en)
{
    if (en->proto != IPPROTO_TCP || what->which == VIP_CT_ALL)
        return true;
    return what->which == VIP_CT_CLOSED && en->tcp_state >= TCP_CONNTRACK_TIME_WAIT;
}

static bool matches(const struct forget *f, const struct entry *en)
{
    if (!(en->status & IPS_DST_NAT)) /* asked for by its own address: nothing to be drawn anew */
        return false;
    for (size_t i = 0; i < f->nwhat; i++)
        if (f->what[i].backend.family == f->family && is_meant(&f->what[i], en) &&
            memcmp(f->what[i].backend.b, en->src, addr_size(f->family)) == 0)
            return true;
    return false;
}

static void found(const struct nlmsghdr *h, void *arg)
{
    struct forget *f = arg;
    struct entry en = { 0 };
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof(struct nfgenmsg)); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == CTA_TUPLE_REPLY)
            parse_reply(en.reply = a, f->family, &en);
        else if (mnl_attr_get_type(a) == CTA_PROTOINFO)
            parse_state(a, &en);
        else if (mnl_attr_get_type(a) == CTA_STATUS)
            en.status = ntohl(mnl_attr_get_u32(a));
    }
    if (!en.reply || !matches(f, &en))
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

static struct nlmsghdr *put(struct mesh_msg *m, int type, uint16_t flags, uint8_t family)
{
    struct nlmsghdr *h =
        mesh_msg_put(m, (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type), flags, sizeof(struct nfgenmsg), ROOM);
    *(struct nfgenmsg *)mnl_nlmsg_get_payload(h) = (struct nfgenmsg){ .nfgen_family = family, .version = NFNETLINK_V0 };
    return h;
}

/* put_filter - lets the kernel pick (since 5.8) when it is one address, the common case; matches() has the last word.
 */
static void put_filter(struct nlmsghdr *h, const struct netmap_ip *ip)
{
    struct nlattr *t = mnl_attr_nest_start(h, CTA_TUPLE_REPLY), *in = mnl_attr_nest_start(h, CTA_TUPLE_IP);
    mnl_attr_put(h, ip->family == AF_INET6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, addr_size(ip->family), ip->b);
    mnl_attr_nest_end(h, in);
    mnl_attr_nest_end(h, t);
    t = mnl_attr_nest_start(h, CTA_FILTER);
    mnl_attr_put_u32(h, CTA_FILTER_ORIG_FLAGS, 0);
    mnl_attr_put_u32(h, CTA_FILTER_REPLY_FLAGS, FILTER_IP_SRC);
    mnl_attr_nest_end(h, t);
}

static int list(struct mesh_msg *m, struct forget *f, struct err *e)
{
    const struct vip_stale *only = NULL;
    size_t of_family = 0;
    for (size_t i = 0; i < f->nwhat; i++)
        if (f->what[i].backend.family == f->family && of_family++ == 0)
            only = &f->what[i];
    if (of_family == 0)
        return 0;
    if (of_family == 1) {
        int errnum = 0;
        put_filter(put(m, IPCTNL_MSG_CT_GET, NLM_F_DUMP, f->family), &only->backend);
        int r = mesh_msg_dump(m, "list connections", found, f, &errnum, e);
        if (errnum != EOPNOTSUPP && errnum != EINVAL)
            return r;
    }
    put(m, IPCTNL_MSG_CT_GET, NLM_F_DUMP, f->family);
    return mesh_msg_dump(m, "list connections", found, f, NULL, e);
}

static void forget(struct mesh_msg *m, const struct forget *f)
{
    unsigned i = 0;
    for (size_t off = 0; off < f->n;) {
        uint16_t len;
        memcpy(&len, f->tuples + off, sizeof len);
        mnl_attr_put(put(m, IPCTNL_MSG_CT_DELETE, 0, f->family), CTA_TUPLE_REPLY | NLA_F_NESTED, len,
                     f->tuples + off + sizeof len);
        off += sizeof len + len;
        if (++i % BATCH == 0 || off == f->n)
            (void)mesh_msg_send(m, "forget connections", NULL, NULL); /* gone meanwhile: as good */
    }
}

int vip_ct_forget(struct mesh_msg *m, const struct vip_stale *v, size_t n, unsigned *ret_count, struct err *e)
{
    static const uint8_t families[] = { AF_INET, AF_INET6 };
    int r = 0;
    *ret_count = 0;
    for (size_t i = 0; r == 0 && i < 2; i++) {
        struct forget f = { .what = v, .nwhat = n, .family = families[i] };
        r = list(m, &f, e);
        forget(m, &f);
        *ret_count += f.count;
        free(f.tuples);
    }
    return r;
}

static void count_one(const struct nlmsghdr *h, void *arg)
{
    const struct nlattr *a;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof(struct nfgenmsg)); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == CTA_STATS_GLOBAL_ENTRIES)
            *(uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
}

int vip_ct_count(struct mesh_msg *m, uint32_t *ret, struct err *e)
{
    put(m, IPCTNL_MSG_CT_GET_STATS, NLM_F_ACK, AF_UNSPEC);
    return mesh_msg_dump(m, "count connections", count_one, ret, NULL, e);
}

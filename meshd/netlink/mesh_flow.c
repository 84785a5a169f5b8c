#include "meshd/netlink/mesh_flow.h"

#include <arpa/inet.h>
#include <errno.h>
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
    mesh_flow_fn *match;
    const void *arg;
    uint8_t family;
    char *tuples; /* reply tuples, each behind its length */
    size_t n, cap;
    unsigned count;
};

static size_t addr_size(uint8_t family)
{
    return family == AF_INET6 ? 16 : 4;
}

static void parse_field(unsigned group, const struct nlattr *a, uint8_t family, bool reply, struct mesh_flow *fl)
{
    unsigned type = mnl_attr_get_type(a);
    bool v6 = family == AF_INET6;
    if (group == CTA_TUPLE_IP && mnl_attr_get_payload_len(a) == addr_size(family)) {
        if (reply && type == (v6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC))
            memcpy(fl->reply_src, mnl_attr_get_payload(a), addr_size(family));
        else if (!reply && type == (v6 ? CTA_IP_V6_DST : CTA_IP_V4_DST))
            memcpy(fl->orig_dst, mnl_attr_get_payload(a), addr_size(family));
    } else if (group == CTA_TUPLE_PROTO && type == CTA_PROTO_DST_PORT && !reply) {
        fl->orig_dport_be = mnl_attr_get_u16(a);
    } else if (group == CTA_TUPLE_PROTO && type == CTA_PROTO_NUM) {
        fl->proto = mnl_attr_get_u8(a);
    }
}

static void parse_tuple(const struct nlattr *tuple, uint8_t family, bool reply, struct mesh_flow *fl)
{
    const struct nlattr *a, *b;
    for (struct mesh_attrs it = mesh_attrs_in(tuple); mesh_attrs_next(&it, &a);)
        for (struct mesh_attrs in = mesh_attrs_in(a); mesh_attrs_next(&in, &b);)
            parse_field(mnl_attr_get_type(a), b, family, reply, fl);
}

static void parse_state(const struct nlattr *info, struct mesh_flow *fl)
{
    const struct nlattr *a, *b;
    for (struct mesh_attrs it = mesh_attrs_in(info); mesh_attrs_next(&it, &a);)
        for (struct mesh_attrs in = mesh_attrs_in(a); mesh_attrs_next(&in, &b);)
            if (mnl_attr_get_type(a) == CTA_PROTOINFO_TCP && mnl_attr_get_type(b) == CTA_PROTOINFO_TCP_STATE)
                fl->tcp_state = mnl_attr_get_u8(b);
}

static void found(const struct nlmsghdr *h, void *arg)
{
    struct forget *f = arg;
    struct mesh_flow fl = { 0 };
    const struct nlattr *a, *reply = NULL;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof(struct nfgenmsg)); mesh_attrs_next(&it, &a);) {
        if (mnl_attr_get_type(a) == CTA_TUPLE_ORIG)
            parse_tuple(a, f->family, false, &fl);
        else if (mnl_attr_get_type(a) == CTA_TUPLE_REPLY)
            parse_tuple(reply = a, f->family, true, &fl);
        else if (mnl_attr_get_type(a) == CTA_PROTOINFO)
            parse_state(a, &fl);
        else if (mnl_attr_get_type(a) == CTA_STATUS)
            fl.status = ntohl(mnl_attr_get_u32(a));
    }
    if (!reply || !f->match(f->arg, &fl))
        return;
    uint16_t len = mnl_attr_get_payload_len(reply);
    if (f->n + len + sizeof len > f->cap) {
        f->cap = f->cap * 2 + 4096;
        f->tuples = realloc(f->tuples, f->cap);
        CHECK(f->tuples != NULL);
    }
    memcpy(f->tuples + f->n, &len, sizeof len);
    memcpy(f->tuples + f->n + sizeof len, mnl_attr_get_payload(reply), len);
    f->n += sizeof len + len;
    f->count++;
}

struct nlmsghdr *mesh_flow_put(struct mesh_msg *m, int type, uint16_t flags, uint8_t family)
{
    struct nlmsghdr *h =
        mesh_msg_put(m, (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type), flags, sizeof(struct nfgenmsg), ROOM);
    *(struct nfgenmsg *)mnl_nlmsg_get_payload(h) = (struct nfgenmsg){ .nfgen_family = family, .version = NFNETLINK_V0 };
    return h;
}

static void put_filter(struct nlmsghdr *h, uint8_t family, const void *only)
{
    struct nlattr *t = mnl_attr_nest_start(h, CTA_TUPLE_REPLY), *in = mnl_attr_nest_start(h, CTA_TUPLE_IP);
    mnl_attr_put(h, family == AF_INET6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, addr_size(family), only);
    mnl_attr_nest_end(h, in);
    mnl_attr_nest_end(h, t);
    t = mnl_attr_nest_start(h, CTA_FILTER);
    mnl_attr_put_u32(h, CTA_FILTER_ORIG_FLAGS, 0);
    mnl_attr_put_u32(h, CTA_FILTER_REPLY_FLAGS, FILTER_IP_SRC);
    mnl_attr_nest_end(h, t);
}

static int list(struct mesh_msg *m, struct forget *f, const void *only, struct err *e)
{
    int errnum = 0, r;
    if (only) {
        put_filter(mesh_flow_put(m, IPCTNL_MSG_CT_GET, NLM_F_DUMP, f->family), f->family, only);
        r = mesh_msg_dump(m, "list connections", found, f, &errnum, e);
        if (errnum != EOPNOTSUPP && errnum != EINVAL)
            return r;
    }
    mesh_flow_put(m, IPCTNL_MSG_CT_GET, NLM_F_DUMP, f->family);
    return mesh_msg_dump(m, "list connections", found, f, NULL, e);
}

static void drop(struct mesh_msg *m, const struct forget *f)
{
    unsigned i = 0;
    for (size_t off = 0; off < f->n;) {
        uint16_t len;
        memcpy(&len, f->tuples + off, sizeof len);
        mnl_attr_put(mesh_flow_put(m, IPCTNL_MSG_CT_DELETE, 0, f->family), CTA_TUPLE_REPLY | NLA_F_NESTED, len,
                     f->tuples + off + sizeof len);
        off += sizeof len + len;
        if (++i % BATCH == 0 || off == f->n)
            (void)mesh_msg_send(m, "forget connections", NULL, NULL); /* gone meanwhile: as good */
    }
}

int mesh_flow_forget(struct mesh_msg *m, uint8_t family, const void *only, mesh_flow_fn *match, const void *arg,
                     unsigned *ret_count, struct err *e)
{
    struct forget f = { .match = match, .arg = arg, .family = family };
    int r = list(m, &f, only, e);
    drop(m, &f);
    free(f.tuples);
    *ret_count = f.count;
    return r;
}

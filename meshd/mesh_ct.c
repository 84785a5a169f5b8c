#include "meshd/mesh_ct.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util/check.h"

#define ROOM 1024
#define BATCH 200 /* deletions per message burst */

/* The kernel's filter bits; its header keeps them to itself (net/netfilter/nf_internals.h). */
#define FILTER_IP_SRC (1u << 0)
#define FILTER_PROTO_NUM (1u << 3)
#define FILTER_DST_PORT (1u << 5)

struct forget {
    uint32_t reply_src_be; /* of the entries to delete; or: */
    uint16_t orig_dport_be;
    bool untranslated;
    char *tuples;          /* reply tuples, each behind its length */
    size_t n, cap;
    unsigned count;
};

struct entry {
    uint32_t reply_src_be, orig_dst_be;
    uint16_t orig_dport_be;
    uint8_t proto;
    uint32_t status;
    const struct nlattr *reply;
};

static void parse_tuple(const struct nlattr *tuple, bool reply, struct entry *en)
{
    const struct nlattr *a, *b;
    mnl_attr_for_each_nested(a, tuple) mnl_attr_for_each_nested(b, a)
    {
        unsigned group = mnl_attr_get_type(a), type = mnl_attr_get_type(b);
        if (group == CTA_TUPLE_IP && type == CTA_IP_V4_SRC && reply)
            en->reply_src_be = mnl_attr_get_u32(b);
        else if (group == CTA_TUPLE_IP && type == CTA_IP_V4_DST && !reply)
            en->orig_dst_be = mnl_attr_get_u32(b);
        else if (group == CTA_TUPLE_PROTO && type == CTA_PROTO_DST_PORT && !reply)
            en->orig_dport_be = mnl_attr_get_u16(b);
        else if (group == CTA_TUPLE_PROTO && type == CTA_PROTO_NUM)
            en->proto = mnl_attr_get_u8(b);
    }
}

static bool matches(const struct forget *f, const struct entry *en)
{
    if (!en->reply)
        return false;
    if (!f->untranslated)
        return en->reply_src_be == f->reply_src_be;
    return en->proto == IPPROTO_UDP && en->orig_dport_be == f->orig_dport_be && !(en->status & IPS_DST_NAT) &&
           en->reply_src_be == en->orig_dst_be;
}

static void found(const struct nlmsghdr *h, void *arg)
{
    struct forget *f = arg;
    struct entry en = { 0 };
    const struct nlattr *a;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(a) == CTA_TUPLE_ORIG)
            parse_tuple(a, false, &en);
        else if (mnl_attr_get_type(a) == CTA_TUPLE_REPLY)
            parse_tuple(en.reply = a, true, &en);
        else if (mnl_attr_get_type(a) == CTA_STATUS)
            en.status = ntohl(mnl_attr_get_u32(a));
    }
    if (!matches(f, &en))
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

/* put_filter - lets the kernel pick (since 5.8), so that a large table is not copied out; matches() has the last word. */
static void put_filter(struct nlmsghdr *h, const struct forget *f)
{
    struct nlattr *t = mnl_attr_nest_start(h, f->untranslated ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY), *in;
    if (f->untranslated) {
        in = mnl_attr_nest_start(h, CTA_TUPLE_PROTO);
        mnl_attr_put_u8(h, CTA_PROTO_NUM, IPPROTO_UDP);
        mnl_attr_put_u16(h, CTA_PROTO_DST_PORT, f->orig_dport_be);
    } else {
        in = mnl_attr_nest_start(h, CTA_TUPLE_IP);
        mnl_attr_put_u32(h, CTA_IP_V4_SRC, f->reply_src_be);
    }
    mnl_attr_nest_end(h, in);
    mnl_attr_nest_end(h, t);
    t = mnl_attr_nest_start(h, CTA_FILTER);
    mnl_attr_put_u32(h, CTA_FILTER_ORIG_FLAGS, f->untranslated ? FILTER_PROTO_NUM | FILTER_DST_PORT : 0);
    mnl_attr_put_u32(h, CTA_FILTER_REPLY_FLAGS, f->untranslated ? 0 : FILTER_IP_SRC);
    mnl_attr_nest_end(h, t);
}

static int list(struct mesh_msg *nf, struct forget *f, struct err *e)
{
    int errnum = 0;
    put_filter(put(nf, IPCTNL_MSG_CT_GET, NLM_F_DUMP), f);
    int r = mesh_msg_dump(nf, "list connections", found, f, &errnum, e);
    if (errnum != EOPNOTSUPP && errnum != EINVAL)
        return r;
    put(nf, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    return mesh_msg_dump(nf, "list connections", found, f, NULL, e);
}

static int forget(struct mesh_msg *nf, struct forget *f, unsigned *ret_count, struct err *e)
{
    int r = list(nf, f, e);
    unsigned i = 0;
    for (size_t off = 0; off < f->n;) {
        uint16_t len;
        memcpy(&len, f->tuples + off, sizeof len);
        mnl_attr_put(put(nf, IPCTNL_MSG_CT_DELETE, 0), CTA_TUPLE_REPLY | NLA_F_NESTED, len,
                     f->tuples + off + sizeof len);
        off += sizeof len + len;
        if (++i % BATCH == 0 || off == f->n)
            (void)mesh_msg_send(nf, "forget connections", NULL, NULL); /* gone meanwhile: as good */
    }
    free(f->tuples);
    *ret_count = f->count;
    return r;
}

int mesh_ct_forget_task(struct mesh_msg *nf, uint32_t addr, unsigned *ret_count, struct err *e)
{
    struct forget f = { .reply_src_be = htonl(addr) };
    return forget(nf, &f, ret_count, e);
}

int mesh_ct_forget_untranslated(struct mesh_msg *nf, uint16_t port, unsigned *ret_count, struct err *e)
{
    struct forget f = { .orig_dport_be = htons(port), .untranslated = true };
    return forget(nf, &f, ret_count, e);
}

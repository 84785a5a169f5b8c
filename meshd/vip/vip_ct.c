#include "meshd/vip/vip_ct.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "meshd/netlink/mesh_flow.h"

struct wanted {
    const struct vip_stale *what;
    size_t n;
    uint8_t family;
};

static size_t addr_size(uint8_t family)
{
    return family == AF_INET6 ? 16 : 4;
}

static bool is_meant(const struct vip_stale *what, const struct mesh_flow *en)
{
    if (en->proto != IPPROTO_TCP || what->which == VIP_CT_ALL)
        return true;
    return what->which == VIP_CT_CLOSED && en->tcp_state >= TCP_CONNTRACK_TIME_WAIT;
}

static bool matches(const void *arg, const struct mesh_flow *en)
{
    const struct wanted *f = arg;
    if (!(en->status & IPS_DST_NAT)) /* asked for by its own address: nothing to be drawn anew */
        return false;
    for (size_t i = 0; i < f->n; i++)
        if (f->what[i].backend.family == f->family && is_meant(&f->what[i], en) &&
            memcmp(f->what[i].backend.b, en->reply_src, addr_size(f->family)) == 0)
            return true;
    return false;
}

/* forget - of one family; a single address is the common case */
static int forget(struct mesh_msg *m, const struct wanted *f, unsigned *ret_count, struct err *e)
{
    const struct vip_stale *only = NULL;
    size_t of_family = 0;
    for (size_t i = 0; i < f->n; i++)
        if (f->what[i].backend.family == f->family && of_family++ == 0)
            only = &f->what[i];
    if (of_family == 0)
        return 0;
    return mesh_flow_forget(m, f->family, of_family == 1 ? only->backend.b : NULL, matches, f, ret_count, e);
}

int vip_ct_forget(struct mesh_msg *m, const struct vip_stale *v, size_t n, unsigned *ret_count, struct err *e)
{
    static const uint8_t families[] = { AF_INET, AF_INET6 };
    int r = 0;
    *ret_count = 0;
    for (size_t i = 0; r == 0 && i < 2; i++) {
        unsigned count = 0;
        r = forget(m, &(struct wanted){ v, n, families[i] }, &count, e);
        *ret_count += count;
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
    mesh_flow_put(m, IPCTNL_MSG_CT_GET_STATS, NLM_F_ACK, AF_UNSPEC);
    return mesh_msg_dump(m, "count connections", count_one, ret, NULL, e);
}

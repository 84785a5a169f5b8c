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
#include "meshd/netlink/mesh_flow.h"

static int addr_cmp(const void *a, const void *b)
{
    const struct mesh_ct_addr *x = a, *y = b;
    return (x->addr > y->addr) - (x->addr < y->addr);
}

static bool at_its_end(const struct mesh_flow *en)
{
    return en->proto == IPPROTO_TCP &&
           (en->tcp_state == TCP_CONNTRACK_TIME_WAIT || en->tcp_state == TCP_CONNTRACK_CLOSE);
}

static bool matches(const void *arg, const struct mesh_flow *en)
{
    const struct mesh_ct *c = arg;
    uint32_t reply_src_be, orig_dst_be;
    memcpy(&reply_src_be, en->reply_src, 4);
    memcpy(&orig_dst_be, en->orig_dst, 4);
    struct mesh_ct_addr key = { .addr = ntohl(reply_src_be) };
    const struct mesh_ct_addr *a = c->naddrs ? bsearch(&key, c->addrs, c->naddrs, sizeof key, addr_cmp) : NULL;
    if (a && ((a->what & MESH_CT_ALL) || ((a->what & MESH_CT_UDP) && en->proto == IPPROTO_UDP) ||
              ((a->what & MESH_CT_CLOSED) && at_its_end(en))))
        return true;
    if (en->proto != IPPROTO_UDP)
        return false;
    bool as_it_was = !(en->status & IPS_DST_NAT) && reply_src_be == orig_dst_be;
    if (!as_it_was && !(c->gate && reply_src_be == htonl(c->gate)))
        return false;
    for (size_t i = 0; i < c->nports; i++)
        if (en->orig_dport_be == htons(c->ports[i]))
            return true;
    return false;
}

int mesh_ct_forget(struct mesh_ct *c, struct mesh_msg *nf, unsigned *ret_count, struct err *e)
{
    bool one = c->naddrs == 1 && c->nports == 0; /* the common case */
    uint32_t only = one ? htonl(c->addrs[0].addr) : 0;
    if (c->naddrs > 1)
        qsort(c->addrs, c->naddrs, sizeof *c->addrs, addr_cmp);
    int r = mesh_flow_forget(nf, AF_INET, one ? &only : NULL, matches, c, ret_count, e);
    mesh_ct_done(c);
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

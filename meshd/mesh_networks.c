/* mesh_networks.c - see mesh_networks.h. */
#include "meshd/mesh_networks.h"

#include "common/daemon/daemon.h"
#include "common/proto/msg_meshd.h"
#include "meshd/mesh_view.h"

static struct str ip_text(struct arena *a, const struct netmap_ip *ip, bool prefix)
{
    char text[NETMAP_IP_TEXT];
    if (ip->family == 0)
        return (struct str){ NULL, 0 };
    (void)netmap_ip_text(ip, text);
    return str_from(prefix ? arena_printf(a, "%s/%u", text, ip->prefix) : arena_printf(a, "%s", text));
}

static bool put_network(struct arena *a, const struct netmap_network *n, struct net_network *ret)
{
    struct net_subnet *s = arena_array(a, n->nsubnets + 1, sizeof *s);
    *ret = (struct net_network){ .ID = str_from(n->id),
                                 .Name = n->name,
                                 .VNI = n->vni,
                                 .MTU = n->mtu,
                                 .Encrypted = n->encrypted,
                                 .Internal = n->internal,
                                 .Ingress = n->ingress,
                                 .Subnets = { s, n->nsubnets } };
    for (size_t i = 0; s && i < n->nsubnets; i++)
        s[i] = (struct net_subnet){ ip_text(a, &n->subnets[i].net, true), ip_text(a, &n->subnets[i].gateway, false) };
    return s != NULL;
}

void mesh_networks(struct rpc_call *c, const void *req)
{
    const struct netmap *m = mesh_view();
    struct mesh_networks_reply rep = { 0 };
    struct arena *a = rpc_arena(c);
    struct netmap_network **n;
    (void)req;
    if (!rpc_permit(c, daemon_user("apid"), "apid"))
        return;
    struct net_network *v = arena_array(a, m->networks.count + 1, sizeof *v);
    for (struct table_pos p = { 0 }; v && table_next(&m->networks, &p, NULL, &n);)
        if (!put_network(a, *n, &v[rep.Networks.n++]))
            v = NULL;
    rep.Networks.v = v;
    if (v)
        rpc_reply(c, &rep);
    else
        rpc_fail(c, ERR_NOMEM, "networks do not fit");
}

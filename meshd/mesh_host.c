#include "meshd/mesh_host.h"

#include <errno.h>
#include <libnftnl/chain.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "meshd/mesh_nl.h"

#define LAYOUT 4 /* of the table: another one is made anew */
#define ICMP_REDIRECT_TYPE 5
#define COMMENT_SIZE 80

/* ---- keys ---- */

void mesh_keys_done(struct mesh_keys *k)
{
    free(k->v);
    *k = (struct mesh_keys){ .len = k->len };
}

void mesh_keys_add(struct mesh_keys *k, const void *key)
{
    if ((k->n & (k->n - 1)) == 0) { /* grows by doubling */
        k->v = realloc(k->v, (k->n ? k->n * 2 : 1) * k->len);
        CHECK(k->v != NULL);
    }
    memcpy(k->v + k->n++ * k->len, key, k->len);
}

static int key_cmp(const void *a, const void *b, void *len)
{
    return memcmp(a, b, *(const size_t *)len);
}

void mesh_keys_sort(struct mesh_keys *k)
{
    size_t n = 0;
    if (k->n)
        qsort_r(k->v, k->n, k->len, key_cmp, &k->len);
    for (size_t i = 0; i < k->n; i++)
        if (n == 0 || memcmp(k->v + (n - 1) * k->len, k->v + i * k->len, k->len) != 0)
            memmove(k->v + n++ * k->len, k->v + i * k->len, k->len);
    k->n = n;
}

/* ---- the table ---- */

static const struct nfx_set sets[MESH_HOST_SETS] = {
    [MESH_HOST_PORTS] = { "published", 1, 0, NFX_PAIR(NFX_PROTO, NFX_SERVICE), sizeof(struct mesh_port_key), 0, 0 },
    [MESH_HOST_NODES] = { "nodes", 2, 0, NFX_IPADDR, 4, 0, 0 },
    [MESH_HOST_VNIS] = { "vnis", 3, 0, NFX_MARK, 4, 0, 0 },
};

/* Just before the host's own chains of the same kind, so that its NAT does not take our ports away. */
static const struct {
    const char *name, *type;
    uint32_t hook;
    int32_t prio;
    unsigned rules;
} chains[] = {
    { "to_gateway", NULL, 0, 0, 1 },
    { "guard", "filter", NF_INET_LOCAL_IN, -300, 2 },
    { "pre", "nat", NF_INET_PRE_ROUTING, -105, 1 },
    { "out", "nat", NF_INET_LOCAL_OUT, -105, 1 },
    { "post", "nat", NF_INET_POST_ROUTING, 95, 4 },
    { "icmp", "filter", NF_INET_LOCAL_OUT, 0, 1 },
};
#define NCHAINS (sizeof chains / sizeof *chains)

static void comment(const struct mesh_host *h, char text[COMMENT_SIZE])
{
    snprintf(text, COMMENT_SIZE, "layout %d, %s, vxlan port %u", LAYOUT, h->link, h->vxlan_port);
}

static void put_port_rules(const struct mesh_host *h)
{
    uint32_t gate = htonl(MESH_UP_GATE);
    struct nftnl_rule *r = nfx_rule(&h->t, "to_gateway");
    nfx_meta(r, NFT_META_L4PROTO, NFT_REG32_00);
    nfx_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG32_01);
    nfx_lookup(r, "published", NFT_REG32_00, -1);
    nfx_value(r, NFT_REG32_02, &gate, sizeof gate);
    nfx_nat4(r, NFT_NAT_DNAT, NFT_REG32_02, 0);
    nfx_add(&h->t, r);
    for (int i = 0; i < 2; i++) {
        r = nfx_rule(&h->t, i ? "out" : "pre");
        nfx_local(r, true);
        nfx_verdict(r, NFT_JUMP, "to_gateway");
        nfx_add(&h->t, r);
    }
}

/* put_post_rules - localhost and hairpin get our end's address, or the gateway would answer past us; what the gateway
 * sends out has our address. */
static void put_post_rules(const struct mesh_host *h)
{
    uint32_t up = htonl(MESH_UP_HOST);
    struct nftnl_rule *r = nfx_rule(&h->t, "post"); /* past the published ports nobody goes to the gateway. A chain of
    type nat sees the first packet of a connection only, so this costs the others nothing. */
    nfx_ifname(r, NFT_META_OIFNAME, NFT_CMP_EQ, h->link);
    nfx_forwarded(r);
    nfx_ct_bits(r, NFT_CT_STATUS, NFX_CT_DNAT, false);
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_NEQ, h->link);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(&h->t, r);
    for (int i = 0; i < 2; i++) {
        r = nfx_rule(&h->t, "post");
        nfx_ifname(r, NFT_META_OIFNAME, NFT_CMP_EQ, h->link);
        nfx_net4(r, 12, i ? MESH_UP_GATE : 127u << 24, i ? 32 : 8, true);
        nfx_value(r, NFT_REG32_02, &up, sizeof up);
        nfx_nat4(r, NFT_NAT_SNAT, NFT_REG32_02, 0);
        nfx_add(&h->t, r);
    }
    r = nfx_rule(&h->t, "post");
    nfx_ifname(r, NFT_META_OIFNAME, NFT_CMP_NEQ, h->link);
    nfx_net4(r, 12, MESH_UP_GATE, 32, true);
    nfx_expr(r, "masq");
    nfx_add(&h->t, r);
}

/* put_guard_rules - route_localnet opens 127/8 to the gateway: closed to what comes from there but is no answer. And a
 * VXLAN packet says itself whom it is from: only those of the swarm may say so for our networks. */
static void put_guard_rules(const struct mesh_host *h)
{
    uint16_t port = htons(h->vxlan_port);
    struct nftnl_rule *r = nfx_rule(&h->t, "guard");
    nfx_ifname(r, NFT_META_IIFNAME, NFT_CMP_EQ, h->link);
    nfx_net4(r, 16, 127u << 24, 8, true);
    nfx_ct_bits(r, NFT_CT_STATE, NFX_CT_KNOWN, false);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(&h->t, r);
    r = nfx_rule(&h->t, "guard");
    nfx_proto(r, IPPROTO_UDP);
    nfx_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
    nfx_cmp(r, NFT_REG_1, NFT_CMP_EQ, &port, sizeof port);
    nfx_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 12, 4, NFT_REG_1);
    nfx_mask(r, NFT_REG_1, htonl(0xffffff00u));
    nfx_lookup(r, "vnis", NFT_REG_1, -1);
    nfx_payload(r, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, NFT_REG_1);
    nfx_lookup_not(r, "nodes", NFT_REG_1);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(&h->t, r);
}

static void put_filter_rules(const struct mesh_host *h)
{
    uint8_t redirect = ICMP_REDIRECT_TYPE;
    struct nftnl_rule *r = nfx_rule(&h->t, "icmp");
    /* A hairpin goes out where it came in: a redirect would lead the gateway past the translation. */
    nfx_ifname(r, NFT_META_OIFNAME, NFT_CMP_EQ, h->link);
    nfx_proto(r, IPPROTO_ICMP);
    nfx_payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
    nfx_cmp(r, NFT_REG_1, NFT_CMP_EQ, &redirect, sizeof redirect);
    nfx_verdict(r, NF_DROP, NULL);
    nfx_add(&h->t, r);
}

/* put_changes - from what a set has to what it should have; both are sorted. */
static bool put_changes(const struct mesh_host *h, enum mesh_host_set set, int type)
{
    const struct mesh_keys *w = &h->want[set], *k = &h->have[set];
    struct nfx_elems es = { &h->t, type, sets[set].name, NULL, 0 };
    bool any = false;
    for (size_t i = 0, j = 0; i < w->n || j < k->n;) {
        int d = i == w->n ? 1 : j == k->n ? -1 : memcmp(w->v + i * w->len, k->v + j * k->len, k->len);
        if (d < 0 && type == NFT_MSG_NEWSETELEM)
            nfx_elem(&es, w->v + i * w->len, (uint16_t)w->len, NULL, 0), any = true;
        else if (d > 0 && type == NFT_MSG_DELSETELEM)
            nfx_elem(&es, k->v + j * k->len, (uint16_t)k->len, NULL, 0), any = true;
        i += d <= 0;
        j += d >= 0;
    }
    nfx_elems_end(&es);
    return any;
}

static void taken(struct mesh_host *h)
{
    for (int i = 0; i < MESH_HOST_SETS; i++) {
        mesh_keys_done(&h->have[i]);
        for (size_t k = 0; k < h->want[i].n; k++)
            mesh_keys_add(&h->have[i], h->want[i].v + k * h->want[i].len);
    }
}

static int rebuild(struct mesh_host *h, struct err *e)
{
    char text[COMMENT_SIZE];
    for (int i = 0; i < MESH_HOST_SETS; i++)
        mesh_keys_done(&h->have[i]);
    h->rebuilds++;
    h->transactions++;
    comment(h, text);
    nfx_begin(&h->req);
    nfx_table_del(&h->t);
    nfx_table_new(&h->t, text);
    for (int i = 0; i < MESH_HOST_SETS; i++)
        nfx_set(&h->t, &sets[i]);
    for (size_t i = 0; i < NCHAINS; i++)
        nfx_chain(&h->t, chains[i].name, chains[i].type, chains[i].hook, chains[i].prio, NULL);
    put_port_rules(h);
    put_post_rules(h);
    put_guard_rules(h);
    put_filter_rules(h);
    for (int i = 0; i < MESH_HOST_SETS; i++)
        put_changes(h, (enum mesh_host_set)i, NFT_MSG_NEWSETELEM);
    int r = nfx_commit(&h->req, "make the host's nftables table", NULL, e);
    if (r == 0)
        taken(h);
    return r;
}

int mesh_host_apply(struct mesh_host *h, struct err *e)
{
    bool any = false;
    nfx_begin(&h->req);
    for (int i = 0; i < MESH_HOST_SETS; i++) {
        any |= put_changes(h, (enum mesh_host_set)i, NFT_MSG_NEWSETELEM);
        any |= put_changes(h, (enum mesh_host_set)i, NFT_MSG_DELSETELEM);
    }
    if (!any) {
        mesh_msg_drop(&h->req);
        return 0;
    }
    h->transactions++;
    if (nfx_commit(&h->req, "change the host's nftables table", NULL, e) < 0)
        return rebuild(h, e);
    taken(h);
    return 0;
}

void mesh_host_want(struct mesh_host *h, enum mesh_host_set set, struct mesh_keys *keys)
{
    mesh_keys_done(&h->want[set]);
    CHECK(keys->len == h->want[set].len);
    h->want[set] = *keys;
    *keys = (struct mesh_keys){ .len = keys->len };
}

/* ---- reading back ---- */

struct reading {
    struct mesh_host *h;
    bool intact;
    unsigned rules[NCHAINS], seen;
    int set;
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
    rd->seen++;
    rd->intact &= chain_index(name) >= 0;
}

static void see_rule(const char *chain, void *arg)
{
    struct reading *rd = arg;
    int i = chain_index(chain);
    if (i >= 0)
        rd->rules[i]++;
}

static void see_elem(const struct nfx_elem_seen *el, void *arg)
{
    struct reading *rd = arg;
    struct mesh_keys *k = &rd->h->have[rd->set];
    if (el->key && el->key_len == k->len)
        mesh_keys_add(k, el->key);
    else
        rd->intact = false;
}

static int read_once(struct reading *rd, int *ret_errno, struct err *e)
{
    struct mesh_host *h = rd->h;
    char text[COMMENT_SIZE];
    comment(h, text);
    *ret_errno = 0;
    int r = nfx_look_table(&h->t, text, &rd->intact, e);
    if (r < 0 || !rd->intact)
        return r;
    r = nfx_look_chains(&h->t, see_chain, rd, ret_errno, e);
    if (r == 0)
        r = nfx_look_rules(&h->t, see_rule, rd, ret_errno, e);
    for (rd->set = 0; r == 0 && rd->set < MESH_HOST_SETS; rd->set++) {
        mesh_keys_done(&h->have[rd->set]);
        r = nfx_look_elems(&h->t, sets[rd->set].name, see_elem, rd, ret_errno, e);
        rd->intact &= *ret_errno != ENOENT;
        mesh_keys_sort(&h->have[rd->set]);
    }
    rd->intact &= rd->seen == NCHAINS;
    for (size_t i = 0; i < NCHAINS; i++)
        rd->intact &= rd->rules[i] == chains[i].rules;
    return r;
}

int mesh_host_sync(struct mesh_host *h, bool *ret_rebuilt, struct err *e)
{
    int errnum = EINTR, r = 0;
    struct reading rd;
    for (int tries = 0; errnum == EINTR && tries < 20; tries++) { /* EINTR: someone changed some table meanwhile */
        rd = (struct reading){ .h = h };
        r = read_once(&rd, &errnum, e);
    }
    *ret_rebuilt = false;
    if (r < 0)
        return r;
    if (rd.intact)
        return mesh_host_apply(h, e);
    *ret_rebuilt = true;
    return rebuild(h, e);
}

bool mesh_host_watch_read(struct mesh_host *h)
{
    return nfx_watch_read(&h->watch, h->req.portid, &h->t, 1);
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

int mesh_host_drops(struct mesh_host *h, struct buf *out, unsigned *ret_count, struct err *e)
{
    static const uint8_t families[] = { NFPROTO_IPV4, NFPROTO_INET };
    struct drops d = { out, 0 };
    int r = 0;
    buf_putc(out, '[');
    for (size_t i = 0; r == 0 && i < sizeof families; i++) {
        struct nfx all = { &h->req, families[i], "" };
        nfx_put(&all, NFT_MSG_GETCHAIN, NLM_F_DUMP, NFX_ROOM);
        r = mesh_msg_dump(&h->req, "read nftables chains", drop_chain, &d, NULL, e);
    }
    buf_putc(out, ']');
    *ret_count = d.n;
    return r;
}

int mesh_host_open(struct mesh_host *h, const char *link, struct err *e)
{
    *h = (struct mesh_host){ .vxlan_port = 4789 };
    h->t = (struct nfx){ &h->req, NFPROTO_IPV4, "microswarm" };
    snprintf(h->link, sizeof h->link, "%s", link);
    for (int i = 0; i < MESH_HOST_SETS; i++)
        h->want[i].len = h->have[i].len = sets[i].key_len;
    int r = mesh_msg_open(&h->req, NETLINK_NETFILTER, e);
    return r < 0 ? r : nfx_watch_open(&h->watch, e);
}

void mesh_host_close(struct mesh_host *h)
{
    mesh_msg_close(&h->req);
    mesh_msg_close(&h->watch);
    for (int i = 0; i < MESH_HOST_SETS; i++) {
        mesh_keys_done(&h->want[i]);
        mesh_keys_done(&h->have[i]);
    }
}

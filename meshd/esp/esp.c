#include "meshd/esp/esp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/crypto.h"

#define PRIORITY 1000u       /* of the policy for a peer */
#define PRIORITY_BLOCK 2000u /* lower: what no peer's policy is for */
#define WINDOW_WORDS 32u     /* of 32 packets: against replays, wide enough for what several queues disorder */
#define ICV_BITS 128u
#define ROOM 1024u /* for any one message */

static const char AEAD[] = "rfc4106(gcm(aes))";

/* What the kernel has of ours. */
struct have_sa {
    struct esp_sa sa; /* without key */
    bool wanted;
};
struct have_policy {
    struct xfrm_selector sel;
    uint8_t dir;
    uint32_t priority, spi;
    bool wanted;
};
struct have {
    struct have_sa *sas;
    size_t nsas, csas;
    struct have_policy *policies;
    size_t npolicies, cpolicies;
};

static void have_done(struct have *h)
{
    free(h->sas);
    free(h->policies);
}

static void *more(void *v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return v;
    *cap = *cap ? *cap * 2 : 64;
    v = realloc(v, *cap * size);
    CHECK(v != NULL);
    return v;
}

static void to_xfrm(const struct netmap_ip *ip, xfrm_address_t *ret)
{
    memset(ret, 0, sizeof *ret);
    memcpy(ret, ip->b, ip->family == AF_INET ? 4 : 16);
}

static struct netmap_ip from_xfrm(const xfrm_address_t *a, uint16_t family)
{
    struct netmap_ip ip = { .family = (uint8_t)family };
    memcpy(ip.b, a, family == AF_INET ? 4 : 16);
    return ip;
}

/* ---- reading ---- */

static void on_sa(const struct nlmsghdr *h, void *arg)
{
    struct have *v = arg;
    const struct xfrm_usersa_info *i = mnl_nlmsg_get_payload(h);

    if (mnl_nlmsg_get_payload_len(h) < sizeof *i || i->reqid != ESP_REQID || i->id.proto != IPPROTO_ESP)
        return;
    v->sas = more(v->sas, v->nsas, &v->csas, sizeof *v->sas);
    v->sas[v->nsas++] = (struct have_sa){ .sa = { .src = from_xfrm(&i->saddr, i->family),
                                                  .dst = from_xfrm(&i->id.daddr, i->family),
                                                  .spi = ntohl(i->id.spi) } };
}

static void on_policy(const struct nlmsghdr *h, void *arg)
{
    struct have *v = arg;
    const struct xfrm_userpolicy_info *i = mnl_nlmsg_get_payload(h);
    const struct xfrm_user_tmpl *t = NULL;
    const struct nlattr *a;

    if (mnl_nlmsg_get_payload_len(h) < sizeof *i)
        return;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *i); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == XFRMA_TMPL && mnl_attr_get_payload_len(a) >= sizeof *t)
            t = mnl_attr_get_payload(a);
    bool block = i->action == XFRM_POLICY_BLOCK && i->priority == PRIORITY_BLOCK && i->sel.proto == IPPROTO_UDP &&
                 i->sel.prefixlen_d == 0 && i->sel.prefixlen_s == 0;
    if (!block && !(t && t->reqid == ESP_REQID))
        return;
    v->policies = more(v->policies, v->npolicies, &v->cpolicies, sizeof *v->policies);
    v->policies[v->npolicies++] = (struct have_policy){
        .sel = i->sel, .dir = i->dir, .priority = i->priority, .spi = t && !block ? ntohl(t->id.spi) : 0
    };
}

static int dump(struct esp *x, struct have *ret, struct err *e)
{
    int r;
    (void)mesh_msg_put(&x->xfrm, XFRM_MSG_GETSA, NLM_F_DUMP, 0, ROOM);
    r = mesh_msg_dump(&x->xfrm, "list security associations", on_sa, ret, NULL, e);
    if (r < 0)
        return r;
    (void)mesh_msg_put(&x->xfrm, XFRM_MSG_GETPOLICY, NLM_F_DUMP, 0, ROOM);
    return mesh_msg_dump(&x->xfrm, "list IPsec policies", on_policy, ret, NULL, e);
}

/* ---- writing ---- */

static void forever(struct xfrm_lifetime_cfg *l)
{
    l->soft_byte_limit = l->hard_byte_limit = l->soft_packet_limit = l->hard_packet_limit = XFRM_INF;
}

static void put_sa(struct esp *x, const struct esp_sa *sa)
{
    struct nlmsghdr *h = mesh_msg_put(&x->xfrm, XFRM_MSG_NEWSA, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                                      sizeof(struct xfrm_usersa_info), ROOM);
    struct xfrm_usersa_info *i = mnl_nlmsg_get_payload(h);
    union {
        struct xfrm_algo_aead a;
        char room[sizeof(struct xfrm_algo_aead) + ESP_KEY_SIZE];
    } aead = { .a = { .alg_key_len = ESP_KEY_SIZE * 8, .alg_icv_len = ICV_BITS } };
    union {
        struct xfrm_replay_state_esn r;
        char room[sizeof(struct xfrm_replay_state_esn) + WINDOW_WORDS * 4];
    } replay = { .r = { .bmp_len = WINDOW_WORDS, .replay_window = WINDOW_WORDS * 32 } };

    to_xfrm(&sa->src, &i->saddr);
    to_xfrm(&sa->dst, &i->id.daddr);
    i->id.spi = htonl(sa->spi);
    i->id.proto = IPPROTO_ESP;
    forever(&i->lft);
    i->reqid = ESP_REQID;
    i->family = i->sel.family = sa->dst.family;
    i->mode = XFRM_MODE_TRANSPORT;
    i->flags = XFRM_STATE_ESN;
    memcpy(aead.a.alg_name, AEAD, sizeof AEAD);
    memcpy(aead.a.alg_key, sa->key, ESP_KEY_SIZE);
    mnl_attr_put(h, XFRMA_ALG_AEAD, sizeof aead, &aead);
    mnl_attr_put(h, XFRMA_REPLAY_ESN_VAL, sizeof replay, &replay);
    crypto_wipe(&aead, sizeof aead);
}

static void put_sa_del(struct esp *x, const struct esp_sa *sa)
{
    struct nlmsghdr *h = mesh_msg_put(&x->xfrm, XFRM_MSG_DELSA, NLM_F_ACK, sizeof(struct xfrm_usersa_id), ROOM);
    struct xfrm_usersa_id *i = mnl_nlmsg_get_payload(h);
    to_xfrm(&sa->dst, &i->daddr);
    i->spi = htonl(sa->spi);
    i->family = sa->dst.family;
    i->proto = IPPROTO_ESP;
}

static struct xfrm_selector selector(uint8_t family, const struct netmap_ip *src, const struct netmap_ip *dst,
                                     uint16_t port)
{
    struct xfrm_selector s = {
        .family = family, .proto = IPPROTO_UDP, .dport = htons(port), .dport_mask = htons(0xffff)
    };
    uint8_t whole = family == AF_INET ? 32 : 128;
    if (src) {
        to_xfrm(src, &s.saddr);
        s.prefixlen_s = whole;
    }
    if (dst) {
        to_xfrm(dst, &s.daddr);
        s.prefixlen_d = whole;
    }
    return s;
}

/* put_policy - made, or changed at once where there is one of that selector. @src NULL: blocks all */
static void put_policy(struct esp *x, uint8_t dir, uint8_t family, const struct netmap_ip *src,
                       const struct netmap_ip *dst, uint16_t port, uint32_t spi)
{
    struct nlmsghdr *h =
        mesh_msg_put(&x->xfrm, XFRM_MSG_UPDPOLICY, NLM_F_ACK, sizeof(struct xfrm_userpolicy_info), ROOM);
    struct xfrm_userpolicy_info *i = mnl_nlmsg_get_payload(h);
    struct xfrm_user_tmpl t = { .family = family, .mode = XFRM_MODE_TRANSPORT, .reqid = ESP_REQID };

    i->sel = selector(family, src, dst, port);
    forever(&i->lft);
    i->dir = dir;
    i->priority = src ? PRIORITY : PRIORITY_BLOCK;
    i->action = src ? XFRM_POLICY_ALLOW : XFRM_POLICY_BLOCK;
    if (!src)
        return;
    to_xfrm(src, &t.saddr);
    to_xfrm(dst, &t.id.daddr);
    t.id.proto = IPPROTO_ESP;
    t.id.spi = htonl(spi);
    t.aalgos = t.ealgos = t.calgos = ~0u;
    mnl_attr_put(h, XFRMA_TMPL, sizeof t, &t);
}

static void put_policy_del(struct esp *x, const struct have_policy *p)
{
    struct nlmsghdr *h = mesh_msg_put(&x->xfrm, XFRM_MSG_DELPOLICY, NLM_F_ACK, sizeof(struct xfrm_userpolicy_id), ROOM);
    struct xfrm_userpolicy_id *i = mnl_nlmsg_get_payload(h);
    i->sel = p->sel;
    i->dir = p->dir;
}

/* ---- comparing ---- */

static struct have_policy *find_policy(struct have *v, uint8_t dir, const struct xfrm_selector *sel)
{
    for (size_t i = 0; i < v->npolicies; i++)
        if (v->policies[i].dir == dir && memcmp(&v->policies[i].sel, sel, sizeof *sel) == 0)
            return &v->policies[i];
    return NULL;
}

static void want_policy(struct esp *x, struct have *v, uint8_t dir, uint8_t family, const struct netmap_ip *src,
                        const struct netmap_ip *dst, uint16_t port, uint32_t spi)
{
    struct xfrm_selector sel = selector(family, src, dst, port);
    struct have_policy *p = find_policy(v, dir, &sel);
    if (p)
        p->wanted = true;
    if (!p || p->spi != spi || p->priority != (src ? PRIORITY : PRIORITY_BLOCK))
        put_policy(x, dir, family, src, dst, port, spi);
}

static int compare_have(const void *a, const void *b)
{
    return esp_sa_cmp(&((const struct have_sa *)a)->sa, &((const struct have_sa *)b)->sa);
}

static bool same_ends(const struct esp_sa *a, const struct esp_sa *b)
{
    return netmap_ip_eq(&a->src, &b->src) && netmap_ip_eq(&a->dst, &b->dst);
}

static void want_sas(struct esp *x, struct have *v, const struct esp_want *w)
{
    if (v->nsas > 1)
        qsort(v->sas, v->nsas, sizeof *v->sas, compare_have);
    for (size_t i = 0; i < w->nsas; i++) {
        struct have_sa key = { .sa = w->sas[i] };
        struct have_sa *h = v->nsas ? bsearch(&key, v->sas, v->nsas, sizeof key, compare_have) : NULL;
        crypto_wipe(&key, sizeof key);
        if (h && same_ends(&h->sa, &w->sas[i]))
            h->wanted = true;
        else
            put_sa(x, &w->sas[i]);
    }
}

/* send - the keys go out of memory with the batch, whatever comes of it */
static int send_batch(struct esp *x, const char *what, struct err *e)
{
    int r = x->xfrm.n || x->xfrm.cur ? mesh_msg_send(&x->xfrm, what, NULL, e) : 0;
    if (x->xfrm.buf)
        crypto_wipe(x->xfrm.buf, x->xfrm.cap);
    return r;
}

static const uint8_t families[] = { AF_INET, AF_INET6 };

int esp_guard(struct esp *x, uint16_t port, struct err *e)
{
    if (!x->open || x->done.port == port)
        return 0;
    for (size_t i = 0; i < 2; i++) {
        put_policy(x, XFRM_POLICY_OUT, families[i], NULL, NULL, port, 0);
        put_policy(x, XFRM_POLICY_IN, families[i], NULL, NULL, port, 0);
    }
    return send_batch(x, "block clear packets of encrypted networks", e);
}

static int carry_out(struct esp *x, const struct esp_want *w, struct have *v, struct err *e)
{
    int r, worst = 0;

    for (size_t i = 0; w->port && i < 2; i++) { /* first of all: nothing in clear */
        want_policy(x, v, XFRM_POLICY_OUT, families[i], NULL, NULL, w->port, 0);
        want_policy(x, v, XFRM_POLICY_IN, families[i], NULL, NULL, w->port, 0);
    }
    r = send_batch(x, "block clear packets of encrypted networks", e);
    if (r < 0)
        return r;
    want_sas(x, v, w);
    r = send_batch(x, "add security associations", e);
    worst = r < 0 ? r : worst;
    for (size_t i = 0; i < w->npeers; i++) {
        const struct esp_peer *p = &w->peers[i];
        want_policy(x, v, XFRM_POLICY_IN, p->addr.family, &p->addr, &w->self, w->port, 0);
        if (p->spi_out)
            want_policy(x, v, XFRM_POLICY_OUT, p->addr.family, &w->self, &p->addr, w->port, p->spi_out);
    }
    r = send_batch(x, "set IPsec policies", e);
    worst = r < 0 ? r : worst;
    for (size_t i = 0; i < v->npolicies; i++)
        if (!v->policies[i].wanted)
            put_policy_del(x, &v->policies[i]);
    for (size_t i = 0; i < v->nsas; i++)
        if (!v->sas[i].wanted)
            put_sa_del(x, &v->sas[i].sa);
    r = send_batch(x, "remove what IPsec had before", e);
    return worst < 0 ? worst : r;
}

/* ---- life ---- */

int esp_open(struct esp *x, struct err *e)
{
    struct err why = ERR_INIT;
    (void)e;
    *x = (struct esp){ .stale = true };
    x->open = mesh_msg_open(&x->xfrm, NETLINK_XFRM, &why) == 0; /* else: a kernel without it */
    return 0;
}

void esp_close(struct esp *x)
{
    if (x->open)
        mesh_msg_close(&x->xfrm);
    esp_want_done(&x->done);
    x->open = false;
}

static int sync_to(struct esp *x, const struct netmap *map, struct str self, bool anyway, struct err *e)
{
    struct esp_want w;
    struct have v = { 0 };
    int r;

    if (!x->open || map->seq == 0) /* what an earlier life left stays until the map is known */
        return 0;
    esp_plan(map, self, &w);
    if (!anyway && !x->stale && esp_want_same(&w, &x->done)) {
        esp_want_done(&w);
        return 0;
    }
    r = dump(x, &v, e);
    if (r == 0)
        r = carry_out(x, &w, &v, e);
    have_done(&v);
    x->stale = r < 0;
    x->changes++;
    x->failures += r < 0;
    esp_want_done(&x->done);
    x->done = w;
    return r;
}

int esp_sync(struct esp *x, const struct netmap *map, struct str self, struct err *e)
{
    return sync_to(x, map, self, false, e);
}

int esp_reconcile(struct esp *x, const struct netmap *map, struct str self, struct err *e)
{
    if (x->open && x->done.port == 0 && !x->stale) { /* nothing of ours: no need to look through all there is */
        struct esp_want w;
        esp_plan(map, self, &w);
        bool idle = w.port == 0;
        esp_want_done(&w);
        if (idle)
            return 0;
    }
    return sync_to(x, map, self, true, e);
}

void esp_probe(const struct esp *x, struct buf *out)
{
    char text[NETMAP_IP_TEXT];

    buf_printf(out, "{\"supported\":%s,\"port\":%u,\"associations\":%zu,\"changes\":%llu,\"failures\":%llu,\"peers\":[",
               x->open ? "true" : "false", x->done.port, x->done.nsas, (unsigned long long)x->changes,
               (unsigned long long)x->failures);
    for (size_t i = 0; i < x->done.npeers; i++)
        buf_printf(out, "%s{\"addr\":\"%s\",\"spi\":\"0x%08x\"}", i ? "," : "",
                   netmap_ip_text(&x->done.peers[i].addr, text), x->done.peers[i].spi_out);
    buf_puts(out, "]}");
}

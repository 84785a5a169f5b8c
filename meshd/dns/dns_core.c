#include "meshd/dns/dns_core.h"

#include <arpa/inet.h>
#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/util/check.h"
#include "common/util/cleanup.h"

#define HEADER 12u
#define NAME_MAX_ 255u /* RFC 1035 §3.1, as text without the last dot */

/* ---- names ---- */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* The question's name as lower-case text. False for what no name of ours can be: a label with a dot or a zero byte. */
static bool name_text(const ldns_rdf *owner, char text[NAME_MAX_ + 1])
{
    const uint8_t *p = ldns_rdf_data(owner);
    size_t size = ldns_rdf_size(owner), at = 0, n = 0;

    while (at < size && p[at] != 0) {
        size_t len = p[at++];
        if (len > 63 || at + len > size || n + len + 1 > NAME_MAX_)
            return false;
        if (n > 0)
            text[n++] = '.';
        for (size_t i = 0; i < len; i++, at++) {
            if (p[at] == '.' || p[at] == 0)
                return false;
            text[n++] = lower((char)p[at]);
        }
    }
    text[n] = 0;
    return n > 0;
}

static bool same_name(struct str a, const char *b)
{
    return a.n == strlen(b) && strncasecmp(a.p ? a.p : "", b, a.n) == 0;
}

/* ---- what a name stands for ---- */

struct found {
    struct arena *a;
    bool known;
    size_t n, cap;
    struct netmap_ip *ips;
};

static void add_ip(struct found *f, const struct netmap_ip *ip)
{
    for (size_t i = 0; f->n < 64 && i < f->n;
         i++) /* aliases of several services: each address once, while it is cheap */
        if (netmap_ip_eq(&f->ips[i], ip))
            return;
    if (f->n == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 16;
        struct netmap_ip *more = arena_array(f->a, cap, sizeof *more);
        if (!more) /* the answer is cut short */
            return;
        if (f->n)
            memcpy(more, f->ips, f->n * sizeof *more);
        f->ips = more;
        f->cap = cap;
    }
    f->ips[f->n++] = *ip;
}

static void add_endpoint(struct found *f, const struct netmap_endpoint *ep)
{
    for (size_t i = 0; i < ep->nips; i++)
        add_ip(f, &ep->ips[i]);
}

static void add_tasks(const struct dns_zone *z, const struct netmap_network *n, const struct netmap_service *s,
                      struct found *f)
{
    struct netmap_endpoint **v;
    size_t count = netmap_backends(z->map, n, s, f->a, &v);
    for (size_t i = 0; i < count; i++)
        add_endpoint(f, v[i]);
}

/* "web.1.<task id>" */
static const struct netmap_endpoint *by_task_name(const struct netmap_network *n, struct str name)
{
    const char *dot = memrchr(name.p, '.', name.n);
    struct str id = { dot ? dot + 1 : name.p, dot ? name.n - (size_t)(dot + 1 - name.p) : 0 };
    const struct netmap_endpoint *ep = id.n ? netmap_endpoint(n, id) : NULL;
    char text[NAME_MAX_ + 1];

    return ep && str_copy(text, sizeof text, ep->name) && same_name(name, text) ? ep : NULL;
}

static bool find_on(const struct dns_zone *z, const struct netmap_network *n, struct str name, struct found *f)
{
    static const struct str tasks = STR("tasks.");
    const struct netmap_endpoint *ep;
    struct netmap_service **s;
    size_t count;

    if (z->hostname[0] && same_name(name, z->hostname) && (ep = netmap_endpoint(n, str_from(z->task))) != NULL) {
        add_endpoint(f, ep);
        return true;
    }
    count = netmap_by_name(n, name, f->a, &s);
    for (size_t i = 0; i < count; i++) {
        if (s[i]->dnsrr)
            add_tasks(z, n, s[i], f);
        for (size_t k = 0; k < s[i]->nvips; k++)
            add_ip(f, &s[i]->vips[k]);
    }
    if (count > 0)
        return true;
    if (str_starts(name, tasks)) {
        count = netmap_by_name(n, (struct str){ name.p + tasks.n, name.n - tasks.n }, f->a, &s);
        for (size_t i = 0; i < count; i++)
            add_tasks(z, n, s[i], f);
        if (count > 0)
            return true;
    }
    ep = by_task_name(n, name);
    if (ep)
        add_endpoint(f, ep);
    return ep != NULL;
}

static void find(const struct dns_zone *z, struct str name, struct found *f)
{
    for (size_t i = 0; i < z->nnetworks && !f->known; i++) {
        const struct netmap_network *n = netmap_network(z->map, str_from(z->networks[i]));
        f->known = n && find_on(z, n, name, f);
    }
    for (size_t at = 1; !f->known && at < name.n; at++) {
        struct str head = { name.p, at }, tail = { name.p + at + 1, name.n - at - 1 };
        if (name.p[at] != '.')
            continue;
        for (size_t i = 0; i < z->nnetworks && !f->known; i++) {
            const struct netmap_network *n = netmap_network(z->map, str_from(z->networks[i]));
            char net[NAME_MAX_ + 1];
            if (n && str_copy(net, sizeof net, n->name) && same_name(tail, net))
                f->known = find_on(z, n, head, f);
        }
    }
}

/* ---- addresses backwards ---- */

static bool parse_arpa4(struct str name, struct netmap_ip *ret)
{
    char text[NETMAP_IP_TEXT];
    struct netmap_ip ip;
    if (!str_copy(text, sizeof text, name) || !netmap_ip_parse(str_from(text), &ip) || ip.family != AF_INET ||
        strchr(text, '/'))
        return false;
    *ret = (struct netmap_ip){ .family = AF_INET, .prefix = 32, .b = { ip.b[3], ip.b[2], ip.b[1], ip.b[0] } };
    return true;
}

static bool parse_arpa6(struct str name, struct netmap_ip *ret)
{
    *ret = (struct netmap_ip){ .family = AF_INET6, .prefix = 128 };
    if (name.n != 63) /* 32 nibbles and 31 dots */
        return false;
    for (size_t i = 0; i < 32; i++) {
        char c = name.p[2 * i];
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (v < 0 || (i < 31 && name.p[2 * i + 1] != '.'))
            return false;
        ret->b[15 - i / 2] |= (uint8_t)(i % 2 ? v << 4 : v);
    }
    return true;
}

static bool parse_arpa(struct str name, struct netmap_ip *ret)
{
    static const struct str v4 = STR(".in-addr.arpa"), v6 = STR(".ip6.arpa");
    if (name.n > v4.n && memcmp(name.p + name.n - v4.n, v4.p, v4.n) == 0)
        return parse_arpa4((struct str){ name.p, name.n - v4.n }, ret);
    if (name.n > v6.n && memcmp(name.p + name.n - v6.n, v6.p, v6.n) == 0)
        return parse_arpa6((struct str){ name.p, name.n - v6.n }, ret);
    return false;
}

static bool inside(const struct netmap_ip *net, const struct netmap_ip *ip)
{
    unsigned whole = net->prefix / 8, rest = net->prefix % 8;
    return net->family == ip->family && memcmp(net->b, ip->b, whole) == 0 &&
           (rest == 0 || ((net->b[whole] ^ ip->b[whole]) & (0xff00 >> rest & 0xff)) == 0);
}

/* find_backwards - *ret_ours: an address of these networks, whether somebody has it or not */
static bool find_backwards(const struct dns_zone *z, const struct netmap_ip *ip, char name[1024], bool *ret_ours)
{
    struct netmap_service *s;
    struct netmap_endpoint *ep;

    for (size_t i = 0; i < z->nnetworks; i++) {
        const struct netmap_network *n = netmap_network(z->map, str_from(z->networks[i]));
        if (!n)
            continue;
        if (netmap_by_address(n, ip, &s, &ep)) {
            struct str whose = s ? s->name : ep->name;
            snprintf(name, 1024, STR_FMT "." STR_FMT, STR_ARG(whose), STR_ARG(n->name));
            return true;
        }
        for (size_t k = 0; k < n->nsubnets; k++)
            *ret_ours = *ret_ours || inside(&n->subnets[k].net, ip);
    }
    return false;
}

/* ---- messages ---- */

static void free_pkt(ldns_pkt **p)
{
    if (*p)
        ldns_pkt_free(*p);
}

static uint16_t get16(const char *p)
{
    return (uint16_t)((uint8_t)p[0] << 8 | (uint8_t)p[1]);
}

/* where the only question ends; 0: there is none, or it is cut short */
static size_t question_end(struct str m)
{
    size_t at = HEADER;
    if (m.n < HEADER || get16(m.p + 4) != 1)
        return 0;
    while (at < m.n && m.p[at] != 0) {
        if ((uint8_t)m.p[at] > 63) /* a pointer: not in a question */
            return 0;
        at += 1 + (uint8_t)m.p[at];
    }
    return at + 5 <= m.n ? at + 5 : 0;
}

void dns_failure(struct str query, unsigned rcode, struct buf *out)
{
    size_t end = question_end(query), at = out->n;

    if (query.n < HEADER)
        return;
    buf_put(out, query.p, end ? end : HEADER);
    if (out->failed)
        return;
    char *h = out->p + at;
    h[2] = (char)(0x80 | (h[2] & 0x79)); /* an answer; opcode and RD stay, AA and TC go */
    h[3] = (char)(0x80 | (rcode & 0xf)); /* RA */
    memset(h + 4, 0, 8);
    h[5] = end ? 1 : 0;
}

bool dns_is_answer(struct str query, struct str answer)
{
    size_t end = question_end(query);
    if (end == 0 || question_end(answer) != end || !((uint8_t)answer.p[2] & 0x80))
        return false;
    for (size_t i = HEADER; i < end - 4; i++) /* lengths of labels are below 'A' */
        if (lower(query.p[i]) != lower(answer.p[i]))
            return false;
    return memcmp(query.p + end - 4, answer.p + end - 4, 4) == 0;
}

bool dns_try_next(struct str answer)
{
    unsigned rcode = answer.n >= HEADER ? (uint8_t)answer.p[3] & 0xf : DNS_SERVFAIL;
    return rcode == DNS_SERVFAIL || rcode == DNS_REFUSED || rcode == LDNS_RCODE_NOTIMPL;
}

static void push_rr(ldns_pkt *r, const ldns_rdf *owner, ldns_rr_type type, ldns_rdf *data)
{
    ldns_rr *rr = ldns_rr_new();
    CHECK(rr != NULL && data != NULL);
    ldns_rr_set_owner(rr, ldns_rdf_clone(owner));
    ldns_rr_set_type(rr, type);
    ldns_rr_set_class(rr, LDNS_RR_CLASS_IN);
    ldns_rr_set_ttl(rr, DNS_TTL_S);
    ldns_rr_push_rdf(rr, data);
    ldns_pkt_push_rr(r, LDNS_SECTION_ANSWER, rr);
}

static uint32_t next_random(uint32_t *seed) /* xorshift32: only for fairness */
{
    uint32_t x = *seed ? *seed : 1;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *seed = x;
}

/* put_addresses - in a shuffled order, as many as fit into `room` bytes; false when some were left out */
static bool put_addresses(ldns_pkt *r, const ldns_rdf *owner, ldns_rr_type type, const struct found *f, size_t room,
                          uint32_t seed)
{
    size_t left = f->n;

    while (left > 0) {
        size_t i = next_random(&seed) % left;
        struct netmap_ip ip = f->ips[i];
        bool v4 = ip.family == AF_INET;
        size_t cost = 12 + (v4 ? 4 : 16); /* the name is a pointer */
        f->ips[i] = f->ips[--left];
        f->ips[left] = ip;
        if (type != LDNS_RR_TYPE_ANY && type != (v4 ? LDNS_RR_TYPE_A : LDNS_RR_TYPE_AAAA))
            continue;
        if (cost > room)
            return false;
        room -= cost;
        push_rr(r, owner, v4 ? LDNS_RR_TYPE_A : LDNS_RR_TYPE_AAAA,
                ldns_rdf_new_frm_data(v4 ? LDNS_RDF_TYPE_A : LDNS_RDF_TYPE_AAAA, v4 ? 4 : 16, ip.b));
    }
    return true;
}

static ldns_pkt *reply_to(const ldns_pkt *q, unsigned rcode)
{
    ldns_pkt *r = ldns_pkt_new();
    CHECK(r != NULL);
    ldns_pkt_set_id(r, ldns_pkt_id(q));
    ldns_pkt_set_qr(r, true);
    ldns_pkt_set_rd(r, ldns_pkt_rd(q));
    ldns_pkt_set_ra(r, true);
    ldns_pkt_set_rcode(r, (uint8_t)rcode);
    ldns_pkt_push_rr(r, LDNS_SECTION_QUESTION, ldns_rr_clone(ldns_rr_list_rr(ldns_pkt_question(q), 0)));
    if (ldns_pkt_edns(q))
        ldns_pkt_set_edns_udp_size(r, DNS_UDP_MAX);
    return r;
}

static size_t limit_of(const ldns_pkt *q, bool tcp)
{
    size_t asked = ldns_pkt_edns(q) ? ldns_pkt_edns_udp_size(q) : DNS_UDP_MIN;
    return tcp ? DNS_MESSAGE_MAX : asked < DNS_UDP_MIN ? DNS_UDP_MIN : asked > DNS_UDP_MAX ? DNS_UDP_MAX : asked;
}

static enum dns_verdict finish(const ldns_pkt *r, struct str query, struct buf *out)
{
    uint8_t *wire = NULL;
    size_t n = 0;
    if (ldns_pkt2wire(&wire, r, &n) == LDNS_STATUS_OK && n <= DNS_MESSAGE_MAX)
        buf_put(out, wire, n);
    else
        dns_failure(query, DNS_SERVFAIL, out);
    free(wire);
    return DNS_REPLY;
}

static enum dns_verdict fail(struct str query, unsigned rcode, struct buf *out)
{
    dns_failure(query, rcode, out);
    return DNS_REPLY;
}

static enum dns_verdict forward(const struct dns_zone *z, struct str query, struct str name, struct buf *out)
{
    if (!z->outside || (z->single_inside && !memchr(name.p, '.', name.n)))
        return fail(query, LDNS_RCODE_NXDOMAIN, out);
    return DNS_FORWARD;
}

static enum dns_verdict answer_ptr(const struct dns_zone *z, const ldns_pkt *q, const ldns_rdf *owner, struct str query,
                                   struct str name, struct buf *out)
{
    _cleanup_(free_pkt) ldns_pkt *r = NULL;
    struct netmap_ip ip;
    char whose[1024];
    bool ours = false;

    if (!parse_arpa(name, &ip))
        return forward(z, query, name, out);
    if (!find_backwards(z, &ip, whose, &ours))
        return ours ? fail(query, LDNS_RCODE_NXDOMAIN, out) : forward(z, query, name, out);
    ldns_rdf *dname = ldns_dname_new_frm_str(whose);
    if (!dname) /* a name too long for DNS */
        return fail(query, LDNS_RCODE_NXDOMAIN, out);
    r = reply_to(q, LDNS_RCODE_NOERROR);
    push_rr(r, owner, LDNS_RR_TYPE_PTR, dname);
    return finish(r, query, out);
}

enum dns_verdict dns_answer(const struct dns_zone *z, struct str query, bool tcp, uint32_t seed, struct arena *a,
                            struct buf *out)
{
    _cleanup_(free_pkt) ldns_pkt *q = NULL, *r = NULL;
    char text[NAME_MAX_ + 1];
    struct found f = { .a = a };

    if (query.n < HEADER || query.n > DNS_MESSAGE_MAX || (uint8_t)query.p[2] & 0x80)
        return DNS_IGNORE;
    if (((uint8_t)query.p[2] >> 3 & 0xf) != LDNS_PACKET_QUERY)
        return fail(query, LDNS_RCODE_NOTIMPL, out);
    if (question_end(query) == 0 || ldns_wire2pkt(&q, (const uint8_t *)query.p, query.n) != LDNS_STATUS_OK ||
        ldns_rr_list_rr_count(ldns_pkt_question(q)) != 1)
        return fail(query, LDNS_RCODE_FORMERR, out);

    const ldns_rr *question = ldns_rr_list_rr(ldns_pkt_question(q), 0);
    const ldns_rdf *owner = ldns_rr_owner(question);
    ldns_rr_type type = ldns_rr_get_type(question);
    struct str name;
    if (ldns_rr_get_class(question) != LDNS_RR_CLASS_IN || !name_text(owner, text))
        return z->outside ? DNS_FORWARD : fail(query, LDNS_RCODE_NXDOMAIN, out);
    name = str_from(text);
    if (type == LDNS_RR_TYPE_PTR)
        return answer_ptr(z, q, owner, query, name, out);
    find(z, name, &f);
    if (!f.known)
        return forward(z, query, name, out);
    r = reply_to(q, LDNS_RCODE_NOERROR);
    size_t used = question_end(query) + (ldns_pkt_edns(q) ? 11 : 0), limit = limit_of(q, tcp);
    if (!put_addresses(r, owner, type, &f, limit > used ? limit - used : 0, seed))
        ldns_pkt_set_tc(r, true);
    return finish(r, query, out);
}

#include "meshd/dns/dns_core.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <resolv.h>
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

/* The name of a well-formed question as lower-case text. False for what no name of ours can be: a label with a dot or a
 * zero byte. */
static bool name_text(struct str query, char text[NAME_MAX_ + 1])
{
    const char *p = query.p + HEADER;
    size_t n = 0;

    while (*p) {
        size_t len = (uint8_t)*p++;
        if (n + len + 1 > NAME_MAX_)
            return false;
        if (n > 0)
            text[n++] = '.';
        for (size_t i = 0; i < len; i++, p++) {
            if (*p == '.' || *p == 0)
                return false;
            text[n++] = lower(*p);
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

/*
 * edns_of - the records after the question: false when one of them is malformed. *ret: how large an answer over UDP the
 * sender takes (RFC 6891 §6.2.3), 0 without EDNS.
 */
static bool edns_of(struct str m, uint16_t *ret)
{
    const uint8_t *p = (const uint8_t *)m.p + question_end(m), *end = (const uint8_t *)m.p + m.n;
    unsigned before = get16(m.p + 6) + get16(m.p + 8), records = before + get16(m.p + 10);

    *ret = 0;
    for (unsigned i = 0; i < records; i++) {
        int name = dn_skipname(p, end);
        if (name < 0 || end - p < name + 10)
            return false;
        const char *fixed = (const char *)p + name;
        if (i >= before && name == 1 && get16(fixed) == ns_t_opt)
            *ret = get16(fixed + 2) < DNS_UDP_MIN ? DNS_UDP_MIN : get16(fixed + 2);
        p += name + 10;
        if (end - p < get16(fixed + 8))
            return false;
        p += get16(fixed + 8);
    }
    return true;
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
    return rcode == DNS_SERVFAIL || rcode == DNS_REFUSED || rcode == ns_r_notimpl;
}

/* ---- answers, as they are put together ---- */

struct reply {
    struct buf *out;
    size_t at; /* in out, where it begins */
    unsigned records;
    bool edns;
};

static void put16(struct buf *b, unsigned v)
{
    buf_put(b, (char[]){ (char)(v >> 8), (char)v }, 2);
}

static struct reply reply_to(struct str query, bool edns, struct buf *out)
{
    struct reply r = { .out = out, .at = out->n, .edns = edns };
    buf_put(out, query.p, question_end(query));
    if (!out->failed) {
        char *h = out->p + r.at;
        h[2] = (char)(0x80 | (h[2] & 0x01)); /* an answer; RD stays */
        h[3] = (char)0x80;                   /* RA */
        memset(h + 4, 0, 8);
        h[5] = 1;
    }
    return r;
}

static void push_rr(struct reply *r, ns_type type, const void *data, size_t n)
{
    put16(r->out, 0xc000 | HEADER); /* the question's name */
    put16(r->out, type);
    put16(r->out, ns_c_in);
    put16(r->out, 0);
    put16(r->out, DNS_TTL_S);
    put16(r->out, (unsigned)n);
    buf_put(r->out, data, n);
    r->records++;
}

static enum dns_verdict finish(struct reply *r, bool truncated)
{
    if (r->edns) {
        buf_putc(r->out, 0);
        put16(r->out, ns_t_opt);
        put16(r->out, DNS_UDP_MAX);
        buf_put(r->out, "\0\0\0\0\0", 6);
    }
    if (!r->out->failed) {
        char *h = r->out->p + r->at;
        h[2] = (char)(h[2] | (truncated ? 0x02 : 0));
        h[6] = (char)(r->records >> 8);
        h[7] = (char)r->records;
        h[11] = r->edns;
    }
    return DNS_REPLY;
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
static bool put_addresses(struct reply *r, ns_type type, const struct found *f, size_t room, uint32_t seed)
{
    size_t left = f->n;

    while (left > 0) {
        size_t i = next_random(&seed) % left;
        struct netmap_ip ip = f->ips[i];
        bool v4 = ip.family == AF_INET;
        size_t cost = 12 + (v4 ? 4 : 16); /* the name is a pointer */
        f->ips[i] = f->ips[--left];
        f->ips[left] = ip;
        if (type != ns_t_any && type != (v4 ? ns_t_a : ns_t_aaaa))
            continue;
        if (cost > room)
            return false;
        room -= cost;
        push_rr(r, v4 ? ns_t_a : ns_t_aaaa, ip.b, v4 ? 4 : 16);
    }
    return true;
}

static size_t limit_of(uint16_t edns, bool tcp)
{
    return tcp ? DNS_MESSAGE_MAX : edns == 0 ? DNS_UDP_MIN : edns > DNS_UDP_MAX ? DNS_UDP_MAX : edns;
}

static enum dns_verdict fail(struct str query, unsigned rcode, struct buf *out)
{
    dns_failure(query, rcode, out);
    return DNS_REPLY;
}

static enum dns_verdict forward(const struct dns_zone *z, struct str query, struct str name, struct buf *out)
{
    if (!z->outside || (z->single_inside && !memchr(name.p, '.', name.n)))
        return fail(query, ns_r_nxdomain, out);
    return DNS_FORWARD;
}

static enum dns_verdict answer_ptr(const struct dns_zone *z, struct str query, bool edns, struct str name,
                                   struct buf *out)
{
    struct netmap_ip ip;
    char whose[1024];
    uint8_t dname[NS_MAXCDNAME];
    bool ours = false;

    if (!parse_arpa(name, &ip))
        return forward(z, query, name, out);
    if (!find_backwards(z, &ip, whose, &ours))
        return ours ? fail(query, ns_r_nxdomain, out) : forward(z, query, name, out);
    if (ns_name_pton(whose, dname, sizeof dname) < 0) /* too long for DNS */
        return fail(query, ns_r_nxdomain, out);
    struct reply r = reply_to(query, edns, out);
    push_rr(&r, ns_t_ptr, dname, (size_t)dn_skipname(dname, dname + sizeof dname));
    return finish(&r, false);
}

enum dns_verdict dns_answer(const struct dns_zone *z, struct str query, bool tcp, uint32_t seed, struct arena *a,
                            struct buf *out)
{
    char text[NAME_MAX_ + 1];
    uint16_t edns;
    struct found f = { .a = a };

    if (query.n < HEADER || query.n > DNS_MESSAGE_MAX || (uint8_t)query.p[2] & 0x80)
        return DNS_IGNORE;
    if (((uint8_t)query.p[2] >> 3 & 0xf) != ns_o_query)
        return fail(query, ns_r_notimpl, out);
    size_t end = question_end(query);
    if (end == 0 || !edns_of(query, &edns))
        return fail(query, ns_r_formerr, out);

    ns_type type = get16(query.p + end - 4);
    struct str name;
    if (get16(query.p + end - 2) != ns_c_in || !name_text(query, text))
        return z->outside ? DNS_FORWARD : fail(query, ns_r_nxdomain, out);
    name = str_from(text);
    if (type == ns_t_ptr)
        return answer_ptr(z, query, edns > 0, name, out);
    find(z, name, &f);
    if (!f.known)
        return forward(z, query, name, out);
    struct reply r = reply_to(query, edns > 0, out);
    size_t used = end + (edns > 0 ? 11 : 0), limit = limit_of(edns, tcp);
    bool all = put_addresses(&r, type, &f, limit > used ? limit - used : 0, seed);
    return finish(&r, !all);
}

/* alloc_core.c - see alloc_core.h. */
#include "allocatord/alloc_core.h"

const char *const alloc_proto_name[ALLOC_PROTO_COUNT] = { "tcp", "udp", "sctp" };

enum alloc_proto alloc_proto_parse(struct str s)
{
    return str_is(s, "udp") ? ALLOC_UDP : str_is(s, "sctp") ? ALLOC_SCTP : ALLOC_TCP;
}

struct search {
    const struct alloc_port *spec, *had;
    struct alloc_port *out;
    size_t n, nhad;
    alloc_taken_fn *taken;
    void *arg;
    unsigned *cursor;
};

/* ours - another port of this very service has it already. */
static bool ours(const struct search *s, enum alloc_proto proto, uint64_t port)
{
    for (size_t i = 0; i < s->n; i++)
        if (!s->out[i].host && s->out[i].proto == proto && s->out[i].published == port)
            return true;
    return false;
}

static bool is_free(const struct search *s, enum alloc_proto proto, uint64_t port)
{
    return !ours(s, proto, port) && !s->taken(s->arg, proto, port);
}

/* had_before - the automatic port that this port was given before; 0 if none. */
static uint64_t had_before(const struct search *s, const struct alloc_port *p)
{
    for (size_t i = 0; i < s->nhad; i++) {
        const struct alloc_port *h = &s->had[i];
        if (!h->host && h->proto == p->proto && h->target == p->target && str_eq(h->name, p->name) && h->published &&
            is_free(s, p->proto, h->published))
            return h->published;
    }
    return 0;
}

static uint64_t next_free(struct search *s, enum alloc_proto proto)
{
    unsigned size = ALLOC_AUTO_LAST - ALLOC_AUTO_FIRST + 1;
    unsigned at = s->cursor[proto] >= ALLOC_AUTO_FIRST ? s->cursor[proto] - ALLOC_AUTO_FIRST : 0;
    for (unsigned i = 0; i < size; i++) {
        unsigned port = ALLOC_AUTO_FIRST + (at + i) % size;
        if (is_free(s, proto, port)) {
            s->cursor[proto] = port + 1;
            return port;
        }
    }
    return 0;
}

int alloc_ports(const struct alloc_port *spec, size_t n, const struct alloc_port *had, size_t nhad,
                alloc_taken_fn *taken, void *arg, unsigned cursor[ALLOC_PROTO_COUNT], struct alloc_port *out,
                const struct alloc_port **ret_bad)
{
    struct search s = {
        .spec = spec, .had = had, .out = out, .n = n, .nhad = nhad, .taken = taken, .arg = arg, .cursor = cursor
    };
    for (size_t i = 0; i < n; i++) {
        out[i] = spec[i];
        out[i].published = 0;
    }
    for (size_t i = 0; i < n; i++) { /* what was asked for comes before what is chosen */
        if (!spec[i].host && spec[i].published && !is_free(&s, spec[i].proto, spec[i].published)) {
            *ret_bad = &spec[i];
            return -ERR_CONFLICT;
        }
        out[i].published = spec[i].published;
    }
    for (size_t i = 0; i < n; i++)
        if (!out[i].host && out[i].published == 0)
            out[i].published = had_before(&s, &spec[i]);
    for (size_t i = 0; i < n; i++) {
        if (out[i].host || out[i].published)
            continue;
        out[i].published = next_free(&s, out[i].proto);
        if (out[i].published == 0) {
            *ret_bad = &spec[i];
            return -ERR_CONFLICT;
        }
    }
    return 0;
}

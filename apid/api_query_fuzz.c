/* A request target may be any bytes: path, version, route and query. */
#include "apid/api_query.h"
#include "apid/api_route.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct api_route table[] = { { "GET", "/services/{}/logs", NULL, 0, 0 },
                                          { "GET", "/images/{*}/json", NULL, 0, 0 },
                                          { "GET", "/x/{}/{}", NULL, 0, 0 },
                                          { .pattern = NULL } };

static void read_values(const struct query *q)
{
    struct err e = ERR_INIT;
    int64_t ns;
    uint64_t v;
    bool b;

    for (size_t i = 0; i < q->n; i++) {
        CHECK(strlen(q->v[i].key.p) == q->v[i].key.n && strlen(q->v[i].val.p) == q->v[i].val.n);
        (void)query_loose(q, q->v[i].key.p);
        (void)query_strict(q, q->v[i].key.p, &b, &e);
        if (query_time(q, q->v[i].key.p, &ns, &b, &e) < 0)
            CHECK(e.code == ERR_INVALID);
    }
    (void)query_version(q, "service", &v, &e);
    if (query_tail(q, &ns, &e) == 0)
        CHECK(ns >= -1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct query q;
    struct str text = { (const char *)data, size }, path, params[ROUTE_PARAMS_MAX];
    const char *mark = memchr(data, '?', size);
    struct str raw = { text.p, mark ? (size_t)(mark - text.p) : size };
    struct err e = ERR_INIT;
    struct arena a;

    arena_init(&a, 1u << 20);
    if (percent_decode(raw, false, &a, &path, &e) == 0) {
        (void)route_version(&path);
        if (route_find(table, STR("GET"), path, params))
            CHECK(params[0].n > 0 && params[0].p >= path.p && params[0].p + params[0].n <= path.p + path.n);
    }
    if (mark && query_parse(&q, (struct str){ mark + 1, size - raw.n - 1 }, &a, &e) == 0)
        read_values(&q);
    arena_done(&a);
    return 0;
}

/* expand_fuzz.c - any text as a payload; what it may cost is bounded, and it is expanded the same way twice. */
#include <stdlib.h>

#include "common/template/expand.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool find(void *arg, struct str target, struct str *ret)
{
    (void)arg;
    *ret = STR("content {{.Task.ID}}");
    return str_is(target, "t");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct strpair labels[] = { { { "k", 1 }, { "v", 1 } }, { { "x", 1 }, { "y", 1 } } };
    static struct str env[] = { { "E=1", 3 } };
    static const struct expand_ctx ctx = { .service_name = { "web", 3 },
                                           .service_labels = { labels, 2 },
                                           .task_slot = { "1", 1 } };
    static const struct expand_refs refs = { .env = { env, 1 }, .secret = find, .config = find };
    struct str in = { (const char *)data, size };
    struct buf out[2] = { { .limit = EXPAND_TEXT_MAX }, { .limit = EXPAND_TEXT_MAX } };
    struct err e[2] = { ERR_INIT, ERR_INIT };
    int r[2];

    if (size > 8192)
        return 0;
    for (int i = 0; i < 2; i++)
        r[i] = expand_payload(&ctx, &refs, in, &out[i], &e[i]);
    CHECK(r[0] == r[1] && str_eq(buf_str(&out[0]), buf_str(&out[1])));
    CHECK(r[0] == 0 || e[0].msg[0]);
    CHECK(out[0].n <= EXPAND_TEXT_MAX);
    (void)expand_check(in, &e[0]);
    buf_done(&out[0]);
    buf_done(&out[1]);
    return 0;
}

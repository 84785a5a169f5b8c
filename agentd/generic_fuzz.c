/* generic_fuzz.c - settings as text: what is accepted comes back from its document unchanged; documents as they come.
 */
#include "agentd/generic.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(struct str text, struct arena *a)
{
    struct generic_list l, back;
    struct buf doc = BUF_INIT, one = BUF_INIT, two = BUF_INIT;
    struct err e;
    if (generic_parse(text, &l, a, &e) != 0)
        return;
    generic_put(&l, &doc);
    CHECK(generic_decode(buf_str(&doc), &back, a) == 0 && back.n == l.n);
    for (size_t i = 0; i < l.n; i++) {
        CHECK(str_eq(l.v[i].kind, back.v[i].kind) && l.v[i].named == back.v[i].named);
        CHECK(!l.v[i].named || str_eq(l.v[i].value, back.v[i].value));
        CHECK(generic_env_text(&l, i, &one) == generic_env_text(&back, i, &two));
    }
    buf_done(&doc);
    buf_done(&one);
    buf_done(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct generic_list l;
    struct arena a;
    arena_init(&a, 16u << 20);
    if (size < 4096)
        round_trip((struct str){ (const char *)data, size }, &a);
    (void)generic_decode((struct str){ (const char *)data, size }, &l, &a);
    arena_done(&a);
    return 0;
}

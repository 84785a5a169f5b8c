/* Documents: what is read is written back the same. */
#include <sys/types.h>

#include "cad/cad_doc.h"
#include "cad/cad_netkeys.h"
#include "common/util/check.h"

static void cluster(struct str in, struct arena *a)
{
    struct cad_root_doc d, again;
    struct buf b = BUF_INIT, c = BUF_INIT, chain = BUF_INIT;
    struct err e = ERR_INIT;

    if (cad_root_doc(in, &d, a, &e) == 0) {
        mp_map(&b, 1);
        mp_cstr(&b, "RootCA");
        cad_put_root_doc(&b, &d);
        CHECK(cad_root_doc(buf_str(&b), &again, a, &e) == 0);
        mp_map(&c, 1);
        mp_cstr(&c, "RootCA");
        cad_put_root_doc(&c, &again);
        CHECK(str_eq(buf_str(&b), buf_str(&c)));
        cad_put_chain(&chain, &d);
    }
    buf_done(&b);
    buf_done(&c);
    buf_done(&chain);
}

static void node(struct str in, struct arena *a)
{
    static const uint8_t key[CA_KEY_DIGEST] = { 1 };
    struct cad_cert_doc d, again;
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;

    if (cad_cert_doc(in, &d, a, &e) == 0) {
        d.Keys = cad_add_key(a, d.Keys, key);
        CHECK(cad_knows_key(&d, key) && d.Keys.n <= CAD_KEYS_BYTES);
        mp_map(&b, 1);
        cad_put_cert_doc(&b, &d);
        CHECK(cad_cert_doc(buf_str(&b), &again, a, &e) == 0 && str_eq(again.Keys, d.Keys));
    }
    buf_done(&b);
}

static void netkeys(struct str in, struct arena *a)
{
    struct netkeys k, again;
    struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    int64_t next;

    if (netkeys_read(in, &k, a, &e) == 0) {
        (void)netkeys_due(&k, 1000, 5000, &next);
        netkeys_put(&b, "network-keys", &k);
        CHECK(netkeys_read(buf_str(&b), &again, a, &e) == 0 && memcmp(&k, &again, sizeof k) == 0);
    }
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = { (const char *)data, size };
    struct arena a;

    arena_init(&a, 16u << 20);
    cluster(in, &a);
    node(in, &a);
    netkeys(in, &a);
    arena_done(&a);
    return 0;
}

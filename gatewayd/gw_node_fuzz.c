/* The identity file, the datagrams of raftd, and texts of persons: tokens, addresses, certificates. */
#include <stdlib.h>

#include "common/util/check.h"
#include "gatewayd/gw_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = { (const char *)data, size };
    struct gw_node_file f, f2;
    struct gw_peer_frame p;
    struct arena a;
    struct err e = ERR_INIT;
    struct buf b = BUF_INIT, b2 = BUF_INIT;
    uint8_t digest[GW_DIGEST_BYTES];
    struct host_port addr, addr2;
    char text[ADDR_TEXT_MAX];
    STACK_OF(X509) * chain;
    arena_init(&a, 1u << 20);
    if (gw_node_file_read(&f, in, &a, &e) == 0) {
        fields_encode(&f, gw_node_file_fields, &b);
        CHECK(!b.failed && gw_node_file_read(&f2, buf_str(&b), &a, &e) == 0);
        fields_encode(&f2, gw_node_file_fields, &b2);
        CHECK(str_eq(buf_str(&b), buf_str(&b2)));
    }
    (void)fields_decode(&p, gw_peer_frame_fields, sizeof p, in, FIELDS_STRICT, &a, &e);
    (void)gw_token_digest(in, digest);
    if (addr_parse(in, 2377, &addr, &e) == 0) {
        addr_text(&addr, text);
        if (addr_is_ip(addr.host))
            CHECK(addr_parse(str_from(text), 1, &addr2, &e) == 0 && addr2.port == addr.port &&
                  strcmp(addr.host, addr2.host) == 0);
    }
    if (gw_cert_chain(&chain, in, &e) == 0) {
        struct gw_cert_info info;
        (void)gw_cert_info(&info, sk_X509_value(chain, 0), &e);
        gw_cert_chain_free(chain);
    }
    arena_done(&a);
    buf_done(&b);
    buf_done(&b2);
    return 0;
}

/* A join token is typed by a person, or sent by anybody who reaches the port. */
#include <sys/types.h>

#include "cad/ca_token.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char worker[] =
        "SWMTKN-1-0exkxmvbro48um11dj6lz80efdezkuxxs5ibkjw29x1dmib0jg-cbshsw61xaxhbw00msm1xi1h1",
                      manager[] =
                          "SWMTKN-1-0exkxmvbro48um11dj6lz80efdezkuxxs5ibkjw29x1dmib0jg-6d8mqfgcdjkc8bwjntb4je5mq";
    struct str in = { (const char *)data, size };
    struct err e = ERR_INIT;
    bool is_manager = false;

    if (ca_token_judge(in, str_from(worker), str_from(manager), &is_manager, &e) == 0)
        CHECK(ca_token_ok(in) && str_is(in, is_manager ? manager : worker));
    return 0;
}

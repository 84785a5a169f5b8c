/* A settings file may be any bytes. */
#include <sys/types.h>

#include "common/daemon/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t ms, count, bytes;
    static bool flag;
    static char text[CONF_TEXT_MAX];
    static const struct conf_item items[] = {
        CONF_MS("delay", &ms, "50ms", 1, 10000, ""),
        CONF_COUNT("count", &count, "7", 1, 100, ""),
        CONF_BYTES("size", &bytes, "1k", 1, 99999, ""),
        CONF_BOOL("flag", &flag, "no", ""),
        CONF_TEXT("text", text, "", ""),
        CONF_END,
    };
    struct err e = ERR_INIT;
    conf_parse(items, NULL, (const char *)data, size, &e);
    return 0;
}

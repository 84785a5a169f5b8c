/* A probe line may be any bytes. */
#include "common/daemon/daemon.h"
#include "common/daemon/probe.h"

static void cmd_echo(const char *args, struct buf *out)
{
    buf_json_str(out, str_from(args));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct probe probes[] = { { "echo", "<text>", "says it again", cmd_echo }, { 0 } };
    static const struct daemon_spec spec = { .name = "fuzzd", .probes = probes };
    struct buf out = BUF_INIT;
    probe_answer(&spec, (struct str){ (const char *)data, size }, &out);
    buf_done(&out);
    return 0;
}

/* stream_fuzz.c - what a daemon may send: log frames with details, message streams, JSON to be laid out. */
#include <stdlib.h>

#include "common/util/check.h"
#include "swarmctl/display.h"
#include "swarmctl/output.h"
#include "swarmctl/service_logs.h"
#include "swarmctl/tabw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool on_line(void *arg, int stream, struct str payload)
{
    json_t *d = details_parse(payload);

    (void)arg;
    CHECK(stream >= 0 && stream <= 3);
    json_decref(d);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *null;
    struct frames f = { .line = on_line };
    struct str s = { (const char *)data, size };
    struct buf b = { .limit = 1 << 20 };

    if (!null)
        null = fopen("/dev/null", "w");
    struct display d = { .out = null, .tty = size & 1, .columns = 100 };
    struct message_stream m = { .display = &d };
    frames_feed(&f, s.p, size / 2);
    frames_feed(&f, s.p + size / 2, size - size / 2);
    message_feed(s.p, size / 2, &m);
    message_feed(s.p + size / 2, size - size / 2, &m);
    json_indent(&b, s, "  ");
    buf_clear(&b);
    json_squeeze(&b, s);
    buf_clear(&b);
    tabw_format(&b, s, 10, 3);
    buf_done(&f.pending);
    message_done(&m);
    display_done(&d);
    buf_done(&b);
    return 0;
}

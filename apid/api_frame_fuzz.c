/* Whatever a container writes, the frame's length must fit and its payload end with the very bytes. */
#include "apid/api_frame.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct log_style style = { .tty = data[0] & 1, .timestamps = data[0] & 2, .details = data[0] & 4 };
    size_t cut = 2 + data[1] % (size - 1);
    struct str id = { (const char *)data + 2, cut - 2 }, line = { (const char *)data + cut, size - cut };
    struct log_line l = {
        .stream = 1 + (data[0] >> 3) % 3, .time_ns = (int64_t)size * 1000003, .data = line, .details = id
    };
    struct buf b = BUF_INIT;

    log_details(&b, line, id, id, id); /* whatever a spec is, this ends */
    CHECK(!b.failed);
    buf_clear(&b);

    log_frame_put(&b, &style, &l);
    CHECK(!b.failed && b.n >= line.n && (line.n == 0 || memcmp(b.p + b.n - line.n, line.p, line.n) == 0));
    if (!style.tty) {
        const uint8_t *h = (const uint8_t *)b.p;
        CHECK(h[0] == l.stream && h[1] == 0 && h[2] == 0 && h[3] == 0);
        CHECK(((size_t)h[4] << 24 | (size_t)h[5] << 16 | (size_t)h[6] << 8 | h[7]) == b.n - 8);
    }
    buf_done(&b);
    return 0;
}

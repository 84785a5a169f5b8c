/* Log files, cursors and exit files: bytes that others write. The first byte chooses streams and the tail's length. */
#include "agentd/ctr_log.h"
#include "agentd/oci_run.h"
#include "common/util/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct log_rec r;
    struct log_cursor c;
    int code;
    char text[400];
    if (size == 0)
        return 0;
    struct str all = { (const char *)data + 1, size - 1 }, s = all;
    uint64_t want = data[0] >> 2, left = want, lines = 0;
    unsigned streams = data[0] & 3u;
    size_t off = log_tail(all, streams, streams & 4, &left);
    CHECK(off <= all.n && left <= want);
    while (log_next(&s, &r) == 1)
        CHECK(r.text.p >= all.p && r.text.p + r.text.n <= all.p + all.n && (r.stream == 1 || r.stream == 2));
    s = (struct str){ all.p + off, all.n - off };
    while (log_next(&s, &r) == 1) /* what the tail promised is there */
        lines += (streams & (1u << (r.stream - 1))) && !r.partial;
    CHECK(lines == want - left);
    if (log_cursor_parse(all, &c))
        CHECK(c.first_ns >= 0);
    if (exit_file_parse(all, &code))
        CHECK(code >= 0 && code <= 255);
    oci_error_text(all, "/x", text, sizeof text);
    return 0;
}

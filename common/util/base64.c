#include "common/util/base64.h"

void base64_put(struct buf *out, struct str s)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < s.n; i += 3) {
        uint32_t v = (uint32_t)(uint8_t)s.p[i] << 16;
        if (i + 1 < s.n)
            v |= (uint32_t)(uint8_t)s.p[i + 1] << 8;
        if (i + 2 < s.n)
            v |= (uint8_t)s.p[i + 2];
        char q[4] = { digit[v >> 18], digit[v >> 12 & 63], i + 1 < s.n ? digit[v >> 6 & 63] : '=',
                      i + 2 < s.n ? digit[v & 63] : '=' };
        buf_put(out, q, 4);
    }
}

static int value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_take(struct str text, struct buf *out)
{
    if (text.n % 4 != 0)
        return false;
    for (size_t i = 0; i < text.n; i += 4) {
        uint32_t v = 0;
        unsigned pad = 0;
        for (size_t j = 0; j < 4; j++) {
            char c = text.p[i + j];
            int d = value(c);
            if (c == '=' && i + 4 == text.n && j >= 2 && (j == 3 || text.p[i + 3] == '='))
                pad++;
            else if (d < 0)
                return false;
            v = v << 6 | (d < 0 ? 0 : (uint32_t)d);
        }
        buf_put(out, (char[]){ (char)(v >> 16), (char)(v >> 8), (char)v }, 3 - pad);
    }
    return !out->failed;
}

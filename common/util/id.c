#include "common/util/id.h"

#include <errno.h>
#include <sys/random.h>

#include "common/util/check.h"

void random_bytes(void *p, size_t n)
{
    char *dst = p;
    while (n > 0) {
        ssize_t r = getrandom(dst, n, 0);
        if (r < 0 && errno == EINTR)
            continue;
        CHECK(r > 0);
        dst += r;
        n -= (size_t)r;
    }
}

/* 17 bytes with the top bit forced make 27 base-36 digits; the first is dropped and the next 25 are kept. */
void id_from_bytes(const uint8_t bytes[17], char id[ID_SIZE])
{
    static const char digit[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    uint8_t n[17];
    char text[27];
    memcpy(n, bytes, sizeof n);
    n[0] |= 0x80;
    for (int i = 26; i >= 0; i--) {
        unsigned rem = 0;
        for (size_t k = 0; k < sizeof n; k++) {
            unsigned cur = rem * 256u + n[k];
            n[k] = (uint8_t)(cur / 36u);
            rem = cur % 36u;
        }
        text[i] = digit[rem];
    }
    memcpy(id, text + 1, ID_LEN);
    id[ID_LEN] = '\0';
}

void id_new(char id[ID_SIZE])
{
    uint8_t bytes[17];
    random_bytes(bytes, sizeof bytes);
    id_from_bytes(bytes, id);
}

bool id_char(char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' || ch == '-' ||
           ch == '.';
}

bool id_ok(struct str id)
{
    if (id.n == 0 || id.n > ID_TEXT_MAX || id.p[0] == '.')
        return false;
    for (size_t i = 0; i < id.n; i++)
        if (!id_char(id.p[i]))
            return false;
    return true;
}

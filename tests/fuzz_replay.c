/*
 * fuzz_replay.c - a main() for fuzz targets without libFuzzer: replays the corpus files named on the command line, and
 * from each its prefixes and a fixed set of damaged copies.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_one(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1); /* of exactly this size, so that a sanitizer sees a read past the end */
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void try_damaged(uint8_t *data, size_t size)
{
    static const uint8_t bytes[] = { 0x00, 0x7f, 0x80, 0xff, 0xdd, 0xdf, 0xc6, '"', '{' };
    size_t step = size > 256 ? size / 256 : 1;
    for (size_t n = 0; n < size; n += step)
        try_one(data, n);
    for (size_t at = 0; at < size; at += step) {
        uint8_t keep = data[at];
        data[at] = bytes[at % sizeof bytes];
        try_one(data, size);
        data[at] = keep ^ (uint8_t)(1u << (at % 8));
        try_one(data, size);
        data[at] = keep;
    }
}

int main(int argc, char **argv)
{
    try_one((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) {
            perror(argv[i]);
            return 1;
        }
        static uint8_t data[1 << 20];
        size_t size = fread(data, 1, sizeof data, f);
        fclose(f);
        try_one(data, size);
        try_damaged(data, size);
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}

/*
 * print.h - prints of texts, to tell by a number whether something is what it was. FNV-1a, 64 bits: not against
 * somebody who looks for two texts with the same print.
 */
#pragma once

#include <stdint.h>

#include "common/util/str.h"

#define PRINT_NONE 0xcbf29ce484222325ull /* of no bytes */
#define PRINT_PRIME 0x100000001b3ull

/* print_add - one text behind others. */
static inline uint64_t print_add(uint64_t print, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        print = (print ^ (unsigned char)s.p[i]) * PRINT_PRIME;
    return print;
}

/* print_mix - the same, and where it ends: "a", "bc" is not "ab", "c". */
static inline uint64_t print_mix(uint64_t print, struct str s)
{
    return (print_add(print, s) ^ 0xff) * PRINT_PRIME;
}

/* check.h - invariants. CHECK stays in release builds: a broken one is our bug, and systemd starts us again. */
#pragma once

/* The attribute, not _Noreturn: cppcheck understands this one. */
__attribute__((noreturn)) void check_failed(const char *cond, const char *file, int line);

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            check_failed(#cond, __FILE__, __LINE__);                                                                   \
    } while (0)

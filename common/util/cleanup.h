/* cleanup.h - scope-bound release. Declare before the first return; hand on with TAKE(). */
#pragma once

#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

/* DEFINE_CLEANUP(struct store *, store_free) makes store_freep() for _cleanup_(store_freep). */
#define DEFINE_CLEANUP(type, fn)                                                                                       \
    static inline __attribute__((unused)) void fn##p(type *p)                                                          \
    {                                                                                                                  \
        if (*p)                                                                                                        \
            fn(*p);                                                                                                    \
    }

/* TAKE - hands the pointer on and leaves NULL behind. */
#define TAKE(p)                                                                                                        \
    __extension__({                                                                                                    \
        __typeof__(p) take_p_ = (p);                                                                                   \
        (p) = NULL;                                                                                                    \
        take_p_;                                                                                                       \
    })

/* TAKE_FD - the same for a descriptor, leaving -1. */
#define TAKE_FD(fd)                                                                                                    \
    __extension__({                                                                                                    \
        int take_fd_ = (fd);                                                                                           \
        (fd) = -1;                                                                                                     \
        take_fd_;                                                                                                      \
    })

static inline void freep(void *p)
{
    free(*(void **)p);
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* err.h - an error is a code for programs and a message for people; reporting one never allocates. */
#pragma once

#include <stddef.h>

/* Codes say who must act. They travel in every reply (common/daemon/rpc.h) and map to HTTP statuses in apid. */
enum err_code {
    ERR_OK = 0,
    ERR_INVALID,       /* the request is wrong; the message names the field (400) */
    ERR_UNAUTHORIZED,  /* credentials are missing or wrong (401) */
    ERR_DENIED,        /* the peer may not do this (403) */
    ERR_NOT_FOUND,     /* no such object (404) */
    ERR_CONFLICT,      /* lost a race, or the name is taken: read again and decide again (409) */
    ERR_PRECONDITION,  /* right request, wrong state of the system (400) */
    ERR_TOO_BIG,       /* over a documented limit (413) */
    ERR_INTERNAL,      /* our own fault (500) */
    ERR_IO,            /* the disk, the kernel or a program we called failed (500) */
    ERR_CORRUPT,       /* stored bytes are not what was written (500) */
    ERR_UNIMPLEMENTED, /* known, not supported (501) */
    ERR_UNAVAILABLE,   /* not now, and nothing was done: no leader, not in a swarm, daemon restarting (503) */
    ERR_TIMEOUT,       /* no answer came, in time or at all; it may have been done, or will be (504) */
    ERR_NOMEM,         /* out of memory, or an arena is full */
    ERR_GONE,          /* the asked-for past is no longer kept: start again from a full read */
    ERR_CODE_COUNT
};

struct err {
    int code; /* enum err_code */
    char msg[480];
};

#define ERR_INIT                                                                                                       \
    {                                                                                                                  \
        0, ""                                                                                                          \
    }

/* err_set - replaces *e (may be NULL) and returns -code, so that callers can `return err_set(...)`. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* err_wrap - puts "text: " in front of the message; returns -e->code. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* err_errno - err_set() from a system call: picks the code from `errnum` and appends strerror. */
int err_errno(struct err *e, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* err_name - "not_found" for ERR_NOT_FOUND; "unknown" outside the enum. Never NULL. */
const char *err_name(int code);

#include "common/util/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/check.h"

static const char *const names[ERR_CODE_COUNT] = {
    [ERR_OK] = "ok",
    [ERR_INVALID] = "invalid",
    [ERR_UNAUTHORIZED] = "unauthorized",
    [ERR_DENIED] = "denied",
    [ERR_NOT_FOUND] = "not_found",
    [ERR_CONFLICT] = "conflict",
    [ERR_PRECONDITION] = "precondition",
    [ERR_TOO_BIG] = "too_big",
    [ERR_INTERNAL] = "internal",
    [ERR_IO] = "io",
    [ERR_CORRUPT] = "corrupt",
    [ERR_UNIMPLEMENTED] = "unimplemented",
    [ERR_UNAVAILABLE] = "unavailable",
    [ERR_TIMEOUT] = "timeout",
    [ERR_NOMEM] = "no_memory",
    [ERR_GONE] = "gone",
};

const char *err_name(int code)
{
    return code >= 0 && code < ERR_CODE_COUNT ? names[code] : "unknown";
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        e->code = code;
        vsnprintf(e->msg, sizeof e->msg, fmt, ap);
        va_end(ap);
    }
    return -code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char text[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ": %s", e->msg);
    memcpy(e->msg, text, sizeof text);
    return -e->code;
}

static int code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOMEM:
        return ERR_NOMEM;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

int err_errno(struct err *e, int errnum, const char *fmt, ...)
{
    char text[sizeof e->msg]; /* cppcheck-suppress ctunullpointer */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(e, code_of_errno(errnum), "%.300s: %s", text, strerror(errnum));
}

void check_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "<2>panic: %s:%d: CHECK(%s) failed\n", file, line, cond);
    abort();
}

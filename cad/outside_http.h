/*
 * outside_http.h - HTTPS POST to an external CA, on the event loop (libcurl).
 *
 * libcurl comes with some thirty other libraries. Hardly any swarm has an external CA, so it is loaded with the first
 * question and not before.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/util/err.h"
#include "common/util/str.h"

struct outside_http;

struct outside_post {
    const char *url;        /* https:// only; redirects are not followed */
    struct str body, trust; /* JSON; PEM: the CAs that the server's certificate may be of */
    const char *cert, *key; /* files with what to show there; NULL: nothing */
    unsigned timeout_ms;
    size_t answer_max; /* bytes */
};

/* Called once for each post, never from inside outside_post(): e->code 0 and what came back (status 200, or another
 * with a body), or why nothing did. */
typedef void outside_done_fn(void *arg, struct str body, const struct err *e);

struct outside_http *outside_http_new(sd_event *loop);
/* outside_post - texts are copied. */
void outside_post(struct outside_http *h, const struct outside_post *p, outside_done_fn *done, void *arg);
struct outside_http *outside_http_free(struct outside_http *h); /* posts under way end with ERR_UNAVAILABLE */

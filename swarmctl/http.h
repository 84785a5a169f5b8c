/*
 * http.h - HTTP over a Unix socket: libcurl behind one narrow interface.
 *
 * One handle keeps one connection for all the requests of a process. TLS, proxies and name lookups are never set up.
 */
#pragma once

#include <stdio.h>

#include "common/util/err.h"
#include "common/util/str.h"

struct http;

struct http_reply {
    long status;
    struct buf body;      /* empty when it went to on_data */
    char api_version[16]; /* header Api-Version, "" when absent */
    char content_type[96];
};

struct http_request {
    const char *method, *path; /* path with its query, from "/" */
    const char *body;          /* NULL: none */
    size_t body_len;
    const char *content_type;
    const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
    int body_fd;                /* >= 0: the body is what can be read here, sent in chunks (with body NULL) */
    /* Called with each piece of a successful reply's body; false stops the transfer without an error. */
    bool (*on_data)(const char *p, size_t n, void *arg);
    void *arg;
};

/* http_open - no connection is made yet. `log` (may be NULL) gets a line for each request. */
struct http *http_open(const char *socket_path, FILE *log);

/* http_do - 0 whenever a reply came, whatever its status; else -code with a message for the user. */
int http_do(struct http *h, const struct http_request *rq, struct http_reply *reply, struct err *e);

void http_reply_done(struct http_reply *reply);
struct http *http_free(struct http *h);

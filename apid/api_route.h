/*
 * api_route.h - which handler answers a method and path. Pure.
 *
 * Patterns: "/services/{}/update"; {} takes one segment, {*} everything up to what follows it (image names have
 * slashes). Paths come with or without /vX.Y. A wrong method is "page not found", as Docker answers it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/util/str.h"

#define ROUTE_PARAMS_MAX 2

struct req;

enum {
    ROUTE_STREAMS = 1, /* handler is called first; then on_body() for each piece */
    ROUTE_READS = 2,   /* shows the store: behind a barrier */
    ROUTE_WRITES = 4,  /* a transaction: only a refusal needs one */
    ROUTE_STATE = 8,   /* says or changes what this node is: once apid knows (as do those that read or write) */
};

struct api_route {
    const char *method, *pattern;
    void (*handler)(struct req *r);
    size_t body_max; /* bytes; 0: a body is read and ignored up to 64 KiB */
    unsigned flags;  /* ROUTE_... */
};

/* route_version - cuts "/v1.41" off the path and returns 141; 0 when there is none, -1 for nonsense like "/v1". */
int route_version(struct str *path);

/* route_match - true when path fits the pattern; params point into path. */
bool route_match(const char *pattern, struct str path, struct str params[ROUTE_PARAMS_MAX]);

/* route_find - NULL when nothing fits. HEAD finds GET routes. */
const struct api_route *route_find(const struct api_route *table, struct str method, struct str path,
                                   struct str params[ROUTE_PARAMS_MAX]);

/*
 * image_ref.h - image references as Docker writes them: [domain/]path[:tag][@digest], or an image id.
 *
 * "busybox" means docker.io/library/busybox:latest; the short ("familiar") spelling is what users see.
 */
#pragma once

#include <stdbool.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define IMAGE_REF_MAX 512

struct image_ref {
    char domain[256]; /* "docker.io", "127.0.0.1:5000" */
    char path[256];   /* "library/busybox" */
    char tag[130];    /* "" when only a digest was given; "latest" when nothing was */
    char digest[80];  /* "sha256:<64 hex>" or "" */
};

/* image_ref_parse - -ERR_INVALID "invalid reference format" (Docker's words) for anything else. */
int image_ref_parse(struct str text, struct image_ref *ret, struct err *e);

/* The parts that Docker shows: "busybox", "user/app", "127.0.0.1:5000/app". */
void image_ref_familiar(const struct image_ref *r, char out[IMAGE_REF_MAX]);
void image_ref_familiar_tag(const struct image_ref *r, char out[IMAGE_REF_MAX + 130]); /* name:tag */
void image_ref_familiar_digest(const struct image_ref *r, const char *digest, char out[IMAGE_REF_MAX + 130]);

/* image_ref_is_id - "sha256:<64 hex>", 64 hex, or a hex prefix of at least 4 characters; hex is what follows "sha256:".
 */
bool image_ref_is_id(struct str text, struct str *ret_hex);

/* image_ref_loopback - the registry is on this host: Docker talks plain HTTP to it. */
bool image_ref_loopback(const struct image_ref *r);

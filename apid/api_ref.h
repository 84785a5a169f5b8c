/*
 * api_ref.h - image references ("[host[:port]/]path[:tag][@algo:hex]") and the X-Registry-Auth header. Pure.
 */
#pragma once

#include <stdbool.h>

#include "common/util/arena.h"
#include "common/util/err.h"
#include "common/util/str.h"

struct image_ref {
    struct str name;   /* as written, without tag and digest */
    struct str tag;    /* without ':'; empty when none */
    struct str digest; /* without '@'; empty when none */
};

/* image_ref_parse - -ERR_INVALID in Docker's words: "invalid reference format", "... repository name must be
 * lowercase". */
int image_ref_parse(struct str text, struct image_ref *ret, struct err *e);

/* image_ref_familiar - what users see: "busybox:latest" for "docker.io/library/busybox". NULL when the arena is full.
 */
char *image_ref_familiar(const struct image_ref *r, struct arena *a);

/* image_ref_path - the repository as a registry names it: "library/busybox" for "busybox". */
char *image_ref_path(const struct image_ref *r, struct arena *a);

/*
 * auth_decode - base64url (or standard base64) of a JSON object with registry credentials.
 *
 * @ret_json  the object's text, or empty when it holds no credentials ("{}", missing header)
 */
int auth_decode(struct str header, struct arena *a, struct str *ret_json, struct err *e);

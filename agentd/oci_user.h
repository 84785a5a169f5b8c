/* oci_user.h - who a container runs as: "user[:group]" and extra groups, by the image's own passwd and group files. */
#pragma once

#include <stdint.h>

#include "common/proto/fields.h"

#define OCI_GIDS_MAX 256
struct oci_user {
    uint32_t uid, gid;
    uint32_t gids[OCI_GIDS_MAX]; /* additional groups */
    size_t ngids;
    char home[256]; /* "/" when unknown */
};

/* oci_user_resolve - @passwd, @group: contents of the files, empty when the image has none. Errors in Docker's words:
 * "unable to find user x: no matching entries in passwd file". */
int oci_user_resolve(struct str user, const struct strs *groups, struct str passwd, struct str group,
                     struct oci_user *ret, struct err *e);

/*
 * oci_spec.h - the OCI runtime configuration of one container, from its task and its image. Pure: no I/O.
 *
 * Defaults are Docker's: capabilities, masked and read-only paths, mounts, device rules.
 */
#pragma once

#include <jansson.h>

#include "agentd/health_core.h"
#include "agentd/oci_user.h"
#include "agentd/task_spec.h"

/* What an image says about running it; text borrows from the image's configuration. */
struct image_conf {
    struct strs Entrypoint, Cmd, Env, Volumes;
    struct str WorkingDir, User, StopSignal;
    struct strs Shell;
    struct health_spec Healthcheck;
};
/* image_conf_read - from the JSON of an image configuration ("config" member); lists in the arena, text in the DOM. */
int image_conf_read(json_t *image, struct image_conf *ret, struct arena *a, struct err *e);

/* One mount with its host side settled. */
struct oci_mount {
    struct str type; /* "bind", "tmpfs", or a local volume driver's "type" option */
    struct str source, target;
    struct str options; /* comma separated, as they go to the runtime */
};

struct oci_in {
    const struct tspec *spec;
    const struct image_conf *image;
    const struct oci_user *user;
    const char *rootfs;      /* path of the mounted root */
    const char *netns;       /* NULL: the host's network */
    const char *cgroup_path; /* "/microswarm/<task>" */
    struct str hostname;
    struct strs env; /* the service's, expanded */
    const struct oci_mount *mounts;
    size_t nmounts;
    const char *hosts_file, *hostname_file, *resolv_file; /* NULL: not mounted */
    const char *init_path;                                /* tini on the host; NULL: no init */
    struct str seccomp_b64;                               /* empty: unconfined */
    bool cgroup2, swap_limit;                             /* what the host can do */
};

/* oci_caps - the capability set (bit mask) that the spec asks for; -ERR_INVALID for an unknown name. */
int oci_caps(const struct tspec_container *c, uint64_t *ret, struct err *e);

/* oci_argv - entrypoint and arguments by Docker's rules. -ERR_INVALID "No command specified". */
int oci_argv(const struct tspec_container *c, const struct image_conf *image, struct arena *a, struct strs *ret,
             struct err *e);

/* oci_mount_options - Docker's defaults for a bind or tmpfs mount as one comma separated text in the arena. */
int oci_mount_options(const struct tspec_mount *m, struct arena *a, struct str *ret, struct err *e);

/* oci_path_clean - "/a/../b/" to "/b"; -ERR_INVALID unless absolute. */
int oci_path_clean(struct str path, struct arena *a, struct str *ret, struct err *e);

/* oci_signal - "SIGTERM", "TERM", "15", "RTMIN+3"; 0 when unknown. */
int oci_signal(struct str name);

/* oci_spec_build - the configuration as a DOM (given). */
int oci_spec_build(const struct oci_in *in, struct arena *a, json_t **ret, struct err *e);

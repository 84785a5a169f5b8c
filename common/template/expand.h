/*
 * expand.h - the templates of a service: in its hostname, environment and mounts, and in the payloads of secrets and
 * configs that say so. {{.Service.ID}} .Service.Name .Service.Labels .Node.ID .Node.Hostname .Node.Platform.OS
 * .Node.Platform.Architecture .Task.ID .Task.Name .Task.Slot, and join; in payloads also {{env "NAME"}},
 * {{secret "target"}} and {{config "target"}}. Names and errors are Docker's (swarmkit:template).
 */
#pragma once

#include "common/proto/fields.h"
#include "common/util/arena.h"

struct expand_ctx {
    struct str service_id, service_name;
    struct strmap service_labels;
    struct str node_id, node_hostname, node_arch, node_os;
    struct str task_id, task_name, task_slot; /* slot: the number, or the node's ID for global services */
};

/* What payloads may refer to besides: by the target that the reference gives the file. False: no such target. */
struct expand_refs {
    void *arg;
    struct strs env; /* "NAME=value" */
    bool (*secret)(void *arg, struct str target, struct str *ret);
    bool (*config)(void *arg, struct str target, struct str *ret);
};

#define EXPAND_TEXT_MAX (1u << 20) /* of an expanded text */

/* expand_text - in the arena (or `in` itself when it holds no template). -ERR_INVALID "template: expansion:1:2: ...".
 */
int expand_text(const struct expand_ctx *ctx, struct str in, struct arena *a, struct str *ret, struct err *e);

/* expand_check - whether it would, tried with made-up values as Docker does when a service is posted. */
int expand_check(struct str in, struct err *e);

/*
 * The same for an entry of the environment, of which the value is expanded, and for a mount's source or target
 * (@which: "mount source", "mount target"): "expanding env "A={{.X}}": template: ...".
 */
int expand_env(const struct expand_ctx *ctx, struct str in, struct arena *a, struct str *ret, struct err *e);
int expand_env_check(struct str in, struct err *e);
int expand_mount(const struct expand_ctx *ctx, const char *which, struct str in, struct arena *a, struct str *ret,
                 struct err *e);
int expand_mount_check(const char *which, struct str in, struct err *e);

/* expand_payload - appended to out, which should have EXPAND_TEXT_MAX bytes of room, so that no copy is left behind. */
int expand_payload(const struct expand_ctx *ctx, const struct expand_refs *refs, struct str in, struct buf *out,
                   struct err *e);

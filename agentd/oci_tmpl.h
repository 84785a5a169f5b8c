/*
 * oci_tmpl.h - the templates that a service may put into its hostname, environment and mounts: {{.Task.Slot}}.
 *
 * Docker uses Go's text/template; what services write is a field path, `index` into the labels, or quoted text, and
 * that is what this understands. Anything else is a clear error, never passed on as it stands.
 */
#pragma once

#include "common/proto/fields.h"

struct tmpl_ctx {
    struct str service_id, service_name;
    struct strmap service_labels;
    struct str node_id, node_hostname, node_arch, node_os;
    struct str task_id, task_name, task_slot; /* slot: the number, or the node's id for global services */
};

/* tmpl_expand - result in the arena (or `in` itself when it has no template). -ERR_INVALID says what is wrong. */
int tmpl_expand(const struct tmpl_ctx *ctx, struct str in, struct arena *a, struct str *ret, struct err *e);

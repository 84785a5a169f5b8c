/* object_priv.h - what the files of the object model share among themselves. */
#pragma once

#include "common/object/object.h"

/* A path while it is walked: "TaskTemplate.ContainerSpec.Mounts[2].Type". Too long a path is cut, never overrun. */
struct obj_path {
    char text[256];
    size_t n;
};
size_t obj_path_push(struct obj_path *p, const char *name); /* returns the mark for obj_path_pop() */
size_t obj_path_push_index(struct obj_path *p, size_t index);
void obj_path_pop(struct obj_path *p, size_t mark);

/* obj_field_find - the index of the field in t->fields, or -1. `hint` is where to start looking (in-order keys hit). */
int obj_field_find(const struct obj_type *t, const char *name, size_t len, int hint);

/* obj_json_zero - Go's zero value: null, "", 0, false, an empty list or map. NULL counts as zero. */
bool obj_json_zero(const json_t *v);

/* obj_syntax_error - what is wrong with a text that is not JSON, as Go says it; false when it is JSON after all (what
 * follows the first value is not looked at). */
bool obj_syntax_error(struct str text, char *out, size_t cap);

/* ---- Docker's rules (object_rules.c) ---- */
typedef int obj_check_fn(json_t *v, const char *path, struct err *e);
obj_check_fn obj_rule_service_name, obj_rule_object_name, obj_rule_image, obj_rule_restart_condition,
    obj_rule_failure_action, obj_rule_update_order, obj_rule_endpoint_mode, obj_rule_mount_type,
    obj_rule_constraint_list, obj_rule_role, obj_rule_availability, obj_rule_secret_data, obj_rule_config_data,
    obj_rule_cluster_name, obj_rule_ca_protocol, obj_rule_data_path_port, obj_rule_cidr_list, obj_rule_hostname;
obj_check_fn obj_rules_service, obj_rules_task_template, obj_rules_resource, obj_rules_resources, obj_rules_restart,
    obj_rules_update, obj_rules_mode, obj_rules_endpoint, obj_rules_container, obj_rules_mount, obj_rules_health,
    obj_rules_credential, obj_rules_secret_ref, obj_rules_config_ref, obj_rules_ca, obj_rules_dispatcher,
    obj_rules_network, obj_rules_ipam_config, obj_rules_secret, obj_rules_generic;

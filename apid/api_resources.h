/* api_resources.h - the handlers, one file per resource (api_services.c and so on), and what they share. */
#pragma once

#include "apid/api.h"
#include "common/object/views.h"

void services_list(struct req *r);
void services_create(struct req *r);
void services_inspect(struct req *r);
void services_update(struct req *r);
void services_remove(struct req *r);

void tasks_list(struct req *r);
void tasks_inspect(struct req *r);
void containers_list(struct req *r);
void containers_inspect(struct req *r);
void containers_logs(struct req *r);
void containers_other(struct req *r);

void nodes_list(struct req *r);
void nodes_inspect(struct req *r);
void nodes_update(struct req *r);
void nodes_remove(struct req *r);

void swarm_init(struct req *r);
void swarm_inspect(struct req *r);
void swarm_update(struct req *r);
void swarm_leave(struct req *r);
void swarm_join(struct req *r);
void swarm_unlock(struct req *r);
void swarm_backup(struct req *r);
void swarm_restore(struct req *r);
void swarm_unlockkey(struct req *r);

void images_list(struct req *r);
void images_create(struct req *r);
void images_load(struct req *r);
void images_inspect(struct req *r);
void images_remove(struct req *r);
void images_tag(struct req *r);
void distribution_inspect(struct req *r);

void system_ping(struct req *r);
void system_version(struct req *r);
void system_info(struct req *r);
void networks_list(struct req *r);
void networks_inspect(struct req *r);
void networks_create(struct req *r);
void networks_remove(struct req *r);
void networks_prune(struct req *r);
void networks_attach(struct req *r); /* connect, disconnect */
void volumes_list(struct req *r);
void volumes_inspect(struct req *r);
void volumes_other(struct req *r);
void secrets_list(struct req *r);
void secrets_inspect(struct req *r);
void configs_list(struct req *r);
void configs_inspect(struct req *r);
void secrets_create(struct req *r);
void secrets_update(struct req *r);
void secrets_remove(struct req *r);
void configs_create(struct req *r);
void configs_update(struct req *r);
void configs_remove(struct req *r);
void plugins_list(struct req *r);
void not_built(struct req *r);

void events_stream(struct req *r);
void service_logs(struct req *r);
void task_logs(struct req *r);
void container_logs(struct req *r, struct str task, bool tty); /* of this node: without the store */

/* Events: events_turn() at each change of the store; events_image() for what happened to an image here. */
void events_turn(void);
void events_image(const char *action, struct str id, struct str name);
void events_reachability(struct str node, bool reachable); /* of a manager, in the leader's eyes */
struct agent_event_item;
void events_container(const struct agent_event_item *x);
void events_close(void);

/* The swarm as `docker info` shows it: one JSON object appended; and what is to be warned of, if anything. */
void swarm_info(struct buf *out, struct buf *warning);
struct str addr_host(struct str addr); /* "10.0.0.1:2377" without the port, "[::1]:1" without brackets */

/* doc_hide - {key: nil} for every top-level field of the document that is not in `shown`; pairs appended, counted. */
size_t doc_hide(struct buf *pairs, struct str doc, const char *const *shown);
const char *swarm_header(void); /* of /_ping */

/* "web.1.<task id>", global: "web.<node id>.<task id>"; appended. */
void task_name(struct buf *out, struct store_snap *snap, struct str task_doc);

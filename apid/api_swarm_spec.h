/* api_swarm_spec.h - what init and update share: the swarm's spec, checked and with Docker's defaults. */
#pragma once

#include "apid/api.h"
#include "common/daemon/addr.h"

/* json_sub - the object under `key`; an empty one is put there when there is none. */
json_t *json_sub(json_t *o, const char *key);

/* swarm_spec_defaults - zero means "the default", as the CLI sends it; an explicit history limit of 0 is meant. */
void swarm_spec_defaults(json_t *spec);

/* swarm_spec_keep - an update keeps what it leaves at zero (docker-api.md §3.2). Labels are replaced. */
void swarm_spec_keep(json_t *spec, json_t *old);

/* swarm_spec_check - -1 after answering. */
int swarm_spec_check(struct req *r, json_t *spec);

/* Where this node listens and is reached, as literal addresses; "" for what is left to gatewayd. */
struct swarm_addrs {
    char listen[ADDR_TEXT_MAX], advertise[ADDR_TEXT_MAX], data[ADDR_HOST_MAX];
};

/* swarm_resolve_addrs - -1 after answering. When joining, the advertised address may stay open. */
int swarm_resolve_addrs(struct req *r, const char *listen, const char *advertise, const char *data, bool joining,
                        struct swarm_addrs *ret);

/* swarm_await_start - answers with the node's ID as soon as a swarm that was started here has its tokens and this node
 * its certificate. r->data is replaced. */
void swarm_await_start(struct req *r);

/* Forms of what people type: pure. */
bool swarm_token_ok(struct str token);
bool swarm_key_ok(struct str key);

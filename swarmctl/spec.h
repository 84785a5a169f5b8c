/*
 * spec.h - flags into a service spec: the whole of one for create, changes to one for update.
 *
 * The tables of cmd_service.c say, flag by flag, which path of the spec a value goes to; this module carries it out.
 * Pure, but for what needs the daemon: names of networks, secrets and configs go through the two lookups.
 */
#pragma once

#include "swarmctl/flags.h"

struct spec_edit {
    const struct flagset *fs;
    json_t *spec;
    bool create;
    struct err *e;
    /* An id for a network's name. 0, or 1 with the user told why. */
    int (*network_id)(void *arg, const char *name, struct buf *id);
    /* An object name -> id for those of `names` that exist; kind is "secrets" or "configs". NULL with the user told. */
    json_t *(*ids)(void *arg, const char *kind, json_t *names);
    void *arg;
    int (*done[32])(struct spec_edit *ed); /* functions that have run */
    unsigned done_count;
};

/* spec_new - a spec without any flag applied, with a null for what may come, so that members come in the API's order.
 */
json_t *spec_new(void);

/* spec_apply - every flag of the set. 0; -code with e set; 1 when a lookup failed and has told the user. */
int spec_apply(struct spec_edit *ed);

/* What tables name in .fn. */
int spec_mode(struct spec_edit *ed);
int spec_env(struct spec_edit *ed);
int spec_caps(struct spec_edit *ed);
int spec_ulimits(struct spec_edit *ed);
int spec_hosts(struct spec_edit *ed);
int spec_health(struct spec_edit *ed);
int spec_log(struct spec_edit *ed);
int spec_networks(struct spec_edit *ed);
int spec_secrets(struct spec_edit *ed);
int spec_configs(struct spec_edit *ed);
int spec_mounts(struct spec_edit *ed);
int spec_ports(struct spec_edit *ed);
int spec_prefs(struct spec_edit *ed);
int spec_generic(struct spec_edit *ed);
int spec_replicas(struct spec_edit *ed);
int spec_force(struct spec_edit *ed);

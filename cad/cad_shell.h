/* cad_shell.h - the process around the core: requests, the controller loop, probes. */
#pragma once

#include "common/daemon/daemon.h"

struct cad_conf {
    uint64_t rotation_ms, unnamed_per_s, external_ms, network_keys_ms;
    char external_cert[CONF_TEXT_MAX], external_key[CONF_TEXT_MAX];
};
extern struct cad_conf cad_conf;
extern const struct route cad_routes[];

int cad_start(struct err *e);
void cad_stop(void);
void cad_probe_roles(const char *args, struct buf *out);
void cad_probe_rotation(const char *args, struct buf *out);
void cad_status(struct buf *out);
void cad_metrics(struct buf *out);

/* agent_run.h - inside agentd: what the stages of a task's life share (agent_prepare.c, agent_mounts.c, agent_mesh.c,
 * agent_config.c, agent_run.c, agent_recover.c). */
#pragma once

#include "agentd/agent_task.h"
#include "agentd/log_opts.h"
#include "agentd/oci_spec.h"
#include "common/template/expand.h"

#define MESH_TIMEOUT_MS 10000u

/* A path in the task's folder: on tmpfs, on the disk; NULL: the folder itself. */
void run_path(const struct atask *t, const char *name, char out[512]);
void run_state_path(const struct atask *t, const char *name, char out[512]);
void run_timer(struct atask *t, int what, uint64_t after_ms); /* TIMER_* */

/* A start that went wrong. Rejected: no other try on this node can do better, so the text is the reason as it is. */
void run_start_failed(struct atask *t, const struct err *e, int exit_code);
void run_rejected(struct atask *t, const struct err *e);
void run_go_on(struct atask *t); /* one of the things that a container needs is there */
void run_signal_stop(struct atask *t);
void run_clean_part_done(struct atask *t);
extern const struct ctr_ops run_ctr_ops; /* arg: struct atask */

/* run_log_driver - the task's, or the cluster's default; NULL: neither says. */
const struct tspec_driver *run_log_driver(struct atask *t, struct arena *a);
int run_log_opts(struct atask *t, struct log_opts *ret, struct err *e);

/* agent_prepare.c */
void run_expand_ctx(struct atask *t, struct arena *a, struct expand_ctx *ret);
int run_image_conf(struct atask *t, struct arena *a, struct image_conf *ret, struct err *e);
int run_bad_dir(struct str dir, struct err *e);

/* agent_mounts.c */
int run_mount_root(struct atask *t, struct err *e);
int run_make_mounts(struct atask *t, const struct image_conf *ic, struct err *e); /* also what is to be copied */
/* run_add_bind - one more mount of the task's, for run_make_mounts(). */
int run_add_bind(struct atask *t, struct str source, struct str target, struct str options, struct err *e);
/* run_unbind_subpaths - false when one is still mounted: then nothing below the task's folder may be removed. */
bool run_unbind_subpaths(struct atask *t);

/* agent_mesh.c */
void run_mesh_up(struct atask *t);
void run_mesh_ready(struct atask *t, void (*then)(struct atask *t)); /* then also when meshd cannot; NULL: nothing */
void run_mesh_down(struct atask *t);
struct list run_port_list(struct str raw, struct arena *a); /* struct mesh_port */
struct str run_hostname(const struct atask *t);

/* agent_config.c */
int run_write_config(struct atask *t, struct err *e);

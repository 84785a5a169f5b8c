/*
 * oci_run.h - containers as processes: conmon holds one container each and outlives agentd; crun makes and removes it.
 *
 * A container's end is seen through conmon's exit file (inotify on one folder), which also waits there while agentd is
 * down, and through conmon's own end (pidfd), should it die without writing one.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/util/err.h"
#include "common/util/str.h"

struct oci_env; /* what all containers share */
struct ctr;

struct oci_conf {
    const char *conmon, *crun;
    const char *run_dir;     /* <run>: crun's state in <run>/crun, exit files in <run>/exits */
    const char *cgroup_root; /* "/microswarm": containers below it, monitors in its child "monitors" */
};

int oci_env_open(struct oci_env **ret, sd_event *loop, const struct oci_conf *conf, struct err *e);
struct oci_env *oci_env_close(struct oci_env *env);
bool oci_cgroup2(const struct oci_env *env); /* the host has only cgroup v2 */
const struct oci_conf *oci_conf_of(const struct oci_env *env);
const char *oci_crun_root(const struct oci_env *env);
sd_event *oci_loop(const struct oci_env *env);
bool oci_swap_limit(const struct oci_env *env); /* the memory controller counts swap */

/* oci_cgroups_each - the tasks that have control groups; _remove - takes away those of a task, as far as they are
 * empty. */
void oci_cgroups_each(const struct oci_env *env, void (*fn)(void *arg, const char *task_id), void *arg);
void oci_cgroups_remove(const struct oci_env *env, const char *task_id);

struct ctr_spec {
    const char *id, *task_id;
    const char *bundle;
    const char *command;   /* what will be executed, for error texts; "" when unknown */
    const char *log_path;  /* NULL: no log */
    uint64_t log_size_max; /* bytes; 0: no limit */
    bool tty, stdin_open;
};

/* What happens to a container. Called from the loop, never from inside the call that caused it. */
struct ctr_ops {
    void (*started)(void *arg, const struct err *e); /* NULL: the process runs; else it never will */
    void (*exited)(void *arg, bool known, int code, bool oom);
    void (*deleted)(void *arg);
};

/* ctr_run - create and start. */
int ctr_run(struct ctr **ret, struct oci_env *env, const struct ctr_spec *spec, const struct ctr_ops *ops, void *arg,
            struct err *e);

enum ctr_found { CTR_GONE, CTR_CREATED, CTR_RUNNING, CTR_EXITED };
/* ctr_adopt - looks for a container of an earlier agentd. For CTR_RUNNING and CTR_EXITED, `exited` will follow. */
int ctr_adopt(struct ctr **ret, struct oci_env *env, const struct ctr_spec *spec, pid_t pid, pid_t monitor,
              const struct ctr_ops *ops, void *arg, enum ctr_found *ret_found, struct err *e);

pid_t ctr_pid(const struct ctr *c);
pid_t ctr_monitor(const struct ctr *c);
int ctr_signal(struct ctr *c, int sig); /* to the container's first process; 0 or -errno */

/* ctr_delete - kills what is left of it and removes it from the runtime; `deleted` follows. */
void ctr_delete(struct ctr *c);
struct ctr *ctr_free(struct ctr *c); /* stops watching; the container is not touched */

/* exit_file_parse - conmon's exit file: a decimal number, maybe with a newline. */
bool exit_file_parse(struct str text, int *ret);

/* oci_error_text - what crun says about starting @command, in the words Docker's users know. Result in out. */
void oci_error_text(struct str crun, const char *command, char *out, size_t cap);

/*
 * oci_aside.h - programs that run in a container beside what it was made for, in a control group of their own below the
 * container's: counted and limited with it, and ended together.
 */
#pragma once

#include "agentd/oci_run.h"
#include "agentd/proc.h"

int ctr_aside_make(const struct oci_env *env, const char *task_id, struct err *e);

/*
 * ctr_aside_exec - `crun exec`.
 *
 * @process  file with the OCI runtime's process object
 * @out_fd   takes its output; borrowed
 */
int ctr_aside_exec(struct proc **ret, const struct oci_env *env, const char *container_id, const char *process,
                   int out_fd, proc_done_fn *done, void *arg, struct err *e);

/* ctr_aside_kill - everything in that group, forks included; nothing when it is empty or not there. */
void ctr_aside_kill(const struct oci_env *env, const char *task_id);

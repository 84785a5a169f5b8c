/*
 * agent_logs.h - reading and rotating task logs: <state>/tasks/<task>/log, log.1, log.2, ... (newest first).
 *
 * conmon itself starts a new file when one is full and forgets the old one; a second link, log.keep, holds it until it
 * is renamed to log.1. So nothing needs to be watched while lines are written, only the rare rename.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/daemon/rpc.h"
#include "common/proto/msg_agentd.h"

struct agent_logs_ctx;

/* Whether a task is known, and whether it will write no more. */
typedef bool logs_state_fn(void *arg, struct str task_id, bool *ret_ended);

int agent_logs_open(struct agent_logs_ctx **ret, sd_event *loop, const char *state_dir, logs_state_fn *state, void *arg,
                    struct err *e);
struct agent_logs_ctx *agent_logs_close(struct agent_logs_ctx *l);

#define AGENT_LOG_FILES_MAX 31
/* agent_logs_begin - makes the files of a task that is about to start and watches for rotation; also after a restart.
 * @keep_files: with the current one, at most AGENT_LOG_FILES_MAX. */
int agent_logs_begin(struct agent_logs_ctx *l, const char *task_id, unsigned keep_files, struct err *e);
/* The task has ended: followers get their end mark. */
void agent_logs_end(struct agent_logs_ctx *l, const char *task_id);
/* The task is forgotten: its files go. */
void agent_logs_remove(struct agent_logs_ctx *l, const char *task_id);

void agent_logs_op(struct agent_logs_ctx *l, struct rpc_call *c, const struct agent_logs *req);

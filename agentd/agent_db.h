/*
 * agent_db.h - what this node was told to run and how far it is, in a small LMDB: <state>/agent/.
 *
 * With it a restarted agentd knows every container again, and tasks keep running while no manager can be reached.
 */
#pragma once

#include "common/proto/fields.h"

/* One task. Everything but the log and the container's own files. */
struct agent_record {
    struct str Assignment; /* raw map, without registry credentials */
    uint64_t Phase, State, Desired;
    bool Removed, HasContainer, HasAuth;
    struct str Message, Err;
    int64_t Since, ExitCode;
    uint64_t PID, MonitorPID;
    struct str ContainerID, ImageID;
    struct strs Volumes; /* anonymous ones, to remove with the task */
    struct strs Addresses;
    struct list Ports; /* struct task_port: host mode */
};
extern const struct field agent_record_fields[];

struct agent_db;

int agent_db_open(struct agent_db **ret, const char *state_dir, struct err *e);
struct agent_db *agent_db_close(struct agent_db *db);

/* Changes gather until agent_db_commit(), which makes them durable together. */
int agent_db_put(struct agent_db *db, const char *task_id, struct str record, struct err *e);
int agent_db_del(struct agent_db *db, const char *task_id, struct err *e);
int agent_db_commit(struct agent_db *db, struct err *e); /* 0 also when there was nothing to do */

typedef void agent_db_fn(void *arg, struct str task_id, struct str record);
int agent_db_each(struct agent_db *db, agent_db_fn *fn, void *arg, struct err *e);

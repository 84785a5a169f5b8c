/*
 * agent_task.h - inside agentd: one task with all that runs for it, and the agent they belong to.
 *
 * agent_shell.c owns the table, the database and the reports; agent_run.c carries out what the core wants done.
 */
#pragma once

#include "agentd/agent_core.h"
#include "agentd/agent_db.h"
#include "agentd/agent_dispatch.h"
#include "agentd/agent_info.h"
#include "agentd/agent_logs.h"
#include "agentd/agent_shell.h"
#include "agentd/images.h"
#include "agentd/oci_run.h"
#include "agentd/proc.h"
#include "agentd/task_spec.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/proto/msg_meshd.h"

struct copy { /* an image's folder into a fresh volume */
    int from_fd;
    char to[1024];
};

struct atask {
    struct atask *next, *queue_next;
    struct agent *ag;
    char id[80];
    struct task_core core;

    struct buf raw;     /* the assignment as stored */
    char *auth;         /* registry credentials: memory only */
    bool has_auth;      /* the assignment came with some */
    bool await_auth;    /* after a restart: goes on when they have come again */
    struct arena arena; /* a and spec live here */
    struct assignment a;
    struct tspec spec;
    struct err spec_err; /* code set: the template cannot be read */

    struct job *files; /* agent_files.c: being asked for */

    json_t *img;
    char command[128]; /* the first word of what will run, for error texts */
    struct image_want *want;

    /* one start */
    struct arena run; /* what the start needs; kept while the container lives */
    char container_id[65];
    pid_t monitor;
    struct ctr *ctr;
    bool has_slot, in_queue, redo;
    bool mesh_asked, mesh_there, rootfs_there, root_mounted;
    bool taken_out; /* meshd was told: no new connections */
    struct str netns, resolv_conf;
    struct strs addresses, volumes;
    struct list ports; /* struct task_port */
    struct oci_mount *mounts;
    size_t nmounts;
    struct copy *copies;
    size_t ncopies, copied;
    struct proc *proc;       /* a copy or a removal */
    struct metered *metered; /* agent_usage.c; NULL: nobody asks for it */
    struct checked *checked; /* agent_health.c; NULL: no health check */
    uint64_t mesh_pause_ms;
    struct timer *timer; /* grace period, drain, or the pause before asking meshd again */
    enum { TIMER_NONE, TIMER_GRACE, TIMER_DRAIN, TIMER_MESH_UP, TIMER_MESH_DOWN } timer_for;
    unsigned clean_left; /* parts of cleaning that are under way */
    unsigned calls;      /* answers of meshd that will still come: the struct must stay */
    unsigned run_no;     /* of the start: answers to an older one are ignored */

    bool dirty, forget, report;
    uint64_t report_seq, sent_seq;
};

struct agent {
    sd_event *loop;
    char run_dir[300], state_dir[300];
    struct host_info host;
    struct buf description;
    struct agent_db *db;
    struct images *images;
    struct oci_env *oci;
    struct agent_logs_ctx *logs;
    struct agent_dispatch *dispatch;
    struct rpc_client *mesh;
    struct timer *retry_store;
    sd_event_source *flush_source;
    struct atask *tasks;
    size_t ntasks;
    struct atask *queue_head, *queue_tail; /* waiting for a start slot, oldest first */
    size_t nqueue;
    unsigned starting;
    struct rpc_call *leaving;
    uint64_t started_total, failed_total;
};

/* agent_shell.c */
void task_event(struct atask *t, struct task_event ev); /* a step of the core and all that follows */
void task_dirty(struct atask *t);
struct atask *task_find(struct agent *ag, struct str id);
bool task_stop_wanted(const struct atask *t);

/* agent_run.c: each ends in one task_event() */
void run_prepare(struct atask *t);
void run_cancel(struct atask *t);
void run_start(struct atask *t);
void run_stop(struct atask *t);
void run_drain(struct atask *t);
void run_quiet(struct atask *t);
void run_kill(struct atask *t);
void run_clean(struct atask *t);
void run_recover(struct atask *t);    /* agentd has restarted: what is there of it? */
void run_release(struct atask *t);    /* frees what belongs to the runtime; the container is not touched */
void run_leftovers(struct agent *ag); /* of tasks that nobody knows */
void run_close(void);

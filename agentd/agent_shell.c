/* agent_shell.c - see agent_shell.h. */
#include "agentd/agent_shell.h"
#include "agentd/fsutil.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "agentd/agent_events.h"
#include "agentd/agent_files.h"
#include "agentd/agent_health.h"
#include "agentd/agent_task.h"
#include "agentd/agent_usage.h"
#include "agentd/agent_view.h"
#include "agentd/image_index.h"
#include "agentd/oci_seccomp.h"
#include "common/proto/msg_agentd.h"
#include "common/util/cleanup.h"
#include "common/util/dir.h"
#include "common/util/id.h"

struct agent_conf agent_conf;
static struct agent agent;

#define TASK_ARENA_MAX (4u << 20)
#define STORE_RETRY_MS 1000

/* ---- the table ---- */

struct atask *task_find(struct agent *ag, struct str id)
{
    for (struct atask *t = ag->tasks; t; t = t->next)
        if (str_is(id, t->id))
            return t;
    return NULL;
}

bool task_stop_wanted(const struct atask *t)
{
    return t->core.removed || t->core.desired >= TASK_SHUTDOWN;
}

static struct atask *task_free(struct atask *t)
{
    if (!t)
        return NULL;
    run_release(t);
    agent_usage_free(t);
    buf_done(&t->raw);
    if (t->auth)
        explicit_bzero(t->auth, strlen(t->auth));
    free(t->auth);
    arena_done(&t->arena);
    arena_done(&t->run);
    json_decref(t->img);
    free(t);
    return NULL;
}

static int task_decode(struct atask *t, struct err *e)
{
    arena_reset(&t->arena);
    int r = fields_decode(&t->a, assignment_fields, sizeof t->a, buf_str(&t->raw), FIELDS_VIEW, &t->arena, e);
    if (r < 0)
        return r;
    t->spec_err = (struct err)ERR_INIT;
    if (tspec_decode(t->a.Spec, &t->spec, &t->arena, &t->spec_err) < 0)
        t->spec.ContainerSpec = NULL;
    return 0;
}

static struct atask *task_new(struct agent *ag, struct str id)
{
    struct atask *t = calloc(1, sizeof *t);
    /* it becomes part of paths, of mount options and of a control group's name */
    if (!t || !id_ok(id) || !str_copy(t->id, sizeof t->id, id)) {
        free(t);
        return NULL;
    }
    t->ag = ag;
    task_init(&t->core);
    arena_init(&t->arena, TASK_ARENA_MAX);
    arena_init(&t->run, TASK_ARENA_MAX);
    t->next = ag->tasks;
    ag->tasks = t;
    ag->ntasks++;
    return t;
}

static void task_unlink(struct atask *t)
{
    struct atask **pp = &t->ag->tasks;
    while (*pp != t)
        pp = &(*pp)->next;
    *pp = t->next;
    t->ag->ntasks--;
}

/* ---- storing, then reporting ---- */

static void encode(const struct atask *t, struct buf *out)
{
    struct agent_record r = {
        .Assignment = buf_str(&t->raw),
        .Phase = t->core.phase,
        .State = t->core.state,
        .Desired = t->core.desired,
        .Removed = t->core.removed,
        .HasAuth = t->has_auth,
        .HasContainer = t->core.has_container,
        .Message = str_from(t->core.message),
        .Err = str_from(t->core.err),
        .Since = t->core.since.ns,
        .ExitCode = t->core.exit_code,
        .PID = t->core.pid,
        .MonitorPID = (uint64_t)t->monitor,
        .ContainerID = str_from(t->container_id),
        .ImageID = str_from(t->img ? image_id(t->img) : ""),
        .Volumes = t->volumes,
        .Addresses = t->addresses,
        .Ports = t->ports,
    };
    buf_clear(out);
    fields_encode(&r, agent_record_fields, out);
}

static int store_changes(struct agent *ag, struct err *e)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT;
    int r = 0;
    for (struct atask *t = ag->tasks; t && r == 0; t = t->next) {
        if (t->forget) {
            r = agent_db_del(ag->db, t->id, e);
        } else if (t->dirty) {
            encode(t, &b);
            r = b.failed ? err_set(e, ERR_NOMEM, "task=%s: out of memory", t->id)
                         : agent_db_put(ag->db, t->id, buf_str(&b), e);
        }
    }
    return r == 0 ? agent_db_commit(ag->db, e) : r;
}

static void check_leave(struct agent *ag)
{
    if (ag->leaving && ag->ntasks == 0) {
        rpc_reply(ag->leaving, NULL);
        ag->leaving = NULL;
    }
}

static int flush(sd_event_source *s, void *userdata)
{
    struct agent *ag = userdata;
    struct err e = ERR_INIT;
    (void)s;
    if (store_changes(ag, &e) < 0) {
        log_error("store: %s: again in %d ms", e.msg, STORE_RETRY_MS);
        timer_arm(ag->retry_store, clock_mono().ms + STORE_RETRY_MS);
        return 0;
    }
    for (struct atask *t = ag->tasks, *next; t; t = next) {
        next = t->next;
        if (t->dirty) {
            t->dirty = false;
            t->report = true;
            t->report_seq++;
        }
        if (t->forget && t->calls == 0) {
            agent_logs_remove(ag->logs, t->id);
            task_unlink(t);
            task_free(t);
        }
    }
    check_leave(ag);
    if (ag->dispatch)
        agent_dispatch_kick(ag->dispatch);
    return 0;
}

static void flush_soon(struct agent *ag)
{
    (void)sd_event_source_set_enabled(ag->flush_source, SD_EVENT_ONESHOT);
}

static void on_retry_store(void *arg)
{
    flush_soon(arg);
}

void task_dirty(struct atask *t)
{
    t->dirty = true;
    flush_soon(t->ag);
}

static const char *err_or_message(const struct task_core *c)
{
    return c->err[0] ? c->err : c->message;
}

void task_event(struct atask *t, struct task_event ev)
{
    enum task_state before = t->core.state;
    enum task_phase phase = t->core.phase;
    ev.now = clock_wall();
    unsigned todo = task_step(&t->core, &ev);
    task_check(&t->core);
    if (t->core.state != before) {
        log_info("task=%s state=%s service=" STR_FMT ": %s", t->id, task_state_name(t->core.state),
                 STR_ARG(t->a.ServiceName), err_or_message(&t->core));
        if (t->core.state == TASK_FAILED || t->core.state == TASK_REJECTED)
            t->ag->failed_total++;
        if (t->core.state == TASK_RUNNING)
            t->ag->started_total++;
        if (task_terminal(&t->core))
            agent_logs_end(t->ag->logs, t->id);
    }
    if (phase < TP_CLEANING && t->core.phase >= TP_CLEANING)
        files_drop(t); /* its container, if there was one, has ended */
    if (todo & (DO_STORE | DO_FORGET)) {
        t->forget = (todo & DO_FORGET) != 0;
        task_dirty(t);
    }
    if (todo & DO_PREPARE)
        run_prepare(t);
    if (todo & DO_START)
        run_start(t);
    if (todo & DO_DRAIN)
        run_drain(t);
    if (todo & DO_QUIET)
        run_quiet(t);
    if (todo & DO_STOP)
        run_stop(t);
    if (todo & DO_KILL)
        run_kill(t);
    if (todo & DO_CANCEL)
        run_cancel(t);
    if (todo & DO_CLEAN)
        run_clean(t);
}

/* ---- dispatcher ---- */

static void assign(struct agent *ag, const struct assignment *a)
{
    struct atask *t = task_find(ag, a->ID);
    struct assignment stored = *a;
    struct err e = ERR_INIT;
    if (!t) {
        t = task_new(ag, a->ID);
        if (!t) {
            log_error("task=" STR_FMT ": bad id or out of memory", STR_ARG(a->ID));
            return;
        }
        stored.RegistryAuth = (struct str){ 0, 0 }; /* secret: never on disk */
        fields_encode(&stored, assignment_fields, &t->raw);
        if (t->raw.failed || task_decode(t, &e) < 0)
            log_error("task=%s: %s", t->id, e.msg);
    }
    if (a->RegistryAuth.n && !t->auth) {
        t->auth = str_dup(a->RegistryAuth);
        t->has_auth = true;
    }
    if (t->await_auth) {
        t->await_auth = false;
        task_event(t, (struct task_event){ .type = TE_RESUME });
    }
    t->a.DrainMs = a->DrainMs;
    agent_usage_labels(t, &a->ServiceLabels);
    task_event(t, (struct task_event){ .type = TE_ASSIGN,
                                       .desired = task_state_parse(a->DesiredState),
                                       .drains = a->DrainMs != 0,
                                       .drained = a->Drained });
}

static bool mentioned(const struct disp_assignments_reply *rep, const char *id)
{
    for (size_t i = 0; i < rep->Tasks.n; i++)
        if (str_is(((const struct assignment *)rep->Tasks.v)[i].ID, id))
            return true;
    return false;
}

static void on_assignments(void *arg, const struct disp_assignments_reply *rep)
{
    struct agent *ag = arg;
    for (struct atask *t = ag->tasks; t && rep->Full; t = t->next)
        if (!mentioned(rep, t->id))
            task_event(t, (struct task_event){ .type = TE_REMOVED });
    for (size_t i = 0; i < rep->Removed.n; i++) {
        struct atask *t = task_find(ag, rep->Removed.v[i]);
        if (t)
            task_event(t, (struct task_event){ .type = TE_REMOVED });
    }
    for (size_t i = 0; i < rep->Tasks.n; i++)
        assign(ag, &((const struct assignment *)rep->Tasks.v)[i]);
}

static void on_session(void *arg, struct str node_id)
{
    struct agent *ag = arg;
    (void)node_id;
    files_kick(ag);
    for (struct atask *t = ag->tasks; t; t = t->next) {
        t->report = true;
        t->report_seq++;
    }
}

/* on_removed - the swarm does not know this node any more, so what runs here runs elsewhere. */
static void on_removed(void *arg)
{
    struct agent *ag = arg;
    for (struct atask *t = ag->tasks; t; t = t->next)
        task_event(t, (struct task_event){ .type = TE_REMOVED });
}

static struct str copy(struct arena *a, const char *s)
{
    return arena_str(a, str_from(s));
}

static size_t collect(void *arg, struct task_status *v, size_t max, struct arena *a)
{
    struct agent *ag = arg;
    size_t n = 0;
    for (struct atask *t = ag->tasks; t && n < max; t = t->next) {
        if (!t->report || t->dirty || t->forget || t->core.phase == TP_NEW)
            continue;
        const struct task_core *c = &t->core;
        v[n++] = (struct task_status){
            .TaskID = str_from(t->id),
            .State = str_from(task_state_name(c->state)),
            .Message = copy(a, c->message),
            .Err = copy(a, c->err),
            .Timestamp = c->since.ns,
            .ContainerID = str_from(c->has_container ? t->container_id : ""),
            .PID = c->pid,
            .ExitCode = c->exit_code,
            .HasContainer = c->has_container || c->state == TASK_REJECTED, /* without an id: as Docker shows it */
            .Ports = t->ports,
            .Addresses = t->addresses,
        };
        t->sent_seq = t->report_seq;
    }
    return n;
}

static void sent(void *arg, bool ok, const struct strs *unknown)
{
    struct agent *ag = arg;
    for (struct atask *t = ag->tasks; t; t = t->next) {
        if (ok && t->report && t->sent_seq == t->report_seq)
            t->report = false;
    }
    for (size_t i = 0; ok && i < unknown->n; i++)
        log_debug("task=" STR_FMT ": the manager does not know it", STR_ARG(unknown->v[i]));
}

/* ---- recovery ---- */

static void load_record(void *arg, struct str id, struct str record)
{
    struct agent *ag = arg;
    struct agent_record r;
    struct err e = ERR_INIT;
    struct arena tmp;
    struct atask *t = NULL;
    arena_init(&tmp, TASK_ARENA_MAX);
    if (fields_decode(&r, agent_record_fields, sizeof r, record, FIELDS_VIEW, &tmp, &e) < 0 ||
        !(t = task_new(ag, id))) {
        log_error("task=" STR_FMT ": stored record: %s", STR_ARG(id), e.msg);
        arena_done(&tmp);
        return;
    }
    buf_put(&t->raw, r.Assignment.p, r.Assignment.n);
    if (task_decode(t, &e) < 0)
        log_error("task=%s: stored assignment: %s", t->id, e.msg);
    t->core.phase = r.Phase < TP_COUNT ? (enum task_phase)r.Phase : TP_NEW;
    t->core.state = (enum task_state)r.State;
    t->core.desired = (enum task_state)r.Desired;
    t->core.removed = r.Removed;
    t->core.drains = t->a.DrainMs != 0;
    t->has_auth = r.HasAuth;
    t->core.has_container = r.HasContainer;
    t->core.since.ns = r.Since;
    t->core.exit_code = r.ExitCode;
    t->core.pid = r.PID;
    t->monitor = (pid_t)r.MonitorPID;
    (void)str_copy(t->core.message, sizeof t->core.message, r.Message);
    (void)str_copy(t->core.err, sizeof t->core.err, r.Err);
    (void)str_copy(t->container_id, sizeof t->container_id, r.ContainerID);
    t->volumes.v = arena_array(&t->run, r.Volumes.n + 1, sizeof(struct str));
    for (size_t i = 0; t->volumes.v && i < r.Volumes.n; i++)
        t->volumes.v[t->volumes.n++] = arena_str(&t->run, r.Volumes.v[i]);
    t->addresses.v = arena_array(&t->run, r.Addresses.n + 1, sizeof(struct str));
    for (size_t i = 0; t->addresses.v && i < r.Addresses.n; i++)
        t->addresses.v[t->addresses.n++] = arena_str(&t->run, r.Addresses.v[i]);
    struct task_port *p = arena_array(&t->run, r.Ports.n + 1, sizeof *p);
    for (size_t i = 0; p && i < r.Ports.n; i++) {
        p[i] = ((const struct task_port *)r.Ports.v)[i];
        p[i].Protocol = arena_str(&t->run, p[i].Protocol);
        p[i].PublishMode = arena_str(&t->run, p[i].PublishMode);
    }
    t->ports = (struct list){ p, p ? r.Ports.n : 0 };
    char image[80];
    if (ag->images && str_copy(image, sizeof image, r.ImageID) && image[0])
        t->img = images_by_id(ag->images, image);
    arena_done(&tmp);
}

static bool image_in_use(void *arg, const char *id)
{
    struct agent *ag = arg;
    for (struct atask *t = ag->tasks; t; t = t->next)
        if (t->img && !(task_terminal(&t->core) && t->core.phase == TP_DONE) && strcmp(image_id(t->img), id) == 0)
            return true;
    return false;
}

static bool log_state(void *arg, struct str id, bool *ret_ended)
{
    struct atask *t = task_find(arg, id);
    if (!t)
        return false;
    *ret_ended = task_terminal(&t->core);
    return true;
}

/* ---- start and stop ---- */

/* nobody but root looks into containers and volumes, or makes these folders for us */
static int make_dirs(struct agent *ag, struct err *e)
{
    static const char *const run[] = { "tasks", "crun", "exits" };
    static const char *const state[] = { "agent", "images", "tasks", "volumes" };
    char path[400];
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof run / sizeof run[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", ag->run_dir, run[i]);
        r = dir_own(path, 0700, e);
    }
    for (size_t i = 0; r == 0 && i < sizeof state / sizeof state[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", ag->state_dir, state[i]);
        r = dir_own(path, 0700, e);
    }
    return r;
}

static int open_parts(struct agent *ag, struct err *e)
{
    struct images_conf ic = { .state_dir = ag->state_dir,
                              .run_dir = ag->run_dir,
                              .self = "/proc/self/exe",
                              .layer_max = agent_conf.layer_size_max,
                              .insecure_registries = agent_conf.insecure_registries,
                              .in_use = image_in_use,
                              .arg = ag };
    struct oci_conf oc = { .conmon = agent_conf.conmon,
                           .crun = agent_conf.crun,
                           .run_dir = ag->run_dir,
                           .cgroup_root = agent_conf.cgroup_root };
    int r = make_dirs(ag, e);
    if (r == 0)
        r = agent_db_open(&ag->db, ag->state_dir, e);
    if (r == 0)
        r = images_open(&ag->images, ag->loop, &ic, e);
    if (r == 0)
        r = oci_env_open(&ag->oci, ag->loop, &oc, e);
    if (r == 0)
        r = agent_logs_open(&ag->logs, ag->loop, ag->state_dir, log_state, ag, e);
    if (r == 0)
        r = rpc_client_open(&ag->mesh, ag->loop, ag->run_dir, "meshd", e);
    if (r == 0)
        r = timer_open(&ag->retry_store, on_retry_store, ag, e);
    if (r == 0 && ((r = sd_event_add_defer(ag->loop, &ag->flush_source, flush, ag)) < 0 ||
                   (r = sd_event_source_set_enabled(ag->flush_source, SD_EVENT_OFF)) < 0))
        r = err_errno(e, -r, "event loop");
    return r;
}

/*
 * agentd runs as root with the group that its sockets are made for; what it makes for containers, and its children,
 * must be root's alone. The last socket is there when the loop begins.
 */
static int on_first_turn(sd_event_source *s, void *userdata)
{
    (void)s;
    (void)userdata;
    if (geteuid() == 0 && setresgid(0, 0, 0) < 0)
        log_warn("set group: %s", strerror(errno));
    return 0;
}

/* read_boot_id - kept in the run folder, which is empty after a boot, as is what the kernel holds for this node */
static int read_boot_id(const char *run_dir, char id[ID_SIZE], struct err *e)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT;
    char path[512];

    snprintf(path, sizeof path, "%s/boot-id", run_dir);
    if (access(path, F_OK) == 0 && fs_read(path, ID_SIZE, &b, e) == 0 && b.n == ID_LEN && id_ok(buf_str(&b))) {
        (void)str_copy(id, ID_SIZE, buf_str(&b));
        return 0;
    }
    id_new(id);
    return fs_write_atomic(path, str_from(id), 0600, e);
}

int agent_start(struct err *e)
{
    static char boot_id[ID_SIZE];
    struct agent *ag = &agent;
    static const struct dispatch_ops ops = { on_assignments, on_session, on_removed, collect, sent };
    struct str b64;
    if (geteuid() == 0)
        setfsgid(0);
    ag->loop = daemon_loop();
    snprintf(ag->run_dir, sizeof ag->run_dir, "%s", daemon_run_dir());
    snprintf(ag->state_dir, sizeof ag->state_dir, "%s", daemon_state_dir());
    host_info_read(&ag->host);
    host_description(&ag->host, &ag->description);
    int r = seccomp_default(0, &b64, e); /* compiled before the first task asks for it */
    if (r == 0 && (r = sd_event_add_defer(ag->loop, NULL, on_first_turn, NULL)) < 0)
        r = err_errno(e, -r, "event loop");
    if (r == 0)
        r = read_boot_id(ag->run_dir, boot_id, e);
    if (r == 0)
        r = open_parts(ag, e);
    if (r == 0)
        r = agent_db_each(ag->db, load_record, ag, e);
    if (r < 0)
        return r;
    run_leftovers(ag);
    for (struct atask *t = ag->tasks; t; t = t->next)
        run_recover(t);
    struct dispatch_conf dc = { .run_dir = ag->run_dir,
                                .hostname = ag->host.hostname,
                                .boot_id = boot_id,
                                .description = buf_str(&ag->description),
                                .backoff_max_ms = agent_conf.backoff_max_ms };
    setfsgid(getegid());
    return agent_dispatch_open(&ag->dispatch, ag->loop, &dc, &ops, ag, e);
}

void agent_stop(void)
{
    struct agent *ag = &agent;
    struct err e = ERR_INIT;
    ag->dispatch = agent_dispatch_close(ag->dispatch);
    ag->mesh = rpc_client_free(ag->mesh);
    if (ag->db && store_changes(ag, &e) < 0)
        log_error("store: %s", e.msg);
    ag->logs = agent_logs_close(ag->logs);
    for (struct atask *t = ag->tasks; t; t = t->next)
        agent_health_end(t); /* all of them first: a slot that gets free must not begin another check */
    while (ag->tasks) {
        struct atask *t = ag->tasks;
        task_unlink(t);
        task_free(t);
    }
    run_close();
    files_close();
    agent_events_close();
    agent_usage_close();
    ag->images = images_close(ag->images);
    ag->oci = oci_env_close(ag->oci);
    timer_free(ag->retry_store);
    sd_event_source_disable_unref(ag->flush_source);
    ag->db = agent_db_close(ag->db);
    buf_done(&ag->description);
    seccomp_forget();
}

/* ---- operations ---- */

/* permitted - every daemon of the host may connect; images, logs and leaving are for users, who come through apid. */
static bool permitted(struct rpc_call *c)
{
    return rpc_permit(c, daemon_user("apid"), "apid");
}

/* local - what a node does with itself is not for others to ask, not even for a manager's apid. */
static bool local(struct rpc_call *c)
{
    if (rpc_origin(c).role == RPC_LOCAL)
        return permitted(c);
    rpc_fail(c, ERR_DENIED, "this can only be asked for on the node itself");
    return false;
}

/* managing - what users look at on other nodes, through the apid of a manager. */
static bool managing(struct rpc_call *c)
{
    enum rpc_role role = rpc_origin(c).role;
    if (role == RPC_LOCAL || role == RPC_MANAGER)
        return permitted(c);
    rpc_fail(c, ERR_DENIED, "only managers may ask for this");
    return false;
}

static void op_logs(struct rpc_call *c, const void *req)
{
    if (!managing(c))
        return;
    agent_logs_op(agent.logs, c, req);
}
static void op_image_load(struct rpc_call *c, const void *req)
{
    if (!local(c))
        return;
    images_op_load(agent.images, c, req);
}
static void op_image_pull(struct rpc_call *c, const void *req)
{
    if (!local(c))
        return;
    images_op_pull(agent.images, c, req);
}
static void op_image_list(struct rpc_call *c, const void *req)
{
    if (!local(c))
        return;
    (void)req;
    images_op_list(agent.images, c);
}
static void op_image_inspect(struct rpc_call *c, const void *req)
{
    if (!local(c))
        return;
    images_op_inspect(agent.images, c, req);
}
static void op_image_remove(struct rpc_call *c, const void *req)
{
    if (!local(c))
        return;
    images_op_remove(agent.images, c, req);
}
static void op_image_tag(struct rpc_call *c, const void *req)
{
    if (!local(c))
        return;
    images_op_tag(agent.images, c, req);
}
static void op_image_resolve(struct rpc_call *c, const void *req)
{
    if (!local(c))
        return;
    images_op_resolve(agent.images, c, req);
}

static size_t count(enum task_phase from, enum task_phase to)
{
    size_t n = 0;
    for (struct atask *t = agent.tasks; t; t = t->next)
        n += t->core.phase >= from && t->core.phase <= to;
    return n;
}

static void op_info(struct rpc_call *c, const void *req)
{
    if (!managing(c))
        return;
    (void)req;
    struct agent_info rep = {
        .Containers = count(TP_STARTING, TP_CLEANING),
        .ContainersRunning = count(TP_RUNNING, TP_STOPPING),
        .Images = images_count(agent.images),
        .Runtime = STR("crun"),
        .CgroupDriver = STR("cgroupfs"),
        .CgroupVersion = oci_cgroup2(agent.oci) ? STR("2") : STR("1"),
        .StorageDriver = STR("overlayfs"),
        .Description = buf_str(&agent.description),
    };
    rpc_reply(c, &rep);
}

static void op_containers(struct rpc_call *c, const void *req)
{
    if (!managing(c))
        return;
    view_op_containers(&agent, c, req);
}
static void op_volumes(struct rpc_call *c, const void *req)
{
    if (!managing(c))
        return;
    view_op_volumes(&agent, c, req);
}

static void op_events(struct rpc_call *c, const void *req)
{
    if (local(c))
        agent_events_op(c, req);
}

static void op_leave(struct rpc_call *c, const void *req)
{
    if (!local(c))
        return;
    (void)req;
    if (agent.leaving) {
        rpc_fail(c, ERR_CONFLICT, "the node is leaving already");
        return;
    }
    agent.leaving = c;
    agent_dispatch_leave(agent.dispatch); /* else what stops here would be assigned anew */
    for (struct atask *t = agent.tasks; t; t = t->next)
        task_event(t, (struct task_event){ .type = TE_REMOVED });
    flush_soon(&agent);
}

const struct route agent_routes[] = {
    { &op_agent_logs, op_logs },
    { &op_agent_image_load, op_image_load },
    { &op_agent_image_pull, op_image_pull },
    { &op_agent_image_list, op_image_list },
    { &op_agent_image_inspect, op_image_inspect },
    { &op_agent_image_remove, op_image_remove },
    { &op_agent_image_tag, op_image_tag },
    { &op_agent_image_resolve, op_image_resolve },
    { &op_agent_info, op_info },
    { &op_agent_containers, op_containers },
    { &op_agent_volumes, op_volumes },
    { &op_agent_events, op_events },
    { &op_agent_leave, op_leave },
    { 0 },
};

/* ---- probes ---- */

static void probe_tasks(const char *args, struct buf *out)
{
    bool first = true;
    buf_putc(out, '[');
    for (struct atask *t = agent.tasks; t; t = t->next) {
        if (args[0] && strncmp(t->id, args, strlen(args)) != 0)
            continue;
        buf_printf(out,
                   "%s{\"id\":\"%s\",\"state\":\"%s\",\"phase\":%d,\"desired\":\"%s\",\"pid\":%" PRIu64
                   ",\"container\":\"%.64s\",\"service\":",
                   first ? "" : ",", t->id, task_state_name(t->core.state), (int)t->core.phase,
                   task_state_name(t->core.desired), t->core.pid, t->container_id);
        buf_json_str(out, t->a.ServiceName);
        buf_printf(out, ",\"health\":\"%s\",\"err\":", health_state_name(agent_health_state(t)));
        buf_json_str(out, str_from(t->core.err));
        buf_putc(out, '}');
        first = false;
    }
    buf_putc(out, ']');
}

const struct probe agent_probes[] = {
    { "tasks", "[ID-PREFIX]", "the tasks of this node, with their containers", probe_tasks },
    { 0 },
};

void agent_status(struct buf *out)
{
    buf_printf(out, ",\"session\":%s,\"tasks\":%zu,\"running\":%zu,\"starting\":%u,\"queued\":%zu,\"images\":%zu",
               agent.dispatch && agent_dispatch_connected(agent.dispatch) ? "true" : "false", agent.ntasks,
               count(TP_RUNNING, TP_STOPPING), agent.starting, agent.nqueue, images_count(agent.images));
}

void agent_metrics(struct buf *out)
{
    buf_printf(out, "microswarm_agentd_tasks %zu\n", agent.ntasks);
    buf_printf(out, "microswarm_agentd_tasks_running %zu\n", count(TP_RUNNING, TP_STOPPING));
    buf_printf(out, "microswarm_agentd_starts_queued %zu\n", agent.nqueue);
    buf_printf(out, "microswarm_agentd_started_total %" PRIu64 "\n", agent.started_total);
    buf_printf(out, "microswarm_agentd_failed_total %" PRIu64 "\n", agent.failed_total);
    buf_printf(out, "microswarm_agentd_images %zu\n", images_count(agent.images));
    buf_printf(out, "microswarm_agentd_events_waiting %u\n", agent_events_waiting());
    agent_health_metrics(out);
    agent_usage_metrics(out);
}

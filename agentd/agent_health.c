/* agent_health.c - see agent_health.h. */
#include "agentd/agent_health.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/agent_events.h"
#include "agentd/agent_run.h"
#include "agentd/fsutil.h"
#include "agentd/oci_aside.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"

#define SLOT_MS 5000u        /* a check that takes longer gives its slot to the next one */
#define DRAIN_MS 50u         /* output beyond what is kept is read that often, so that it cannot keep us busy */
#define PIPE_BYTES (1 << 20) /* and at most so much of it */
#define REASON_MAX 200

struct checked {          /* one container with a health check */
    struct checked *next; /* in the queue */
    struct atask *t;
    struct arena arena; /* of conf */
    struct health_conf conf;
    struct health health;
    int64_t born_ns; /* wall: when the container began */
    struct timer *timer;
    uint64_t due_ms;              /* the next check; 0: none */
    bool queued, has_slot, ready; /* ready: its files and groups are made */
    bool ended;                   /* no more checks: it stops */
    /* a check under way */
    struct proc *proc;
    bool counted; /* its time was up: what it still says does not matter */
    int out_fd;
    sd_event_source *out_source;
    char *out; /* HEALTH_OUTPUT + 4 bytes; NULL between checks */
    size_t out_n;
    bool cut;
    uint64_t slot_ms, timeout_ms, drain_ms; /* deadlines; 0: none */
    int64_t began_ns;
};

static struct checked *queue_head, *queue_tail;
static unsigned slots;
static uint64_t checks_total, failed_total, timed_out_total;

static void begin_check(struct checked *c);
static void arm(struct checked *c);

/* ---- slots ---- */

static void queue_drop(struct checked *c)
{
    struct checked **pp = &queue_head, *before = NULL;
    if (!c->queued)
        return;
    for (; *pp != c; pp = &(*pp)->next)
        before = *pp;
    *pp = c->next;
    if (queue_tail == c)
        queue_tail = before;
    c->queued = false;
}

/* A check that cannot begin gives its slot back in here: that is taken by the loop, however many such there are. */
static void queue_run(void)
{
    static bool running;
    if (running)
        return;
    running = true;
    while (queue_head && slots < agent_conf.health_starts_max) {
        struct checked *c = queue_head;
        queue_drop(c);
        c->has_slot = true;
        slots++;
        begin_check(c);
    }
    running = false;
}

static void slot_drop(struct checked *c)
{
    if (!c->has_slot)
        return;
    CHECK(slots > 0);
    c->has_slot = false;
    c->slot_ms = 0;
    slots--;
    queue_run();
}

static void enqueue(struct checked *c)
{
    c->due_ms = 0;
    c->queued = true;
    c->next = NULL;
    if (queue_tail)
        queue_tail->next = c;
    else
        queue_head = c;
    queue_tail = c;
    queue_run();
}

/* ---- what a check consists of ---- */

/* The container's own process with another command. */
static int write_process(struct checked *c, struct err *e)
{
    char from[512], to[512];
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    json_error_t je;
    run_path(c->t, "config.json", from);
    run_path(c->t, "health.json", to);
    if (fs_read(from, 16u << 20, &text, e) < 0)
        return -e->code;
    json_t *config = json_loadb(text.p, text.n, 0, &je);
    json_t *process = json_object_get(config, "process"), *args = json_array();
    for (size_t i = 0; i < c->conf.argv.n; i++) {
        json_t *arg = json_stringn(c->conf.argv.v[i].p, c->conf.argv.v[i].n);
        json_array_append_new(args, arg ? arg : json_string(""));
    }
    int r = json_object_set_new(process, "args", args);
    json_object_set_new(process, "terminal", json_false());
    json_object_del(process, "consoleSize");
    char *out = r < 0 ? NULL : json_dumps(process, JSON_COMPACT);
    json_decref(config);
    r = out ? fs_write(to, str_from(out), 0600, e) : err_set(e, ERR_CORRUPT, "%s: no process", from);
    free(out);
    return r;
}

/* age_at - how old the container is when something began. */
static int64_t age_at(const struct checked *c, int64_t wall_ns)
{
    return wall_ns > c->born_ns ? wall_ns - c->born_ns : 0;
}

static void next_check(struct checked *c)
{
    int64_t pause = health_pause_ns(&c->health, &c->conf, age_at(c, clock_wall().ns));
    c->due_ms = c->ended ? 0 : clock_mono().ms + (uint64_t)pause / 1000000;
    arm(c);
}

/* ---- results ---- */

/* The last check in one line, behind Docker's words. */
static void unhealthy(struct checked *c)
{
    const struct health_result *last = &c->health.log[c->health.nlog - 1];
    char text[REASON_MAX + 80], said[REASON_MAX];
    size_t n = 0;
    for (size_t i = 0; i < last->output_n && last->output[i] != '\n' && n < sizeof said - 1; i++)
        said[n++] = last->output[i] >= ' ' || (unsigned char)last->output[i] >= 0x80 ? last->output[i] : ' ';
    said[n] = '\0';
    if (last->exit_code == HEALTH_TIMED_OUT)
        snprintf(text, sizeof text, TASK_UNHEALTHY " (%s)", said);
    else
        snprintf(text, sizeof text, TASK_UNHEALTHY " (health check: exit code %" PRId64 "%s%s)", last->exit_code,
                 n ? ": " : "", said);
    agent_health_end(c->t);
    task_event(c->t, (struct task_event){ .type = TE_UNHEALTHY, .text = text });
}

static void known_to_others(struct atask *t)
{
    if (t->core.phase == TP_RUNNING)
        task_event(t, (struct task_event){ .type = TE_HEALTHY });
}

static void take(struct checked *c, int64_t exit_code)
{
    struct health_result r = { .start_ns = c->began_ns, .end_ns = clock_wall().ns, .exit_code = exit_code };
    if (c->out_n && (r.output = malloc(c->out_n))) {
        memcpy(r.output, c->out, c->out_n);
        r.output_n = c->out_n;
    }
    c->counted = true;
    failed_total += exit_code != 0;
    if (c->ended) {
        free(r.output);
        return;
    }
    bool turned = health_take(&c->health, &c->conf, &r, age_at(c, c->began_ns));
    next_check(c);
    if (!turned)
        return;
    const char *state = health_state_name(c->health.state);
    log_info("task=%s health=%s service=" STR_FMT, c->t->id, state, STR_ARG(c->t->a.ServiceName));
    agent_event(c->t, "health_status: ", state);
    if (c->health.state == HEALTH_UNHEALTHY)
        unhealthy(c);
    else if (c->health.state == HEALTH_HEALTHY && c->t->core.state < TASK_RUNNING)
        run_mesh_ready(c->t, known_to_others); /* who sees "running" may connect at once */
}

/* ---- output ---- */

static void read_output(struct checked *c)
{
    while (c->out_fd >= 0 && c->out_n < HEALTH_OUTPUT) {
        ssize_t n = read(c->out_fd, c->out + c->out_n, HEALTH_OUTPUT - c->out_n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        c->out_n += (size_t)n;
    }
}

static bool drop_output(struct checked *c)
{
    char rest[65536];
    ssize_t n = 0;
    for (size_t got = 0; got < PIPE_BYTES && (n = read(c->out_fd, rest, sizeof rest)) > 0;) {
        got += (size_t)n;
        c->cut = true;
    }
    return n != 0; /* 0: nobody writes any more */
}

static int on_output(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct checked *c = userdata;
    (void)fd;
    size_t before = c->out_n;
    read_output(c);
    if (c->out_n < HEALTH_OUTPUT && c->out_n > before && !(revents & EPOLLHUP))
        return 0;
    (void)sd_event_source_set_enabled(s, SD_EVENT_OFF);
    if (c->out_n == HEALTH_OUTPUT) { /* what else it says is read now and then */
        c->drain_ms = clock_mono().ms + DRAIN_MS;
        arm(c);
    }
    return 0;
}

static void close_output(struct checked *c)
{
    c->out_source = sd_event_source_disable_unref(c->out_source);
    closep(&c->out_fd);
    c->out_fd = -1;
    c->drain_ms = 0;
}

static void end_output(struct checked *c)
{
    read_output(c);
    if (c->out_fd >= 0 && c->out_n == HEALTH_OUTPUT)
        (void)drop_output(c);
    if (c->cut) {
        memcpy(c->out + HEALTH_OUTPUT, "...", 3);
        c->out_n = HEALTH_OUTPUT + 3;
    }
    close_output(c);
}

/* ---- one check ---- */

static void on_check_done(void *arg, int status, struct str out, struct str errtext)
{
    struct checked *c = arg;
    (void)out;
    (void)errtext;
    c->proc = NULL;
    c->timeout_ms = 0;
    ctr_aside_kill(c->t->ag->oci, c->t->id); /* what it left behind */
    end_output(c);
    slot_drop(c);
    bool counted = c->counted;
    if (!counted)
        take(c, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    free(TAKE(c->out));
    if (counted)
        next_check(c);
}

static void time_is_up(struct checked *c)
{
    char text[HEALTH_OUTPUT + 4];
    c->timeout_ms = 0;
    timed_out_total++;
    ctr_aside_kill(c->t->ag->oci, c->t->id);
    proc_kill(c->proc);
    end_output(c);
    char seconds[32];
    snprintf(seconds, sizeof seconds, "%g", (double)c->conf.timeout_ns / 1e9);
    int n = snprintf(text, sizeof text, "Health check exceeded timeout (%ss)%s%.*s", seconds, c->out_n ? ": " : "",
                     (int)c->out_n, c->out);
    c->out_n = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    memcpy(c->out, text, c->out_n);
    take(c, HEALTH_TIMED_OUT);
}

static int spawn(struct checked *c, struct err *e)
{
    int ends[2];
    if (!c->ready && (write_process(c, e) < 0 || ctr_aside_make(c->t->ag->oci, c->t->id, e) < 0))
        return -e->code;
    c->ready = true;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(e, errno, "pipe");
    (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
    c->out_fd = ends[0];
    char process[512];
    run_path(c->t, "health.json", process);
    int r = ctr_aside_exec(&c->proc, c->t->ag->oci, c->t->container_id, process, ends[1], on_check_done, c, e);
    close(ends[1]);
    if (r == 0 && (r = sd_event_add_io(c->t->ag->loop, &c->out_source, c->out_fd, EPOLLIN, on_output, c)) < 0)
        r = err_errno(e, -r, "watch");
    return r;
}

static void begin_check(struct checked *c)
{
    struct err e = ERR_INIT;
    uint64_t now = clock_mono().ms;
    c->out = c->out ? c->out : malloc(HEALTH_OUTPUT + 4);
    CHECK(c->out != NULL);
    c->out_n = 0;
    c->cut = c->counted = false;
    c->began_ns = clock_wall().ns;
    c->slot_ms = now + SLOT_MS;
    c->timeout_ms = now + (uint64_t)c->conf.timeout_ns / 1000000 + 1;
    checks_total++;
    if (spawn(c, &e) < 0) {
        log_warn("task=%s: health check: %s", c->t->id, e.msg);
        c->out_n = (size_t)snprintf(c->out, HEALTH_OUTPUT, "%.300s", e.msg);
        c->timeout_ms = 0;
        c->proc = proc_free(c->proc);
        close_output(c);
        slot_drop(c);
        take(c, HEALTH_TIMED_OUT);
        free(TAKE(c->out));
        return;
    }
    arm(c);
}

/* ---- time ---- */

static void sooner(uint64_t *at, uint64_t deadline)
{
    if (deadline && deadline < *at)
        *at = deadline;
}

static void arm(struct checked *c)
{
    uint64_t at = UINT64_MAX;
    if (!c->proc)
        sooner(&at, c->due_ms);
    sooner(&at, c->slot_ms);
    sooner(&at, c->timeout_ms);
    sooner(&at, c->drain_ms);
    if (c->timer)
        timer_arm(c->timer, at);
}

static bool reached(uint64_t deadline, uint64_t now)
{
    return deadline && deadline <= now;
}

static void on_time(void *arg)
{
    struct checked *c = arg;
    uint64_t now = clock_mono().ms;
    if (reached(c->drain_ms, now))
        c->drain_ms = drop_output(c) ? now + DRAIN_MS : 0;
    if (reached(c->slot_ms, now))
        slot_drop(c);
    if (c->proc && reached(c->timeout_ms, now))
        time_is_up(c);
    else if (!c->proc && !c->queued && !c->ended && reached(c->due_ms, now))
        enqueue(c);
    arm(c);
}

/* ---- a container's life ---- */

static bool conf_of(struct atask *t, struct arena *a, struct health_conf *ret)
{
    static const struct image_conf nothing;
    struct image_conf ic = nothing;
    struct err e = ERR_INIT;
    const struct tspec_container *spec = t->spec.ContainerSpec;
    if (!spec)
        return false;
    if (run_image_conf(t, a, &ic, &e) < 0) {
        log_warn("task=%s: health check of its image: %s", t->id, e.msg);
        ic = nothing;
    }
    return health_conf_of(spec->Healthcheck, &ic.Healthcheck, &ic.Shell, a, ret);
}

/* When an adopted container was made, as its monitor's file says. */
static int64_t birth_of(struct atask *t)
{
    char path[512];
    struct stat st;
    run_path(t, "conmon.pid", path);
    if (stat(path, &st) == 0)
        return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return t->core.since.ns;
}

/* After a restart all are due again: not all at once. */
static uint64_t part_of(uint64_t ms, const char *id)
{
    uint64_t h = 1469598103934665603u;
    for (; *id; id++)
        h = (h ^ (unsigned char)*id) * 1099511628211u;
    return ms ? h % ms : 0;
}

bool agent_health_begin(struct atask *t, bool back)
{
    struct err e = ERR_INIT;
    struct checked *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    agent_health_free(t);
    arena_init(&c->arena, 1u << 20);
    c->t = t;
    c->out_fd = -1;
    if (!conf_of(t, &c->arena, &c->conf) || timer_open(&c->timer, on_time, c, &e) < 0) {
        if (e.code)
            log_error("task=%s: health check: %s", t->id, e.msg);
        arena_done(&c->arena);
        free(c);
        return false;
    }
    t->checked = c;
    c->health.state = back && t->core.state >= TASK_RUNNING ? HEALTH_HEALTHY : HEALTH_STARTING;
    c->born_ns = back ? birth_of(t) : clock_wall().ns;
    next_check(c);
    if (back) {
        ctr_aside_kill(t->ag->oci, t->id);
        uint64_t now = clock_mono().ms;
        c->due_ms = now + part_of(c->due_ms > now ? c->due_ms - now : 0, t->id) + 1;
        arm(c);
    }
    return true;
}

void agent_health_end(struct atask *t)
{
    struct checked *c = t->checked;
    if (!c)
        return;
    c->ended = true;
    c->due_ms = 0;
    queue_drop(c);
    if (c->proc) {
        ctr_aside_kill(t->ag->oci, t->id);
        proc_kill(c->proc);
    }
    arm(c);
}

void agent_health_gone(struct atask *t)
{
    struct checked *c = t->checked;
    if (!c)
        return;
    agent_health_end(t);
    c->proc = proc_free(c->proc);
    close_output(c);
    c->timeout_ms = 0;
    slot_drop(c);
    c->timer = timer_free(c->timer);
}

void agent_health_free(struct atask *t)
{
    struct checked *c = t->checked;
    if (!c)
        return;
    agent_health_gone(t);
    t->checked = NULL;
    health_done(&c->health);
    arena_done(&c->arena);
    free(c->out);
    free(c);
}

/* ---- for others to see ---- */

enum health_state agent_health_state(const struct atask *t)
{
    return t->checked ? t->checked->health.state : HEALTH_NONE;
}

void agent_health_view(const struct atask *t, struct arena *a, struct agent_health *ret)
{
    const struct checked *c = t->checked;
    *ret = (struct agent_health){ .Status = str_from(health_state_name(agent_health_state(t))) };
    if (!c)
        return;
    struct agent_health_result *v = arena_array(a, HEALTH_LOG, sizeof *v);
    for (unsigned i = 0; v && i < c->health.nlog; i++) {
        const struct health_result *r = &c->health.log[i];
        v[i] = (struct agent_health_result){
            .Start = r->start_ns, .End = r->end_ns, .ExitCode = r->exit_code, .Output = { r->output, r->output_n }
        };
    }
    ret->FailingStreak = c->health.streak;
    ret->Log = (struct list){ v, v ? c->health.nlog : 0 };
    ret->Test = c->conf.test;
    ret->Interval = c->conf.interval_ns;
    ret->Timeout = c->conf.timeout_ns;
    ret->StartPeriod = c->conf.start_period_ns;
    ret->StartInterval = c->conf.start_interval_ns;
    ret->Retries = c->conf.retries;
}

void agent_health_metrics(struct buf *out)
{
    buf_printf(out, "microswarm_agentd_health_checks_total %" PRIu64 "\n", checks_total);
    buf_printf(out, "microswarm_agentd_health_checks_failed_total %" PRIu64 "\n", failed_total);
    buf_printf(out, "microswarm_agentd_health_checks_timed_out_total %" PRIu64 "\n", timed_out_total);
}

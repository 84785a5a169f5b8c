#include "swarmctl/converge.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "swarmctl/human.h"
#include "swarmctl/jpath.h"

#define BARS_MAX 20
#define SECOND_NS INT64_C(1000000000)

static const char *const states[] = {
    "",      "new",      "allocated", "pending",  "assigned", "accepted", "preparing",
    "ready", "starting", "running",   "complete", "shutdown", "failed",   "rejected"
};
enum { STATE_RUNNING = 9, STATE_COMPLETE = 10, STATE_WIDTH = 9 };

/* The place of a state in a task's life; 0 for one that isn't shown ("remove", "orphaned"). */
static int state_no(const char *name)
{
    for (int i = 1; i < (int)(sizeof states / sizeof states[0]); i++)
        if (strcmp(states[i], name) == 0)
            return i;
    return 0;
}

static int actual(const json_t *task)
{
    return state_no(jstr(task, "Status.State"));
}

static int desired(const json_t *task)
{
    return state_no(jstr(task, "DesiredState"));
}

void converge_init(struct converge *cv, const char *name, void (*emit)(void *, const struct progress *), void *arg)
{
    *cv = (struct converge){ .name = name,
                             .emit = emit,
                             .arg = arg,
                             .monitor_ns = 5 * SECOND_NS,
                             .slots = json_object(),
                             .job_nodes = json_object() };
}

void converge_free(struct converge *cv)
{
    json_decref(cv->slots);
    json_decref(cv->job_nodes);
}

static void emit(struct converge *cv, const char *id, const char *text, int64_t current, int64_t total)
{
    cv->emit(cv->arg, &(struct progress){ .id = id, .text = text, .current = current, .total = total });
}

static void emit_overall(struct converge *cv, int64_t running, int64_t of)
{
    char text[96];

    snprintf(text, sizeof text, "%s%" PRId64 " out of %" PRId64 " tasks", cv->rollback ? "rolling back update: " : "",
             running, of);
    emit(cv, "overall progress", text, 0, 0);
}

/* One line, at most 75 columns, so that it fits a narrow terminal. */
static void error_line(char out[96], const char *err)
{
    size_t n = strlen(err);

    if (n > 75) {
        for (n = 74; n > 0 && ((unsigned char)err[n] & 0xc0) == 0x80; n--)
            ;
        snprintf(out, 96, "%.*s…", (int)n, err);
    } else {
        snprintf(out, 96, "%s", err);
    }
    for (char *p = out; *p; p++)
        if (*p == '\n')
            *p = ' ';
}

static void emit_task(struct converge *cv, const char *id, const json_t *task, int steps)
{
    const char *err = jstr(task, "Status.Err");
    int no = actual(task);
    char text[96];

    if (*err) {
        error_line(text, err);
        emit(cv, id, text, 0, 0);
    } else if (steps > STATE_RUNNING || (no <= STATE_RUNNING && desired(task) <= STATE_RUNNING)) {
        snprintf(text, sizeof text, "%-*s", STATE_WIDTH, states[no]);
        emit(cv, id, text, no, steps);
    }
}

static enum converge_next update_status(struct converge *cv, json_t *service, struct err *e)
{
    const char *state = jstr(service, "UpdateStatus.State"), *message = jstr(service, "UpdateStatus.Message");

    if (strcmp(state, "updating") == 0) {
        cv->rollback = false;
    } else if (strcmp(state, "completed") == 0) {
        return cv->reached ? CONVERGE_AGAIN : CONVERGE_LAST;
    } else if (strcmp(state, "paused") == 0) {
        err_set(e, ERR_PRECONDITION, "service update paused: %s", message);
        return CONVERGE_FAILED;
    } else if (strcmp(state, "rollback_started") == 0) {
        if (!cv->rollback && *message)
            emit(cv, "rollback", message, 0, 0);
        cv->rollback = true;
    } else if (strcmp(state, "rollback_paused") == 0) {
        err_set(e, ERR_PRECONDITION, "service rollback paused: %s", message);
        return CONVERGE_FAILED;
    } else if (strcmp(state, "rollback_completed") == 0) {
        if (!cv->reached)
            snprintf(cv->rollback_message, sizeof cv->rollback_message, "%s", message);
        cv->rollback = true;
    }
    return CONVERGE_AGAIN;
}

enum converge_next converge_service(struct converge *cv, json_t *service, int64_t now_ns, struct err *e)
{
    int64_t monitor = jint(service, "Spec.UpdateConfig.Monitor");
    char text[320];

    if (monitor > 0)
        cv->monitor_ns = monitor;
    enum converge_next next = update_status(cv, service, e);
    if (next != CONVERGE_AGAIN)
        return next;
    if (!cv->reached || now_ns - cv->reached_at_ns < cv->monitor_ns)
        return CONVERGE_AGAIN;
    snprintf(text, sizeof text, "Service %s converged", cv->name);
    emit(cv, "verify", text, 0, 0);
    if (cv->rollback_message[0])
        cv->emit(cv->arg, &(struct progress){ .id = "rollback", .text = cv->rollback_message, .message = true });
    return CONVERGE_DONE;
}

/* Of two tasks in one place the one that is wanted more: lower desired state, then lower actual state. */
static bool preferred(const json_t *task, const json_t *over)
{
    int a = desired(task), b = desired(over);
    return a != b ? a < b : actual(task) < actual(over);
}

static json_t *active_nodes(json_t *nodes)
{
    json_t *set = json_object(), *n;
    size_t i;

    for_each (nodes, i, n)
        if (strcmp(jstr(n, "Status.State"), "down") != 0)
            json_object_set_new(set, jstr(n, "ID"), json_true());
    return set;
}

/* The task that counts for each slot (replicated) or node (global): key -> task. */
static json_t *pick_tasks(json_t *tasks, json_t *active, bool by_node)
{
    json_t *picked = json_object(), *t;
    size_t i;

    for_each (tasks, i, t) {
        char key[64];
        const char *node = jstr(t, "NodeID");
        if (desired(t) == 0 || actual(t) == 0)
            continue;
        if (!by_node && *node && !json_object_get(active, node))
            continue;
        if (by_node)
            snprintf(key, sizeof key, "%.63s", node);
        else
            snprintf(key, sizeof key, "%" PRId64, jint(t, "Slot"));
        json_t *have = json_object_get(picked, key);
        if (!have || preferred(t, have))
            json_object_set(picked, key, t);
    }
    return picked;
}

static bool all_run(json_t *picked)
{
    const char *key;
    json_t *t;

    json_object_foreach (picked, key, t) {
        if (actual(t) != STATE_RUNNING)
            return false;
    }
    return true;
}

static bool runs(const json_t *task)
{
    return desired(task) <= STATE_RUNNING && actual(task) == STATE_RUNNING;
}

/* The line of a slot: lines are numbered from 1 as slots appear, whatever their numbers are. */
static int64_t slot_line(struct converge *cv, const char *slot)
{
    json_t *line = json_object_get(cv->slots, slot);

    if (!line) {
        line = json_integer((json_int_t)json_object_size(cv->slots) + 1);
        json_object_set_new(cv->slots, slot, line);
    }
    return json_integer_value(line);
}

static void draw_lines(struct converge *cv, int64_t n)
{
    char id[48];

    for (int64_t i = 1; n <= BARS_MAX && i <= n; i++) {
        snprintf(id, sizeof id, "%" PRId64 "/%" PRId64, i, n);
        emit(cv, id, " ", 0, 0);
    }
}

static int by_number(const void *a, const void *b)
{
    return natural_cmp(*(const char *const *)a, *(const char *const *)b);
}

static bool replicated(struct converge *cv, json_t *service, json_t *tasks, json_t *active)
{
    int64_t want = jint(service, "Spec.Mode.Replicated.Replicas"), running = 0;
    json_t *picked = pick_tasks(tasks, active, false), *t;
    size_t n;
    const char **keys = jkeys_sorted(picked, &n);
    char id[48];

    qsort(keys, n, sizeof *keys, by_number);
    if (!cv->started) {
        emit_overall(cv, 0, want);
        draw_lines(cv, want);
        cv->started = true;
    }
    if (cv->done && !all_run(picked))
        cv->done = false;
    for (size_t i = 0; i < n; i++) {
        t = json_object_get(picked, keys[i]);
        int64_t line = slot_line(cv, keys[i]);
        running += runs(t);
        if (!cv->done && want <= BARS_MAX && line <= want) {
            snprintf(id, sizeof id, "%" PRId64 "/%" PRId64, line, want);
            emit_task(cv, id, t, STATE_RUNNING);
        }
    }
    if (!cv->done) {
        emit_overall(cv, running, want);
        cv->done = running == want;
    }
    free(keys);
    json_decref(picked);
    return running == want;
}

static bool global(struct converge *cv, json_t *tasks, json_t *active)
{
    json_t *picked = pick_tasks(tasks, active, true), *t;
    int64_t want = (int64_t)json_object_size(picked), running = 0;
    const char *key;
    char id[16];

    if (!cv->started && want == 0) {
        /* Either the tasks are yet to come or no node qualifies; there is no telling. */
        emit(cv, "overall progress", "waiting for new tasks", 0, 0);
        json_decref(picked);
        return false;
    }
    if (!cv->started)
        emit_overall(cv, 0, want);
    cv->started = true;
    if (cv->done && !all_run(picked))
        cv->done = false;
    json_object_foreach (picked, key, t) {
        if (!json_object_get(active, key))
            continue;
        running += runs(t);
        snprintf(id, sizeof id, "%.12s", key);
        if (!cv->done && want <= BARS_MAX)
            emit_task(cv, id, t, STATE_RUNNING);
    }
    if (!cv->done) {
        emit_overall(cv, running, want);
        cv->done = running == want;
    }
    json_decref(picked);
    return running == want;
}

static int digits_of(int64_t n)
{
    return snprintf(NULL, 0, "%" PRId64, n);
}

static void emit_job(struct converge *cv, int64_t complete)
{
    char text[96];

    snprintf(text, sizeof text, "%*" PRId64 " out of %" PRId64 " complete", digits_of(cv->total), complete, cv->total);
    emit(cv, "job progress", text, complete, cv->total);
}

/* A job's tasks of this iteration, the least advanced for each slot or node. */
static json_t *job_tasks(struct converge *cv, json_t *tasks, bool by_node)
{
    json_t *picked = json_object(), *t;
    size_t i;

    for_each (tasks, i, t) {
        char key[64];
        if (!jget(t, "JobIteration") || jint(t, "JobIteration.Index") != cv->job_iteration)
            continue;
        if (desired(t) == 0 || actual(t) == 0)
            continue;
        if (by_node)
            snprintf(key, sizeof key, "%.63s", jstr(t, "NodeID"));
        else
            snprintf(key, sizeof key, "%" PRId64, jint(t, "Slot"));
        json_t *have = json_object_get(picked, key);
        if (!have || actual(have) > actual(t))
            json_object_set(picked, key, t);
    }
    return picked;
}

static void emit_active(struct converge *cv, int64_t active, int64_t complete)
{
    int64_t want = cv->total - complete;
    int digits = digits_of(cv->concurrent);
    char text[96];

    if (want > cv->concurrent)
        want = cv->concurrent;
    emit_job(cv, complete);
    snprintf(text, sizeof text, "%*" PRId64 " out of %*" PRId64 " tasks", digits, active, digits, want);
    emit(cv, "active tasks", text, 0, 0);
}

static bool replicated_job(struct converge *cv, json_t *service, json_t *tasks)
{
    int64_t active = 0, complete = 0;
    json_t *picked, *t;
    const char *key;
    char id[48];

    if (!cv->started) {
        cv->total = jint(service, "Spec.Mode.ReplicatedJob.TotalCompletions");
        cv->concurrent = jint(service, "Spec.Mode.ReplicatedJob.MaxConcurrent");
        emit_active(cv, 0, 0);
        draw_lines(cv, cv->total);
    }
    cv->started = true;
    picked = job_tasks(cv, tasks, false);
    json_object_foreach (picked, key, t) {
        snprintf(id, sizeof id, "%" PRId64 "/%" PRId64, jint(t, "Slot") + 1, cv->total);
        if (cv->total <= BARS_MAX)
            emit_task(cv, id, t, STATE_COMPLETE);
        active += actual(t) < STATE_COMPLETE;
        complete += actual(t) == STATE_COMPLETE;
    }
    emit_active(cv, active, complete);
    json_decref(picked);
    return complete == cv->total;
}

static bool global_job(struct converge *cv, json_t *tasks, json_t *active)
{
    json_t *picked = job_tasks(cv, tasks, true), *t;
    int64_t complete = 0;
    const char *key;

    if (!cv->started && json_array_size(tasks) == 0 && json_object_size(active) > 0) {
        emit(cv, "job progress", "waiting for tasks", 0, 0);
        json_decref(picked);
        return false;
    }
    if (!cv->started) {
        json_object_update(cv->job_nodes, picked); /* the nodes of the first look are the job's nodes */
        cv->total = (int64_t)json_object_size(cv->job_nodes);
        emit_job(cv, 0);
    }
    cv->started = true;
    json_object_foreach (picked, key, t) {
        if (!json_object_get(cv->job_nodes, key))
            continue;
        if (cv->total <= BARS_MAX)
            emit_task(cv, key, t, STATE_COMPLETE);
        complete += actual(t) == STATE_COMPLETE;
    }
    emit_job(cv, complete);
    json_decref(picked);
    return complete == cv->total;
}

static void verify(struct converge *cv, int64_t now_ns)
{
    char text[96];

    if (!cv->reached) {
        if (cv->reached_at_ns)
            emit(cv, "verify", "Detected task failure", 0, 0);
        cv->reached_at_ns = 0;
        return;
    }
    if (!cv->reached_at_ns)
        cv->reached_at_ns = now_ns;
    int64_t wait = cv->monitor_ns - (now_ns - cv->reached_at_ns);
    if (wait < 0)
        return;
    int64_t seconds = (wait - 1) / SECOND_NS + 1; /* docker's clock has always moved a little by then */
    snprintf(text, sizeof text, "Waiting %" PRId64 " seconds to verify that tasks are stable...", seconds);
    emit(cv, "verify", text, 0, 0);
}

enum converge_next converge_tasks(struct converge *cv, json_t *service, json_t *tasks, json_t *nodes, int64_t now_ns,
                                  bool last)
{
    json_t *active = active_nodes(nodes);

    cv->job_iteration = jint(service, "JobStatus.JobIteration.Index");
    if (jget(service, "Spec.Mode.Global"))
        cv->reached = global(cv, tasks, active);
    else if (jget(service, "Spec.Mode.ReplicatedJob"))
        cv->reached = replicated_job(cv, service, tasks);
    else if (jget(service, "Spec.Mode.GlobalJob"))
        cv->reached = global_job(cv, tasks, active);
    else
        cv->reached = replicated(cv, service, tasks, active);
    json_decref(active);
    if (cv->reached && jget(service, "JobStatus")) {
        /* What a job has done stays done: nothing to verify. */
        cv->emit(cv->arg, &(struct progress){ .id = "", .text = "job complete", .message = true });
        return CONVERGE_DONE;
    }
    if (last)
        return CONVERGE_DONE;
    verify(cv, now_ns);
    return CONVERGE_AGAIN;
}

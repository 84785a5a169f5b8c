/*
 * converge.h - when is a service what it was asked to be? What "service create" and its like show while they wait.
 *
 * A pure core: it is fed the service, its up-to-date tasks and the nodes, and the time; it emits progress lines and
 * says whether to look again. The rules are docker's (docker-api reference, "Progress polling").
 */
#pragma once

#include "common/util/err.h"
#include "swarmctl/display.h"

/* LAST: the daemon says it is done; the tasks are looked at once more, for the screen. */
enum converge_next { CONVERGE_AGAIN, CONVERGE_LAST, CONVERGE_DONE, CONVERGE_FAILED };

struct converge {
    const char *name; /* as the user wrote it */
    void (*emit)(void *arg, const struct progress *p);
    void *arg;
    bool started, reached, rollback; /* reached: the last look found it converged */
    bool done;                       /* bars are no longer drawn */
    int64_t reached_at_ns;           /* 0: not since the last relapse */
    int64_t monitor_ns;
    int64_t job_iteration, total, concurrent;
    json_t *slots; /* slot -> line number, in order of appearance */
    json_t *job_nodes;
    char rollback_message[256];
};

void converge_init(struct converge *cv, const char *name, void (*emit)(void *, const struct progress *), void *arg);
void converge_free(struct converge *cv);

/* converge_service - looks at the service before its tasks are asked for. FAILED: e says why. */
enum converge_next converge_service(struct converge *cv, json_t *service, int64_t now_ns, struct err *e);
enum converge_next converge_tasks(struct converge *cv, json_t *service, json_t *tasks, json_t *nodes, int64_t now_ns,
                                  bool last);

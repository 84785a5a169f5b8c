/*
 * disp_usage.h - what the tasks of self-scaling services use, as their nodes say; kept in memory, since it is old after
 * some seconds. The service's document gets the mean, when it has moved. Pure.
 */
#pragma once

#include "common/object/views.h"
#include "common/proto/msg_dispatcherd.h"
#include "common/util/table.h"

#define USAGE_ERROR_MAX 160u
#define USAGE_AT_LEAST_MS 60000u

struct usages {
    uint64_t period_ms;    /* nodes report that often, and no mean is written more often */
    struct table tasks;    /* task ID -> struct usage_task */
    struct table services; /* service ID -> struct usage_service */
};

struct usage_task {
    struct usage_task *next, **pprev;
    struct usage_service *of;
    uint64_t at_ms, cpu, memory;
    bool has_metric;
    double metric;
    char error[USAGE_ERROR_MAX];
};

struct usage_service {
    struct usage_task *tasks;
    bool dirty; /* somebody reported since it was looked at */
    uint64_t written_ms;
    struct view_usage written; /* what the document has; its error is in `error` */
    char error[USAGE_ERROR_MAX];
};

void usages_init(struct usages *u);
void usages_done(struct usages *u);
void usages_clear(struct usages *u);
void usages_forget(struct usages *u, struct str service); /* it is gone, or does not scale itself any more */

/* usages_take - one task's report. True when its service may be due for writing. */
bool usages_take(struct usages *u, struct str service, const struct task_usage *t, uint64_t now_ms);

/* usages_drop - this task is not to run any more: the mean of the others counts now. */
void usages_drop(struct usages *u, struct str task);

/*
 * usages_due - the next service whose mean is to be written, with it; false: none. *pos begins as zero.
 *
 * @ret  its Error is borrowed until the next report. Counts as written.
 */
bool usages_due(struct usages *u, struct table_pos *pos, uint64_t now_ms, struct str *ret_service,
                struct view_usage *ret);

/* usages_print - of a service's autoscale labels; 0 without any. */
uint64_t usages_print(struct str service_doc);

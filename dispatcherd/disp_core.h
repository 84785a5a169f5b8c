/*
 * disp_core.h - sessions of nodes: who is alive, what each was told, and which reports count (swarmkit.md §7).
 *
 * Nothing here must outlive the process: a node whose session is forgotten opens a new one and is told everything.
 */
#pragma once

#include "common/object/views.h"
#include "common/util/id.h"
#include "common/util/table.h"

#define DISP_NEVER UINT64_MAX
#define DISP_GRACE 3u /* a node is down after so many heartbeat periods without a word */

struct disp_peer {
    char session[ID_SIZE]; /* "": none */
    uint64_t deadline_ms;  /* down when it is silent until then; 0: not watched, it is down already */
    uint64_t seq;          /* of the last answer to its poll */
    bool resync;           /* changes may have been missed: tell everything */
    struct table sent;     /* task ID -> uint64_t, the print of what it was told */
    struct table dirty;    /* task IDs to look at for the next answer */
    void *poll;            /* the call that waits; NULL: none */
    uint64_t poll_seq, poll_until_ms;
};

struct disp {
    struct table peers;    /* node ID -> struct disp_peer */
    struct table sessions; /* session ID -> char[ID_SIZE], its node */
    uint64_t period_ms;
};

void disp_init(struct disp *d);
void disp_done(struct disp *d);
void disp_clear(struct disp *d); /* the waiting polls must have been answered */

/* disp_watch - a node that should have a session; it has the grace period to open one. */
void disp_watch(struct disp *d, struct str node, uint64_t now_ms);
void disp_forget(struct disp *d, struct str node);

/* disp_open - a new session; an older one of the node ends. */
struct disp_peer *disp_open(struct disp *d, struct str node, const char session[ID_SIZE], uint64_t now_ms);

/* disp_find - the peer behind a session, which thereby shows that it is alive; NULL: no such session. */
struct disp_peer *disp_find(struct disp *d, struct str session, uint64_t now_ms, struct str *ret_node);

/* disp_expire - one node whose time is up; its session ends. The caller asks until it returns false. */
bool disp_expire(struct disp *d, uint64_t now_ms, struct str *ret_node);

/* disp_next_ms - when disp_expire() or a waiting poll is due; DISP_NEVER. */
uint64_t disp_next_ms(const struct disp *d);

/* disp_print - of all that an assignment can change in: its desired state, spec and ports. */
uint64_t disp_print(struct str desired, struct str taskspec, struct str ports);

/* disp_task - a task on this node is as it is; remembered if the node was not told so. */
void disp_task(struct disp *d, struct str node, struct str task, uint64_t print);
/* disp_task_gone - deleted: whoever was told about it must hear that. */
void disp_task_gone(struct disp *d, struct str task);

enum disp_answer { DISP_NOTHING, DISP_CHANGES, DISP_FULL };
enum disp_answer disp_plan(const struct disp_peer *p, uint64_t seq);

/* disp_report_counts - a report is stored when it goes forward, or says something new about the same state. */
bool disp_report_counts(const struct view_task_status *now, enum task_state state, struct str message, struct str err,
                        struct str container, uint64_t pid, int64_t exit_code);

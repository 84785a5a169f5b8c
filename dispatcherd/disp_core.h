/*
 * disp_core.h - sessions of nodes: who is alive, what each was told, and which reports count (swarmkit.md §7).
 *
 * Sessions need not outlive the process: a node whose session is forgotten opens a new one and is told everything. What
 * must outlive it (that a node is down, flaps, or when its tasks are given up) is in the node's document.
 *
 * Every call of a node shows that it is alive. A node that is silent for DISP_GRACE heartbeats is down. When the link
 * to it is known to be lost, that shortens its time to a moment (suspicion before death): a gatewayd or an agent that
 * merely restarts speaks again within it. When this process could not listen (a host that stands still, a million tasks
 * to read), nobody is given up before it has listened again for as long.
 */
#pragma once

#include "common/object/views.h"
#include "common/util/id.h"
#include "common/util/table.h"
#include "dispatcherd/disp_told.h"

#define DISP_NEVER UINT64_MAX
#define DISP_GRACE 3u /* a node is down after so many heartbeat periods without a word */

struct disp_peer {
    char session[ID_SIZE]; /* "": none */
    uint64_t heartbeat_ms; /* of the session: the period with some jitter */
    uint64_t heard_ms;     /* its last word; before the first one: when it began to be watched */
    uint64_t deadline_ms;  /* down when it is silent until then; 0: not watched, it is down already */
    uint64_t unknown_ms;   /* unknown when it is silent until then: after a take-over only; 0: never */
    uint64_t seq;          /* of the last answer to its poll */
    bool suspect;          /* the link to it is lost */
    bool resync;           /* changes may have been missed: tell everything */
    bool held;             /* it flaps: it has a session, and still counts as down */
    uint32_t told, ntold;  /* the first in the list of what it was told, and how many there are */
    struct table dirty;    /* task IDs to look at for the next answer */
    void *poll;            /* the call that waits; NULL: none */
    uint64_t poll_seq, poll_until_ms;
    uint64_t due_ms; /* where it stands in the heap; never later than what is really due */
    size_t heap_at;  /* its place, from 1; 0: not in the heap */
    bool hot;        /* on the list of those that may have to be told something */
    struct disp_peer *next_hot;
};

struct disp {
    struct table peers;    /* node ID -> struct disp_peer */
    struct table sessions; /* session ID -> char[ID_SIZE], its node */
    struct told told;      /* who was told what */
    struct table lost;     /* node ID -> nothing: links known as lost, also while this manager does not lead */
    struct disp_peer **heap;
    size_t nheap, cap_heap;
    struct disp_peer *hot;
    uint64_t period_ms;  /* of heartbeats */
    uint64_t suspect_ms; /* how long a node whose link is lost may be silent */
    uint64_t lenient_ms; /* until then nobody is given up: this process itself was late */
};

void disp_init(struct disp *d);
void disp_done(struct disp *d);
void disp_clear(struct disp *d); /* the waiting polls must have been answered; what is lost stays known */

/* disp_watch - a node that should have a session, as a new leader finds it: it has one heartbeat until it is unknown,
 * and the grace period until it is down; much less when the link to it is lost. Told again: nothing. */
void disp_watch(struct disp *d, struct str node, uint64_t now_ms);
void disp_forget(struct disp *d, struct str node);

/* disp_open - a new session; an older one of the node ends. @jitter: any number. */
struct disp_peer *disp_open(struct disp *d, struct str node, const char session[ID_SIZE], uint64_t now_ms,
                            uint64_t jitter);

/* disp_find - the peer behind a session, which thereby shows that it is alive; NULL: no such session. */
struct disp_peer *disp_find(struct disp *d, struct str session, uint64_t now_ms, struct str *ret_node);

/* disp_link - the link to a node came or went. A hint: coming back lifts the suspicion and nothing else. */
void disp_link(struct disp *d, struct str node, bool up, uint64_t now_ms);

/* disp_poll_wait - a call waits for news until then. */
void disp_poll_wait(struct disp *d, struct disp_peer *p, void *call, uint64_t seq, uint64_t until_ms);

/* disp_expire - what is due for one node; the caller asks until there is nothing. A node that is down loses its
 * session; @ret_silent_ms: for how long it had not spoken. */
enum disp_due { DISP_DUE_NOTHING, DISP_DUE_POLL, DISP_DUE_UNKNOWN, DISP_DUE_DOWN };
enum disp_due disp_expire(struct disp *d, uint64_t now_ms, struct str *ret_node, uint64_t *ret_silent_ms);

/* disp_next_ms - when to call disp_expire() again (or a little before anything is due); DISP_NEVER. */
uint64_t disp_next_ms(const struct disp *d);

/* disp_print - of all that an assignment can change in: its desired state, spec and ports. */
uint64_t disp_print(struct str desired, struct str taskspec, struct str ports);

/* disp_task - a task on this node is as it is; remembered if the node was not told so. */
void disp_task(struct disp *d, struct str node, struct str task, uint64_t print);
/* disp_task_gone - deleted: whoever was told about it must hear that. */
void disp_task_gone(struct disp *d, struct str task);
void disp_resync(struct disp *d, struct disp_peer *p);

/* disp_tell, disp_untell - the peer's answer has the task, or says that it is gone; untell is false when it never
 * heard of it. disp_told_none - an answer with everything follows. */
void disp_tell(struct disp *d, struct disp_peer *p, struct str task, uint64_t print);
bool disp_untell(struct disp *d, struct disp_peer *p, struct str task);
void disp_told_none(struct disp *d, struct disp_peer *p);

/* disp_hot - one peer that may have to be told something, taken off that list; NULL: no more. */
struct disp_peer *disp_hot(struct disp *d);

enum disp_answer { DISP_NOTHING, DISP_CHANGES, DISP_FULL };
enum disp_answer disp_plan(const struct disp_peer *p, uint64_t seq);

/* disp_report_counts - a report is stored when it goes forward, or says something new about the same state. */
bool disp_report_counts(const struct view_task_status *now, enum task_state state, struct str message, struct str err,
                        struct str container, uint64_t pid, int64_t exit_code);

/*
 * What is stored about a node's coming and going, in its document's field "Liveness". A leaky bucket: each time it goes
 * down adds one, and one leaks away in each window / max. What does not fit in any more keeps the node down for a
 * while after it is back, twice as long each time.
 */
struct disp_flap_conf {
    uint64_t max; /* 0: no damping */
    int64_t window_ns, hold_ns, hold_max_ns;
};
struct disp_life {
    uint64_t downs;        /* in the bucket */
    int64_t down_at_ns;    /* the last time; 0: never */
    int64_t held_until_ns; /* not ready before that; 0: it is not damped */
    int64_t orphan_at_ns;  /* then the tasks of a node that is down are given up; 0: not down, or done already */
};
void disp_life_down(struct disp_life *l, const struct disp_flap_conf *conf, int64_t orphan_after_ns, int64_t now_ns);

/* disp_check - the invariants of the whole (CHECK). */
void disp_check(const struct disp *d);

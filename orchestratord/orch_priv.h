/* orch_priv.h - one decision about one service, shared by its stages. */
#pragma once

#include "orchestratord/orch_core.h"

/* A slot is the tasks that share a slot number, or a node if the service is global; those being removed do not count
 * any more. */
struct slot {
    uint64_t number;
    struct str node;                /* global modes; else "" */
    const struct orch_place *place; /* then; NULL: not for this service any more, or the node is gone */
    struct orch_task *tasks;        /* oldest first */
    size_t n;
    struct orch_create *create; /* a task that this decision adds */
    bool keep;                  /* occupies one of the replicas */
    bool running;               /* for the choice of victims */
    int64_t ordinal;
};

struct pass {
    const struct orch_service *svc;
    struct orch_task *tasks;
    size_t n;
    int64_t now;
    struct slot *slots;
    size_t nslots;
    struct orch_out *out;
};

static inline int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* after - so long after a time, or never: users may ask for any duration. */
static inline int64_t after(int64_t at, int64_t ns)
{
    int64_t sum;
    return __builtin_add_overflow(at, ns, &sum) ? ORCH_NEVER : sum;
}

/* orch_live - it is to run, and has not done its job. It may have ended all the same, and not been replaced yet. */
bool orch_live(const struct orch_task *t);
/* orch_ended_itself - it was not asked to; its node is not the reason. */
bool orch_ended_itself(const struct orch_task *t);
/* orch_stopped - no container of it runs any more, or none ever will. */
bool orch_stopped(const struct orch_task *t);
/* orch_holds_slot - its container may be there, and somebody can say so. */
bool orch_holds_slot(const struct orch_task *t);
void orch_want(struct orch_task *t, enum task_state s); /* never lower than before */
void orch_look_again(struct pass *p, int64_t at);
void orch_why(struct orch_task *t, const char *why, int64_t until_ns);
/* orch_new_task - at most one for each slot in a decision. */
struct orch_create *orch_new_task(struct pass *p, struct slot *s);
size_t orch_count_live(const struct slot *s); /* with the one that this decision adds */
/* orch_slot_stopping - something that was told to stop in it has not yet. */
bool orch_slot_stopping(const struct slot *s);
/* orch_newest - the youngest task that is not being removed; NULL if there is none. */
struct orch_task *orch_newest(const struct slot *s);
/* orch_clean_task - the live task with the current spec that is furthest on; NULL if there is none. */
struct orch_task *orch_clean_task(const struct slot *s);

/* orch_restart.c */
bool orch_should_restart(const struct pass *p, const struct slot *s, const struct orch_task *t);
void orch_restart_slot(struct pass *p, struct slot *s);
/* orch_scale.c */
bool orch_occupied(const struct pass *p, const struct slot *s);
void orch_scale(struct pass *p, struct arena *a);
/* orch_global.c */
const struct orch_place *orch_place_of(const struct orch_service *svc, struct str node);
/* orch_fill_places - a new task in each open place whose slot is not kept. */
void orch_fill_places(struct pass *p);
void orch_global(struct pass *p);
/* orch_job.c */
void orch_run_job(struct pass *p);
/* orch_schedule.c */
void orch_keep_schedule(struct pass *p);
/* orch_update.c */
void orch_stop_doubles(struct slot *s);
void orch_update_slots(struct pass *p);
/* orch_history.c */
void orch_trim_history(struct pass *p, struct slot *s);
void orch_reap(struct pass *p);

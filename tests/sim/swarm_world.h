/* swarm_world.h - the simulated swarm: see swarm_sim.c. */
#pragma once

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "allocatord/alloc_pass.h"
#include "common/daemon/log.h"
#include "common/object/views.h"
#include "common/util/check.h"
#include "common/util/cidr.h"
#include "dispatcherd/disp_pass.h"
#include "orchestratord/orch_pass.h"
#include "raftd/authority.h"
#include "raftd/entry.h"
#include "raftd/sm.h"
#include "schedulerd/sched_pass.h"
#include "tests/sim/mesh_model.h"

#define MS 1000000ll
#define SECOND 1000000000ll
#define NODES 4
#define SERVICES_MAX 6
#define NODE_MEMORY (64ll << 20)
#define MANAGERS 3
#define LATE_MS 400 /* a transaction may be under way for so long */

enum { ORCH, ALLOC, SCHED, DISP, CONTROLLERS };

enum event_type {
    EV_TURN,
    EV_DUE,
    EV_APPLY,
    EV_REPLY,
    EV_FOLLOW,
    EV_DEPOSED,
    EV_MANAGER,
    EV_LINK,
    EV_CONFIRM,
    EV_HEAL,
    EV_START,
    EV_AGENT,
    EV_MESH,
    EV_TASK,
    EV_BOOT,
    EV_TICK,
    EV_FAULT,
    EV_USER
};
struct event {
    int64_t at;
    uint64_t seq; /* ties in the order of their making */
    enum event_type type;
    unsigned who; /* controller (of all managers), manager or agent */
    uint64_t gen; /* of it: an event of an earlier life is void */
    void *p;
};

struct request { /* a transaction under way */
    unsigned from;
    uint64_t gen, revision;
    struct buf bytes;
    struct err result;
    rpc_done_fn *done;
    void *done_arg;
};

struct controller_life {
    struct controller *c; /* NULL: dead */
    unsigned who;
    uint64_t gen, arm_gen;
};

struct task_life { /* on a node */
    enum task_state state, desired, acked;
    bool removed, dirty;
    bool drains, drained; /* as assigned */
    bool bad, once;       /* it fails; it ends by itself */
    int64_t stop_at;      /* it stops without the manager's word then */
    uint64_t gen;
};

struct call {
    struct call *next;
    unsigned agent, manager;
    uint64_t agent_gen;
    enum { HELLO, POLL, STATUS, NETWORK } kind;
    bool evil; /* of an agent that was taken over: must come to nothing */
    struct arena arena;
    struct disp_session hello;
    struct disp_assignments poll;
    struct disp_status status;
    struct disp_network network;
    uint64_t mesh_gen;
};

struct agent {
    char node[ID_SIZE], session[ID_SIZE];
    bool up;
    bool cut;         /* no manager can be reached */
    bool gone;        /* the swarm has removed this node */
    bool zone;        /* has the label zone=a */
    unsigned manager; /* who leads, as it believes */
    uint64_t gen, seq, heartbeat_ms;
    bool hello_out, poll_out, status_out;
    struct table tasks; /* ID -> struct task_life */
    /* its meshd */
    struct mesh_model mesh; /* what is in the kernel */
    struct buf answer;      /* on its way there */
    uint64_t mesh_gen;
    bool mesh_out;
    int64_t began; /* it, or its meshd, or to be reachable again */
};

struct logged { /* a committed entry */
    struct buf bytes;
    uint64_t term;
};

struct manager {
    struct sm *sm;
    struct store *store;
    char dir[64];
    bool up;
    uint64_t gen; /* of its being up */
    struct controller_life life[CONTROLLERS];
    struct orch orch;
    struct alloc alloc;
    struct sched_keeper sched;
    struct disp_keeper disp;
    int64_t tick_at;
};

enum mode { REPLICATED, GLOBAL, JOB, GLOBAL_JOB };
enum action { PAUSE, CONTINUE, ROLLBACK };
struct version { /* of a service's tasks */
    char spec[ID_SIZE];
    unsigned number;
    unsigned on; /* bits: of sim.networks */
    bool bad;    /* its containers fail soon after they begin */
};
struct declared { /* what the user wants; id "" none */
    char id[ID_SIZE];
    struct version v, before; /* before: what a rollback goes back to */
    enum mode mode;
    unsigned replicas, versions, order, parallelism; /* replicas: of a job, how many are to complete */
    unsigned concurrent;                             /* of a job */
    unsigned per_node;                               /* 0: no limit */
    uint64_t run;                                    /* of a job: JobIteration */
    enum action action;
    bool had_bad;
    bool zoned;    /* only on nodes with the label zone=a */
    bool moves;    /* may be rebalanced */
    uint64_t port; /* 0 none, 1 automatic, else the number */
    bool dnsrr;
};

#define NETWORKS_MAX 3
struct declared_net {
    char id[ID_SIZE];
    bool small, six; /* few addresses; IPv6 as well */
};

struct sim {
    uint64_t seed, rng, seq;
    int64_t now;
    struct event *heap;
    size_t n, cap;
    struct logged *log;
    size_t nlog, cap_log;
    uint64_t term;
    unsigned leader;
    struct manager managers[MANAGERS];
    struct call *calls;
    struct agent agents[NODES];
    struct declared services[SERVICES_MAX];
    struct declared_net networks[NETWORKS_MAX];
    char ingress[ID_SIZE];
    bool faults;
    int64_t trouble; /* when a node was down last */
    bool calm;       /* nodes and containers do not fail by themselves: what is missing, an update took */
    bool patient;    /* managers wait for the nodes' word for as long as it takes */
    uint64_t told, drained, running;
    char why[1600];
    const char *availability[NODES];
    uint64_t txns, conflicts, kills, takeovers, late, cuts, offs, removals, applied_changes;
};
extern struct sim sim;

static inline struct manager *manager_of(unsigned who)
{
    return &sim.managers[who / CONTROLLERS];
}

static inline struct controller_life *life_of(unsigned who)
{
    return &manager_of(who)->life[who % CONTROLLERS];
}

static inline unsigned who_is(const struct manager *m, unsigned controller)
{
    return (unsigned)(m - sim.managers) * CONTROLLERS + controller;
}

static inline struct manager *leader(void)
{
    return &sim.managers[sim.leader];
}

/* swarm_world.c: chance, time, and what happens next */
uint64_t below(uint64_t n);
bool chance(unsigned percent);
void make_id(char id[ID_SIZE]);
void make_id_for(void *arg, char id[ID_SIZE]);
void schedule(int64_t at, enum event_type type, unsigned who, uint64_t gen, void *p);
struct event next_event(void);
void step(void);

/* swarm_managers.c: raftd and the controllers of each manager */
uint64_t follow(struct manager *m, struct err *result);
uint64_t apply(unsigned who, struct list requires, struct list changes, uint64_t term, struct err *result);
void start_controller(unsigned who);
void kill_controller(unsigned who);
void set_role(struct manager *m, uint64_t term, bool leads);
void take_over(unsigned next);
unsigned another_manager(void);
void switch_manager_off(unsigned i);
void boot_manager(unsigned i);
void on_apply(struct request *r);
void on_reply(struct request *r);

/* swarm_agents.c: agents, their containers and the networks of their nodes */
void fail_calls(unsigned manager);
void agent_turn(unsigned i);
void mesh_turn(unsigned i);
void task_turn(unsigned i, struct str id, uint64_t gen);
void on_link(unsigned manager, unsigned i, bool up);
void restart_agent(unsigned i);
void switch_off(unsigned i);
void cut_off(unsigned i);
void heal_agent(unsigned i);
extern const struct disp_calls sim_disp_calls;

/* swarm_users.c: what users declare, and what breaks */
void user_change(const char *op, enum kind kind, struct str id, struct buf *doc);
void declare(struct declared *d);
/* redeclare - with a new version, else with another number of replicas. */
void redeclare(struct declared *d, bool new_version, bool bad);
bool is_job(const struct declared *d);
void set_availability(unsigned i, const char *availability);
void join(unsigned i);
void create_network(char id[ID_SIZE], const char *subnet, bool six, bool ingress);
void user_acts(void);
void fault(void);

/* swarm_checks.c: what must hold after every transaction, and in the end */
void check_step(void);
void check_orders(struct list changes);
const char *unfinished(void);
const char *wrong(void);

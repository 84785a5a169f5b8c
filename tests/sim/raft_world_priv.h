/* raft_world_priv.h - what the two files of the simulated world share: raft_world.c (time, network, disks, shells, the
 * run) and raft_users.c (clients, operators, and who breaks things). */
#pragma once

#include <inttypes.h>
#include <setjmp.h>

#include "common/util/check.h"
#include "tests/sim/raft_world.h"

#define MS 1000ull /* world time is in microseconds */
#define WRITES 256u
#define HEAL_MS 60000ull

enum event_type {
    E_TIMER,   /* a node's wake_at */
    E_MESSAGE, /* arrives */
    E_DISK,    /* some writes are done */
    E_APPLY,
    E_START,    /* a node comes up again */
    E_CLIENT,   /* somebody reads or writes */
    E_OPERATOR, /* members, transfers */
    E_CHAOS,    /* something breaks */
    E_SNAPSHOT, /* a transfer is over */
    E_KILL,     /* this one dies */
    E_HASTY,    /* an operator has waited for this leader */
    E_HINT,     /* gatewayd says that a link broke */
};

struct packet {
    struct raft_msg msg;
    struct entry *entries;
    struct raft_entry_meta *metas;
    uint64_t snapshot_index, snapshot_term; /* E_SNAPSHOT */
    uint16_t snapshot_members;
};

struct event {
    uint64_t at, seq;
    enum event_type type;
    unsigned slot;
    uint64_t life; /* of the node: an event for an earlier life is void; 0: for any */
    raft_id peer;
    struct packet *packet;
};

struct write {
    uint64_t id, truncate_from, from, to;
    bool hs_changed;
    struct raft_hard_state hs;
    struct entry *entries;
    uint64_t install_index, install_term;
    bool install_drops;
    uint16_t install_members;
};

struct disk { /* what survives a crash */
    struct raft_hard_state hs;
    uint64_t first, last, snap_index, snap_term;
    uint16_t snap_members;
    struct entry *e; /* by index */
};

struct node {
    raft_id id; /* 0: the place is free */
    bool up, fresh, slow_disk, sync_disk;
    uint64_t life;
    struct raft *core;
    struct raft_status st;
    double rate;
    uint64_t offset, last_ms, timer_at, wake;
    struct disk disk;
    struct entry *log; /* as the shell has it in memory: what the core was told to append */
    struct write writes[WRITES];
    unsigned writes_head, n_writes;
    bool disk_busy, disk_broken;
    uint64_t applied, apply_to, checked;
    uint16_t applied_members;
    uint16_t received_members; /* of a snapshot that lies beside the log */
    bool apply_due;
    uint64_t paused_until; /* the machine stands still; what arrives waits */
};

struct op {
    bool busy, reads;
    uint64_t value, floor, deadline, cookie;
    unsigned slot;
    uint64_t life;
    uint64_t read_index; /* answer once this is applied */
};

struct world {
    uint64_t now, seq, rng;
    const struct options *opt;
    struct result *res;
    struct checks checks;
    struct event *heap;
    size_t n_heap, cap_heap;
    struct node nodes[SLOTS];
    unsigned slot_of[IDS];
    raft_id next_id;
    struct raft_members pool[POOL];
    unsigned n_pool;
    struct op ops[OPS];
    uint64_t next_value, next_cookie;
    bool cut[SLOTS][SLOTS]; /* messages from, to */
    bool chaos;
    jmp_buf out;
    /* drawn from the seed */
    uint64_t delay_us, heartbeat_ms, election_ms, client_us, chaos_us, operator_us;
    unsigned loss, dup, reorder, late, apply_lag; /* of 1000 */
    unsigned kill_new, hasty;                     /* new leaders: killed, or told to change members, at once */
    bool feud;                                    /* leaders that remove each other, see chaos_feud() */
    raft_id feud_id;
    uint64_t down_us; /* how long a node stays down, at most */
    bool fifo;
    uint64_t last_arrival[SLOTS][SLOTS];
    unsigned append_max;
};

extern struct world w; /* one at a time */

/* raft_world.c */
uint64_t world_rnd(uint64_t below);
bool world_chance(unsigned of_1000);
void world_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
struct node *world_node_of(raft_id id);
unsigned world_slot(const struct node *n);
void world_put(struct event ev);
void world_step(struct node *n, struct raft_event *ev);
void world_step_values(struct node *n, struct raft_event *ev, const uint64_t *values, int *ret);
void world_node_start(struct node *n, bool reboot);
void world_node_stop(struct node *n);
struct node *world_node_make(uint16_t members, bool fresh);
void world_node_wipe(struct node *n);
void world_hints(raft_id id, uint64_t within_us);
void world_compact(struct node *n);

/* raft_users.c */
struct node *users_leader(void);
const struct raft_members *users_members(void);
void users_client(void);
void users_operator(void);
void users_chaos(void);
void users_crash(struct node *n);
void users_heal_links(void);
int users_propose(struct node *leader, enum raft_change change, raft_id id);
void users_operate(struct node *leader);

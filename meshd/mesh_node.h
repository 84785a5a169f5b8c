/*
 * mesh_node.h - the data plane of this node: carries out what the core and the swarm's view want, through the kernel
 * and the files. mesh_node.c: sandboxes and ports; mesh_open.c: starting and repairing; mesh_far.c: the swarm.
 *
 * All calls finish at once (netlink answers while it is asked; a sandbox takes under a millisecond). A crash between
 * any two steps is repaired by the next mesh_node_open(): see mesh_file.h for what counts as made. Nothing is taken
 * away by mesh_node_close(): sandboxes and rules outlive the daemon.
 */
#pragma once

#include "common/proto/msg_meshd.h"
#include "meshd/mesh_core.h"
#include "meshd/mesh_ct.h"
#include "meshd/mesh_host.h"
#include "meshd/mesh_nft.h"
#include "meshd/mesh_nl.h"
#include "meshd/mesh_proxy.h"

#define MESH_TEXT_MAX 256 /* as CONF_TEXT_MAX */

struct mesh_conf {
    char link[MESH_TEXT_MAX];
    char subnet[MESH_TEXT_MAX];       /* "auto" or CIDR */
    char fallback_dns[MESH_TEXT_MAX]; /* blank-separated */
    char resolv_conf[MESH_TEXT_MAX];
    uint64_t mtu, port_first, port_last, local_weight;
};

/* Another node of the swarm, with the number that its connections are marked with here. Numbers are this node's own
 * affair; they survive a restart in the kernel's table. */
struct mesh_peer {
    unsigned number; /* 0: none, not made yet */
    struct netmap_ip addr;
};

struct mesh_node {
    struct mesh_conf conf;
    char files[300], pins[300], gate[320]; /* folders; the gateway's pin */
    struct mesh_core core;
    struct mesh_nl nl;
    struct mesh_host host;
    struct mesh_nft nft;
    struct mesh_subnet subnet;
    struct mesh_proxy proxy; /* published ports on IPv6 */
    struct err proxy_failure;
    struct table holds;               /* "tcp/8080" -> struct mesh_hold: ports kept from the host's processes */
    struct mesh_ct stale, stale_host; /* for mesh_node_forget() */
    struct table draining;            /* address (4 bytes) -> unsigned: rounds of forgetting left */
    uint32_t *leaving;                /* addresses whose link goes away with its namespace */
    size_t nleaving, cleaving;
    uint16_t port_last; /* the host-mode port chosen last */

    /* What of the swarm's view is carried out, and what is to do: mesh_far.c */
    const struct netmap *view;
    char self[MESH_ID_SIZE];
    bool todo_all, todo_nodes;
    struct table todo_services, todo_far; /* IDs; addresses (4 bytes) that may have moved */
    struct table peers;                   /* node ID -> struct mesh_peer */
    struct table far;                     /* address (4 bytes) -> unsigned: number of the node that it is on */
    unsigned vxlan;                       /* link index in the gateway; 0: none */
    char ingress[MESH_ID_SIZE];           /* ID of the ingress network */

    uint64_t gateways; /* how often its sockets were opened */
    uint64_t ups, downs, dropped, recoveries, failures, forgotten;
    struct err last_failure; /* of a change to the table, survived by making it anew */
};

/* One published port is also bound by a socket that never listens: the host's own processes then get "address in use"
 * instead of being shadowed, and a port they have already is noticed. */
struct mesh_hold {
    int fd;     /* -1: not ours */
    int errnum; /* why not */
};

/* What opening found and put right; the shell logs it. */
typedef void mesh_note_fn(void *arg, const char *text);

/* mesh_node_open - @view (borrowed; may be empty) and this node's ID (may be "") are what is known of the swarm. */
int mesh_node_open(struct mesh_node *n, const struct mesh_conf *conf, const char *run_dir, const struct netmap *view,
                   const char *self, mesh_note_fn *note, void *arg, struct err *e);
void mesh_node_close(struct mesh_node *n);

/* The operations of msg_meshd.h. Replies are allocated in the arena. */
int mesh_node_up(struct mesh_node *n, const struct mesh_up *req, struct arena *a, struct mesh_up_reply *ret,
                 struct err *e);
int mesh_node_ready(struct mesh_node *n, struct str task, bool ready, struct err *e);
int mesh_node_down(struct mesh_node *n, struct str task, struct err *e); /* unknown: fine */

/* mesh_node_change - something of the view has changed; mesh_node_self - who this node is has. Nothing is done before
 * mesh_node_settle(), which carries out all of it, and what failed the last time. */
void mesh_node_change(struct mesh_node *n, const struct netmap_change *c);
void mesh_node_self(struct mesh_node *n, const char *self);
int mesh_node_settle(struct mesh_node *n, struct err *e);

/* mesh_node_forget - lets go of connections of tasks that are gone or leaving, and of UDP flows that are older than
 * their port or their task's leaving: a while after ups, downs and settling, for all of them at once. *ret_again: some
 * task is draining, so ask again in a while. */
int mesh_node_forget(struct mesh_node *n, bool *ret_again, struct err *e);

/*
 * mesh_node_sweep - takes away links that have outlived their sandbox, because a process still holds its namespace.
 *
 * Deleting a link waits for the whole machine to look away from it (measured: 4 to 90 ms), while a namespace without
 * users is taken apart by the kernel in the background, its link with it. So a sandbox that goes is only unpinned, and
 * a while later this looks whether that was enough. Meanwhile the kernel itself refuses a second link for the address.
 */
void mesh_node_sweep(struct mesh_node *n);

/* mesh_node_sync_rules - reads the kernel's tables back and puts right what differs. */
int mesh_node_sync_rules(struct mesh_node *n, bool *ret_rebuilt, struct err *e);

/* mesh_node_repair - makes the gateway, its links, its routes and the sandboxes' links again where they were taken
 * away, and reads the tables back. *ret_rebuilt: some table was made anew. */
int mesh_node_repair(struct mesh_node *n, bool *ret_rebuilt, mesh_note_fn *note, void *arg, struct err *e);

/* mesh_node_watch_fds - readable when some nftables table changed: the host's, the gateway's. mesh_node_watch - reads
 * them; true when a table of ours was changed by someone else: call mesh_node_sync_rules(). */
void mesh_node_watch_fds(const struct mesh_node *n, int fds[2]);
bool mesh_node_watch(struct mesh_node *n);

/* mesh_node_address - of this node, as the view has it; false: not known. */
bool mesh_node_address(const struct mesh_node *n, struct netmap_ip *ret);

/* For mesh_open.c and mesh_far.c. */
uint32_t mesh_node_source(const struct mesh_node *n);
int mesh_node_commit(struct mesh_node *n, struct err *e); /* the kernel's tables as the core wants them */
int mesh_node_plug(struct mesh_node *n, const struct mesh_sandbox *sb, const struct strmap *sysctls, bool make,
                   struct err *e);
int mesh_node_rebuild(struct mesh_node *n, struct err *e);
void mesh_node_pin_path(const struct mesh_node *n, const char *task, char path[512]);
void mesh_node_sync_holds(struct mesh_node *n);
void mesh_node_host_wants(struct mesh_node *n); /* tells n->host what its sets should have */
void mesh_node_drain(struct mesh_node *n, uint32_t addr);
bool mesh_node_has_addr(struct mesh_node *n, uint32_t addr);   /* a sandbox here has it */
int mesh_node_settle_open(struct mesh_node *n, struct err *e); /* as settling, but the tables are not touched yet */

/* Tests set this to stop the process between two steps. */
extern void (*mesh_node_step)(const char *where);

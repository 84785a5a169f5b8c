/*
 * mesh_node.h - the data plane of this node: carries out what the core wants, through the kernel and the files.
 *
 * All calls finish at once (netlink answers while it is asked; a sandbox takes under a millisecond). A crash between
 * any two steps is repaired by the next mesh_node_open(): see mesh_file.h for what counts as made. Nothing is taken
 * away by mesh_node_close(): sandboxes and rules outlive the daemon.
 */
#pragma once

#include "common/proto/msg_meshd.h"
#include "meshd/mesh_core.h"
#include "meshd/mesh_ct.h"
#include "meshd/mesh_nft.h"
#include "meshd/mesh_nl.h"

#define MESH_TEXT_MAX 256 /* as CONF_TEXT_MAX */

struct mesh_conf {
    char bridge[MESH_TEXT_MAX];
    char subnet[MESH_TEXT_MAX];       /* "auto" or CIDR */
    char fallback_dns[MESH_TEXT_MAX]; /* blank-separated */
    char resolv_conf[MESH_TEXT_MAX];
    uint64_t mtu, port_first, port_last;
};

struct mesh_node {
    struct mesh_conf conf;
    char files[300], pins[300]; /* folders */
    struct mesh_core core;
    struct mesh_nl nl;
    struct mesh_nft nft;
    struct mesh_subnet subnet;
    unsigned bridge;      /* link index */
    struct table holds;   /* "tcp/8080" -> struct mesh_hold: ports kept from the host's processes */
    struct mesh_ct stale; /* for mesh_node_forget() */
    uint32_t *leaving;    /* addresses whose link goes away with its namespace */
    size_t nleaving, cleaving;
    uint16_t port_last; /* the host-mode port chosen last */
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

int mesh_node_open(struct mesh_node *n, const struct mesh_conf *conf, const char *run_dir, mesh_note_fn *note,
                   void *arg, struct err *e);
void mesh_node_close(struct mesh_node *n);

/* The operations of msg_meshd.h. Replies are allocated in the arena. */
int mesh_node_up(struct mesh_node *n, const struct mesh_up *req, struct arena *a, struct mesh_up_reply *ret,
                 struct err *e);
int mesh_node_ready(struct mesh_node *n, struct str task, bool ready, struct err *e);
int mesh_node_down(struct mesh_node *n, struct str task, struct err *e); /* unknown: fine */

/* mesh_node_forget - lets go of connections of tasks that are gone and of UDP flows older than their port: a while
 * after ups and downs, for all of them at once. */
int mesh_node_forget(struct mesh_node *n, struct err *e);

/*
 * mesh_node_sweep - takes away links that have outlived their sandbox, because a process still holds its namespace.
 *
 * Deleting a link waits for the whole machine to look away from it (measured: 4 to 90 ms), while a namespace without
 * users is taken apart by the kernel in the background, its link with it. So a sandbox that goes is only unpinned, and
 * a while later this looks whether that was enough. Meanwhile the kernel itself refuses a second link for the address.
 */
void mesh_node_sweep(struct mesh_node *n);

/* mesh_node_sync_rules - reads the kernel's table back and puts right what differs. */
int mesh_node_sync_rules(struct mesh_node *n, bool *ret_rebuilt, struct err *e);

/* mesh_node_repair_links - makes the bridge and the sandboxes' links again where they were taken away. */
int mesh_node_repair_links(struct mesh_node *n, mesh_note_fn *note, void *arg, struct err *e);

int mesh_node_watch_fd(const struct mesh_node *n); /* readable when some nftables table changed */

/* mesh_node_watch - true when our table was changed by someone else: call mesh_node_sync_rules(). */
bool mesh_node_watch(struct mesh_node *n);

/* Tests set this to stop the process between two steps. */
extern void (*mesh_node_step)(const char *where);

/*
 * vip.h - service addresses in the sandboxes of this node: the core's edits carried out through each sandbox's
 * namespace.
 *
 * One socket a sandbox stays open until vip_down(): closing one waits until the kernel has cleaned up behind the last
 * change (measured: 3 to 20 ms, where the change itself takes 0.1). It keeps the namespace alive, so vip_down() comes
 * before the namespace is let go. Nothing is taken away by vip_close(); a restarted meshd reads back what is there once
 * it has its map.
 */
#pragma once

#include "meshd/netlink/mesh_ns.h"
#include "meshd/overlay/attach.h"
#include "meshd/vip/vip_core.h"
#include "meshd/vip/vip_ct.h"

struct vip_gone {
    char network[ID_SIZE];
    struct vip_stale what;
};

struct vip {
    struct vip_core core;
    const struct netmap *map; /* borrowed */
    bool map_known;           /* it has been told us once */
    char sandboxes[300];      /* folder of the tasks' pins */
    int host_ns;
    struct table sockets; /* task -> struct mesh_msg, in its namespace */
    attach_note_fn *note;
    void *arg;
    struct table draining; /* backends that get nothing new -> struct vip_gone: while their task lives */
    uint64_t drain_ms;     /* between two looks at their closed connections */
    uint64_t drain_at_ms;  /* mono, the next one; 0: not planned */
    struct vip_gone *gone; /* backends whose connections are to be forgotten */
    size_t ngone, cgone;
    struct vip_gone *going; /* those being forgotten, one sandbox after the other */
    size_t ngoing;
    struct table flushed; /* tasks that have forgotten them */
    struct err failure;   /* of the last try; code 0: none */
    uint64_t transactions, made, repaired, failures, forgotten;
};

/* vip_open - the sandboxes of these tasks; nothing is changed in them until the map is known. */
int vip_open(struct vip *v, const char *run_dir, const struct attach_set *tasks, const struct netmap *map,
             attach_note_fn *note, void *arg, struct err *e);
void vip_close(struct vip *v);

/* vip_up - a sandbox's tables, in one transaction. vip_down - before its namespace is unpinned; unknown: fine. */
int vip_up(struct vip *v, const struct attach *a, struct err *e);
void vip_down(struct vip *v, struct str task);

/* vip_change - takes note of a change of the map. vip_sync - carries out what was noted, in all sandboxes; false when
 * something is left to be tried again. */
void vip_change(struct vip *v, const struct netmap_change *c);
bool vip_sync(struct vip *v);

/* vip_flush - forgets connections to backends that are gone, and UDP's to those that drain: in at most `sandboxes` of
 * them (looking through the kernel's table takes it milliseconds). True when there is nothing left to do. */
bool vip_flush(struct vip *v, unsigned sandboxes);

/* vip_drain - has vip_flush() forget, now and then, what was closed meanwhile of connections to backends that drain,
 * before their tasks stop. Returns in how many ms to call again, 0: vip_flush() has something to do; UINT64_MAX: when
 * something has changed. */
uint64_t vip_drain(struct vip *v, uint64_t now_ms);

/* vip_reconcile - puts right what somebody else has changed in a sandbox. Cheap when nobody has. */
bool vip_reconcile(struct vip *v);

/* vip_probe - what the kernel has against what it should have, as JSON; args: a task's ID or its beginning. */
void vip_probe(struct vip *v, const char *args, struct buf *out);

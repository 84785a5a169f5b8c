/*
 * overlay.h - the overlay networks of this node: one namespace for each network that a task here is on, the interfaces
 * of the sandboxes on it, and what its VXLAN device knows of the other nodes' tasks.
 *
 * What should be comes from the attachments (attach.h) and the map (netmap.h); what is comes from the kernel. A
 * network's namespace is made for its first task and removed a moment after its last one: a task that is replaced finds
 * it there. All calls finish at once. Nothing is taken away by overlay_close().
 */
#pragma once

#include "meshd/overlay/attach.h"
#include "meshd/overlay/overlay_nl.h"

#define OVERLAY_LINGER_MS 2000u

struct overlay_net {
    char id[ID_SIZE], pin[512];
    uint32_t vni, mtu_option;
    bool encrypted;
    unsigned tasks, mtu;
    uint64_t idle_ms; /* mono, since when it has no tasks; meaningful while tasks is 0 */
    struct overlay_ns ns;
    struct overlay_vxlan vx; /* as it is in the kernel; vni 0: not there */
    struct overlay_have have;
    struct overlay_edits edits; /* planned, not yet carried out */
    bool looked;                /* at the kernel's links, once: from then on they are to be as we have them */
    bool stale;                 /* read the kernel back: it may have something else */
    bool replan;                /* compare all of the network with the map */
    struct err failure;         /* of the last try; code 0: none */
};

struct overlay {
    struct overlay_host host;
    char pins[300], sandboxes[300]; /* folders of pins: networks', tasks' */
    struct attach_set *tasks;       /* borrowed */
    const struct netmap *map;       /* borrowed */
    bool map_known;                 /* it has been told us once */
    char self[ID_SIZE];             /* this node; empty: in no swarm */
    struct table nets;              /* network ID -> struct overlay_net * */
    bool esp_asked, esp;
    attach_note_fn *note;
    void *arg;
    uint64_t made, removed, repaired, failures;
};

/* overlay_open - adopts what is there and fits the attachments, repairs or removes the rest. */
int overlay_open(struct overlay *o, const char *run_dir, struct attach_set *tasks, const struct netmap *map,
                 attach_note_fn *note, void *arg, struct err *e);
void overlay_close(struct overlay *o);
void overlay_self(struct overlay *o, const char *node);

/* overlay_check - can this task's networks be had on this node? */
int overlay_check(struct overlay *o, const struct attach *a, struct err *e);

/* overlay_up - the interfaces of a sandbox, which is there. What was made is removed again when it fails. */
int overlay_up(struct overlay *o, const struct attach *a, struct err *e);
/* overlay_undo - takes the interfaces of a sandbox away that was not finished after all. */
void overlay_undo(struct overlay *o, const struct attach *a);
/* overlay_down - the sandbox is about to go, and its interfaces with it. `a` is no longer among the attachments. */
void overlay_down(struct overlay *o, const struct attach *a, uint64_t now_ms);

/* overlay_change - takes note of a change of the map. overlay_sync - carries out what was noted; false when something
 * is left to be tried again. */
void overlay_change(struct overlay *o, const struct netmap_change *c);
bool overlay_sync(struct overlay *o);

/* overlay_sweep - removes networks that have had no task for a while; false when one is still waiting for that. */
bool overlay_sweep(struct overlay *o, uint64_t now_ms);

/* overlay_reconcile - reads everything back from the kernel and puts right what differs. */
bool overlay_reconcile(struct overlay *o);

/* overlay_probe - what the kernel has against what it should have, as JSON. */
void overlay_probe(struct overlay *o, struct buf *out);

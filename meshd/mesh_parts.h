/*
 * mesh_parts.h - what a sandbox has beside its way out (mesh_node.h): interfaces on overlay networks, encryption where
 * they ask for it, the addresses of services and their names. The parts themselves know nothing of each other; here is
 * their order.
 */
#pragma once

#include "common/proto/msg_meshd.h"
#include "meshd/esp/esp.h"
#include "meshd/mesh_names.h"
#include "meshd/mesh_node.h"
#include "meshd/overlay/overlay.h"
#include "meshd/vip/vip.h"

struct mesh_parts {
    struct attach_set tasks;
    struct overlay overlay;
    struct vip vip;
    struct mesh_names names;
    struct esp esp;
    const struct netmap *view;
    char self[ID_SIZE];
    struct err esp_failure; /* of the last try; code 0: none */
    struct table sandboxes; /* task -> ino_t of the namespace that the parts are in */
    bool open;
};

/* mesh_parts_open - when the sandboxes are as they should be: adopts what they have. */
int mesh_parts_open(struct mesh_parts *p, sd_event *loop, const char *run_dir, const struct mesh_conf *conf,
                    const struct netmap *view, const char *self, attach_note_fn *note, void *arg, struct err *e);
void mesh_parts_close(struct mesh_parts *p);

/* mesh_parts_check - before anything is made: could mesh_parts_up() do what is asked? */
int mesh_parts_check(struct mesh_parts *p, const struct mesh_up *up, struct err *e);

/* mesh_parts_up - for a sandbox that is there; asking again is fine. Its addresses are added to the reply's. */
int mesh_parts_up(struct mesh_parts *p, const struct mesh_up *up, struct arena *a, struct mesh_up_reply *ret,
                  struct err *e);

/* mesh_parts_down - before the sandbox goes; unknown: fine. */
int mesh_parts_down(struct mesh_parts *p, struct str task, uint64_t now_ms, struct err *e);

/* mesh_parts_change - something of the view has changed. mesh_parts_settle - carries it out; false when something is
 * left to be tried again. */
void mesh_parts_change(struct mesh_parts *p, const struct netmap_change *c);
bool mesh_parts_settle(struct mesh_parts *p, const char *self);

/* mesh_parts_later - what need not be done at once: forgets connections, removes networks without tasks. Returns in how
 * many ms it is to be called again; UINT64_MAX: not before something has changed. */
uint64_t mesh_parts_later(struct mesh_parts *p, uint64_t now_ms);

bool mesh_parts_reconcile(struct mesh_parts *p);

/*
 * attach.h - the tasks of this node that are on networks: who they are, on which, under which addresses.
 *
 * agentd's request (mesh_up) is kept as it came, also as a file below the run folder, so that a restarted meshd knows
 * its sandboxes' interfaces before any manager has told it of the networks. A file is written when all of the sandbox
 * is made and removed before any of it is taken away, as with mesh_file.h.
 */
#pragma once

#include "common/proto/msg_meshd.h"
#include "common/util/arena.h"
#include "common/util/table.h"
#include "meshd/netmap/netmap.h"

#define ATTACH_TASK_SIZE (ID_TEXT_MAX + 1)

/* One network of one task, other than the ingress network. */
struct attach_net {
    char id[ID_SIZE];
    uint32_t vni, mtu; /* mtu 0: what the underlay leaves */
    bool encrypted, internal;
    unsigned eth; /* the interface in the sandbox: eth<n>, from 1 */
    size_t nips;
    struct netmap_ip ips[NETMAP_IPS_MAX]; /* with the subnet's prefix */
};

struct attach {
    char task[ATTACH_TASK_SIZE];
    struct arena arena;
    struct mesh_up up; /* all of the request; its texts live as long as this does */
    size_t nnets;
    struct attach_net *nets;
};

struct attach_set {
    char dir[300];
    struct table tasks; /* task -> struct attach * */
};

/* attach_new - a checked copy of the request; given, with attach_free(). -ERR_INVALID names what makes no sense. *ret
 * is NULL when the task is on no network but, perhaps, the ingress network. */
int attach_new(const struct mesh_up *up, struct attach **ret, struct err *e);
struct attach *attach_free(struct attach *a);

/* attach_set_open - reads the files of `dir`; one that is damaged is removed, and `note` told why. */
typedef void attach_note_fn(void *arg, const char *text);
int attach_set_open(struct attach_set *s, const char *dir, attach_note_fn *note, void *arg, struct err *e);
void attach_set_close(struct attach_set *s);

struct attach *attach_get(const struct attach_set *s, struct str task);             /* NULL: none */
const struct attach_net *attach_net_of(const struct attach *a, struct str network); /* NULL: not on it */
int attach_save(struct attach_set *s, struct attach *a, struct err *e);             /* takes a when it returns 0 */
int attach_forget(struct attach_set *s, struct str task, struct attach **ret, struct err *e); /* *ret: given, or NULL */

/* attach_decode - bytes of a file. */
int attach_decode(struct str in, struct attach **ret, struct err *e);

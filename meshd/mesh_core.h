/*
 * mesh_core.h - what a node's data plane should look like, as data: sandboxes, addresses, published ports, and the
 * edits that bring the kernel's port table from what it is to what it should be. No I/O, no clock, no randomness.
 *
 * A published port is spread over slots 0..n-1, each a task's address and port; the kernel draws one per connection. A
 * lookup in the kernel is not one snapshot with the rule that does it, so a slot is never changed while connections may
 * still be drawing it (measured: replacing it in place loses a handful of connections in ten thousand):
 *   - slots are only added behind the ones in use, or written to the other half (slots MESH_HALF + 0..), and then the
 *     port's verdict is switched, all in one transaction (plan.now);
 *   - slots no longer drawn are deleted in a transaction of their own afterwards (plan.later).
 *
 * Slots come from two sources. Of its own sandboxes this node knows best: one counts from the moment it is ready. What
 * runs elsewhere, and which service has a port, is the managers' word (struct mesh_service). Where both are there, a
 * local task is drawn local_weight times as often as a remote one: it costs half as much.
 *
 * Overlay networks and service addresses inside of sandboxes are parts of their own (meshd/overlay, meshd/vip).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/err.h"
#include "common/util/id.h"
#include "common/util/str.h"
#include "common/util/table.h"

#define MESH_ID_SIZE (ID_TEXT_MAX + 1)
#define MESH_HALF 0x10000u     /* first slot number of the other half */
#define MESH_SLOTS_MAX 0x8000u /* of one port */

enum mesh_mode { MESH_BRIDGE, MESH_NONE, MESH_HOST };
enum mesh_state { MESH_STARTING, MESH_READY, MESH_DRAINING };

const char *mesh_mode_name(enum mesh_mode m);
const char *mesh_state_name(enum mesh_state s);
const char *mesh_proto_name(uint8_t proto);              /* "tcp"; "?" when unknown */
bool mesh_proto_parse(struct str s, uint8_t *ret);       /* tcp, udp, sctp */
bool mesh_mode_parse(struct str s, enum mesh_mode *ret); /* empty: bridge */
bool mesh_state_parse(struct str s, enum mesh_state *ret);

/* mesh_sysctl_path - "net.ipv4.ip_forward" as "net/ipv4/ip_forward"; false unless it is a plain name below net. */
bool mesh_sysctl_path(struct str name, char *path, size_t cap);

#define MESH_ADDR_TEXT 16
void mesh_addr_text(uint32_t addr, char text[MESH_ADDR_TEXT]); /* host byte order */

struct mesh_subnet {
    uint32_t base; /* host byte order, host bits clear */
    uint8_t prefix;
};
/* mesh_subnet_parse - "172.18.0.0/16"; prefix 16..29. */
int mesh_subnet_parse(const char *text, struct mesh_subnet *ret, struct err *e);
bool mesh_subnet_overlaps(struct mesh_subnet a, struct mesh_subnet b);
static inline uint32_t mesh_subnet_gateway(struct mesh_subnet s)
{
    return s.base + 1;
}
static inline uint32_t mesh_subnet_last(struct mesh_subnet s)
{
    return s.base | (uint32_t)(0xffffffffull >> s.prefix);
}

struct mesh_publish {
    uint8_t proto; /* IPPROTO_* */
    bool host_mode;
    uint16_t target;
    uint16_t published;
};

/* One task's network. Owned by the core once added. */
struct mesh_sandbox {
    char task[MESH_ID_SIZE], service[MESH_ID_SIZE];
    enum mesh_mode mode;
    enum mesh_state state;
    uint32_t addr;      /* host byte order; 0 unless mode is bridge, and when it has no way out */
    uint8_t given;      /* the managers' address, with this prefix; 0: one of the node's own subnet */
    uint64_t ready_seq; /* order of becoming ready */
    size_t nports;
    struct mesh_publish *ports; /* malloc'd */
};

/* A service that publishes ports in ingress mode, as the managers have it. */
struct mesh_backend {
    char task[MESH_ID_SIZE];
    uint32_t addr; /* host byte order */
    bool here;     /* runs on this node: its sandbox says whether it is ready */
    bool usable;
};
struct mesh_service {
    size_t nports, nbackends;
    struct mesh_publish *ports;
    struct mesh_backend *backends;
};

struct mesh_slot {
    uint32_t addr; /* host byte order */
    uint16_t port;
};

/* One published port of this node: who it belongs to, and what of it is in the kernel. */
struct mesh_entry {
    uint8_t proto;
    uint16_t port;
    bool host_mode;
    char owner[MESH_ID_SIZE]; /* host mode: the task; ingress: the service (the task when it has none) */
    unsigned members;         /* sandboxes that publish it, of any owner */
    unsigned services;        /* that publish it, as the managers have it: at most one, but for a moment */
    bool dirty;
    bool in_kernel;
    uint8_t half; /* 0 or 1: where the kernel's slots start */
    uint32_t nslots;
    struct mesh_slot *slots; /* as in the kernel */
};

struct mesh_core {
    struct mesh_subnet subnet;
    uint32_t addr_last; /* the address given out last: the next search starts behind it */
    uint64_t *addr_used;
    uint64_t seq;
    unsigned local_weight;  /* 1: local tasks are drawn as often as others */
    struct table sandboxes; /* task -> struct mesh_sandbox */
    struct table services;  /* ID -> struct mesh_service */
    struct table ports;     /* "tcp/8080" -> struct mesh_entry */
};

enum mesh_edit_type { MESH_SLOT_ADD, MESH_SLOT_DEL, MESH_PORT_SET, MESH_PORT_DEL };
struct mesh_edit {
    enum mesh_edit_type type;
    uint8_t proto;
    uint16_t port;
    uint32_t slot;       /* MESH_SLOT_*: number, with the half in it */
    struct mesh_slot to; /* MESH_SLOT_ADD */
    uint32_t nslots;     /* MESH_PORT_SET: draw among so many; 0: refuse connections */
    uint8_t half;        /* MESH_PORT_SET */
    bool replaces;       /* MESH_PORT_SET: the port has a verdict already */
};
struct mesh_edits {
    struct mesh_edit *v;
    size_t n, cap;
};
struct mesh_plan {
    struct mesh_edits now, later;
};

void mesh_core_init(struct mesh_core *c);
void mesh_core_done(struct mesh_core *c);

/* mesh_core_set_subnet - before any address is in use. */
void mesh_core_set_subnet(struct mesh_core *c, struct mesh_subnet s);

struct mesh_sandbox *mesh_core_get(struct mesh_core *c, struct str task); /* NULL when unknown */
struct mesh_entry *mesh_core_port(struct mesh_core *c, uint8_t proto, uint16_t port);

/* mesh_core_addr_next - a free address, each call a later one, wrapping around; 0 when all are taken. Does not take it.
 */
uint32_t mesh_core_addr_next(struct mesh_core *c);

/* mesh_core_port_next - the first port after `after` in lo..hi that no task publishes, wrapping around; 0 when none. */
uint16_t mesh_core_port_next(struct mesh_core *c, uint8_t proto, uint16_t after, uint16_t lo, uint16_t hi);

/*
 * mesh_core_check - may this sandbox be added? -ERR_CONFLICT names the port and who has it.
 *
 * A host-mode port belongs to one task, until that task drains. An ingress port belongs to the service that the
 * managers name; as long as they have not, to the one that asked last: the managers see to it that it is one at a time,
 * so an older owner is one that is on its way out.
 */
int mesh_core_check(struct mesh_core *c, const struct mesh_sandbox *sb, struct err *e);

/* mesh_core_add - takes sb->ports; ports of host_mode must have their published port by now. The task must be new. */
struct mesh_sandbox *mesh_core_add(struct mesh_core *c, struct mesh_sandbox *sb);
void mesh_core_del(struct mesh_core *c, struct mesh_sandbox *sb);

/* mesh_core_set_ready - -ERR_CONFLICT when a host-mode port has gone to another task while this one drained. */
int mesh_core_set_ready(struct mesh_core *c, struct mesh_sandbox *sb, bool ready, struct err *e);

/* mesh_core_service - what a service publishes and who is behind it from now on; takes both arrays. Without ports it is
 * gone. A backend counts when it is usable; one that is here, when its sandbox is ready besides. */
void mesh_core_service(struct mesh_core *c, struct str id, struct mesh_publish *ports, size_t nports,
                       struct mesh_backend *backends, size_t nbackends);

/* mesh_core_plan - the edits for everything that is dirty. The core then takes them as done: when they fail, the
 * kernel's state is unknown: read it back with mesh_core_load(), or start anew with mesh_core_plan_all(). */
void mesh_core_plan(struct mesh_core *c, struct mesh_plan *p);

/* mesh_core_plan_all - everything, for an empty table. */
void mesh_core_plan_all(struct mesh_core *c, struct mesh_plan *p);
void mesh_plan_done(struct mesh_plan *p);

/* What the kernel's port table holds. */
struct mesh_dump_port {
    uint8_t proto, half;
    uint16_t port;
    uint32_t nslots;
};
struct mesh_dump_slot {
    uint8_t proto;
    uint16_t port;
    uint32_t slot;
    struct mesh_slot to;
};
struct mesh_dump {
    struct mesh_dump_port *ports;
    size_t nports, cports;
    struct mesh_dump_slot *slots;
    size_t nslots, cslots;
};
void mesh_dump_port(struct mesh_dump *d, struct mesh_dump_port p);
void mesh_dump_slot(struct mesh_dump *d, struct mesh_dump_slot s);
void mesh_dump_done(struct mesh_dump *d);

/* mesh_core_load - takes the kernel's table for what is there. False when a port draws a slot that is missing: then
 * only mesh_core_plan_all() helps. Slots nobody draws are put into strays->later. Everything is dirty afterwards. */
bool mesh_core_load(struct mesh_core *c, const struct mesh_dump *d, struct mesh_plan *strays);

/* mesh_core_verify - CHECKs the invariants of the whole state. */
void mesh_core_verify(struct mesh_core *c);

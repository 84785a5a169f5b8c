/*
 * vip_core.h - service addresses (VIPs) in the sandboxes of this node: which there should be, which there are, and the
 * edits between. No I/O, no clock, no randomness.
 *
 * A sandbox translates what it sends to a VIP by itself: the kernel draws one of slots 0..n-1 for each connection. A
 * lookup in the kernel is not one snapshot with the rule that does it, and a first packet that goes out untranslated
 * poisons its flow. So a slot is never changed while connections may be drawing it: slots are only added behind those
 * in use, or written to the other half (VIP_HALF + 0..), then the VIP's verdict is switched in the same transaction
 * (plan now), and slots that nobody draws any more go in one of their own (plan later).
 *
 * The wanted lists are the networks', and shared by the sandboxes on them; what a sandbox has is its own, because it
 * may have missed a change.
 */
#pragma once

#include "meshd/netmap/netmap.h"

#define VIP_HALF 0x10000u     /* first slot number of the other half */
#define VIP_SLOTS_MAX 0x8000u /* backends of one VIP; more are left out */
#define VIP_IDLE_CHAINS 16u   /* drawing chains that may lie about unused */

/* Backends in drawing order; never changed once made. */
struct vip_list {
    unsigned refs;
    uint8_t family;
    uint32_t n;
    uint8_t addrs[]; /* 4 or 16 bytes each */
};

struct vip_want {
    struct vip_list *list;
    char service[ID_SIZE];
};
struct vip_service {
    size_t nvips;
    struct netmap_ip *vips;
};
struct vip_net {
    char id[ID_SIZE];
    unsigned users;        /* sandboxes */
    struct table vips;     /* address -> struct vip_want */
    struct table services; /* ID -> struct vip_service */
    struct table dirty;    /* addresses whose want has changed since the last vip_core_settled() */
};

struct vip_have {
    struct netmap_ip vip;
    struct vip_list *list; /* as in the kernel */
    uint8_t half;          /* where its slots start */
};
struct vip_chain {
    uint32_t n;
    uint8_t family, half;
    unsigned users; /* VIPs that draw by it */
};
struct vip_sandbox {
    char task[ID_TEXT_MAX + 1];
    bool ipv6;  /* it has a table for IPv6 */
    bool stale; /* the kernel may have something else: read it, or make it anew */
    size_t nnets;
    struct vip_net **nets; /* where two networks have one VIP, the first counts */
    struct table vips;     /* address -> struct vip_have */
    struct table chains;   /* "4n3a" -> struct vip_chain: that are there */
    /* Of the namespace's rules, for the shell: when we last changed or saw them; at the last comparison. */
    uint32_t gen, quiet_gen;
};

struct vip_core {
    struct table nets;      /* network ID -> struct vip_net * */
    struct table sandboxes; /* task -> struct vip_sandbox * */
};

enum vip_edit_type { VIP_CHAIN_ADD, VIP_SLOT_ADD, VIP_SET, VIP_DEL, VIP_SLOT_DEL, VIP_CHAIN_DEL };
struct vip_edit {
    enum vip_edit_type type;
    uint8_t half;         /* VIP_CHAIN_*, VIP_SET */
    bool replaces;        /* VIP_SET: it has a verdict already */
    uint32_t n;           /* VIP_CHAIN_*, VIP_SET: draw among so many; 0: refuse connections */
    uint32_t slot;        /* VIP_SLOT_*: with the half in it */
    struct netmap_ip vip; /* VIP_CHAIN_*: only its family */
    uint8_t to[16];       /* VIP_SLOT_ADD */
};
struct vip_edits {
    struct vip_edit *v;
    size_t n, cap;
};
struct vip_plan {
    struct vip_edits now, later;
};
void vip_plan_done(struct vip_plan *p);

void vip_core_init(struct vip_core *c);
void vip_core_done(struct vip_core *c);

/* vip_core_add - a sandbox on these networks (in order); stale, with nothing in it. */
struct vip_sandbox *vip_core_add(struct vip_core *c, const struct netmap *m, struct str task,
                                 const char (*nets)[ID_SIZE], size_t nnets, bool ipv6);
void vip_core_del(struct vip_core *c, struct str task); /* unknown: fine */
struct vip_sandbox *vip_core_get(const struct vip_core *c, struct str task);

/*
 * vip_core_service - looks at a service again; vip_core_network - at all of a network. Nothing happens unless a sandbox
 * is on the network. gone() hears of each backend that was drawn and is no more.
 */
typedef void vip_gone_fn(void *arg, const char *network, const struct netmap_ip *backend);
void vip_core_service(struct vip_core *c, const struct netmap *m, const char *network, const char *service,
                      vip_gone_fn *gone, void *arg);
void vip_core_network(struct vip_core *c, const struct netmap *m, const char *network, vip_gone_fn *gone, void *arg);

/* vip_core_plan - edits for what has changed; _plan_all - for whatever differs from what the sandbox has. What it has
 * is then taken as changed: when carrying out fails, it is stale. */
void vip_core_plan(struct vip_sandbox *sb, struct vip_plan *p);
void vip_core_plan_all(struct vip_sandbox *sb, struct vip_plan *p);
void vip_core_settled(struct vip_core *c); /* vip_core_plan() was called for all of them */

/* vip_core_idle - deletion of chains that nothing has drawn by, when there are many. To be called some seconds after
 * the last change at the earliest: a packet may be on its way from a verdict to its chain. */
void vip_core_idle(struct vip_sandbox *sb, struct vip_edits *es);

/* Taking the kernel's word: clear, then what is there; _seen_done says whether each VIP's slots are all there. */
struct vip_dump_vip {
    struct netmap_ip vip;
    uint32_t n;
    uint8_t half;
};
struct vip_dump_slot {
    struct netmap_ip vip;
    uint32_t slot;
    uint8_t to[16];
};
struct vip_dump {
    struct vip_dump_vip *vips;
    size_t nvips, cvips;
    struct vip_dump_slot *slots;
    size_t nslots, cslots;
    struct vip_chain *chains;
    size_t nchains, cchains;
};
void vip_dump_vip(struct vip_dump *d, const struct vip_dump_vip *v);
void vip_dump_slot(struct vip_dump *d, const struct vip_dump_slot *s);
void vip_dump_chain(struct vip_dump *d, const struct vip_chain *c);
void vip_dump_done(struct vip_dump *d);

/* vip_core_load - takes what the kernel has for what is there. False when a VIP draws a slot that is missing, or by a
 * chain that is: then only making it anew helps. Slots nobody draws are put into *strays. */
bool vip_core_load(struct vip_sandbox *sb, struct vip_dump *d, struct vip_edits *strays);
void vip_core_forget(struct vip_sandbox *sb); /* nothing is there */

/* vip_core_differences - VIPs of the sandbox that are not what they should be; vip may be NULL. For probes. */
size_t vip_core_differences(const struct vip_sandbox *sb, struct netmap_ip *vips, size_t max);

void vip_core_verify(const struct vip_core *c); /* CHECKs the invariants of the whole state */

#define VIP_CHAIN_NAME 16
void vip_chain_name(uint32_t n, uint8_t half, char name[VIP_CHAIN_NAME]); /* "n3a" */
bool vip_chain_parse(const char *name, uint32_t *ret_n, uint8_t *ret_half);

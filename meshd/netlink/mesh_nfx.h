/*
 * mesh_nfx.h - building blocks of nftables messages: tables, chains, rules expression by expression, sets and their
 * elements, and the listing of what is there. The tables themselves are elsewhere: mesh_host.c (the host's), mesh_nft.c
 * (the gateway's).
 *
 * Messages pile up in a batch between nfx_begin() and nfx_commit() and take effect all at once, or not at all. Running
 * out of memory is fatal (CHECK). Registers are the kernel's 32-bit ones, NFT_REG32_00 + n; concatenations lie in
 * registers side by side, each part padded to four bytes.
 */
#pragma once

#include <arpa/inet.h> /* before linux/netfilter.h, which wants either its types or the kernel's */
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "meshd/netlink/mesh_msg.h"

struct nfx { /* a table, and the socket that reaches its namespace */
    struct mesh_msg *m;
    uint8_t family; /* NFPROTO_* */
    const char *table;
};

/* nft(8)'s numbers for the types it shows; a concatenation is one behind the other, six bits each. */
#define NFX_IPADDR 7u
#define NFX_ETHERADDR 9u
#define NFX_PROTO 12u
#define NFX_SERVICE 13u
#define NFX_MARK 19u
#define NFX_IFNAME 41u
#define NFX_PAIR(a, b) ((a) << 6 | (b))

#define NFX_ROOM 2048u  /* of any message but one with elements */
#define NFX_CT_NEW 8u   /* NF_CT_STATE_BIT(IP_CT_NEW) */
#define NFX_CT_KNOWN 6u /* ESTABLISHED, RELATED */
#define NFX_CT_DNAT 0x20u

/* ---- transactions ---- */
void nfx_begin(struct mesh_msg *m);
/* nfx_commit - @what names the change in errors; *ret_errno may be NULL. */
int nfx_commit(struct mesh_msg *m, const char *what, int *ret_errno, struct err *e);
struct nlmsghdr *nfx_put(const struct nfx *t, int type, uint16_t flags, size_t room);

/* ---- tables, chains, sets ---- */
void nfx_table_new(const struct nfx *t, const char *comment); /* shown by nft(8); refused when it is there */
void nfx_table_del(const struct nfx *t);                      /* also where there is none */
/* nfx_chain - @type NULL: one to jump to. @device: for chains of the netdev family, else NULL. */
void nfx_chain(const struct nfx *t, const char *name, const char *type, uint32_t hook, int32_t prio,
               const char *device);
void nfx_chain_flush(const struct nfx *t, const char *name); /* its rules */
struct nfx_set {
    const char *name;
    uint32_t id; /* of its own within the batch */
    uint32_t flags, key_type, key_len, data_type, data_len;
};
void nfx_set(const struct nfx *t, const struct nfx_set *s);

/* ---- rules ---- */
struct nftnl_rule *nfx_rule(const struct nfx *t, const char *chain);
void nfx_add(const struct nfx *t, struct nftnl_rule *r); /* behind the chain's others; takes r */

struct nftnl_expr *nfx_expr(struct nftnl_rule *r, const char *name);
void nfx_meta(struct nftnl_rule *r, uint32_t key, uint32_t dreg);
void nfx_meta_set(struct nftnl_rule *r, uint32_t key, uint32_t sreg);
void nfx_cmp(struct nftnl_rule *r, uint32_t sreg, uint32_t op, const void *data, uint32_t len);
void nfx_payload(struct nftnl_rule *r, uint32_t base, uint32_t off, uint32_t len, uint32_t dreg);
void nfx_payload_set(struct nftnl_rule *r, uint32_t base, uint32_t off, uint32_t len, uint32_t sreg);
void nfx_mask(struct nftnl_rule *r, uint32_t reg, uint32_t mask); /* as in the packet: network byte order */
void nfx_lookup(struct nftnl_rule *r, const char *set, uint32_t sreg, int dreg); /* dreg -1: only whether it is there */
void nfx_lookup_not(struct nftnl_rule *r, const char *set, uint32_t sreg);
void nfx_verdict(struct nftnl_rule *r, int verdict, const char *chain);
void nfx_reject(struct nftnl_rule *r, uint32_t type, uint8_t code);
void nfx_value(struct nftnl_rule *r, uint32_t dreg, const void *data, uint32_t len);
void nfx_ifname(struct nftnl_rule *r, uint32_t key, uint32_t op, const char *name); /* key NFT_META_IIFNAME, _OIFNAME */
void nfx_proto(struct nftnl_rule *r, uint8_t proto);
void nfx_ct(struct nftnl_rule *r, uint32_t key, uint32_t dreg);
void nfx_ct_set(struct nftnl_rule *r, uint32_t key, uint32_t sreg, int dir);   /* dir -1: both */
void nfx_ct_bits(struct nftnl_rule *r, uint32_t key, uint32_t bits, bool set); /* any of them, none of them */
void nfx_local(struct nftnl_rule *r, bool yes); /* the packet is for an address of this namespace */
/* nfx_forwarded - the packet came in by a link: it is not this host's own. In postrouting. */
void nfx_forwarded(struct nftnl_rule *r);
/* nfx_net4 - source (12) or destination (16) address in base/prefix; host byte order. */
void nfx_net4(struct nftnl_rule *r, uint32_t off, uint32_t base, uint8_t prefix, bool inside);
/* nfx_nat4 - @type NFT_NAT_SNAT, _DNAT; registers with address and port; port_reg 0: keep it. */
void nfx_nat4(struct nftnl_rule *r, uint32_t type, uint32_t addr_reg, uint32_t port_reg);
/* nfx_random - 0..n-1 plus offset, host byte order */
void nfx_random(struct nftnl_rule *r, uint32_t n, uint32_t offset, uint32_t dreg);

/* ---- elements ---- */
struct nfx_elems { /* a run of elements of one set to be added or deleted: {t, NFT_MSG_NEWSETELEM, "set"} */
    const struct nfx *t;
    int type;
    const char *set;
    struct nlattr *list_;
    unsigned n_;
};
void nfx_elem(struct nfx_elems *es, const void *key, uint16_t key_len, const void *data, uint16_t data_len);
void nfx_elem_goto(struct nfx_elems *es, const void *key, uint16_t key_len, const char *chain);
void nfx_elems_end(struct nfx_elems *es);

/* ---- looking ---- */
/* nfx_ours - is the message about this table? */
bool nfx_ours(const struct nfx *t, const struct nlmsghdr *h);

/* nfx_look_table - *ret_same: it is there, awake, and has this comment. */
int nfx_look_table(const struct nfx *t, const char *comment, bool *ret_same, struct err *e);

/* The listings may call fn twice for an entry, and end with *ret_errno EINTR, when something changed meanwhile: start
 * over then. ENOENT is no error: *ret_errno has it. */
typedef void nfx_chain_fn(const char *name, void *arg);
int nfx_look_chains(const struct nfx *t, nfx_chain_fn *fn, void *arg, int *ret_errno, struct err *e);
int nfx_look_rules(const struct nfx *t, nfx_chain_fn *fn, void *arg, int *ret_errno, struct err *e); /* once per rule */
struct nfx_elem_seen {
    const void *key, *data; /* data NULL: none */
    uint32_t key_len, data_len;
    const char *chain; /* of a verdict; else NULL */
};
typedef void nfx_elem_fn(const struct nfx_elem_seen *el, void *arg);
int nfx_look_elems(const struct nfx *t, const char *set, nfx_elem_fn *fn, void *arg, int *ret_errno, struct err *e);

/* nfx_watch_open - a socket that hears of every change of this namespace's tables. nfx_watch_read - reads all that is
 * there; true when somebody who is not @self changed one of the tables, or events were lost. */
int nfx_watch_open(struct mesh_msg *watch, struct err *e);
bool nfx_watch_read(struct mesh_msg *watch, uint32_t self, const struct nfx *tables, size_t n);

#include "meshd/netlink/mesh_nfx.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util/check.h"

#define ELEMS_ROOM 40000u
#define ELEMS_MAX 400u /* a nested attribute holds at most 64 KiB */
#define COMMENT_MAX 200u

/* ---- transactions ---- */

static struct nlmsghdr *put(struct mesh_msg *m, int type, uint16_t flags, uint8_t family, uint16_t res, size_t room)
{
    struct nlmsghdr *h = mesh_msg_put(m, (uint16_t)type, flags, sizeof(struct nfgenmsg), room);
    *(struct nfgenmsg *)mnl_nlmsg_get_payload(h) =
        (struct nfgenmsg){ .nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(res) };
    return h;
}

struct nlmsghdr *nfx_put(const struct nfx *t, int type, uint16_t flags, size_t room)
{
    return put(t->m, NFNL_SUBSYS_NFTABLES << 8 | type, flags, t->family, 0, room);
}

void nfx_begin(struct mesh_msg *m)
{
    put(m, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, NFX_ROOM);
}

/* The acknowledgement is asked for on the last real message: kernels before 6.10 don't acknowledge the batch's end. */
int nfx_commit(struct mesh_msg *m, const char *what, int *ret_errno, struct err *e)
{
    CHECK(m->cur != NULL);
    m->cur->nlmsg_flags |= NLM_F_ACK;
    put(m, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, NFX_ROOM);
    return mesh_msg_send(m, what, ret_errno, e);
}

/* ---- tables, chains, sets ---- */

static void put_table(const struct nfx *t, int type, uint16_t flags, const char *comment)
{
    struct nftnl_table *x = nftnl_table_alloc();
    char tlv[COMMENT_MAX + 3];
    CHECK(x != NULL);
    nftnl_table_set_str(x, NFTNL_TABLE_NAME, t->table);
    nftnl_table_set_u32(x, NFTNL_TABLE_FAMILY, t->family);
    if (comment) {
        size_t n = strlen(comment) + 1;
        CHECK(n <= COMMENT_MAX);
        tlv[0] = NFTNL_UDATA_TABLE_COMMENT;
        tlv[1] = (char)n;
        memcpy(tlv + 2, comment, n);
        nftnl_table_set_data(x, NFTNL_TABLE_USERDATA, tlv, (uint32_t)n + 2);
    }
    nftnl_table_nlmsg_build_payload(nfx_put(t, type, flags, NFX_ROOM), x);
    nftnl_table_free(x);
}

void nfx_table_new(const struct nfx *t, const char *comment)
{
    put_table(t, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, comment);
}

void nfx_table_del(const struct nfx *t)
{
    put_table(t, NFT_MSG_NEWTABLE, NLM_F_CREATE, NULL); /* so that the deletion always finds one */
    put_table(t, NFT_MSG_DELTABLE, 0, NULL);
}

void nfx_chain(const struct nfx *t, const char *name, const char *type, uint32_t hook, int32_t prio, const char *device)
{
    struct nftnl_chain *c = nftnl_chain_alloc();
    CHECK(c != NULL);
    nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, t->table);
    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name);
    if (type) {
        nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, type);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, hook);
        nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, prio);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, NF_ACCEPT);
    }
    if (device)
        nftnl_chain_set_str(c, NFTNL_CHAIN_DEV, device);
    nftnl_chain_nlmsg_build_payload(nfx_put(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE, NFX_ROOM), c);
    nftnl_chain_free(c);
}

void nfx_chain_flush(const struct nfx *t, const char *name)
{
    struct nlmsghdr *h = nfx_put(t, NFT_MSG_DELRULE, 0, NFX_ROOM);
    mnl_attr_put_strz(h, NFTA_RULE_TABLE, t->table);
    mnl_attr_put_strz(h, NFTA_RULE_CHAIN, name);
}

void nfx_set(const struct nfx *t, const struct nfx_set *f)
{
    struct nftnl_set *s = nftnl_set_alloc();
    CHECK(s != NULL);
    nftnl_set_set_str(s, NFTNL_SET_TABLE, t->table);
    nftnl_set_set_str(s, NFTNL_SET_NAME, f->name);
    nftnl_set_set_u32(s, NFTNL_SET_FAMILY, t->family);
    nftnl_set_set_u32(s, NFTNL_SET_ID, f->id);
    nftnl_set_set_u32(s, NFTNL_SET_FLAGS, f->flags);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, f->key_type);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, f->key_len);
    if (f->flags & NFT_SET_MAP) {
        nftnl_set_set_u32(s, NFTNL_SET_DATA_TYPE, f->data_type);
        nftnl_set_set_u32(s, NFTNL_SET_DATA_LEN, f->data_len);
    }
    nftnl_set_nlmsg_build_payload(nfx_put(t, NFT_MSG_NEWSET, NLM_F_CREATE, NFX_ROOM), s);
    nftnl_set_free(s);
}

/* ---- rules ---- */

struct nftnl_rule *nfx_rule(const struct nfx *t, const char *chain)
{
    struct nftnl_rule *r = nftnl_rule_alloc();
    CHECK(r != NULL);
    nftnl_rule_set_u32(r, NFTNL_RULE_FAMILY, t->family);
    nftnl_rule_set_str(r, NFTNL_RULE_TABLE, t->table);
    nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain);
    return r;
}

void nfx_add(const struct nfx *t, struct nftnl_rule *r)
{
    nftnl_rule_nlmsg_build_payload(nfx_put(t, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, NFX_ROOM), r);
    nftnl_rule_free(r);
}

struct nftnl_expr *nfx_expr(struct nftnl_rule *r, const char *name)
{
    struct nftnl_expr *x = nftnl_expr_alloc(name);
    CHECK(x != NULL);
    nftnl_rule_add_expr(r, x);
    return x;
}

void nfx_meta(struct nftnl_rule *r, uint32_t key, uint32_t dreg)
{
    struct nftnl_expr *x = nfx_expr(r, "meta");
    nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(x, NFTNL_EXPR_META_DREG, dreg);
}

void nfx_meta_set(struct nftnl_rule *r, uint32_t key, uint32_t sreg)
{
    struct nftnl_expr *x = nfx_expr(r, "meta");
    nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(x, NFTNL_EXPR_META_SREG, sreg);
}

void nfx_cmp(struct nftnl_rule *r, uint32_t sreg, uint32_t op, const void *data, uint32_t len)
{
    struct nftnl_expr *x = nfx_expr(r, "cmp");
    nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_SREG, sreg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_OP, op);
    nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, data, len);
}

static struct nftnl_expr *payload(struct nftnl_rule *r, uint32_t base, uint32_t off, uint32_t len)
{
    struct nftnl_expr *x = nfx_expr(r, "payload");
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_BASE, base);
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_OFFSET, off);
    nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_LEN, len);
    return x;
}

void nfx_payload(struct nftnl_rule *r, uint32_t base, uint32_t off, uint32_t len, uint32_t dreg)
{
    nftnl_expr_set_u32(payload(r, base, off, len), NFTNL_EXPR_PAYLOAD_DREG, dreg);
}

void nfx_payload_set(struct nftnl_rule *r, uint32_t base, uint32_t off, uint32_t len, uint32_t sreg)
{
    nftnl_expr_set_u32(payload(r, base, off, len), NFTNL_EXPR_PAYLOAD_SREG, sreg);
}

void nfx_mask(struct nftnl_rule *r, uint32_t reg, uint32_t mask)
{
    struct nftnl_expr *x = nfx_expr(r, "bitwise");
    uint32_t zero = 0;
    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_SREG, reg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_DREG, reg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_LEN, sizeof mask);
    nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, &mask, sizeof mask);
    nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, &zero, sizeof zero);
}

static struct nftnl_expr *lookup(struct nftnl_rule *r, const char *set, uint32_t sreg)
{
    struct nftnl_expr *x = nfx_expr(r, "lookup");
    nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_SREG, sreg);
    nftnl_expr_set_str(x, NFTNL_EXPR_LOOKUP_SET, set);
    return x;
}

void nfx_lookup(struct nftnl_rule *r, const char *set, uint32_t sreg, int dreg)
{
    struct nftnl_expr *x = lookup(r, set, sreg);
    if (dreg >= 0)
        nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_DREG, (uint32_t)dreg);
}

void nfx_lookup_not(struct nftnl_rule *r, const char *set, uint32_t sreg)
{
    nftnl_expr_set_u32(lookup(r, set, sreg), NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
}

void nfx_verdict(struct nftnl_rule *r, int verdict, const char *chain)
{
    struct nftnl_expr *x = nfx_expr(r, "immediate");
    nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
    if (chain)
        nftnl_expr_set_str(x, NFTNL_EXPR_IMM_CHAIN, chain);
}

void nfx_reject(struct nftnl_rule *r, uint32_t type, uint8_t code)
{
    struct nftnl_expr *x = nfx_expr(r, "reject");
    nftnl_expr_set_u32(x, NFTNL_EXPR_REJECT_TYPE, type);
    nftnl_expr_set_u8(x, NFTNL_EXPR_REJECT_CODE, code);
}

void nfx_value(struct nftnl_rule *r, uint32_t dreg, const void *data, uint32_t len)
{
    struct nftnl_expr *x = nfx_expr(r, "immediate");
    nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, dreg);
    nftnl_expr_set(x, NFTNL_EXPR_IMM_DATA, data, len);
}

void nfx_ifname(struct nftnl_rule *r, uint32_t key, uint32_t op, const char *name)
{
    char text[IFNAMSIZ] = { 0 };
    snprintf(text, sizeof text, "%s", name);
    nfx_meta(r, key, NFT_REG_1);
    nfx_cmp(r, NFT_REG_1, op, text, sizeof text);
}

void nfx_proto(struct nftnl_rule *r, uint8_t proto)
{
    nfx_meta(r, NFT_META_L4PROTO, NFT_REG_1);
    nfx_cmp(r, NFT_REG_1, NFT_CMP_EQ, &proto, sizeof proto);
}

void nfx_ct(struct nftnl_rule *r, uint32_t key, uint32_t dreg)
{
    struct nftnl_expr *x = nfx_expr(r, "ct");
    nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(x, NFTNL_EXPR_CT_DREG, dreg);
}

void nfx_ct_set(struct nftnl_rule *r, uint32_t key, uint32_t sreg, int dir)
{
    struct nftnl_expr *x = nfx_expr(r, "ct");
    nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(x, NFTNL_EXPR_CT_SREG, sreg);
    if (dir >= 0)
        nftnl_expr_set_u8(x, NFTNL_EXPR_CT_DIR, (uint8_t)dir);
}

void nfx_ct_bits(struct nftnl_rule *r, uint32_t key, uint32_t bits, bool set)
{
    uint32_t zero = 0;
    nfx_ct(r, key, NFT_REG_1);
    nfx_mask(r, NFT_REG_1, bits);
    nfx_cmp(r, NFT_REG_1, set ? NFT_CMP_NEQ : NFT_CMP_EQ, &zero, sizeof zero);
}

void nfx_local(struct nftnl_rule *r, bool yes)
{
    uint32_t local = RTN_LOCAL;
    struct nftnl_expr *x = nfx_expr(r, "fib");
    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
    nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
    nfx_cmp(r, NFT_REG_1, yes ? NFT_CMP_EQ : NFT_CMP_NEQ, &local, sizeof local);
}

void nfx_net4(struct nftnl_rule *r, uint32_t off, uint32_t base, uint8_t prefix, bool inside)
{
    uint32_t be = htonl(base);
    nfx_payload(r, NFT_PAYLOAD_NETWORK_HEADER, off, 4, NFT_REG_1);
    if (prefix < 32)
        nfx_mask(r, NFT_REG_1, htonl((uint32_t)(0xffffffffull << (32 - prefix))));
    nfx_cmp(r, NFT_REG_1, inside ? NFT_CMP_EQ : NFT_CMP_NEQ, &be, sizeof be);
}

void nfx_forwarded(struct nftnl_rule *r)
{
    uint32_t none = 0;
    nfx_meta(r, NFT_META_IIF, NFT_REG_1);
    nfx_cmp(r, NFT_REG_1, NFT_CMP_NEQ, &none, sizeof none);
}

void nfx_nat4(struct nftnl_rule *r, uint32_t type, uint32_t addr_reg, uint32_t port_reg)
{
    struct nftnl_expr *x = nfx_expr(r, "nat");
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_TYPE, type);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_FAMILY, NFPROTO_IPV4);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_REG_ADDR_MIN, addr_reg);
    if (port_reg)
        nftnl_expr_set_u32(x, NFTNL_EXPR_NAT_REG_PROTO_MIN, port_reg);
}

void nfx_random(struct nftnl_rule *r, uint32_t n, uint32_t offset, uint32_t dreg)
{
    struct nftnl_expr *x = nfx_expr(r, "numgen");
    nftnl_expr_set_u32(x, NFTNL_EXPR_NG_DREG, dreg);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NG_MODULUS, n);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NG_TYPE, NFT_NG_RANDOM);
    nftnl_expr_set_u32(x, NFTNL_EXPR_NG_OFFSET, offset);
}

/* ---- elements ---- */

void nfx_elems_end(struct nfx_elems *es)
{
    if (es->list_)
        mnl_attr_nest_end(es->t->m->cur, es->list_);
    es->list_ = NULL;
    es->n_ = 0;
}

static struct nlmsghdr *elem_start(struct nfx_elems *es, const void *key, uint16_t len, struct nlattr **ret_elem)
{
    if (es->n_ == ELEMS_MAX)
        nfx_elems_end(es);
    if (!es->list_) {
        struct nlmsghdr *n = nfx_put(es->t, es->type, es->type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0, ELEMS_ROOM);
        mnl_attr_put_strz(n, NFTA_SET_ELEM_LIST_TABLE, es->t->table);
        mnl_attr_put_strz(n, NFTA_SET_ELEM_LIST_SET, es->set);
        es->list_ = mnl_attr_nest_start(n, NFTA_SET_ELEM_LIST_ELEMENTS);
    }
    struct nlmsghdr *h = es->t->m->cur;
    es->n_++;
    *ret_elem = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
    struct nlattr *k = mnl_attr_nest_start(h, NFTA_SET_ELEM_KEY);
    mnl_attr_put(h, NFTA_DATA_VALUE, len, key);
    mnl_attr_nest_end(h, k);
    return h;
}

void nfx_elem(struct nfx_elems *es, const void *key, uint16_t key_len, const void *data, uint16_t data_len)
{
    struct nlattr *el;
    struct nlmsghdr *h = elem_start(es, key, key_len, &el);
    if (data) {
        struct nlattr *d = mnl_attr_nest_start(h, NFTA_SET_ELEM_DATA);
        mnl_attr_put(h, NFTA_DATA_VALUE, data_len, data);
        mnl_attr_nest_end(h, d);
    }
    mnl_attr_nest_end(h, el);
}

void nfx_elem_goto(struct nfx_elems *es, const void *key, uint16_t key_len, const char *chain)
{
    struct nlattr *el;
    struct nlmsghdr *h = elem_start(es, key, key_len, &el);
    struct nlattr *d = mnl_attr_nest_start(h, NFTA_SET_ELEM_DATA);
    struct nlattr *v = mnl_attr_nest_start(h, NFTA_DATA_VERDICT);
    mnl_attr_put_u32(h, NFTA_VERDICT_CODE, htonl((uint32_t)NFT_GOTO));
    mnl_attr_put_strz(h, NFTA_VERDICT_CHAIN, chain);
    mnl_attr_nest_end(h, v);
    mnl_attr_nest_end(h, d);
    mnl_attr_nest_end(h, el);
}

/* ---- looking ---- */

bool nfx_ours(const struct nfx *t, const struct nlmsghdr *h)
{
    const struct nfgenmsg *g = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    if (g->nfgen_family != t->family)
        return false;
    for (struct mesh_attrs it = mesh_attrs_of(h, sizeof *g); mesh_attrs_next(&it, &a);)
        if (mnl_attr_get_type(a) == 1) /* the table's name, in every kind of message */
            return mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0 && strcmp(mnl_attr_get_str(a), t->table) == 0;
    return false;
}

struct looking {
    const struct nfx *t;
    const char *comment;
    bool same;
    void *arg;
    nfx_chain_fn *chain_fn;
    nfx_elem_fn *elem_fn;
};

static void table_seen(const struct nlmsghdr *h, void *arg)
{
    struct looking *l = arg;
    struct nftnl_table *x = nftnl_table_alloc();
    uint32_t len = 0;
    CHECK(x != NULL);
    if (nftnl_table_nlmsg_parse(h, x) == 0) {
        const char *u = nftnl_table_get_data(x, NFTNL_TABLE_USERDATA, &len);
        l->same = u && len == strlen(l->comment) + 3 && memcmp(u + 2, l->comment, strlen(l->comment)) == 0 &&
                  (nftnl_table_get_u32(x, NFTNL_TABLE_FLAGS) & NFT_TABLE_F_DORMANT) == 0;
    }
    nftnl_table_free(x);
}

int nfx_look_table(const struct nfx *t, const char *comment, bool *ret_same, struct err *e)
{
    struct looking l = { .t = t, .comment = comment };
    int errnum = 0;
    mnl_attr_put_strz(nfx_put(t, NFT_MSG_GETTABLE, NLM_F_ACK, NFX_ROOM), NFTA_TABLE_NAME, t->table);
    int r = mesh_msg_dump(t->m, "read nftables table", table_seen, &l, &errnum, e);
    *ret_same = r == 0 && l.same;
    return r < 0 && errnum == ENOENT ? 0 : r;
}

/* look - a dump; that the thing is not there is no error. */
static int look(const struct nfx *t, const char *what, mesh_msg_fn *fn, struct looking *l, int *ret_errno,
                struct err *e)
{
    *ret_errno = 0;
    int r = mesh_msg_dump(t->m, what, fn, l, ret_errno, e);
    return r < 0 && *ret_errno == ENOENT ? 0 : r;
}

static void chain_seen(const struct nlmsghdr *h, void *arg)
{
    struct looking *l = arg;
    struct nftnl_chain *c = nftnl_chain_alloc();
    CHECK(c != NULL);
    if (nfx_ours(l->t, h) && nftnl_chain_nlmsg_parse(h, c) == 0)
        l->chain_fn(nftnl_chain_get_str(c, NFTNL_CHAIN_NAME), l->arg);
    nftnl_chain_free(c);
}

int nfx_look_chains(const struct nfx *t, nfx_chain_fn *fn, void *arg, int *ret_errno, struct err *e)
{
    struct looking l = { .t = t, .chain_fn = fn, .arg = arg };
    nfx_put(t, NFT_MSG_GETCHAIN, NLM_F_DUMP, NFX_ROOM);
    return look(t, "read nftables chains", chain_seen, &l, ret_errno, e);
}

static void rule_seen(const struct nlmsghdr *h, void *arg)
{
    struct looking *l = arg;
    struct nftnl_rule *r = nftnl_rule_alloc();
    CHECK(r != NULL);
    if (nfx_ours(l->t, h) && nftnl_rule_nlmsg_parse(h, r) == 0)
        l->chain_fn(nftnl_rule_get_str(r, NFTNL_RULE_CHAIN), l->arg);
    nftnl_rule_free(r);
}

int nfx_look_rules(const struct nfx *t, nfx_chain_fn *fn, void *arg, int *ret_errno, struct err *e)
{
    struct looking l = { .t = t, .chain_fn = fn, .arg = arg };
    mnl_attr_put_strz(nfx_put(t, NFT_MSG_GETRULE, NLM_F_DUMP, NFX_ROOM), NFTA_RULE_TABLE, t->table);
    return look(t, "read nftables rules", rule_seen, &l, ret_errno, e);
}

static int elem_seen(struct nftnl_set_elem *el, void *arg)
{
    struct looking *l = arg;
    struct nfx_elem_seen s = { 0 };
    s.key = nftnl_set_elem_get(el, NFTNL_SET_ELEM_KEY, &s.key_len);
    s.data = nftnl_set_elem_get(el, NFTNL_SET_ELEM_DATA, &s.data_len);
    s.chain = nftnl_set_elem_get_str(el, NFTNL_SET_ELEM_CHAIN);
    l->elem_fn(&s, l->arg);
    return 0;
}

static void elems_seen(const struct nlmsghdr *h, void *arg)
{
    struct nftnl_set *s = nftnl_set_alloc();
    CHECK(s != NULL);
    if (nftnl_set_elems_nlmsg_parse(h, s) == 0)
        nftnl_set_elem_foreach(s, elem_seen, arg);
    nftnl_set_free(s);
}

int nfx_look_elems(const struct nfx *t, const char *set, nfx_elem_fn *fn, void *arg, int *ret_errno, struct err *e)
{
    struct looking l = { .t = t, .elem_fn = fn, .arg = arg };
    struct nlmsghdr *h = nfx_put(t, NFT_MSG_GETSETELEM, NLM_F_DUMP, NFX_ROOM);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, t->table);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set);
    return look(t, "read nftables elements", elems_seen, &l, ret_errno, e);
}

int nfx_watch_open(struct mesh_msg *watch, struct err *e)
{
    int group = NFNLGRP_NFTABLES;
    int r = mesh_msg_open(watch, NETLINK_NETFILTER, e);
    if (r == 0 && mnl_socket_setsockopt(watch->sock, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
        r = err_errno(e, errno, "watch nftables");
    return r;
}

bool nfx_watch_read(struct mesh_msg *watch, uint32_t self, const struct nfx *tables, size_t n)
{
    char in[16384] __attribute__((aligned(8)));
    bool touched = false;
    for (;;) {
        ssize_t len = recv(mnl_socket_get_fd(watch->sock), in, sizeof in, MSG_DONTWAIT);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            return touched || errno == ENOBUFS;
        int left = (int)len;
        for (struct nlmsghdr *h = (struct nlmsghdr *)in; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left))
            for (size_t i = 0; i < n; i++)
                touched |= h->nlmsg_pid != self && h->nlmsg_type >> 8 == NFNL_SUBSYS_NFTABLES &&
                           (h->nlmsg_type & 0xff) != NFT_MSG_NEWGEN && nfx_ours(&tables[i], h);
    }
}

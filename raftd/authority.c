#include "raftd/authority.h"

#include <stdio.h>
#include <string.h>

#include "common/store/layout.h"

const char *const who_name[WHO_COUNT] = {
    [WHO_APID] = "apid",
    [WHO_CAD] = "cad",
    [WHO_ORCHESTRATORD] = "orchestratord",
    [WHO_ALLOCATORD] = "allocatord",
    [WHO_SCHEDULERD] = "schedulerd",
    [WHO_DISPATCHERD] = "dispatcherd",
};

enum { MAY_CREATE = 1, MAY_REMOVE = 2 };

struct right {
    enum who who;
    enum kind kind;
    unsigned may;
    const char *fields; /* that it may change: " A B "; "*": all; NULL: none */
};

static const struct right rights[] = {
    /* What users declare. */
    { WHO_APID, KIND_CLUSTER, 0, " Spec TokenEpoch UnlockKeyEpoch " },
    { WHO_APID, KIND_NODE, MAY_REMOVE, " Spec " },
    { WHO_APID, KIND_SERVICE, MAY_CREATE | MAY_REMOVE,
      " Spec PreviousSpec TaskSpecID PreviousTaskSpecID UpdateStatus JobStatus " },
    { WHO_APID, KIND_TASKSPEC, MAY_CREATE, NULL },
    { WHO_APID, KIND_NETWORK, MAY_CREATE | MAY_REMOVE, " Spec " },
    { WHO_APID, KIND_SECRET, MAY_CREATE | MAY_REMOVE, " Spec " },
    { WHO_APID, KIND_SECRET_DATA, MAY_CREATE | MAY_REMOVE, "*" },
    { WHO_APID, KIND_CONFIG, MAY_CREATE | MAY_REMOVE, " Spec " },
    { WHO_APID, KIND_CREDENTIAL, MAY_CREATE, NULL },
    { WHO_APID, KIND_RESERVATION, MAY_CREATE, NULL },
    /* Identities. */
    { WHO_CAD, KIND_CLUSTER, 0, " RootCA JoinTokens TLSInfo RootRotationInProgress NetworkKeys " },
    { WHO_CAD, KIND_NODE, MAY_CREATE, " Certificate Role " },
    { WHO_CAD, KIND_CREDENTIAL, MAY_CREATE | MAY_REMOVE, "*" },
    /* Desired tasks. */
    { WHO_ORCHESTRATORD, KIND_TASK, MAY_CREATE | MAY_REMOVE, " DesiredState StartNotBefore ReplacesID " },
    { WHO_ORCHESTRATORD, KIND_TASKSPEC, MAY_REMOVE, NULL },
    { WHO_ORCHESTRATORD, KIND_CREDENTIAL, MAY_REMOVE, NULL },
    { WHO_ORCHESTRATORD, KIND_RESERVATION, MAY_REMOVE, NULL },
    { WHO_ORCHESTRATORD, KIND_SERVICE, MAY_REMOVE, " UpdateStatus JobStatus Autoscale " },
    /* Addresses and ports. */
    { WHO_ALLOCATORD, KIND_SERVICE, 0, " Endpoint " },
    { WHO_ALLOCATORD, KIND_NETWORK, 0, " DriverState IPAM State " },
    { WHO_ALLOCATORD, KIND_TASK, 0, " Status Ports NetworksAttachments " },
    { WHO_ALLOCATORD, KIND_RESERVATION, MAY_CREATE | MAY_REMOVE, NULL },
    /* Placement. */
    { WHO_SCHEDULERD, KIND_TASK, 0, " NodeID Status Evict GenericResources " },
    /* What the nodes say. */
    { WHO_DISPATCHERD, KIND_TASK, 0, " Status " },
    { WHO_DISPATCHERD, KIND_SERVICE, 0, " Usage " },
    { WHO_DISPATCHERD, KIND_NODE, 0, " Description Status Liveness DataPathAddr BootID " },
};

unsigned authority_who(const struct authority *a, uid_t uid)
{
    unsigned who = 0;
    for (unsigned i = 0; i < WHO_COUNT; i++)
        if (uid != (uid_t)-1 && a->uid[i] == uid)
            who |= 1u << i;
    return who;
}

const char *authority_names(unsigned who, char buf[128])
{
    size_t n = 0;
    buf[0] = 0;
    for (unsigned i = 0; i < WHO_COUNT; i++)
        if (who & 1u << i)
            n += (size_t)snprintf(buf + n, 128 - n, "%s%s", n ? "+" : "", who_name[i]);
    return buf[0] ? buf : "a stranger";
}

static unsigned who_by_name(struct str name)
{
    for (unsigned i = 0; i < WHO_COUNT; i++)
        if (str_is(name, who_name[i]))
            return 1u << i;
    return 0;
}

unsigned authority_parse(struct str names)
{
    unsigned who = 0;
    while (names.n > 0) {
        const char *plus = memchr(names.p, '+', names.n);
        struct str one = { names.p, plus ? (size_t)(plus - names.p) : names.n };
        unsigned bit = who_by_name(one);
        if (bit == 0)
            return 0;
        who |= bit;
        names = plus ? (struct str){ plus + 1, names.n - one.n - 1 } : (struct str){ NULL, 0 };
    }
    return who;
}

static bool may(unsigned who, enum kind k, unsigned what)
{
    for (size_t i = 0; i < sizeof rights / sizeof *rights; i++)
        if (who & 1u << rights[i].who && rights[i].kind == k && rights[i].may & what)
            return true;
    return false;
}

static bool in_list(const char *list, struct str name)
{
    char word[68];
    if (strcmp(list, "*") == 0)
        return true;
    if (name.n > 64 || memchr(name.p, ' ', name.n) != NULL)
        return false;
    snprintf(word, sizeof word, " " STR_FMT " ", STR_ARG(name));
    return strstr(list, word) != NULL;
}

static bool may_change(unsigned who, enum kind k, struct str field)
{
    for (size_t i = 0; i < sizeof rights / sizeof *rights; i++)
        if (who & 1u << rights[i].who && rights[i].kind == k && rights[i].fields != NULL &&
            in_list(rights[i].fields, field))
            return true;
    return false;
}

static int patch_check(unsigned who, enum kind k, struct str patch, struct err *e)
{
    char names[128];
    struct mp_cursor c = mp_cursor(patch);
    struct mp_val head, key;
    if (mp_next(&c, &head) != 0 || head.type != MP_MAP)
        return err_set(e, ERR_INVALID, "a change of %s is not a map", kind_info[k].name);
    for (size_t i = 0; i < head.n; i++) {
        if (mp_next(&c, &key) != 0 || key.type != MP_STR || mp_skip(&c) != 0)
            return err_set(e, ERR_INVALID, "a change of %s is not a map with text keys", kind_info[k].name);
        if (!may_change(who, k, key.s))
            return err_set(e, ERR_DENIED, "%s may not change %s." STR_FMT, authority_names(who, names),
                           kind_info[k].name, (int)(key.s.n < 64 ? key.s.n : 64), key.s.p);
    }
    return 0;
}

static bool own_turn(unsigned who, struct str id)
{
    size_t n = strlen(STORE_TURN_PREFIX);
    for (unsigned i = 0; i < WHO_COUNT; i++)
        if (who & 1u << i && id.n > n && str_is((struct str){ id.p + n, id.n - n }, who_name[i]))
            return true;
    return false;
}

int authority_check(unsigned who, const struct txn_change *ch, struct err *e)
{
    char names[128];
    enum kind k = kind_by_name(ch->Kind.p, ch->Kind.n);
    char op = ch->Op.p[0];
    if (k == KIND_COUNT)
        return err_set(e, ERR_INVALID, "there is no kind \"" STR_FMT "\"", STR_ARG(ch->Kind));
    if (op == 'u' || op == 'm')
        return patch_check(who, k, ch->Doc, e);
    /* each controller has its own turn, and nobody else's */
    if (k == KIND_RESERVATION && str_starts(ch->ID, STR(STORE_TURN_PREFIX)) && !own_turn(who, ch->ID))
        return err_set(e, ERR_DENIED, "%s may not take the turn of another daemon", authority_names(who, names));
    if (k == KIND_RESERVATION && str_starts(ch->ID, STR(STORE_TURN_PREFIX)))
        return 0;
    if (k == KIND_CREDENTIAL && store_is_cads(ch->ID))
        who &= 1u << WHO_CAD;
    if (may(who, k, op == 'c' ? MAY_CREATE : MAY_REMOVE))
        return 0;
    return err_set(e, ERR_DENIED, "%s may not %s a %s", authority_names(who, names), op == 'c' ? "create" : "remove",
                   kind_info[k].name);
}

/* ---- the automatic rollback ---- */

static bool is_nil(struct str span)
{
    return span.n == 1 && (unsigned char)span.p[0] == 0xc0;
}

static bool same_bytes(struct str a, struct str b)
{
    return a.n == b.n && a.n > 0 && memcmp(a.p, b.p, a.n) == 0;
}

/* A field of the change that puts a service back, and what it must be. */
struct put_back {
    const char *field, *from; /* from: the stored field that it becomes; NULL: it is removed */
    unsigned seen;
};

static bool put_back_right(struct put_back *pb, struct str val, struct str stored)
{
    struct str was;
    pb->seen++;
    if (!pb->from)
        return is_nil(val);
    return mp_find(stored, pb->from, &was) && !is_nil(was) && same_bytes(val, was);
}

static bool puts_back(struct str patch, struct str stored)
{
    struct put_back v[] = { { "Spec", "PreviousSpec", 0 },
                            { "TaskSpecID", "PreviousTaskSpecID", 0 },
                            { "PreviousSpec", NULL, 0 },
                            { "PreviousTaskSpecID", NULL, 0 } };
    size_t n = sizeof v / sizeof *v, k;
    struct mp_cursor c = mp_cursor(patch);
    struct mp_val head, key;
    struct str val;
    if (mp_next(&c, &head) != 0 || head.type != MP_MAP)
        return false;
    for (size_t i = 0; i < head.n; i++) {
        if (mp_next(&c, &key) != 0 || key.type != MP_STR || mp_span(&c, &val) != 0)
            return false;
        for (k = 0; k < n && !str_is(key.s, v[k].field); k++)
            ;
        if (k < n ? !put_back_right(&v[k], val, stored) : !may_change(1u << WHO_ORCHESTRATORD, KIND_SERVICE, key.s))
            return false;
    }
    for (k = 0; k < n; k++)
        if (v[k].seen != 1)
            return false;
    return true;
}

static bool requires_version(const struct entry *en, struct str id, struct str stored)
{
    const struct txn_require *q = en->Requires.v;
    uint64_t version;
    if (!mp_get_u64(stored, "Version.Index", &version))
        return false;
    for (size_t i = 0; i < en->Requires.n; i++)
        if (str_is(q[i].Kind, kind_info[KIND_SERVICE].name) && str_eq(q[i].ID, id) && str_is(q[i].Test, "version") &&
            q[i].Value == version)
            return true;
    return false;
}

static bool rolls_back(unsigned who, const struct entry *en, const struct txn_change *ch, authority_read_fn *read,
                       void *arg)
{
    struct buf stored = BUF_INIT;
    struct err e;
    if (!(who & 1u << WHO_ORCHESTRATORD) || kind_by_name(ch->Kind.p, ch->Kind.n) != KIND_SERVICE ||
        !str_is(ch->Op, "update"))
        return false;
    bool ok = read(arg, KIND_SERVICE, ch->ID, &stored, &e) == 0 && requires_version(en, ch->ID, buf_str(&stored)) &&
              puts_back(ch->Doc, buf_str(&stored));
    buf_done(&stored);
    return ok;
}

int authority_check_txn(unsigned who, const struct entry *en, authority_read_fn *read, void *arg, struct err *e)
{
    const struct txn_change *ch = en->Changes.v;
    for (size_t i = 0; i < en->Changes.n; i++) {
        int r = authority_check(who, &ch[i], e);
        if (r < 0 && !(r == -ERR_DENIED && rolls_back(who, en, &ch[i], read, arg)))
            return r;
    }
    return 0;
}

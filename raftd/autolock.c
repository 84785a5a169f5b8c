/* autolock.c - from the credential in the map to the keys on the disk. */
#include "raftd/autolock.h"

#include "common/proto/mp.h"
#include "common/util/crypto.h"

void autolock_open(struct autolock *a, const struct raft_log *l)
{
    struct raft_log_state st;
    raft_log_state(l, &st);
    *a = (struct autolock){ .due = true, .from = st.last_index };
}

void autolock_touch(struct autolock *a, enum kind kind, struct str id)
{
    if (kind == KIND_CREDENTIAL && str_is(id, STORE_UNLOCK_KEY_ID))
        a->due = true;
}

/* wanted - 1: this key; 0: none; negative: the credential is not one. */
static int wanted(struct sm *sm, struct seal_key *ret, uint64_t *ret_rev, struct err *e)
{
    struct buf doc = BUF_INIT;
    struct str text;
    int r = 0;
    if (sm_get(sm, KIND_CREDENTIAL, STR(STORE_UNLOCK_KEY_ID), &doc, e) == 0) {
        bool ok = !doc.failed && mp_get_str(buf_str(&doc), "Key", &text) && seal_unlock_parse(text, ret) &&
                  mp_get_u64(buf_str(&doc), "Rev", ret_rev) && *ret_rev != 0;
        r = ok ? 1 : err_set(e, ERR_INVALID, "credential " STORE_UNLOCK_KEY_ID ": there is no unlock key in it");
        crypto_wipe(doc.p, doc.n);
    } else if (e->code != ERR_NOT_FOUND) {
        r = -e->code;
    }
    buf_done(&doc);
    return r;
}

int autolock_follow(struct autolock *a, struct sm *sm, const struct raft_log *l, struct err *e)
{
    struct seal_key kek;
    uint64_t rev = 0;
    if (!a->due || sm_applied(sm) < a->from)
        return 0;
    int want = wanted(sm, &kek, &rev, e), r = want < 0 ? want : 0;
    const struct seal_key *k = want == 1 ? &kek : NULL;
    bool done = want == 1 ? seal_keys_wrapped_by(raft_log_dir(l), k) : seal_keys_open(raft_log_dir(l));
    if (want >= 0 && !done)
        r = seal_keys_rewrap(raft_log_dir(l), raft_log_key(l), k, e);
    crypto_wipe(&kek, sizeof kek);
    if (r < 0) {
        a->due = r != -ERR_INVALID; /* that one stays as it is until the credential changes */
        return r;
    }
    a->due = false;
    a->known = true;
    a->epoch = rev;
    return 0;
}

int autolock_unlock(struct raft_log **ret, const char *dir, struct str text, struct err *e)
{
    struct seal_key kek;
    if (!seal_unlock_parse(text, &kek))
        return err_set(e, ERR_DENIED, "invalid key");
    int r = raft_log_open_with(ret, dir, &kek, e);
    crypto_wipe(&kek, sizeof kek);
    return r;
}

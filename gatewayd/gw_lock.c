#include "gatewayd/gw_lock.h"

#include <inttypes.h>

#include "common/proto/msg_cad.h"
#include "common/proto/msg_raftd.h"
#include "gatewayd/gw_shell.h"

#define ASK_MS 5000u
#define RETRY_FIRST_MS 50u
#define RETRY_MAX_MS 5000u
#define UNDECIDED_MS 3000u /* raftd starts, too: this long nobody is told that the node is locked */

static const char wrong_key[] = "invalid key";

static struct {
    struct gw_seal seal; /* of the file, as far as we know it; raftd's part may be fresher than the file */
    bool sealed;         /* the file is */
    bool due, in_flight; /* something is to be looked at; an answer is awaited */
    bool told;           /* raftd has said that it can't open the key */
    uint64_t until_ms;   /* of being undecided */
    uint64_t epoch;      /* of the unlock key that the file is sealed with; 0: not known, or none */
    uint64_t backoff_ms;
    struct gw_seal next; /* what is being put together */
    uint64_t next_epoch;
    struct rpc_call *call; /* an unlock that waits for raftd */
    sd_event_source *timer;
} lock;

const struct gw_seal *gw_lock_seal(void)
{
    return &lock.seal;
}

bool gw_lock_undecided(void)
{
    return gw_ident()->state == GW_LOCKED && !lock.told && gw_now_ms() < lock.until_ms;
}

static void arm(uint64_t at_ms)
{
    (void)sd_event_source_set_time(lock.timer, at_ms * 1000);
    (void)sd_event_source_set_enabled(lock.timer, SD_EVENT_ONESHOT);
}

static void again(void)
{
    lock.in_flight = false;
    lock.due = true;
    lock.backoff_ms = lock.backoff_ms ? lock.backoff_ms * 2 : RETRY_FIRST_MS;
    if (lock.backoff_ms > RETRY_MAX_MS)
        lock.backoff_ms = RETRY_MAX_MS;
    arm(gw_now_ms() + lock.backoff_ms);
}

/* settled - there is nothing to do until somebody calls gw_lock_look(). */
static void settled(void)
{
    gw_seal_done(&lock.next);
    lock.in_flight = false;
    lock.backoff_ms = 0;
    if (lock.due)
        arm(gw_now_ms());
}

static void answer_unlock(const struct err *e)
{
    struct rpc_call *c = lock.call;
    lock.call = NULL;
    if (!c)
        return;
    if (e)
        rpc_fail_err(c, e);
    else
        rpc_reply(c, NULL);
}

/* ---- opening ---- */

/* raftd can't open it (any more than we can): somebody has to type the key in. */
static void stay_locked(void)
{
    struct err e = ERR_INIT;
    if (lock.call && lock.due) { /* asked before the key was typed in */
        settled();
        return;
    }
    if (!lock.told)
        log_warn("this node is locked: the swarm's unlock key is needed");
    lock.told = true;
    settled();
    gw_ident_decided();
    err_set(&e, ERR_DENIED, "%s", wrong_key);
    answer_unlock(&e);
}

static void try_open(void)
{
    struct err e = ERR_INIT;
    int r = gw_ident_open(&lock.seal, &e);
    if (r == -ERR_DENIED) {
        gw_seal_done(&lock.seal);
        stay_locked();
    } else if (r < 0) {
        log_error("the node's key: %s", e.msg);
        gw_seal_done(&lock.seal);
        answer_unlock(&e);
        again();
    } else {
        log_info("the node's key is open");
        answer_unlock(NULL);
        lock.due = true;
        settled();
    }
}

void gw_lock_unlock(struct rpc_call *c, struct str key)
{
    struct err e = ERR_INIT;
    struct gw_seal typed = { .store = "" };
    if (gw_ident()->state != GW_LOCKED) {
        rpc_fail(c, ERR_PRECONDITION, "this node is not locked");
        return;
    }
    if (lock.call) {
        rpc_fail(c, ERR_UNAVAILABLE, "the node is being unlocked already: try again");
        return;
    }
    bool fits = str_copy(typed.unlock, sizeof typed.unlock, key);
    int r = fits ? gw_ident_open(&typed, &e) : -ERR_DENIED;
    if (r == 0) {
        lock.seal = typed;
        log_info("the node's key was opened by the unlock key");
        rpc_reply(c, NULL);
        gw_lock_look();
    } else if (r != -ERR_DENIED) {
        rpc_fail_err(c, &e);
    } else { /* its unlock key may be the one before, when the power went in the middle of a rotation: raftd knows */
        lock.call = c;
        gw_lock_look();
    }
    gw_seal_done(&typed);
}

/* ---- following raftd ---- */

static bool same_seal(const struct gw_seal *a, const struct gw_seal *b)
{
    return strcmp(a->unlock, b->unlock) == 0 && strcmp(a->store, b->store) == 0;
}

/* The file as lock.next says; then nothing more is to be done. */
static void carry_out(void)
{
    struct err e = ERR_INIT;
    bool want = !gw_seal_none(&lock.next);
    if (want != lock.sealed || !same_seal(&lock.seal, &lock.next)) {
        if (gw_ident_reseal(&lock.next, &e) < 0) {
            if (lock.backoff_ms == 0)
                log_warn("sealing the node's key: %s; trying again", e.msg);
            again();
            return;
        }
        log_info(want ? "the node's key is sealed" : "the node's key is not sealed any more");
        gw_seal_done(&lock.seal);
        lock.seal = lock.next;
        lock.sealed = want;
    }
    lock.epoch = lock.next_epoch;
    settled();
}

static void on_unlock_key(void *arg, const void *rep, const struct err *err)
{
    const struct cad_unlock_key_reply *k = rep;
    (void)arg;
    if (gw_ident()->state == GW_LOCKED || gw_ident_role() != RPC_MANAGER) {
        lock.due = true;
        settled();
    } else if (!k || k->Epoch != lock.next_epoch || /* one of the two daemons is a moment ahead */
               !str_copy(lock.next.unlock, sizeof lock.next.unlock, k->Key)) {
        if (!k)
            log_debug("unlock key: %s", err->msg);
        again();
    } else {
        carry_out();
    }
}

static void ask_unlock_key(void)
{
    static const struct cad_empty none;
    struct rpc_client *cad = gw_client(STR("cad"));
    if (!cad)
        again();
    else
        rpc_send(cad, &op_cad_unlock_key, &none, ASK_MS, on_unlock_key, NULL);
}

static void on_node_key(void *arg, const void *rep, const struct err *err)
{
    const struct raftd_node_key_reply *k = rep;
    (void)arg;
    bool locked = gw_ident()->state == GW_LOCKED;
    if (!k && err->code == ERR_PRECONDITION) { /* it is locked, or has no store: it says so when that changes */
        if (locked)
            stay_locked();
        else
            settled();
    } else if (!k) {
        log_debug("node key: %s", err->msg);
        again();
    } else if (locked) {
        (void)str_copy(lock.seal.store, sizeof lock.seal.store, k->Key);
        try_open();
    } else if (gw_ident_role() != RPC_MANAGER) {
        lock.due = true;
        settled();
    } else if (!k->Known) { /* its log is not applied yet */
        again();
    } else {
        gw_seal_done(&lock.next);
        lock.next_epoch = k->Epoch;
        if (k->Epoch == 0) {
            carry_out();
        } else {
            (void)str_copy(lock.next.store, sizeof lock.next.store, k->Key);
            ask_unlock_key();
        }
    }
}

static void look(void)
{
    static const struct raftd_empty none;
    struct rpc_client *raftd;
    if (lock.in_flight || !lock.due)
        return;
    lock.due = false;
    const struct gw_ident *id = gw_ident();
    if (id->state != GW_LOCKED && !id->cred.cert)
        return;
    lock.in_flight = true;
    if (id->state != GW_LOCKED && gw_ident_role() != RPC_MANAGER) { /* workers' keys are never sealed */
        gw_seal_done(&lock.next);
        lock.next_epoch = 0;
        carry_out();
    } else if (!(raftd = gw_client(STR("raftd")))) {
        again();
    } else {
        rpc_send(raftd, &op_raftd_node_key, &none, ASK_MS, on_node_key, NULL);
    }
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    (void)s, (void)usec, (void)arg;
    look();
    return 0;
}

void gw_lock_look(void)
{
    lock.due = true;
    lock.backoff_ms = 0;
    if (!lock.in_flight)
        arm(gw_now_ms());
}

void gw_lock_found(bool sealed)
{
    lock.sealed = sealed;
    lock.until_ms = gw_now_ms() + UNDECIDED_MS;
    gw_lock_look();
}

void gw_lock_forget(void)
{
    struct err e = ERR_INIT;
    gw_seal_done(&lock.seal);
    gw_seal_done(&lock.next);
    lock.sealed = lock.due = lock.told = false;
    lock.epoch = 0;
    err_set(&e, ERR_UNAVAILABLE, "the node was told to leave");
    answer_unlock(&e);
}

void gw_lock_json(struct buf *out)
{
    buf_printf(out, ",\"key_sealed\":%s,\"unlock_key_epoch\":%" PRIu64, lock.sealed ? "true" : "false", lock.epoch);
}

int gw_lock_init(struct err *e)
{
    int r = sd_event_add_time(daemon_loop(), &lock.timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_timer, NULL);
    if (r >= 0)
        r = sd_event_source_set_enabled(lock.timer, SD_EVENT_OFF);
    return r < 0 ? err_errno(e, -r, "event sources") : 0;
}

void gw_lock_done(void)
{
    lock.call = NULL;
    lock.timer = sd_event_source_disable_unref(lock.timer);
    gw_seal_done(&lock.seal);
    gw_seal_done(&lock.next);
}

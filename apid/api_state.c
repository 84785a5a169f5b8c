#include "apid/api_state.h"

#include <stdio.h>

#include "apid/api.h"
#include "common/util/check.h"

#define IDENTITY_WAIT_MS 600000u
#define IDENTITY_GRACE_MS 10000u
#define IDENTITY_RETRY_MS 250u
#define RAFTD_STATUS_TIMEOUT_MS 5000u
#define RAFTD_RETRY_MS 250u
#define STARTING_MS 10000u  /* after that nobody waits for daemons that may never answer */
#define LEADERLESS_MS 5000u /* an election takes one or two seconds, seldom more */

static struct {
    struct arena arena; /* of `id` */
    struct gw_identity_reply id;
    bool known;
    char raftd[24];
    bool asking, ask_again;
    uint64_t revision;      /* at the last turn */
    uint64_t leaderless_ms; /* since when nobody leads; 0: somebody does, or this is no manager */
    uint64_t began_ms;      /* when this apid started */
    struct timer *retry, *retry_raftd;
} state;

/* ---- the decision ---- */

enum swarm_state state_of(const struct state_facts *f)
{
    bool active = f->known && str_is(f->gateway, "active");

    if (str_is(f->raftd, "locked") || (f->known && str_is(f->gateway, "locked")))
        return SWARM_LOCKED;
    if (f->initialized)
        return SWARM_MANAGER;
    if (active && !str_is(f->role, "manager"))
        return SWARM_WORKER;
    if (active) /* raftd may turn out to be locked, or about to open its store: no promise before it has said so */
        return str_is(f->raftd, "uninitialized") || str_is(f->raftd, "joining") ? SWARM_STARTING : SWARM_BOOTING;
    if (f->known && str_is(f->gateway, "pending"))
        return SWARM_PENDING;
    if (f->known && str_is(f->gateway, "error"))
        return SWARM_ERROR;
    return f->known ? SWARM_INACTIVE : SWARM_BOOTING; /* without gatewayd's word it may well be a worker */
}

enum swarm_state state_now(void)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;
    struct store_meta meta = { .initialized = false };
    struct state_facts f = {
        .known = state.known, .gateway = state.id.State, .role = state.id.Role, .raftd = str_from(state.raftd)
    };

    if (store_begin(api.store, &snap, &e) == 0 && store_meta(snap, &meta, &e) == 0)
        f.initialized = meta.initialized;
    return state_of(&f);
}

/* raftd's word counts for a manager only: elsewhere it has nothing to tell. */
static bool told(void)
{
    bool manager = str_is(state.id.State, "active") && str_is(state.id.Role, "manager");

    return state.known && (!manager || state.raftd[0] || state_now() == SWARM_MANAGER);
}

bool state_settled(void)
{
    return told() || clock_mono().ms - state.began_ms > STARTING_MS;
}

bool state_locked(void)
{
    return strcmp(state.raftd, "locked") == 0 || str_is(state.id.State, "locked");
}

const char *state_name(enum swarm_state s)
{
    static const char *const names[] = {
        [SWARM_INACTIVE] = "inactive", [SWARM_PENDING] = "pending", [SWARM_ERROR] = "error",
        [SWARM_LOCKED] = "locked",     [SWARM_WORKER] = "active",   [SWARM_BOOTING] = "pending",
        [SWARM_STARTING] = "active",   [SWARM_MANAGER] = "active"
    };
    return names[s];
}

const struct gw_identity_reply *state_identity(void)
{
    return &state.id;
}

/* ---- gatewayd: one long poll ---- */

static void ask_gatewayd(void *arg);

static struct str keep(struct str s)
{
    return s.n > 0 ? arena_str(&state.arena, s) : (struct str){ NULL, 0 };
}

static void keep_identity(const struct gw_identity_reply *in)
{
    struct gw_identity_reply id = *in;

    arena_reset(&state.arena);
    id.State = keep(in->State);
    id.Error = keep(in->Error);
    id.NodeID = keep(in->NodeID);
    id.ClusterID = keep(in->ClusterID);
    id.Role = keep(in->Role);
    id.ListenAddr = keep(in->ListenAddr);
    id.AdvertiseAddr = keep(in->AdvertiseAddr);
    id.DataPathAddr = keep(in->DataPathAddr);
    id.TrustRoot = keep(in->TrustRoot);
    id.CertIssuerSubject = keep(in->CertIssuerSubject);
    id.CertIssuerPublicKey = keep(in->CertIssuerPublicKey);
    struct gw_manager *m = arena_alloc(&state.arena, (in->Managers.n + 1) * sizeof *m);
    CHECK(m);
    for (size_t i = 0; i < in->Managers.n; i++) {
        const struct gw_manager *x = &((const struct gw_manager *)in->Managers.v)[i];
        m[i] = (struct gw_manager){ keep(x->NodeID), keep(x->Addr) };
    }
    id.Managers.v = m;
    state.id = id;
    state.known = true;
}

static void on_identity(void *arg, const void *rep, const struct err *e)
{
    (void)arg;
    if (e->code == 0) {
        keep_identity(rep);
        if (!state_settled())
            state_ask_raftd();
        api_wake_all();
        ask_gatewayd(NULL);
        return;
    }
    state.id.Seq = 0; /* it starts over, and its numbers do, too */
    timer_arm(state.retry, clock_mono().ms + IDENTITY_RETRY_MS);
}

static void ask_gatewayd(void *arg)
{
    struct gw_identity in = { .Seq = state.id.Seq, .WaitMs = state.id.Seq ? IDENTITY_WAIT_MS : 0 };

    (void)arg;
    rpc_send(api.gatewayd, &op_gw_identity, &in, IDENTITY_WAIT_MS + IDENTITY_GRACE_MS, on_identity, NULL);
}

/* ---- raftd ---- */

static void on_raftd(void *arg, const void *rep, const struct err *e)
{
    char before[sizeof state.raftd];

    (void)arg;
    memcpy(before, state.raftd, sizeof before);
    state.asking = false;
    if (e->code != 0 || !str_copy(state.raftd, sizeof state.raftd, ((const struct raftd_status *)rep)->State))
        state.raftd[0] = '\0';
    if (strcmp(before, state.raftd) != 0)
        api_wake_all();
    if (state.ask_again)
        state_ask_raftd();
    else if (!state_settled())
        timer_arm(state.retry_raftd, clock_mono().ms + RAFTD_RETRY_MS);
}

void state_ask_raftd(void)
{
    static const struct raftd_empty none;

    state.ask_again = state.asking;
    if (state.asking)
        return;
    state.asking = true;
    rpc_send(api.raftd, &op_raftd_status, &none, RAFTD_STATUS_TIMEOUT_MS, on_raftd, NULL);
}

static void ask_raftd_again(void *arg)
{
    (void)arg;
    if (!state_settled())
        state_ask_raftd();
}

static void look(struct store_meta *ret, bool *ret_readable)
{
    _cleanup_(store_endp) struct store_snap *snap = NULL;
    struct err e = ERR_INIT;

    *ret = (struct store_meta){ .initialized = false };
    *ret_readable = store_begin(api.store, &snap, &e) == 0 && store_meta(snap, ret, &e) == 0;
    if (!*ret_readable || !ret->initialized || ret->leader_id.n > 0)
        state.leaderless_ms = 0;
    else if (state.leaderless_ms == 0)
        state.leaderless_ms = clock_mono().ms;
}

/* A wake-up without a new revision: raftd started, was opened, or has another role. */
void state_turn(void)
{
    struct store_meta meta;
    bool readable;

    look(&meta, &readable);
    if (!readable || !meta.initialized || meta.revision == state.revision)
        state_ask_raftd();
    state.revision = meta.revision;
}

bool state_leaderless(void)
{
    struct store_meta meta;
    bool readable;

    if (state.leaderless_ms == 0 || clock_mono().ms - state.leaderless_ms <= LEADERLESS_MS)
        return false;
    look(&meta, &readable); /* the map may be ahead of the wake-up that tells of it */
    return state.leaderless_ms != 0;
}

int state_open(struct err *e)
{
    state.began_ms = clock_mono().ms;
    arena_init(&state.arena, 1u << 20);
    int r = timer_open(&state.retry, ask_gatewayd, NULL, e);

    if (r == 0)
        r = timer_open(&state.retry_raftd, ask_raftd_again, NULL, e);
    if (r == 0)
        ask_gatewayd(NULL);
    return r;
}

void state_close(void)
{
    state.retry = timer_free(state.retry);
    state.retry_raftd = timer_free(state.retry_raftd);
    arena_done(&state.arena);
    state.id = (struct gw_identity_reply){ .Seq = 0 };
}

/* swarm_managers.c - raftd and the controllers of each manager. */
#include "tests/sim/swarm_world.h"

static const enum who who_of[CONTROLLERS] = { WHO_ORCHESTRATORD, WHO_ALLOCATORD, WHO_SCHEDULERD, WHO_DISPATCHERD };

/* goes_back - desired states only go up. */
static bool goes_back(const struct txn_change *ch)
{
    struct buf doc = BUF_INIT;
    struct str was, will;
    struct err e;
    bool back = false;
    if (str_is(ch->Kind, "task") && (str_is(ch->Op, "merge") || str_is(ch->Op, "update")) &&
        mp_get_str(ch->Doc, "DesiredState", &will) && sm_get(leader()->sm, KIND_TASK, ch->ID, &doc, &e) == 0 &&
        mp_get_str(buf_str(&doc), "DesiredState", &was))
        back = task_state_parse(will) < task_state_parse(was);
    buf_done(&doc);
    return back;
}

/* follow - a manager applies what is committed. Returns the revision and result of the last entry. */
uint64_t follow(struct manager *m, struct err *result)
{
    uint64_t revision = 0, done = sm_applied(m->sm);
    struct err e = ERR_INIT;
    if (done == sim.nlog)
        return 0;
    CHECK(sm_begin(m->sm, &e) == 0);
    for (uint64_t i = done; i < sim.nlog; i++) {
        struct raft_log_entry le = {
            .index = i + 1, .term = sim.log[i].term, .type = RAFT_ENTRY_DATA, .data = buf_str(&sim.log[i].bytes)
        };
        *result = (struct err)ERR_INIT;
        CHECK(sm_apply(m->sm, &le, result, &revision, &e) == 0);
    }
    CHECK(sm_commit(m->sm, &e) == 0);
    for (unsigned i = 0; i < CONTROLLERS; i++)
        if (m->life[i].c)
            schedule(sim.now + (int64_t)below(300000), EV_TURN, who_is(m, i), m->life[i].gen, NULL);
    return revision;
}

static int read_stored(void *arg, enum kind kind, struct str id, struct buf *out, struct err *e)
{
    (void)arg;
    return sm_get(leader()->sm, kind, id, out, e);
}

/* apply - as raftd does with an entry once it is committed: the leader at once, the others a little later. */
uint64_t apply(unsigned who, struct list requires, struct list changes, uint64_t term, struct err *result)
{
    struct entry en = { .At = sim.now, .By = STR("sim"), .Term = term, .Requires = requires, .Changes = changes };
    struct err e = ERR_INIT;
    bool back = false;
    *result = (struct err)ERR_INIT;
    if (entry_check(&en, &e) != 0) {
        printf("refused: %s\n", e.msg);
        CHECK(!"a sound transaction");
    }
    if (authority_check_txn(who, &en, read_stored, NULL, &e) != 0) {
        if (who == 1u << WHO_ORCHESTRATORD &&
            strstr(e.msg, "service.Spec")) { /* a rollback of what has changed since */
            err_set(result, ERR_CONFLICT, "%s", e.msg);
            sim.conflicts++;
            return 0;
        }
        printf("refused: %s\n", e.msg);
        CHECK(!"an authorized transaction");
    }
    const struct txn_change *ch = changes.v;
    for (size_t i = 0; i < changes.n; i++)
        back |= goes_back(&ch[i]);
    if (sim.nlog == sim.cap_log) {
        sim.cap_log = sim.cap_log ? sim.cap_log * 2 : 1024;
        sim.log = reallocarray(sim.log, sim.cap_log, sizeof *sim.log);
        CHECK(sim.log != NULL);
    }
    sim.log[sim.nlog] = (struct logged){ .term = sim.term };
    entry_encode(&en, &sim.log[sim.nlog++].bytes);
    uint64_t revision = follow(leader(), result);
    CHECK(!back || result->code != 0);
    for (unsigned i = 0; i < MANAGERS; i++)
        if (i != sim.leader && sim.managers[i].up)
            schedule(sim.now + (int64_t)below(30 * MS), EV_FOLLOW, i, sim.managers[i].gen, NULL);
    sim.txns++;
    sim.conflicts += result->code != 0;
    sim.applied_changes += changes.n;
    if (result->code != 0 && result->code != ERR_CONFLICT && result->code != ERR_NOT_FOUND) {
        printf("failed: %s\n", result->msg);
        CHECK(!"only lost races");
    }
    check_step();
    if (result->code == 0 && who == 1u << WHO_ORCHESTRATORD)
        check_orders(changes);
    return revision;
}

/* ---- controllers ---- */

static struct wall_ns io_now(void *arg)
{
    (void)arg;
    return (struct wall_ns){ sim.now };
}

static void io_send(void *arg, struct txn *txn, rpc_done_fn *done, void *done_arg)
{
    struct controller_life *l = arg;
    struct raftd_txn req = { .Term = txn->term,
                             .Requires = { txn->req, txn->nreq },
                             .Changes = { txn->chg, txn->nchg } };
    struct request *r = calloc(1, sizeof *r);
    CHECK(r != NULL && !txn->failed);
    fields_encode(&req, op_raftd_txn.req, &r->bytes);
    CHECK(!r->bytes.failed);
    *r = (struct request){ .from = l->who, .gen = l->gen, .bytes = r->bytes, .done = done, .done_arg = done_arg };
    int64_t way = sim.faults && chance(15) ? LATE_MS * MS : 2 * MS;
    schedule(sim.now + 200000 + (int64_t)below((uint64_t)way), EV_APPLY, l->who, 0, r);
}

static void io_arm(void *arg, int64_t at_ns)
{
    struct controller_life *l = arg;
    l->arm_gen++;
    if (at_ns != CONTROLLER_NEVER)
        schedule(at_ns > sim.now + 50000 ? at_ns : sim.now + 50000, EV_DUE, l->who, l->arm_gen, NULL);
}

static void io_kick(void *arg)
{
    struct controller_life *l = arg;
    schedule(sim.now, EV_TURN, l->who, l->gen, NULL);
}

void start_controller(unsigned who)
{
    static const struct controller_ops *const ops[CONTROLLERS] = { &orch_ops, &alloc_ops, &sched_ops, &disp_ops };
    struct manager *m = manager_of(who);
    unsigned i = who % CONTROLLERS;
    void *arg[CONTROLLERS] = { &m->orch, &m->alloc, &m->sched, &m->disp };
    struct controller_io io = { &m->life[i], io_now, io_send, io_arm, io_kick };
    m->life[i].gen++;
    m->life[i].who = who;
    if (i == ORCH) {
        orch_init(&m->orch);
        m->orch.new_id = make_id_for;
    } else if (i == ALLOC) {
        alloc_init(&m->alloc);
    } else if (i == SCHED) {
        sched_keeper_init(&m->sched);
    } else {
        disp_keeper_init(&m->disp, &sim_disp_calls);
        m->disp.orphan_after_ns = 10 * SECOND;
        m->disp.net.drain_wait_ms = sim.patient ? 3600000 : 2000;
        m->disp.flap = (struct disp_flap_conf){ 2, 60 * SECOND, 3 * SECOND, 12 * SECOND };
    }
    m->life[i].c = controller_new(m->store, &io, ops[i], arg[i]);
    if (i == DISP)
        m->disp.controller = m->life[i].c;
    schedule(sim.now, EV_TURN, who, m->life[i].gen, NULL);
}

void kill_controller(unsigned who)
{
    struct manager *m = manager_of(who);
    unsigned i = who % CONTROLLERS;
    sim.kills++;
    m->life[i].gen++;
    m->life[i].arm_gen++;
    m->life[i].c = controller_free(m->life[i].c);
    if (i == ORCH)
        orch_done(&m->orch);
    else if (i == ALLOC)
        alloc_done(&m->alloc);
    else if (i == SCHED)
        sched_keeper_done(&m->sched);
    else
        disp_keeper_done(&m->disp);
    if (i == DISP)
        fail_calls(who / CONTROLLERS);
    if (m->up)
        schedule(sim.now + (int64_t)below(200 * MS), EV_START, who, m->life[i].gen, NULL);
}

/* ---- managers ---- */

void set_role(struct manager *m, uint64_t term, bool leads)
{
    struct err e;
    CHECK(sm_set_role(m->sm, term, leads, leader()->dir + strlen(leader()->dir) - 6, &e) == 0);
    for (unsigned i = 0; i < CONTROLLERS; i++)
        if (m->life[i].c)
            schedule(sim.now + (int64_t)below(300000), EV_TURN, who_is(m, i), m->life[i].gen, NULL);
}

/* take_over - the new leader has all that is committed; the one before may not know for a while that it is none. */
void take_over(unsigned next)
{
    unsigned before = sim.leader;
    struct err result;
    sim.takeovers++;
    sim.term++;
    sim.leader = next;
    (void)follow(leader(), &result);
    set_role(leader(), sim.term, true);
    if (before != next && sim.managers[before].up)
        schedule(sim.now + (int64_t)below(500 * MS), EV_DEPOSED, before, sim.managers[before].gen, NULL);
}

unsigned another_manager(void)
{
    unsigned n = 0, pick = 0;
    for (unsigned i = 0; i < MANAGERS; i++)
        if (i != sim.leader && sim.managers[i].up && below(++n) == 0)
            pick = i;
    return n ? pick : sim.leader;
}

void switch_manager_off(unsigned i)
{
    struct manager *m = &sim.managers[i];
    unsigned up = 0;
    for (unsigned k = 0; k < MANAGERS; k++)
        up += sim.managers[k].up;
    if (up * 2 <= MANAGERS + 1)
        return; /* a majority stays */
    m->up = false;
    m->gen++;
    if (sim.leader == i)
        take_over(another_manager());
    for (unsigned k = 0; k < CONTROLLERS; k++)
        if (m->life[k].c)
            kill_controller(who_is(m, k));
    set_role(m, sim.term, false);
    schedule(sim.now + (int64_t)below(10) * SECOND, EV_MANAGER, i, m->gen, NULL);
}

void boot_manager(unsigned i)
{
    struct manager *m = &sim.managers[i];
    struct err result;
    m->up = true;
    m->gen++;
    (void)follow(m, &result);
    set_role(m, sim.term, false);
    for (unsigned k = 0; k < CONTROLLERS; k++)
        start_controller(who_is(m, k));
}

void on_apply(struct request *r)
{
    struct raftd_txn req;
    struct arena a;
    struct err e;
    arena_init(&a, 256u << 20);
    if (sim.faults && chance(2)) { /* never arrived */
        err_set(&r->result, ERR_UNAVAILABLE, "lost");
    } else {
        CHECK(fields_decode(&req, op_raftd_txn.req, sizeof req, buf_str(&r->bytes), FIELDS_STRICT, &a, &e) == 0);
        sim.late += life_of(r->from)->gen != r->gen;
        r->revision = apply(1u << who_of[r->from % CONTROLLERS], req.Requires, req.Changes, req.Term, &r->result);
        if (sim.faults && chance(2)) /* applied, and nobody hears of it */
            err_set(&r->result, ERR_TIMEOUT, "no answer; outcome unknown");
    }
    arena_done(&a);
    schedule(sim.now + (int64_t)below(MS), EV_REPLY, r->from, r->gen, r);
}

void on_reply(struct request *r)
{
    struct raftd_txn_reply rep = { r->revision };
    if (life_of(r->from)->gen == r->gen)
        r->done(r->done_arg, r->result.code ? NULL : &rep, &r->result);
    buf_done(&r->bytes);
    free(r);
}

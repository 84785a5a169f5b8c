/*
 * swarm_sim - the controllers of several managers with agents of several nodes, in one process and in simulated time.
 *
 * Real: the four controllers with their loop on each manager, raftd's state machine and authority table, the store
 * library, dispatcherd's answers. Simulated: time, the log, messages, agents and their containers, users. Faults:
 * controllers killed at any moment with a transaction under way, that arrives long after their successor began;
 * transactions lost or applied without an answer; leader changes, where the old leader notices late and the new one's
 * map was behind; managers switched off; agents restarted or cut off from all managers, nodes switched off for a while,
 * with and without gatewayd's hint; drained, paused and removed nodes; containers that fail. After each transaction
 * invariants are checked; in the end, when faults have stopped, the swarm must become exactly what was declared.
 *
 *   swarm_sim [SEED [RUNS]]     a failure prints the seed that replays it
 */
#include "tests/sim/swarm_world.h"

static void open_manager(unsigned i)
{
    struct raft_log_identity id = { .cluster_id = "simulatedcluster", .node_id = "simulatednode", .id = 1 };
    struct manager *m = &sim.managers[i];
    struct sm_conf conf = { .run_dir = m->dir, .secret_gid = (gid_t)-1, .map_bytes = 64ull << 20 };
    struct err why = ERR_INIT, e = ERR_INIT;
    bool fresh;
    snprintf(m->dir, sizeof m->dir, "/dev/shm/swarm-sim-XXXXXX");
    CHECK(mkdtemp(m->dir) != NULL);
    m->tick_at = INT64_MAX;
    if (sm_open(&m->sm, &conf, &id, 1, UINT64_MAX, &fresh, &why, &e) != 0 || sm_publish(m->sm, &e) != 0 ||
        store_open(&m->store, m->dir, true, &e) != 0) {
        printf("%s\n", e.msg);
        exit(1);
    }
}

static void begin(uint64_t seed)
{
    sim = (struct sim){ .seed = seed,
                        .patient = seed % 2 == 0,
                        .calm = seed % 3 == 0,
                        .rng = seed,
                        .now = 1700000000ll * SECOND,
                        .faults = true,
                        .term = 1 };
    for (unsigned i = 0; i < MANAGERS; i++)
        open_manager(i);
    for (unsigned i = 0; i < MANAGERS; i++)
        boot_manager(i);
    take_over(0);
    create_network(sim.ingress, NULL, false, true);
    for (unsigned i = 0; i < NODES; i++) {
        table_init(&sim.agents[i].tasks, sizeof(struct task_life));
        model_init(&sim.agents[i].mesh);
        join(i);
        restart_agent(i);
    }
    schedule(sim.now, EV_USER, 0, 0, NULL);
    schedule(sim.now + SECOND, EV_FAULT, 0, 0, NULL);
}

static void close_manager(unsigned i)
{
    struct manager *m = &sim.managers[i];
    char cmd[128];
    m->up = false;
    for (unsigned k = 0; k < CONTROLLERS; k++)
        if (m->life[k].c)
            kill_controller(who_is(m, k));
    store_close(m->store);
    sm_close(m->sm);
    snprintf(cmd, sizeof cmd, "rm -rf %s", m->dir);
    CHECK(system(cmd) == 0);
}

static void end(void)
{
    for (unsigned i = 0; i < MANAGERS; i++)
        close_manager(i);
    while (sim.n) {
        struct event e = next_event();
        if (e.type == EV_TASK)
            free(e.p);
        if (e.type == EV_APPLY || e.type == EV_REPLY) {
            buf_done(&((struct request *)e.p)->bytes);
            free(e.p);
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        table_done(&sim.agents[i].tasks);
        model_done(&sim.agents[i].mesh);
        buf_done(&sim.agents[i].answer);
    }
    for (size_t i = 0; i < sim.nlog; i++)
        buf_done(&sim.log[i].bytes);
    free(sim.log);
    free(sim.heap);
}

static void heal(void)
{
    sim.faults = false; /* liveness: from here on nothing breaks any more */
    for (unsigned i = 0; i < MANAGERS; i++)
        if (!sim.managers[i].up)
            boot_manager(i);
    for (unsigned i = 0; i < NODES; i++) {
        heal_agent(i);
        if (sim.agents[i].gone)
            join(i);
        restart_agent(i);
        if (strcmp(sim.availability[i], "active") != 0)
            set_availability(i, "active");
    }
    for (unsigned i = 0; i < 2; i++) /* all that is declared fits */
        if (!sim.agents[i].zone)
            sim.agents[i].zone = true, set_availability(i, "active");
    for (unsigned i = 0; i < SERVICES_MAX; i++) /* a last storm, with nothing after it that would hide what it left */
        if (sim.services[i].id[0]) {
            user_change("delete", KIND_SERVICE, str_from(sim.services[i].id), NULL);
            declare(&sim.services[i]);
        }
}

/* settle - until all is as it should be; what is not, when it is still so after ten minutes. */
static const char *settle(const char *(*look)(void))
{
    const char *what = "nothing was checked";
    int64_t last = sim.now + 600 * SECOND;
    for (int64_t at = sim.now; what && sim.now < last; at += SECOND) {
        while (sim.now < at)
            step();
        what = look();
    }
    return what;
}

/* update - every service that runs something, at once. */
static void update(bool bad)
{
    for (unsigned i = 0; i < SERVICES_MAX; i++) {
        struct declared *d = &sim.services[i];
        if (d->id[0] && !is_job(d) && (d->mode == GLOBAL || d->replicas))
            redeclare(d, true, bad);
    }
}

static bool run(uint64_t seed, int64_t seconds)
{
    printf("swarm_sim: seed %" PRIu64 "\n", seed);
    fflush(stdout);
    begin(seed);
    int64_t healed = sim.now + seconds * SECOND;
    while (sim.now < healed)
        step();
    heal();
    const char *what = settle(wrong);
    double converged = (double)(sim.now - healed) / (double)SECOND;
    if (!what) { /* an update that fails ends as declared, and a good one mends what it left */
        update(true);
        what = settle(unfinished);
    }
    if (!what) {
        update(false);
        what = settle(wrong);
    }
    printf("swarm_sim: seed %" PRIu64 ": %s; %" PRIu64 " transactions with %" PRIu64 " changes, %" PRIu64
           " conflicts, %" PRIu64 " late; %" PRIu64 " kills, %" PRIu64 " take-overs, %" PRIu64 " cuts, %" PRIu64
           " power-offs, %" PRIu64 " removals; %" PRIu64 " answers about networks, %" PRIu64
           " drained; converged after %.1f s\n",
           seed, what ? what : "ok", sim.txns, sim.applied_changes, sim.conflicts, sim.late, sim.kills, sim.takeovers,
           sim.cuts, sim.offs, sim.removals, sim.told, sim.drained, converged);
    if (what && sim.why[0])
        printf("%s\n", sim.why);
    end();
    return what == NULL;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    unsigned runs = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : argc > 1 ? 1 : 10;
    if (argc <= 1)
        random_bytes(&seed, sizeof seed / 2);
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_init("swarm_sim");
    log_set_level("error");
    for (unsigned i = 0; i < runs; i++)
        if (!run(seed + i, 120))
            return 1;
    return 0;
}

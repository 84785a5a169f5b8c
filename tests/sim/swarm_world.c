/* swarm_world.c - chance, time, and what happens next. */
#include "tests/sim/swarm_world.h"

struct sim sim;

static uint64_t draw(void)
{
    uint64_t z = (sim.rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint64_t below(uint64_t n)
{
    return draw() % n;
}

bool chance(unsigned percent)
{
    return below(100) < percent;
}

void make_id(char id[ID_SIZE])
{
    uint8_t bytes[17];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)draw();
    id_from_bytes(bytes, id);
}

void make_id_for(void *arg, char id[ID_SIZE])
{
    (void)arg;
    make_id(id);
}

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void swap(size_t i, size_t j)
{
    struct event e = sim.heap[i];
    sim.heap[i] = sim.heap[j];
    sim.heap[j] = e;
}

void schedule(int64_t at, enum event_type type, unsigned who, uint64_t gen, void *p)
{
    if (sim.n == sim.cap) {
        sim.cap = sim.cap ? sim.cap * 2 : 256;
        sim.heap = reallocarray(sim.heap, sim.cap, sizeof *sim.heap);
        CHECK(sim.heap != NULL);
    }
    size_t i = sim.n++;
    sim.heap[i] = (struct event){ at > sim.now ? at : sim.now, sim.seq++, type, who, gen, p };
    for (; i > 0 && sooner(&sim.heap[i], &sim.heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(i, (i - 1) / 2);
}

struct event next_event(void)
{
    CHECK(sim.n > 0);
    struct event e = sim.heap[0];
    sim.heap[0] = sim.heap[--sim.n];
    for (size_t i = 0, best;; i = best) {
        best = i;
        for (size_t c = 2 * i + 1; c <= 2 * i + 2 && c < sim.n; c++)
            if (sooner(&sim.heap[c], &sim.heap[best]))
                best = c;
        if (best == i)
            return e;
        swap(i, best);
    }
}

static void watch_dispatchers(void)
{
    for (unsigned i = 0; i < MANAGERS; i++) {
        struct manager *m = &sim.managers[i];
        uint64_t next = m->life[DISP].c ? disp_due(&m->disp) : DISP_NEVER;
        if (next != DISP_NEVER && (int64_t)next * MS < m->tick_at) {
            m->tick_at = (int64_t)next * MS;
            schedule(m->tick_at, EV_TICK, i, 0, NULL);
        }
        if (m->life[DISP].c && (sim.seq & 63) == 0)
            disp_check(&m->disp.core);
        if (m->life[DISP].c && (sim.seq & 63) == 0)
            dnet_check(&m->disp.net);
    }
}

void step(void)
{
    struct event e = next_event();
    struct err result;
    CHECK(e.at >= sim.now);
    sim.now = e.at;
    switch (e.type) {
    case EV_TURN:
        if (life_of(e.who)->c && life_of(e.who)->gen == e.gen)
            controller_turn(life_of(e.who)->c);
        break;
    case EV_DUE:
        if (life_of(e.who)->c && life_of(e.who)->arm_gen == e.gen)
            controller_due(life_of(e.who)->c);
        break;
    case EV_APPLY:
        on_apply(e.p);
        break;
    case EV_REPLY:
        on_reply(e.p);
        break;
    case EV_FOLLOW:
        if (sim.managers[e.who].gen == e.gen)
            (void)follow(&sim.managers[e.who], &result);
        break;
    case EV_DEPOSED:
        if (sim.managers[e.who].gen == e.gen && sim.leader != e.who)
            set_role(&sim.managers[e.who], sim.term, false);
        break;
    case EV_MANAGER:
        if (sim.managers[e.who].gen == e.gen)
            boot_manager(e.who);
        break;
    case EV_LINK:
        on_link(e.who, (unsigned)((uintptr_t)e.p / 2), (uintptr_t)e.p & 1);
        break;
    case EV_CONFIRM:
        if (sim.managers[e.who].life[DISP].c && sim.managers[e.who].life[DISP].gen == e.gen)
            disp_confirmed(&sim.managers[e.who].disp, (uintptr_t)e.p,
                           e.who == sim.leader && !(sim.faults && chance(10)));
        break;
    case EV_HEAL:
        heal_agent(e.who);
        break;
    case EV_START:
        if (!life_of(e.who)->c && life_of(e.who)->gen == e.gen && manager_of(e.who)->up)
            start_controller(e.who);
        break;
    case EV_MESH:
        if (sim.agents[e.who].up && sim.agents[e.who].mesh_gen == e.gen)
            mesh_turn(e.who);
        break;
    case EV_AGENT:
        if (sim.agents[e.who].gen == e.gen)
            agent_turn(e.who);
        break;
    case EV_TASK:
        task_turn(e.who, str_from(e.p), e.gen);
        free(e.p);
        break;
    case EV_BOOT:
        if (!sim.agents[e.who].up && sim.agents[e.who].gen == e.gen)
            restart_agent(e.who);
        break;
    case EV_TICK:
        sim.managers[e.who].tick_at = INT64_MAX;
        if (sim.managers[e.who].life[DISP].c)
            disp_tick(&sim.managers[e.who].disp);
        break;
    case EV_FAULT:
        if (sim.faults) {
            fault();
            schedule(sim.now + (int64_t)below(3 * SECOND), EV_FAULT, 0, 0, NULL);
        }
        break;
    case EV_USER:
        if (sim.faults) {
            user_acts();
            schedule(sim.now + (int64_t)below(chance(50) ? 5 * MS : 2 * SECOND), EV_USER, 0, 0, NULL);
        }
        break;
    }
    watch_dispatchers();
}

/*
 * sched_bench.c - how fast the core places tasks: one JSON line a figure.
 *
 * The floors are SwarmKit's own benchmark (performance.md §3): 18,515 a second for the tasks of one service on 1,000
 * nodes, 120 a second for one-off tasks on 100,000 nodes. Beside them: putting the same tasks into the mirror, which no
 * scheduler can avoid, and the mirror's memory.
 *
 * Processor time, not wall time: the machine is shared.
 */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/util/check.h"
#include "schedulerd/sched_core.h"

#define BATCH 20000u /* decisions in one pass, as the daemon's transactions */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t heap_bytes(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static void put_labels(struct buf *b, unsigned i)
{
    char zone[16], rack[16];
    snprintf(zone, sizeof zone, "z%u", i % 3);
    snprintf(rack, sizeof rack, "r%u", i % 300);
    mp_cstr(b, "Labels");
    mp_map(b, 3);
    mp_kv_cstr(b, "zone", zone);
    mp_kv_cstr(b, "rack", rack);
    mp_kv_cstr(b, "disk", i % 4 ? "ssd" : "hdd");
}

static void put_node(struct sched *s, unsigned i)
{
    struct buf b = BUF_INIT;
    struct err e;
    char id[32];
    snprintf(id, sizeof id, "n%024u", i);
    mp_map(&b, 4);
    mp_kv_cstr(&b, "ID", id);
    mp_cstr(&b, "Spec");
    mp_map(&b, 1);
    put_labels(&b, i);
    mp_cstr(&b, "Status");
    mp_map(&b, 1);
    mp_kv_cstr(&b, "State", "ready");
    mp_cstr(&b, "Description");
    mp_map(&b, 1);
    mp_cstr(&b, "Resources");
    mp_map(&b, 2);
    mp_kv_i64(&b, "NanoCPUs", 64000000000ll);
    mp_kv_i64(&b, "MemoryBytes", 256ll << 30);
    CHECK(sched_put_node(s, buf_str(&b), &e) == 0);
    buf_done(&b);
}

struct run {
    unsigned nodes, tasks;
    bool constraints, spread, one_off, pinned;
    double put_s, place_s;
    size_t node_bytes, task_bytes;
};

/* pinned: each task names its node. */
static void put_placement(struct buf *b, const struct run *r, unsigned number)
{
    static const char *const levels[] = { "node.labels.zone", "node.labels.rack" };
    bool constraints = r->constraints || r->pinned, spread = r->spread;
    char pin[64];
    snprintf(pin, sizeof pin, "node.id==n%024u", number % r->nodes);
    mp_cstr(b, "Placement");
    mp_map(b, (size_t)constraints + spread);
    if (constraints) {
        mp_cstr(b, "Constraints");
        mp_array(b, 2);
        mp_cstr(b, r->pinned ? pin : "node.labels.disk==ssd");
        mp_cstr(b, "node.labels.zone!=z9");
    }
    if (!spread)
        return;
    mp_cstr(b, "Preferences");
    mp_array(b, 2);
    for (unsigned i = 0; i < 2; i++) {
        mp_map(b, 1);
        mp_cstr(b, "Spread");
        mp_map(b, 1);
        mp_kv_cstr(b, "SpreadDescriptor", levels[i]);
    }
}

static void put_spec(struct sched *s, const char *id, const struct run *r, unsigned number)
{
    struct buf b = BUF_INIT;
    struct err e;
    mp_map(&b, 1);
    mp_cstr(&b, "Spec");
    mp_map(&b, 2);
    mp_cstr(&b, "Resources");
    mp_map(&b, 1);
    mp_cstr(&b, "Reservations");
    mp_map(&b, 2);
    mp_kv_i64(&b, "NanoCPUs", 1000000);
    mp_kv_i64(&b, "MemoryBytes", 1 << 20);
    put_placement(&b, r, number);
    CHECK(sched_put_spec(s, str_from(id), buf_str(&b), NULL, NULL, &e) == 0);
    buf_done(&b);
}

static void put_tasks(struct sched *s, const struct run *r)
{
    char id[32], spec[32] = "spec", service[32] = "service";
    if (!r->one_off)
        put_spec(s, spec, r, 0);
    for (unsigned i = 0; i < r->tasks; i++) {
        snprintf(id, sizeof id, "t%024u", i);
        if (r->one_off) {
            snprintf(spec, sizeof spec, "p%024u", i);
            snprintf(service, sizeof service, "s%024u", i);
            put_spec(s, spec, r, i);
        }
        struct view_task t = { .ID = str_from(id),
                               .ServiceID = str_from(service),
                               .TaskSpecID = str_from(spec),
                               .Slot = r->one_off ? 1 : i + 1,
                               .DesiredState = STR("running"),
                               .Status = { .State = STR("pending") } };
        sched_put_task(s, &t, 1);
    }
}

static void measure(struct run *r)
{
    struct sched s;
    struct arena a;
    struct sched_decisions d;
    bool more = true;
    size_t before = heap_bytes(), placed = 0;
    sched_init(&s);
    for (unsigned i = 0; i < r->nodes; i++)
        put_node(&s, i);
    r->node_bytes = (heap_bytes() - before) / r->nodes;
    double t0 = seconds();
    before = heap_bytes();
    put_tasks(&s, r);
    double t1 = seconds();
    while (more) {
        arena_init(&a, 1u << 30);
        more = sched_pass(&s, 1, BATCH, &a, &d);
        for (size_t i = 0; i < d.n; i++)
            placed += d.v[i].node.n != 0;
        arena_done(&a);
    }
    double t2 = seconds();
    CHECK(placed == r->tasks && s.waiting == 0);
    r->task_bytes = (heap_bytes() - before) / r->tasks;
    r->put_s = t1 - t0;
    r->place_s = t2 - t1;
    sched_done(&s);
}

static void print(const struct run *r)
{
    /* SwarmKit was measured with two shapes only: the nearest one is the floor */
    double value = r->tasks / r->place_s, floor = r->one_off ? 120 : 18515;
    char name[120];
    snprintf(name, sizeof name, "schedulerd_place_%u_on_%u_%s%s%s", r->tasks, r->nodes,
             r->one_off ? "one_off" : "one_service",
             r->pinned        ? "_pinned"
             : r->constraints ? "_constraints"
                              : "",
             r->spread ? "_spread" : "");
    printf(
        "{\"name\":\"%s\",\"value\":%.1f,\"unit\":\"tasks/s\",\"reference\":\"SwarmKit's own benchmark: %s\","
        "\"reference_value\":%.1f,\"ratio\":%.1f,\"put_per_s\":%.1f,\"bytes_per_task\":%zu,\"bytes_per_node\":%zu}\n",
        name, value, r->one_off ? "one-off tasks on 100,000 nodes" : "10,000 tasks of one service on 1,000 nodes",
        floor, value / floor, r->tasks / r->put_s, r->task_bytes, r->node_bytes);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const unsigned nodes[] = { 1000, 10000, 100000 }, tasks[] = { 10000, 100000, 1000000 };
    bool quick = argc > 1 && str_is(str_from(argv[1]), "-q");
    for (unsigned n = 0; n < 3; n++)
        for (unsigned t = 0; t < 3; t++)
            for (unsigned kind = 0; kind < 8; kind++) {
                struct run r = { .nodes = nodes[n],
                                 .tasks = tasks[t],
                                 .constraints = kind & 1,
                                 .spread = kind & 2,
                                 .one_off = kind & 4 };
                if (quick && (t == 2 || (kind & 3) == 1 || (kind & 3) == 2))
                    continue;
                measure(&r);
                print(&r);
            }
    struct run pinned = { .nodes = 100000, .tasks = 100000, .one_off = true, .pinned = true };
    measure(&pinned);
    print(&pinned);
    return 0;
}

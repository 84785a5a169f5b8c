/* sched_bench.c - how fast the core places tasks: one JSON line a figure. The limit is putting the same tasks into the
 * mirror, which the scheduler cannot avoid. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/util/check.h"
#include "schedulerd/sched_core.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put_node(struct sched *s, unsigned i)
{
    struct buf b = BUF_INIT;
    struct err e;
    char id[32], zone[8];
    snprintf(id, sizeof id, "node-%06u", i);
    snprintf(zone, sizeof zone, "z%u", i % 3);
    mp_map(&b, 4);
    mp_kv_cstr(&b, "ID", id);
    mp_cstr(&b, "Spec");
    mp_map(&b, 1);
    mp_cstr(&b, "Labels");
    mp_map(&b, 1);
    mp_kv_cstr(&b, "zone", zone);
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

static void put_spec(struct sched *s, bool spread)
{
    struct buf b = BUF_INIT;
    struct err e;
    mp_map(&b, 1);
    mp_cstr(&b, "Spec");
    mp_map(&b, 1 + spread);
    mp_cstr(&b, "Resources");
    mp_map(&b, 1);
    mp_cstr(&b, "Reservations");
    mp_map(&b, 1);
    mp_kv_i64(&b, "MemoryBytes", 1 << 20);
    if (spread) {
        mp_cstr(&b, "Placement");
        mp_map(&b, 1);
        mp_cstr(&b, "Preferences");
        mp_array(&b, 1);
        mp_map(&b, 1);
        mp_cstr(&b, "Spread");
        mp_map(&b, 1);
        mp_kv_cstr(&b, "SpreadDescriptor", "node.labels.zone");
    }
    CHECK(sched_put_spec(s, STR("spec"), buf_str(&b), &e) == 0);
    buf_done(&b);
}

static void run(unsigned nodes, unsigned tasks, bool spread)
{
    struct sched s;
    struct arena a;
    struct sched_decisions d;
    char id[32];
    sched_init(&s);
    arena_init(&a, 1u << 30);
    for (unsigned i = 0; i < nodes; i++)
        put_node(&s, i);
    put_spec(&s, spread);
    double t0 = seconds();
    for (unsigned i = 0; i < tasks; i++) {
        snprintf(id, sizeof id, "task-%08u", i);
        struct view_task t = { .ID = str_from(id),
                               .ServiceID = STR("service"),
                               .TaskSpecID = STR("spec"),
                               .Slot = i,
                               .DesiredState = STR("running"),
                               .Status = { .State = STR("pending") } };
        sched_put_task(&s, &t, 1);
    }
    double t1 = seconds();
    CHECK(!sched_pass(&s, 1, tasks, &a, &d));
    double t2 = seconds();
    CHECK(d.n == tasks && s.waiting == 0);
    double value = tasks / (t2 - t1), limit = tasks / (t1 - t0);
    printf(
        "{\"name\":\"schedulerd_place_%u_on_%u%s\",\"value\":%.1f,\"unit\":\"tasks/s\",\"reference\":\"the same tasks "
        "put into the mirror\",\"reference_value\":%.1f,\"ratio\":%.3f}\n",
        tasks, nodes, spread ? "_spread" : "", value, limit, value / limit);
    sched_done(&s);
    arena_done(&a);
}

int main(void)
{
    run(1, 1000, false);
    run(100, 10000, false);
    run(1000, 100000, false);
    run(1000, 100000, true);
    return 0;
}

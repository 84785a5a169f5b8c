/* gossip_test.c - one core by hand, and a few as text (testdata/): see the commands in gossip_line(). */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/util/check.h"
#include "common/util/scenario.h"
#include "meshd/gossip/gossip.h"

#define NODES 9u
#define QUEUE 4096u

struct group {
    struct gossip *core[NODES + 1]; /* by id, 1.. */
    uint64_t wake[NODES + 1], now;
    uint64_t cut; /* a bit a node: on the other side */
    gossip_id ids[4][NODES];
    struct gossip_roster roster[4];
    unsigned n_rosters;
    struct gossip_effects out;
    struct {
        gossip_id from;
        struct gossip_packet p;
    } * queue;
    size_t n_queue;
    bool wants[NODES + 1], tells;
    struct gossip_record records[16];
    char keys[16][8];
    size_t n_records;
    struct gossip_digest digest;
    struct buf *text;
};

static uint64_t number(const char *word)
{
    return strtoull(word, NULL, 10);
}

static int step(struct group *g, unsigned i, struct gossip_event ev, struct err *e)
{
    struct gossip_entry x;
    bool visible;
    ev.now.ms = g->now;
    int r = gossip_step(g->core[i], &ev, &g->out, e);
    g->wake[i] = g->out.wake_at.ms;
    g->wants[i] |= g->out.want_records;
    for (size_t k = 0; k < g->out.n_packets; k++) {
        CHECK(g->n_queue < QUEUE);
        g->queue[g->n_queue].from = i;
        g->queue[g->n_queue++].p = g->out.packets[k];
    }
    while (gossip_changed(g->core[i], &x, &visible))
        if (g->tells && visible)
            buf_printf(g->text, "%" PRIu64 " ms: %u sees " STR_FMT "=" STR_FMT " of %" PRIu64 "\n", g->now, i,
                       STR_ARG(x.key), STR_ARG(x.value), x.owner);
        else if (g->tells)
            buf_printf(g->text, "%" PRIu64 " ms: %u sees " STR_FMT " go\n", g->now, i, STR_ARG(x.key));
    gossip_check(g->core[i]);
    return r;
}

static void flow(struct group *g)
{
    for (size_t k = 0; k < g->n_queue; k++) {
        struct gossip_packet p = g->queue[k].p;
        gossip_id from = g->queue[k].from;
        if (p.to <= NODES && g->core[p.to] != NULL && ((g->cut >> p.to ^ g->cut >> from) & 1) == 0)
            CHECK(step(g, (unsigned)p.to,
                       (struct gossip_event){
                           .type = GOSSIP_EV_PACKET, .packet = { (const char *)p.b, p.n }, .sender = from },
                       NULL) == 0);
    }
    g->n_queue = 0;
}

static void pass(struct group *g, uint64_t ms)
{
    uint64_t until = g->now + ms;
    for (;;) {
        uint64_t at = until;
        for (unsigned i = 1; i <= NODES; i++)
            if (g->core[i] != NULL && g->wake[i] < at)
                at = g->wake[i];
        g->now = at > g->now ? at : g->now;
        for (unsigned i = 1; i <= NODES; i++)
            if (g->core[i] != NULL && g->wake[i] <= g->now)
                (void)step(g, i, (struct gossip_event){ .type = GOSSIP_EV_TICK }, NULL);
        flow(g);
        if (at >= until)
            return;
    }
}

static void list_nodes(struct group *g, char **words, unsigned n)
{
    struct gossip_roster *r = &g->roster[g->n_rosters];
    gossip_id *ids = g->ids[g->n_rosters];
    CHECK(g->n_rosters < 4 && n - 1 <= NODES);
    for (unsigned i = 1; i < n; i++)
        ids[i - 1] = number(words[i]);
    *r = (struct gossip_roster){ .revision = ++g->n_rosters, .n = n - 1, .ids = ids, .n_seeds = 1, .seeds = ids };
    for (unsigned i = 1; i <= NODES; i++)
        if (g->core[i] != NULL)
            CHECK(step(g, i, (struct gossip_event){ .type = GOSSIP_EV_ROSTER, .roster = r }, NULL) == 0);
}

static void start_node(struct group *g, unsigned i)
{
    struct gossip_config conf = { .id = i, .incarnation = 1 + g->now, .seed = i };
    CHECK(i >= 1 && i <= NODES && gossip_new(&g->core[i], &conf, NULL) == 0 && g->n_rosters > 0);
    CHECK(step(g, i, (struct gossip_event){ .type = GOSSIP_EV_ROSTER, .roster = &g->roster[g->n_rosters - 1] }, NULL) ==
          0);
}

static const char *state_name(enum gossip_state s)
{
    static const char *const names[] = { "unknown", "alive", "suspect", "dead", "left" };
    return names[s];
}

static void show(struct group *g, unsigned i)
{
    struct gossip_entry x;
    struct gossip_status s;
    bool visible;
    gossip_status(g->core[i], &s);
    buf_printf(g->text, "%u:", i);
    for (size_t k = 0; k < g->roster[g->n_rosters - 1].n; k++) {
        gossip_id id = g->roster[g->n_rosters - 1].ids[k];
        if (id != i)
            buf_printf(g->text, " %" PRIu64 " %s", id, state_name(gossip_member(g->core[i], id, NULL)));
    }
    for (size_t pos = 0; gossip_next(g->core[i], &pos, &x, &visible);)
        if (visible)
            buf_printf(g->text, " " STR_FMT "@%" PRIu64, STR_ARG(x.key), x.revision);
        else
            buf_printf(g->text, " (" STR_FMT "@%" PRIu64 "%s)", STR_ARG(x.key), x.revision,
                       x.state == GOSSIP_ENTRY_LIVE      ? ""
                       : x.state == GOSSIP_ENTRY_DELETED ? " deleted"
                                                         : " withdrawn");
    buf_printf(g->text, "; floor %" PRIu64 "%s%s\n", s.floor, s.settled ? ", settled" : "",
               g->wants[i] ? ", wants records" : "");
}

/* The store: key of owner since revision; then the digest. */
static void store(struct group *g, char **words, unsigned n)
{
    g->n_records = 0;
    g->digest = (struct gossip_digest){ .revision = number(words[1]) };
    for (unsigned i = 2; i + 2 < n; i += 3) {
        struct gossip_record *r = &g->records[g->n_records];
        char *key = g->keys[g->n_records++];
        CHECK(str_copy(key, 8, str_from(words[i])));
        *r = (struct gossip_record){ .key = str_from(key),
                                     .owner = number(words[i + 1]),
                                     .revision = number(words[i + 2]),
                                     .value = STR("stored") };
        g->digest.hash += gossip_entry_hash(r->key, r->owner, r->revision);
    }
}

static void gossip_line(void *arg, char **words, unsigned n, struct buf *out)
{
    struct group *g = arg;
    const char *c = words[0];
    unsigned i = n > 1 ? (unsigned)number(words[1]) : 0;
    struct err e = ERR_INIT;
    g->text = out;
    if (strcmp(c, "list") == 0) /* ID...: the roster; the first is the seed */
        list_nodes(g, words, n);
    else if (strcmp(c, "start") == 0) /* ID */
        start_node(g, i);
    else if (strcmp(c, "crash") == 0)
        g->core[i] = gossip_free(g->core[i]);
    else if (strcmp(c, "run") == 0) /* MS */
        pass(g, i);
    else if (strcmp(c, "tell") == 0) /* every change from now on */
        g->tells = true;
    else if (strcmp(c, "cut") == 0) /* ID */
        g->cut ^= 1ull << i;
    else if (strcmp(c, "heal") == 0)
        g->cut = 0;
    else if (strcmp(c, "show") == 0)
        show(g, i);
    else if (strcmp(c, "store") == 0) /* REVISION [KEY OWNER REVISION]... */
        store(g, words, n);
    else if (n >= 3 && (strcmp(c, "set") == 0 || strcmp(c, "unset") == 0)) { /* ID KEY REVISION [VALUE] */
        struct gossip_event ev = { .type = c[0] == 's' ? GOSSIP_EV_SET : GOSSIP_EV_UNSET,
                                   .key = str_from(words[2]),
                                   .revision = number(words[3]),
                                   .value = str_from(n > 4 ? words[4] : "") };
        if (step(g, i, ev, &e) < 0)
            buf_printf(out, "%s\n", e.msg);
    } else if (strcmp(c, "digest") == 0) { /* ID */
        (void)step(g, i, (struct gossip_event){ .type = GOSSIP_EV_DIGEST, .digest = g->digest }, NULL);
    } else if (strcmp(c, "records") == 0) { /* ID */
        g->wants[i] = false;
        if (step(g, i,
                 (struct gossip_event){
                     .type = GOSSIP_EV_RECORDS, .records = g->records, .n_records = g->n_records, .digest = g->digest },
                 &e) < 0)
            buf_printf(out, "%s\n", e.msg);
    } else if (strcmp(c, "leave") == 0) {
        (void)step(g, i, (struct gossip_event){ .type = GOSSIP_EV_LEAVE }, NULL);
    } else {
        buf_printf(out, "what is %s?\n", c);
    }
}

static void *begin(void)
{
    struct group *g = calloc(1, sizeof *g);
    CHECK(g != NULL);
    g->queue = calloc(QUEUE, sizeof *g->queue);
    CHECK(g->queue != NULL);
    return g;
}

static void end(void *arg, struct buf *out)
{
    struct group *g = arg;
    (void)out;
    for (unsigned i = 1; i <= NODES; i++)
        gossip_free(g->core[i]);
    free(g->queue);
    free(g);
}

static void test_scenarios(void **state)
{
    static const struct scenario_ops ops = { begin, gossip_line, end };
    (void)state;
    assert_true(scenario_run("meshd/gossip/testdata/*.txt", &ops));
}

static struct gossip_effects fx;

static int packet(struct gossip *g, gossip_id sender, const struct gossip_head *h, const struct gossip_entry *x)
{
    uint8_t b[GOSSIP_PACKET_MAX];
    struct gossip_writer w = { b, 0, sizeof b };
    assert_true(gossip_put_head(&w, h) && (x == NULL || gossip_put_entry(&w, x)));
    struct gossip_event ev = { .type = GOSSIP_EV_PACKET, .packet = { (const char *)b, w.n }, .sender = sender };
    return gossip_step(g, &ev, &fx, NULL);
}

static struct gossip *lone(uint32_t entries_max)
{
    static const gossip_id ids[] = { 1, 2, 3 };
    static const struct gossip_roster roster = { .revision = 1, .n = 3, .ids = ids };
    struct gossip_config conf = { .id = 1, .incarnation = 10, .seed = 1, .entries_max = entries_max, .members_max = 3 };
    struct gossip_event ev = { .type = GOSSIP_EV_ROSTER, .roster = &roster };
    struct gossip *g = NULL;
    assert_int_equal(gossip_new(&g, &conf, NULL), 0);
    assert_int_equal(gossip_step(g, &ev, &fx, NULL), 0);
    return g;
}

/* A node that was removed gets an answer and nothing else; one in another's name, not even that. */
static void test_strangers(void **state)
{
    (void)state;
    struct gossip *g = lone(8);
    struct gossip_status s;
    struct gossip_head h = { .type = GOSSIP_PING, .from = 9, .incarnation = 1, .seq = 5, .digest = { 7, 7 } };
    struct gossip_entry x = { .owner = 9, .revision = 3, .key = STR("k"), .value = STR("v") }, y;
    assert_int_equal(packet(g, 9, &h, &x), 0);
    assert_int_equal(fx.n_packets, 1);
    assert_int_equal(fx.packets[0].to, 9);
    assert_false(gossip_lookup(g, STR("k"), &y));
    gossip_status(g, &s);
    assert_int_equal(s.digest.revision, 0);
    assert_int_equal(s.counts.strangers, 1);
    h.from = 2;
    assert_int_equal(packet(g, 3, &h, &x), -ERR_DENIED);
    assert_int_equal(packet(g, 2, &h, &x), 0);
    assert_false(gossip_lookup(g, STR("k"), &y)); /* of a removed node, told by one that is there */
    x.owner = 3;
    assert_int_equal(packet(g, 2, &h, &x), 0);
    assert_true(gossip_lookup(g, STR("k"), &y) && y.owner == 3 && str_is(y.value, "v"));
    gossip_check(g);
    gossip_free(g);
}

static void test_full(void **state)
{
    (void)state;
    struct gossip *g = lone(4);
    struct gossip_status s;
    struct gossip_head h = { .type = GOSSIP_NEWS, .from = 2, .incarnation = 1 };
    char key[8];
    for (int i = 0; i < 6; i++) {
        struct gossip_entry x = { .owner = 2, .revision = 3, .seq = 1, .key = { key, 2 }, .value = STR("v") };
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(packet(g, 2, &h, &x), 0);
    }
    struct gossip_event ev = { .type = GOSSIP_EV_SET, .key = STR("mine"), .value = STR("v"), .revision = 1 };
    assert_int_equal(gossip_step(g, &ev, &fx, NULL), -ERR_TOO_BIG);
    assert_int_equal(fx.n_packets, 0);
    gossip_status(g, &s);
    assert_int_equal(s.entries, 4);
    assert_int_equal(s.counts.full, 3);
    gossip_check(g);
    gossip_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_scenarios), cmocka_unit_test(test_strangers),
                                        cmocka_unit_test(test_full) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

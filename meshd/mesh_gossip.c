#include "meshd/mesh_gossip.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/daemon/log.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"
#include "meshd/gossip/gossip.h"
#include "meshd/gossip/keyring.h"

#define SEEDS_MAX 5u
#define PORTION 64u /* packets before others of the event loop get their turn */
/* A node of a handful that loses its power is out in about 4 s; a meshd that is held up for less than a second and a
 * half is not even suspected for long enough. Two probes a second are some ten packets, whatever the size of the swarm.
 */
#define PROBE_MS 500u
#define PROBE_REPLY_MS 200u
#define SUSPICION_MULT 2u

struct peer {
    struct netmap_ip addr;
    char node[ID_SIZE];
    bool silent;        /* dead, as gossip says */
    uint64_t silent_ms; /* since then */
    bool told;          /* the netmap has it as dead */
};

struct mesh_gossip {
    sd_event *loop;
    struct netmap *map;
    uint16_t port;
    struct mesh_gossip_ops ops;
    void *arg;
    char self[ID_SIZE];
    int fd; /* IPv6 socket that takes IPv4 too, where the kernel has IPv6 */
    bool v6;
    sd_event_source *io, *timer;
    struct gossip *core;
    struct keyring *keys;
    uint32_t had[KEYRING_KEYS_MAX]; /* numbers of the keys that were installed last */
    struct table peers;             /* gossip_id, 8 bytes -> struct peer */
    struct table withdrawn;         /* task ID -> nothing: of this node */
    struct gossip_roster roster;    /* the core borrows it */
    gossip_id *ids, seeds[2][SEEDS_MAX];
    uint64_t wake_ms;
    uint32_t alone; /* no peers: nothing to do at all */
    struct buf packet;
    uint64_t refused, send_failures;
    struct gossip_effects effects;
};

/* ---- names ---- */

/* The core wants numbers: FNV-1a of the node's id, never 0. Two nodes with one number could not both take part: of
 * 100,000 nodes that happens once in four billion swarms, and put_peer() says so. */
static gossip_id id_of(struct str node)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < node.n; i++)
        h = (h ^ (uint8_t)node.p[i]) * 0x100000001b3ull;
    return h ? h : 1;
}

static struct str key_of(const gossip_id *id)
{
    return (struct str){ (const char *)id, sizeof *id };
}

static struct peer *peer_of(const struct mesh_gossip *g, gossip_id id)
{
    return table_get(&g->peers, key_of(&id));
}

/* ---- packets ---- */

static void send_packet(struct mesh_gossip *g, const struct gossip_packet *p)
{
    const struct peer *peer = peer_of(g, p->to);
    struct err e = ERR_INIT;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to = { 0 };
    socklen_t len = sizeof to.v6;

    if (!peer || !peer->addr.family)
        return;
    buf_clear(&g->packet);
    if (keyring_seal(g->keys, p->to, (struct str){ (const char *)p->b, p->n }, &g->packet, &e) < 0) {
        log_debug("gossip: %s", e.msg);
        return;
    }
    if (!g->v6) {
        to.v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(g->port) };
        memcpy(&to.v4.sin_addr, peer->addr.b, 4);
        len = sizeof to.v4;
    } else {
        to.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(g->port) };
        if (peer->addr.family == AF_INET) {
            to.v6.sin6_addr.s6_addr[10] = to.v6.sin6_addr.s6_addr[11] = 0xff;
            memcpy(to.v6.sin6_addr.s6_addr + 12, peer->addr.b, 4);
        } else {
            memcpy(&to.v6.sin6_addr, peer->addr.b, 16);
        }
    }
    if (sendto(g->fd, g->packet.p, g->packet.n, MSG_DONTWAIT | MSG_NOSIGNAL, &to.any, len) < 0)
        g->send_failures++; /* as good as lost on the way: the core expects that */
}

static void arm(struct mesh_gossip *g)
{
    uint64_t at = g->wake_ms, now = clock_mono().ms;
    struct peer *p;

    for (struct table_pos pos = { 0 }; table_next(&g->peers, &pos, NULL, &p);)
        if (p->told && p->silent_ms + MESH_GOSSIP_TRUST_MS < at && p->silent_ms + MESH_GOSSIP_TRUST_MS > now)
            at = p->silent_ms + MESH_GOSSIP_TRUST_MS;
    (void)sd_event_source_set_time(g->timer, at * 1000);
    (void)sd_event_source_set_enabled(g->timer, g->core && !g->alone ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

/* judge - who is dead for the netmap; true when that changed */
static bool judge(struct mesh_gossip *g)
{
    uint64_t now = clock_mono().ms;
    struct gossip_status st;
    struct peer *p;
    struct str key;
    bool any = false;

    gossip_status(g->core, &st);
    bool managers = g->ops.managers(g->arg);
    bool cut_off = 2 * (st.alive + st.suspect) < st.alive + st.suspect + st.dead;
    for (struct table_pos pos = { 0 }; table_next(&g->peers, &pos, &key, &p);) {
        gossip_id id;
        memcpy(&id, key.p, sizeof id);
        bool silent = gossip_member(g->core, id, NULL) == GOSSIP_DEAD;
        if (silent && !p->silent)
            p->silent_ms = now;
        p->silent = silent;
        bool dead = silent && !cut_off && !(managers && now >= p->silent_ms + MESH_GOSSIP_TRUST_MS);
        if (dead == p->told)
            continue;
        log_info("gossip: node=%s %s", p->node,
                 dead     ? "does not answer: no new connections to its tasks"
                 : silent ? "does not answer, but is not taken for dead"
                          : "is back");
        p->told = dead;
        netmap_node_dead(g->map, str_from(p->node), dead);
        any = true;
    }
    return any;
}

static bool take_entries(struct mesh_gossip *g)
{
    struct gossip_entry x;
    bool visible, any = false;

    while (gossip_changed(g->core, &x, &visible)) {
        if (x.owner == id_of(str_from(g->self)))
            continue; /* what this node says itself it knows better */
        netmap_withdraw(g->map, x.key, visible);
        any = true;
    }
    return any;
}

static int step(struct mesh_gossip *g, struct gossip_event *ev, struct err *e)
{
    struct gossip_effects *fx = &g->effects;
    bool any = false;

    ev->now = clock_mono();
    int r = gossip_step(g->core, ev, fx, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < fx->n_packets; i++)
        send_packet(g, &fx->packets[i]);
    g->wake_ms = fx->wake_at.ms;
    if (fx->entries_changed)
        any = take_entries(g);
    if (fx->members_changed || ev->type == GOSSIP_EV_TICK)
        any = judge(g) || any;
    arm(g);
    if (any)
        g->ops.changed(g->arg);
    return 0;
}

static int on_packet(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    static char sealed[KEYRING_SEALED_MAX + 1];
    struct mesh_gossip *g = arg;
    _cleanup_(buf_done) struct buf plain = BUF_INIT;
    (void)s, (void)revents;

    for (unsigned i = 0; i < PORTION; i++) {
        ssize_t n = recv(fd, sealed, sizeof sealed, MSG_DONTWAIT);
        struct gossip_event ev = { .type = GOSSIP_EV_PACKET };
        struct err e = ERR_INIT;
        if (n < 0)
            break;
        buf_clear(&plain);
        if (!g->core || keyring_open(g->keys, (struct str){ sealed, (size_t)n }, &ev.sender, &plain, &e) < 0) {
            g->refused++;
            continue;
        }
        ev.packet = buf_str(&plain);
        if (step(g, &ev, &e) < 0) {
            g->refused++;
            log_debug("gossip: packet refused: %s", e.msg);
        }
    }
    return 0;
}

static int on_time(sd_event_source *s, uint64_t usec, void *arg)
{
    struct mesh_gossip *g = arg;
    struct err e = ERR_INIT;
    (void)s, (void)usec;
    if (g->core && step(g, &(struct gossip_event){ .type = GOSSIP_EV_TICK }, &e) < 0)
        log_error("gossip: %s", e.msg);
    return 0;
}

/* ---- roster and keys ---- */

static int compare_ids(const void *a, const void *b)
{
    gossip_id x = *(const gossip_id *)a, y = *(const gossip_id *)b;
    return x < y ? -1 : x > y;
}

static void put_peer(struct mesh_gossip *g, gossip_id id, const struct netmap_node *n)
{
    bool is_new;
    struct peer *p = table_put(&g->peers, key_of(&id), &is_new);
    if (!is_new && strcmp(p->node, n->id) != 0)
        log_error("gossip: nodes %s and %s have the same number; the first one stays out", p->node, n->id);
    (void)str_copy(p->node, sizeof p->node, str_from(n->id));
    p->addr = n->addr;
}

static void drop_peers(struct mesh_gossip *g)
{
    struct peer *p;
    struct str key;
    for (struct table_pos pos = { 0 }; table_next(&g->peers, &pos, &key, &p);) {
        if (netmap_node(g->map, str_from(p->node)))
            continue;
        gossip_id id;
        memcpy(&id, key.p, sizeof id);
        netmap_node_dead(g->map, str_from(p->node), false);
        keyring_forget(g->keys, id);
        table_del(&g->peers, key);
    }
}

static void take_roster(struct mesh_gossip *g)
{
    size_t n = 0, cap = g->map->nodes.count + 1;
    gossip_id *ids = calloc(cap, sizeof *ids), *before = g->ids;
    struct gossip_roster *r = &g->roster;
    gossip_id *seeds = g->seeds[r->revision % 2];
    struct netmap_node *node;
    struct err e = ERR_INIT;

    CHECK(ids != NULL);
    *r = (struct gossip_roster){ .revision = r->revision + 1, .ids = ids, .seeds = seeds };
    for (struct table_pos pos = { 0 }; table_next(&g->map->nodes, &pos, NULL, &node);) {
        if (!node->addr.family && strcmp(node->id, g->self) != 0)
            continue; /* it never said where it is */
        ids[n++] = id_of(str_from(node->id));
        if (strcmp(node->id, g->self) == 0)
            continue;
        put_peer(g, ids[n - 1], node);
        if (r->n_seeds < SEEDS_MAX)
            seeds[r->n_seeds++] = ids[n - 1];
    }
    drop_peers(g);
    g->alone = g->peers.count == 0;
    qsort(ids, n, sizeof *ids, compare_ids);
    for (size_t i = 0; i < n; i++)
        if (r->n == 0 || ids[r->n - 1] != ids[i])
            ids[r->n++] = ids[i];
    g->ids = ids;
    if (step(g, &(struct gossip_event){ .type = GOSSIP_EV_ROSTER, .roster = r }, &e) < 0)
        log_error("gossip: the list of nodes: %s", e.msg);
    free(before);
}

/* key_number - a key's epoch as the ring's number for it; 0 is none */
static uint32_t key_number(const struct netmap_key *k)
{
    return strcmp(k->purpose, "gossip") == 0 && k->n == KEYRING_KEY_SIZE ? (uint32_t)k->epoch : 0;
}

static bool among(const uint32_t keys[KEYRING_KEYS_MAX], uint32_t number)
{
    for (size_t i = 0; i < KEYRING_KEYS_MAX; i++)
        if (keys[i] == number)
            return true;
    return false;
}

static void take_keys(struct mesh_gossip *g)
{
    uint32_t have[KEYRING_KEYS_MAX] = { 0 }, before = keyring_primary(g->keys);
    const struct netmap_key *use = netmap_key_use(g->map, "gossip");
    struct err e = ERR_INIT;
    size_t n = 0;

    for (size_t i = 0; i < g->map->nkeys && n < KEYRING_KEYS_MAX; i++)
        if (key_number(&g->map->keys[i]))
            have[n++] = key_number(&g->map->keys[i]);
    for (size_t i = 0; i < KEYRING_KEYS_MAX; i++) /* makes room: the ring holds few */
        if (g->had[i] && g->had[i] != before && !among(have, g->had[i]))
            (void)keyring_remove(g->keys, g->had[i], &e);
    for (size_t i = 0; i < g->map->nkeys; i++) {
        const struct netmap_key *k = &g->map->keys[i];
        if (key_number(k) && keyring_install(g->keys, key_number(k), k->key, &e) < 0)
            log_error("gossip: key %u: %s", key_number(k), e.msg);
    }
    if (use && key_number(use) && keyring_use(g->keys, key_number(use), &e) < 0)
        log_error("gossip: key %u: %s", key_number(use), e.msg);
    if (before && before != keyring_primary(g->keys) && !among(have, before))
        (void)keyring_remove(g->keys, before, &e);
    memcpy(g->had, have, sizeof have);
}

void mesh_gossip_roster(struct mesh_gossip *g)
{
    if (!g->core)
        return;
    take_keys(g);
    take_roster(g);
}

/* ---- what this node says ---- */

static void say(struct mesh_gossip *g, struct str task, bool withdrawn)
{
    struct gossip_event ev = { .type = withdrawn ? GOSSIP_EV_SET : GOSSIP_EV_UNSET,
                               .key = task,
                               .value = STR("w"),
                               .revision = g->map->seq ? g->map->seq : 1 };
    struct gossip_entry known;
    struct err e = ERR_INIT;

    if (gossip_lookup(g->core, task, &known) && known.revision > ev.revision)
        ev.revision = known.revision;
    if (step(g, &ev, &e) < 0 && e.code != ERR_NOT_FOUND)
        log_warn("gossip: task=" STR_FMT ": %s", STR_ARG(task), e.msg);
}

void mesh_gossip_withdraw(struct mesh_gossip *g, struct str task, bool withdrawn)
{
    if (withdrawn == (table_get(&g->withdrawn, task) != NULL))
        return;
    if (withdrawn)
        table_put(&g->withdrawn, task, NULL);
    else
        table_del(&g->withdrawn, task);
    if (g->core)
        say(g, task, withdrawn);
}

static bool mapped(const struct mesh_gossip *g, struct str task)
{
    struct netmap_network **n;
    for (struct table_pos pos = { 0 }; table_next(&g->map->networks, &pos, NULL, &n);)
        if (netmap_endpoint(*n, task))
            return true;
    return false;
}

void mesh_gossip_tidy(struct mesh_gossip *g, bool (*here)(void *arg, struct str task), void *arg)
{
    struct str task;
    if (g->map->seq == 0)
        return;
    for (struct table_pos pos = { 0 }; table_next(&g->withdrawn, &pos, &task, NULL);) {
        if (here(arg, task) || mapped(g, task))
            continue;
        if (g->core)
            say(g, task, false);
        table_del(&g->withdrawn, task);
    }
}

/* ---- life ---- */

static void core_free(struct mesh_gossip *g)
{
    struct peer *p;
    for (struct table_pos pos = { 0 }; table_next(&g->peers, &pos, NULL, &p);)
        netmap_node_dead(g->map, str_from(p->node), false);
    table_clear(&g->peers);
    g->core = gossip_free(g->core);
    g->keys = keyring_free(g->keys);
    free(g->ids);
    g->ids = NULL;
    memset(g->had, 0, sizeof g->had);
    (void)sd_event_source_set_enabled(g->timer, SD_EVENT_OFF);
}

static int core_new(struct mesh_gossip *g, struct err *e)
{
    uint64_t boot = (uint64_t)(clock_wall().ns / 1000000), seed;
    gossip_id self = id_of(str_from(g->self));
    struct gossip_config conf = { .id = self,
                                  .incarnation = boot,
                                  .entries_max = 8192,
                                  .probe_ms = PROBE_MS,
                                  .probe_reply_ms = PROBE_REPLY_MS,
                                  .suspicion_mult = SUSPICION_MULT };
    struct keyring_config ring = { .self = self, .boot = boot };

    random_bytes(&seed, sizeof seed);
    conf.seed = seed;
    int r = gossip_new(&g->core, &conf, e);
    if (r == 0)
        r = keyring_new(&g->keys, &ring, e);
    return r;
}

void mesh_gossip_self(struct mesh_gossip *g, struct str node)
{
    struct err e = ERR_INIT;
    struct str task;

    if (str_is(node, g->self))
        return;
    core_free(g);
    if (!str_copy(g->self, sizeof g->self, node) || !g->self[0])
        return;
    if (core_new(g, &e) < 0) {
        log_error("gossip: %s", e.msg);
        core_free(g);
        return;
    }
    mesh_gossip_roster(g);
    for (struct table_pos pos = { 0 }; table_next(&g->withdrawn, &pos, &task, NULL);)
        say(g, task, true);
}

static int open_socket(struct mesh_gossip *g, struct err *e)
{
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(g->port) };
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(g->port) };
    int off = 0;

    g->fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    g->v6 = g->fd >= 0;
    if (g->v6)
        (void)setsockopt(g->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    else
        g->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (g->fd < 0)
        return err_errno(e, errno, "gossip's socket");
    if (bind(g->fd, g->v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4, g->v6 ? sizeof v6 : sizeof v4) < 0)
        return err_errno(e, errno, "gossip on UDP port %u", g->port);
    return 0;
}

int mesh_gossip_open(struct mesh_gossip **ret, sd_event *loop, struct netmap *map, uint16_t port,
                     const struct mesh_gossip_ops *ops, void *arg, struct err *e)
{
    struct mesh_gossip *g = calloc(1, sizeof *g);
    int r;

    CHECK(g != NULL);
    *g = (struct mesh_gossip){ .loop = loop, .map = map, .port = port, .ops = *ops, .arg = arg, .fd = -1 };
    table_init(&g->peers, sizeof(struct peer));
    table_init(&g->withdrawn, 0);
    g->packet.limit = KEYRING_SEALED_MAX;
    r = open_socket(g, e);
    if (r == 0 && (sd_event_add_io(loop, &g->io, g->fd, EPOLLIN, on_packet, g) < 0 ||
                   sd_event_add_time(loop, &g->timer, CLOCK_MONOTONIC, 0, 1000, on_time, g) < 0))
        r = err_set(e, ERR_NOMEM, "gossip: no room in the event loop");
    if (r < 0) {
        (void)mesh_gossip_free(g);
        return r;
    }
    (void)sd_event_source_set_enabled(g->timer, SD_EVENT_OFF);
    *ret = g;
    return 0;
}

struct mesh_gossip *mesh_gossip_free(struct mesh_gossip *g)
{
    if (!g)
        return NULL;
    core_free(g);
    g->io = sd_event_source_disable_unref(g->io);
    g->timer = sd_event_source_disable_unref(g->timer);
    if (g->fd >= 0)
        close(g->fd);
    table_done(&g->peers);
    table_done(&g->withdrawn);
    buf_done(&g->packet);
    free(g);
    return NULL;
}

/* ---- probes ---- */

void mesh_gossip_members(const struct mesh_gossip *g, struct buf *out)
{
    static const char *const names[] = { "unknown", "alive", "suspect", "dead", "left" };
    struct peer *p;
    struct str key;
    bool first = true;

    buf_putc(out, '[');
    for (struct table_pos pos = { 0 }; g->core && table_next(&g->peers, &pos, &key, &p);) {
        char addr[NETMAP_IP_TEXT];
        gossip_id id;
        memcpy(&id, key.p, sizeof id);
        buf_printf(out, "%s{\"node\":\"%s\",\"addr\":\"%s\",\"state\":\"%s\",\"taken_out\":%s}", first ? "" : ",\n ",
                   p->node, netmap_ip_text(&p->addr, addr), names[gossip_member(g->core, id, NULL)],
                   p->told ? "true" : "false");
        first = false;
    }
    buf_putc(out, ']');
}

static void metric(struct buf *out, const char *name, uint64_t v)
{
    buf_printf(out, "microswarm_meshd_gossip_%s %llu\n", name, (unsigned long long)v);
}

void mesh_gossip_metrics(const struct mesh_gossip *g, struct buf *out)
{
    struct gossip_status st = { 0 };
    struct keyring_counts k = { 0 };
    if (g->core) {
        gossip_status(g->core, &st);
        keyring_counts(g->keys, &k);
    }
    metric(out, "members_alive", st.alive);
    metric(out, "members_dead", st.dead);
    metric(out, "entries", st.entries);
    metric(out, "packets_received_total", st.counts.packets_in);
    metric(out, "packets_sent_total", st.counts.packets_out);
    metric(out, "bytes_received_total", st.counts.bytes_in);
    metric(out, "bytes_sent_total", st.counts.bytes_out);
    metric(out, "packets_refused_total", g->refused);
    metric(out, "packets_forged_total", k.forged + k.unknown_key);
    metric(out, "packets_replayed_total", k.replayed);
    metric(out, "send_failures_total", g->send_failures);
}

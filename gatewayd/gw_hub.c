/*
 * gw_hub.c - which link leads to which node, and the dialling of managers.
 *
 * One link a pair of nodes is enough, since requests go both ways. When two come about, both ends keep the one with the
 * newer certificates; else the one that the lower node ID dialled; of two that the same end dialled, the newer. The
 * other one is drained.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/util/check.h"
#include "common/util/clock.h"
#include "common/util/table.h"
#include "gatewayd/gw_authz.h"
#include "gatewayd/gw_route.h"
#include "gatewayd/gw_shell.h"

#define DIAL_FIRST_MS 50u
#define DIAL_MAX_MS 5000u
#define DIAL_RECENT_MS 250u /* the same, to one that was linked */
#define RECENT_MS 60000u    /* less than so long ago */
#define CONNECT_MS 300u     /* and four round trips, where the distance is known */
#define COMPLAIN_EVERY_MS 30000u
#define REFUSED_TIMES 3u

struct manager {
    char node[GW_ID_MAX], addr[ADDR_TEXT_MAX];
    struct gw_link *dial; /* under way, or up through this entry */
    uint64_t next_ms, backoff_ms, complained_ms;
    uint64_t linked_ms; /* when there was last a link; 0: never */
    uint64_t rtt_ms;    /* its round trip */
    bool wanted;
    bool redial; /* although there is a link: with the new certificate */
};

static struct {
    struct table nodes; /* node ID -> struct gw_link * that is up and not draining */
    struct manager m[GW_MANAGERS_MAX];
    size_t n;
    sd_event_source *timer;
    struct gw_link *favourite;
    unsigned refused;   /* dials in a row that ended with "your certificate is no good" */
    uint64_t failed_id; /* the link that last could not help */
} hub;

struct gw_link *gw_hub_link(struct str node)
{
    struct gw_link **l = table_get(&hub.nodes, node);
    return l ? *l : NULL;
}

struct gw_link *gw_hub_any_manager(void)
{
    struct gw_link *best = NULL, **l;
    if (hub.favourite)
        return hub.favourite;
    for (struct table_pos p = { 0 }; table_next(&hub.nodes, &p, NULL, &l);) {
        if ((*l)->role == RPC_MANAGER && !(*l)->grace && (!best || best->id == hub.failed_id))
            best = *l;
    }
    return best;
}

void gw_hub_worked(struct gw_link *l)
{
    if (l->state == GW_UP && !l->draining && l->role == RPC_MANAGER)
        hub.favourite = l;
}

void gw_hub_failed(struct gw_link *l)
{
    if (hub.favourite == l)
        hub.favourite = NULL;
    hub.failed_id = l->id;
}

unsigned gw_hub_nodes(enum rpc_role role)
{
    unsigned n = 0;
    struct gw_link **l;
    for (struct table_pos p = { 0 }; table_next(&hub.nodes, &p, NULL, &l);)
        n += (*l)->role == role;
    return n;
}

/* ---- dialling ---- */

static uint64_t jitter(uint64_t ms)
{
    uint32_t r;
    random_bytes(&r, sizeof r);
    return ms - ms / 4 + r % (ms / 2 + 1);
}

static void arm(void)
{
    uint64_t at = UINT64_MAX;
    for (size_t i = 0; i < hub.n; i++) {
        if (!hub.m[i].dial && hub.m[i].next_ms < at)
            at = hub.m[i].next_ms;
    }
    if (at != UINT64_MAX)
        (void)sd_event_source_set_time(hub.timer, at * 1000);
    (void)sd_event_source_set_enabled(hub.timer, at == UINT64_MAX ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
}

static void dial_failed(struct manager *m, const struct err *why)
{
    uint64_t now = gw_now_ms();
    m->dial = NULL;
    hub.refused = why->code == ERR_UNAUTHORIZED ? hub.refused + 1 : 0;
    if (hub.refused >= REFUSED_TIMES && gw_hub_nodes(RPC_MANAGER) == 0)
        gw_ident_renew_by_proof();
    if (now - m->complained_ms > COMPLAIN_EVERY_MS || m->complained_ms == 0) {
        m->complained_ms = now;
        log_warn("no link to manager node=%s addr=%s: %s", m->node[0] ? m->node : "?", m->addr, why->msg);
    }
    m->backoff_ms = m->backoff_ms ? m->backoff_ms * 2 : DIAL_FIRST_MS;
    uint64_t most = m->linked_ms && now - m->linked_ms < RECENT_MS ? DIAL_RECENT_MS : DIAL_MAX_MS;
    if (m->backoff_ms > most)
        m->backoff_ms = most;
    m->next_ms = now + jitter(m->backoff_ms);
}

static void dial(struct manager *m)
{
    struct host_port a;
    struct err e = ERR_INIT;
    const struct gw_ident *id = gw_ident();
    m->next_ms = UINT64_MAX;
    if (addr_parse(str_from(m->addr), SWARM_PORT, &a, &e) < 0 ||
        gw_net_dial(&gw_net, id->ctx, gw_ident_role(), &a, m, &m->dial, &e) < 0)
        dial_failed(m, &e);
    else if (m->linked_ms)
        gw_link_connect_within(m->dial, CONNECT_MS + 4 * m->rtt_ms);
}

static bool should_dial(const struct manager *m)
{
    return m->addr[0] && !m->dial && gw_ident()->ctx && strcmp(m->node, gw_ident()->cred.info.node) != 0 &&
           (m->redial || !m->node[0] || !gw_hub_link(str_from(m->node)));
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
    uint64_t now = gw_now_ms();
    (void)s, (void)usec, (void)arg;
    for (size_t i = 0; i < hub.n; i++) {
        if (hub.m[i].next_ms > now)
            continue;
        if (should_dial(&hub.m[i]))
            dial(&hub.m[i]);
        else
            hub.m[i].next_ms = UINT64_MAX;
    }
    arm();
    return 0;
}

static void dial_all_soon(void)
{
    uint64_t now = gw_now_ms();
    for (size_t i = 0; i < hub.n; i++) {
        struct manager *m = &hub.m[i];
        if (should_dial(m) && m->next_ms == UINT64_MAX)
            m->next_ms = now;
    }
    arm();
}

static struct manager *manager_of(const struct gw_link *l)
{
    for (size_t i = 0; i < hub.n; i++) {
        if (l->cookie == &hub.m[i])
            return &hub.m[i];
    }
    return NULL;
}

static struct manager *manager_at(const char *node)
{
    for (size_t i = 0; i < hub.n; i++) {
        if (hub.m[i].addr[0] && strcmp(hub.m[i].node, node) == 0)
            return &hub.m[i];
    }
    return NULL;
}

static struct manager *find_manager(const char *node, const char *addr)
{
    for (size_t i = 0; i < hub.n; i++) {
        if (strcmp(hub.m[i].addr, addr) == 0 && (strcmp(hub.m[i].node, node) == 0 || !hub.m[i].node[0]))
            return &hub.m[i];
    }
    return NULL;
}

/* Links know their entry by its address, so entries stay where they are; a removed one is overwritten. */
static void add_manager(const char *node, const char *addr)
{
    size_t i = 0;
    while (i < hub.n && hub.m[i].addr[0])
        i++;
    if (i == GW_MANAGERS_MAX)
        return;
    hub.m[i] = (struct manager){ .wanted = true };
    (void)str_copy(hub.m[i].node, sizeof hub.m[i].node, str_from(node));
    (void)str_copy(hub.m[i].addr, sizeof hub.m[i].addr, str_from(addr));
    if (i == hub.n)
        hub.n++;
}

static void drop_manager(struct manager *m)
{
    if (m->dial)
        m->dial->cookie = NULL; /* an established link may stay: the peer decides */
    *m = (struct manager){ .next_ms = UINT64_MAX };
}

static bool is_listed(const char *node)
{
    const struct gw_ident *id = gw_ident();
    for (size_t i = 0; i < id->nmanagers; i++) {
        if (strcmp(id->managers[i].node, node) == 0)
            return true;
    }
    return false;
}

/* A worker has nothing to say to a node that was a manager. */
static void leave_former_managers(void)
{
    struct err e = ERR_INIT;
    if (!gw_ident()->managers_told || gw_ident_role() != RPC_WORKER)
        return;
    err_set(&e, ERR_UNAVAILABLE, "the node is not a manager any more");
    for (struct gw_link *l = gw_net.links; l; l = l->next) {
        if (l->state == GW_UP && l->cookie != &gw_join_cookie && !is_listed(l->peer.node))
            gw_link_close(l, &e);
    }
}

void gw_hub_managers(void)
{
    const struct gw_ident *id = gw_ident();
    for (size_t i = 0; i < hub.n; i++)
        hub.m[i].wanted = false;
    for (size_t i = 0; id->ctx && i < id->nmanagers; i++) {
        struct manager *m = find_manager(id->managers[i].node, id->managers[i].addr);
        if (m) {
            m->wanted = true;
            (void)str_copy(m->node, sizeof m->node, str_from(id->managers[i].node));
        }
    }
    for (size_t i = 0; i < hub.n; i++) {
        if (hub.m[i].addr[0] && !hub.m[i].wanted)
            drop_manager(&hub.m[i]);
    }
    for (size_t i = 0; id->ctx && i < id->nmanagers; i++) {
        if (!find_manager(id->managers[i].node, id->managers[i].addr))
            add_manager(id->managers[i].node, id->managers[i].addr);
    }
    for (size_t i = 0; i < hub.n; i++) {
        if (hub.m[i].addr[0] && !hub.m[i].dial && hub.m[i].next_ms == 0)
            hub.m[i].next_ms = UINT64_MAX; /* new: dial_all_soon() decides */
    }
    leave_former_managers();
    dial_all_soon();
}

void gw_hub_redial_one(struct gw_link *l)
{
    struct manager *m = manager_of(l);
    struct host_port a;
    struct err e = ERR_INIT;
    if (m) {
        m->dial = NULL; /* the old link goes on until the new one is up, which drains it */
        m->redial = true;
        l->cookie = NULL;
        dial(m);
        arm();
    } else if (l->dialled && l->dial_addr[0] && gw_ident()->ctx &&
               addr_parse(str_from(l->dial_addr), SWARM_PORT, &a, &e) == 0) {
        struct gw_link *other;
        if (gw_net_dial(&gw_net, gw_ident()->ctx, gw_ident_role(), &a, NULL, &other, &e) < 0)
            log_warn("no new link to %s: %s", l->dial_addr, e.msg);
    }
}

void gw_hub_redial(void)
{
    struct gw_link *next;
    for (struct gw_link *l = gw_net.links; l; l = next) {
        next = l->next;
        if (l->state != GW_UP || l->draining || l->role == RPC_NOBODY)
            continue;
        struct manager *m = manager_at(l->peer.node);
        if (l->dialled) {
            gw_hub_redial_one(l);
        } else if (m) { /* it may not be able to dial us: only managers listen */
            if (m->dial) /* begun with the old certificate: whatever comes of it is not what is wanted */
                m->dial->cookie = NULL;
            m->dial = NULL;
            m->redial = true;
            dial(m);
        } else {
            (void)gw_link_control(l, &(struct gw_control){ .Kind = STR("redial") });
        }
    }
    arm();
}

void gw_hub_close_all(const struct err *why)
{
    for (struct gw_link *l = gw_net.links; l; l = l->next)
        gw_link_close(l, why);
}

/* ---- links coming and going ---- */

/*
 * A certificate that has expired, ours or the peer's: when the certificates of most managers have, they can't elect the
 * leader that would renew them. What we take is worth what a renewal by proof is: the peer holds the key of the last
 * valid certificate that we have seen of a manager that we know. It gets Raft's messages, for some minutes, while there
 * is no leader; with one it renews by proof.
 */
static int admit_expired(struct gw_link *l, struct err *e)
{
    int64_t now_s = clock_wall().ns / 1000000000;
    bool expired = l->peer.not_after <= now_s;
    if (!expired && gw_ident()->cred.info.not_after > now_s)
        return 0;
    if (expired && (l->role != RPC_MANAGER || !gw_ident_grace() || !gw_ident_knows_key(l->peer.node, l->cert)))
        return err_set(e, ERR_UNAUTHORIZED, "the certificate of node %s has expired", l->peer.node);
    if (l->role != RPC_MANAGER)
        return err_set(e, ERR_UNAVAILABLE, "the certificate of this manager has expired");
    log_warn("an expired certificate is taken, for Raft alone: node=%s addr=%s expired=%" PRId64, l->peer.node, l->host,
             expired ? l->peer.not_after : gw_ident()->cred.info.not_after);
    l->grace = true;
    l->expire_ms = gw_now_ms() + GW_GRACE_MS;
    return 0;
}

int gw_hub_admit(void *arg, struct gw_link *l, struct err *e)
{
    const struct gw_credentials *c = &gw_ident()->cred;
    (void)arg;
    if (l->cookie == &gw_join_cookie)
        return l->role != RPC_MANAGER ? err_set(e, ERR_DENIED, "is not a manager")
               : c->cert && strcmp(l->peer.cluster, c->info.cluster) != 0
                   ? err_set(e, ERR_DENIED, "node %s is of another swarm, %s", l->peer.node, l->peer.cluster)
                   : 0;
    if (l->role == RPC_NOBODY)
        return 0; /* for the joining operations only: gw_authz.h */
    if (!c->cert)
        return err_set(e, ERR_UNAVAILABLE, "this node has left the swarm");
    if (strcmp(l->peer.cluster, c->info.cluster) != 0)
        return err_set(e, ERR_DENIED, "node %s is of another swarm, %s", l->peer.node, l->peer.cluster);
    if (strcmp(l->peer.node, c->info.node) == 0)
        return err_set(e, ERR_CONFLICT, "node %s: a link of this node to itself", l->peer.node);
    if (l->dialled && l->role != RPC_MANAGER)
        return err_set(e, ERR_DENIED, "node %s was dialled as a manager but its certificate says worker", l->peer.node);
    int r = admit_expired(l, e);
    return r < 0 ? r : gw_swarm_admit(l->peer.node, &l->role, e);
}

/* How new the certificates are that a link was made with: both ends come to the same sum. The dates in them don't tell:
 * a certificate does not begin before its issuer's, which may be of any age. */
static uint64_t born(const struct gw_link *l)
{
    return l->turn + gw_tls_ctx_turn(l->ctx);
}

/* Of two links to one node: does the new one stay? */
static bool prefer(const struct gw_link *l, const struct gw_link *old)
{
    if (l->instance[0] && strcmp(l->instance, old->instance) != 0)
        return true; /* the old one's peer lives no more */
    if (born(l) != born(old))
        return born(l) > born(old);
    bool we_are_lower = strcmp(gw_ident()->cred.info.node, l->peer.node) < 0;
    return l->dialled == old->dialled || l->dialled == we_are_lower;
}

void gw_hub_up(void *arg, struct gw_link *l, const struct gw_hello *hello)
{
    bool fresh;
    struct manager *m = manager_of(l);
    (void)arg, (void)hello;
    if (l->cookie == &gw_join_cookie) {
        gw_ident_join_up(l);
        return;
    }
    if (l->role == RPC_NOBODY) {
        log_info("link without a certificate from %s", l->host);
        return;
    }
    struct manager *known = m ? m : manager_at(l->peer.node);
    struct gw_rtt rtt = { 0, 0 };
    if (known) {
        known->linked_ms = gw_now_ms();
        known->rtt_ms = gw_link_rtt(l, &rtt) && rtt.rtt_us < 1000000 ? rtt.rtt_us / 1000 : 0;
    }
    if (m) {
        m->backoff_ms = m->complained_ms = 0;
        m->redial = false;
        if (!m->node[0])
            (void)str_copy(m->node, sizeof m->node, str_from(l->peer.node));
    }
    struct gw_link **at = table_put(&hub.nodes, str_from(l->peer.node), &fresh), *old = fresh ? NULL : *at;
    if (old && !prefer(l, old)) {
        log_debug("second link node=%s addr=%s: the other one stays", l->peer.node, l->host);
        gw_link_drain(l);
        return;
    }
    *at = l;
    if (old) {
        if (hub.favourite == old)
            hub.favourite = NULL;
        gw_link_drain(old);
    }
    log_info("link up node=%s role=%s addr=%s%s", l->peer.node, gw_role_name(l->role), l->host,
             l->dialled ? " dialled" : "");
    gw_ident_saw(l);
    gw_swarm_tell(l);
    if (!old)
        gw_shell_node_link(l, true);
    else if (old->role != l->role)
        gw_shell_raft_link(l, l->role == RPC_MANAGER);
    gw_route_retry();
    gw_swarm_check(l);
}

/* Another link that still leads to the node: better than none, until a new one is up. */
static struct gw_link *spare(const struct gw_link *gone)
{
    for (struct gw_link *l = gw_net.links; l; l = l->next) {
        if (l != gone && l->state == GW_UP && !l->draining && strcmp(l->peer.node, gone->peer.node) == 0)
            return l;
    }
    return NULL;
}

void gw_hub_down(void *arg, struct gw_link *l, bool was_up, const struct err *why)
{
    struct manager *m = manager_of(l);
    struct gw_link **at = was_up && l->peer.node[0] ? table_get(&hub.nodes, str_from(l->peer.node)) : NULL;
    (void)arg;
    if (hub.favourite == l)
        hub.favourite = NULL;
    if (l->cookie == &gw_join_cookie) {
        gw_route_on_down(l, why);
        gw_ident_join_down(l, why);
        return;
    }
    struct manager *known = was_up ? manager_at(l->peer.node) : NULL;
    if (known)
        known->linked_ms = gw_now_ms();
    if (at && *at == l) {
        struct gw_link *other = spare(l);
        if (other)
            *at = other;
        else
            table_del(&hub.nodes, str_from(l->peer.node));
        log_info("link down node=%s role=%s addr=%s: %s", l->peer.node, gw_role_name(l->role), l->host, why->msg);
        if (!other)
            gw_shell_node_link(l, false);
    } else if (!was_up && !m) {
        log_warn("refused connection addr=%s port=%u%s%s: %s", l->host, l->port, l->peer.node[0] ? " node=" : "",
                 l->peer.node, why->msg);
    }
    gw_route_on_down(l, why);
    if (m) {
        m->dial = NULL;
        if (!was_up)
            dial_failed(m, why);
        else
            m->next_ms = gw_now_ms() + jitter(DIAL_FIRST_MS);
    }
    dial_all_soon();
}

int gw_hub_init(struct err *e)
{
    table_init(&hub.nodes, sizeof(struct gw_link *));
    int r = sd_event_add_time(daemon_loop(), &hub.timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_timer, NULL);
    if (r >= 0)
        r = sd_event_source_set_enabled(hub.timer, SD_EVENT_OFF);
    return r < 0 ? err_errno(e, -r, "event sources") : 0;
}

void gw_hub_done(void)
{
    hub.timer = sd_event_source_disable_unref(hub.timer);
    table_done(&hub.nodes);
}

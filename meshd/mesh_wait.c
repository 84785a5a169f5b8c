#include "meshd/mesh_wait.h"

#include <stdlib.h>

#include "common/daemon/daemon.h"
#include "common/util/clock.h"
#include "meshd/mesh_quiet.h"

struct waiting {
    struct waiting *next;
    struct rpc_call *call;
    char task[MESH_ID_SIZE];
    uint64_t end_ms, look_ms, gap_ms, connections;
    unsigned quiet_looks;
    const struct mesh_ready *ready; /* waits for listening; NULL: for quiet */
    mesh_wait_fn *go_on;
};

#define LISTEN_MS 500u
#define LISTEN_FIRST_MS 2u
#define LISTEN_MAX_MS 40u

static struct {
    struct mesh_node *node;
    struct timer *look;
    struct waiting *waiting;
} self;

static void waiting_end(struct waiting **at, bool quiet)
{
    struct waiting *w = *at;
    rpc_reply(w->call, &(struct mesh_quiet_reply){ .Quiet = quiet, .Connections = w->connections });
    *at = w->next;
    free(w);
}

/* listens - also when there is nothing to listen for, or no way to know. */
static bool listens(const char *task)
{
    struct mesh_sandbox *sb = mesh_core_get(&self.node->core, str_from(task));
    static uint8_t ports[65536 / 8];
    bool any = false, all = true;
    char pin[512];
    for (size_t i = 0; sb && sb->addr && i < sb->nports; i++)
        any |= sb->ports[i].proto == IPPROTO_TCP;
    if (!any || sb->state == MESH_READY)
        return true;
    mesh_node_pin_path(self.node, task, pin);
    if (mesh_quiet_listening(pin, self.node->nl.host_ns, ports, NULL) < 0)
        return true;
    for (size_t i = 0; i < sb->nports; i++)
        all &= sb->ports[i].proto != IPPROTO_TCP || (ports[sb->ports[i].target / 8] >> sb->ports[i].target % 8 & 1);
    return all;
}

static bool listen_look(struct waiting **at, uint64_t now)
{
    struct waiting *w = *at;
    if (now < w->end_ms && !listens(w->task)) {
        w->gap_ms = w->gap_ms * 3 / 2 > LISTEN_MAX_MS ? LISTEN_MAX_MS : w->gap_ms * 3 / 2 + 1;
        w->look_ms = now + w->gap_ms;
        return false;
    }
    *at = w->next;
    w->go_on(w->call, w->ready);
    free(w);
    return true;
}

/* waiting_look - true: it has been answered. */
static bool waiting_look(struct waiting **at, uint64_t now)
{
    struct waiting *w = *at;
    if (w->ready)
        return listen_look(at, now);
    struct mesh_sandbox *sb = mesh_core_get(&self.node->core, str_from(w->task));
    struct err e = ERR_INIT;
    char pin[512];
    if (!sb || !sb->addr) { /* nothing to be connected to */
        waiting_end(at, true);
        return true;
    }
    mesh_node_pin_path(self.node, w->task, pin);
    w->connections = 0;
    if (mesh_quiet_look(pin, self.node->nl.host_ns, &w->connections, &e) < 0) {
        log_warn("task=%s: %s", w->task, e.msg);
        waiting_end(at, false);
        return true;
    }
    w->quiet_looks = w->connections ? 0 : w->quiet_looks + 1;
    if (w->quiet_looks == MESH_QUIET_LOOKS || now >= w->end_ms) {
        waiting_end(at, w->connections == 0);
        return true;
    }
    w->gap_ms = w->connections == 0 ? MESH_QUIET_GAP_MS : w->gap_ms * 3 / 2;
    if (w->gap_ms > MESH_QUIET_MAX_MS)
        w->gap_ms = MESH_QUIET_MAX_MS;
    w->look_ms = now + w->gap_ms < w->end_ms ? now + w->gap_ms : w->end_ms;
    return false;
}

static void waiting_go_on(void *arg)
{
    uint64_t now = clock_mono().ms, next = UINT64_MAX;
    (void)arg;
    for (struct waiting **at = &self.waiting; *at;) {
        if ((*at)->look_ms <= now && waiting_look(at, now))
            continue;
        next = (*at)->look_ms < next ? (*at)->look_ms : next;
        at = &(*at)->next;
    }
    timer_arm(self.look, next);
}

void mesh_wait_quiet(struct rpc_call *c, const struct mesh_quiet *q, struct mesh_node *node)
{
    self.node = node;
    struct mesh_sandbox *sb = mesh_core_get(&self.node->core, q->TaskID);
    if (!sb || !sb->addr || q->WaitMs == 0) {
        rpc_reply(c, &(struct mesh_quiet_reply){ .Quiet = true });
        return;
    }
    struct waiting *w = calloc(1, sizeof *w);
    if (!w) {
        rpc_fail(c, ERR_NOMEM, "out of memory");
        return;
    }
    uint64_t now = clock_mono().ms;
    *w = (struct waiting){
        .next = self.waiting, .call = c, .end_ms = now + q->WaitMs, .look_ms = now, .gap_ms = MESH_QUIET_GAP_MS
    };
    str_copy(w->task, sizeof w->task, q->TaskID);
    self.waiting = w;
    waiting_go_on(NULL);
}

void mesh_wait_listen(struct rpc_call *c, const struct mesh_ready *r, struct mesh_node *node, mesh_wait_fn *go_on)
{
    struct waiting *w = calloc(1, sizeof *w);
    uint64_t now = clock_mono().ms;
    self.node = node;
    if (w)
        str_copy(w->task, sizeof w->task, r->TaskID);
    if (!w || listens(w->task)) {
        free(w);
        go_on(c, r);
        return;
    }
    w->call = c;
    w->ready = r;
    w->go_on = go_on;
    w->end_ms = now + LISTEN_MS;
    w->gap_ms = LISTEN_FIRST_MS;
    w->look_ms = now + w->gap_ms;
    w->next = self.waiting;
    self.waiting = w;
    waiting_go_on(NULL);
}

void mesh_wait_forget(struct str task)
{
    for (struct waiting **at = &self.waiting, *w; (w = *at);) {
        if (!w->ready || !str_is(task, w->task)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        rpc_fail(w->call, ERR_CONFLICT, "task %s is on its way out", w->task);
        free(w);
    }
}

int mesh_wait_open(struct err *e)
{
    return timer_open(&self.look, waiting_go_on, NULL, e);
}

void mesh_wait_close(void)
{
    self.look = timer_free(self.look);
    for (struct waiting *w; (w = self.waiting);) { /* the server is gone, and their calls with it */
        self.waiting = w->next;
        free(w);
    }
}

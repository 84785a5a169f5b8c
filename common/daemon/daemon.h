/*
 * daemon.h - what every main() needs: flags, settings, log, event loop, sockets, probes, readiness, watchdog, signals.
 *
 * main() is two tables and daemon_main(). Flags: -c FILE (settings), -r DIR (run folder), -s DIR (state folder),
 * -o NAME=VALUE (one setting), -n (check the configuration and exit), -V (version), -h (help).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/daemon/conf.h"
#include "common/daemon/log.h"
#include "common/daemon/rpc.h"

#define MICROSWARM_VERSION "0.1.0"
#define RUN_DIR_DEFAULT "/run/microswarm"
#define STATE_DIR_DEFAULT "/var/lib/microswarm"
#define CONF_DIR_DEFAULT "/etc/microswarm"

struct daemon; /* the skeleton's own state: one per process */

/* A probe command: plain text in, JSON (or Prometheus text) out. `args` is the rest of the line, may be "". */
struct probe {
    const char *name, *args_help, *help;
    void (*fn)(const char *args, struct buf *out);
};

struct daemon_spec {
    const char *name;
    const struct conf_item *conf;     /* may be NULL */
    const struct route *routes;       /* may be NULL: then only probes are answered */
    rpc_relay_fn *relay;              /* gatewayd: requests for other nodes; else NULL */
    const struct probe *probes;       /* besides help, version, status, metrics, log; may be NULL */
    unsigned max_calls;               /* 0: 64 */
    int (*start)(struct err *e);      /* everything open and the loop about to run; READY=1 follows */
    bool (*drain)(void);              /* SIGTERM: true when something is to be done first, while requests go on; it
                                         ends with daemon_exit(0), or with a second SIGTERM. May be NULL */
    void (*stop)(void);               /* no more requests come in; release */
    void (*status)(struct buf *out);  /* appends `,"key":value...` pairs to the status object; may be NULL */
    void (*metrics)(struct buf *out); /* appends Prometheus lines named microswarm_<daemon>_*; may be NULL */
};

int daemon_main(int argc, char **argv, const struct daemon_spec *spec);

/* Valid from start() to stop(). */
sd_event *daemon_loop(void);
const char *daemon_run_dir(void);
/* daemon_user - whom @daemon runs as on this host (the settings user_<daemon>); (uid_t)-1: no such user. */
uid_t daemon_user(const char *daemon);
const char *daemon_state_dir(void); /* others may write to either: see dir_own() */
void daemon_exit(int code);         /* leaves the loop; for fatal findings at run time */
/* daemon_busy - from within what takes long, while starting or in the loop (to read a million objects): systemd hears
 * at most once a second that it is neither stuck in its start nor in its loop. Cheap. */
void daemon_busy(void);
/* daemon_burst - much memory is in use for a moment: what is free again some seconds later is given back then. Cheap.
 */
void daemon_burst(void);

/* A timer that is armed for a moment and then fires once. Arming again moves it; ms in mono time; UINT64_MAX disarms.
 */
struct timer;
typedef void timer_fn(void *arg);
int timer_open(struct timer **ret, timer_fn *fn, void *arg, struct err *e);
void timer_arm(struct timer *t, uint64_t at_mono_ms);
struct timer *timer_free(struct timer *t);

#include "common/daemon/probe.h"

#include <ctype.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/daemon/inbox.h"
#include "common/util/check.h"
#include "common/util/clock.h"

struct probe_server {
    struct inbox_item item; /* first: it is what the inbox hands back */
    nng_socket sock;
    nng_aio *aio;
    bool sending; /* else receiving */
    const struct daemon_spec *spec;
};

static struct mono_ms started;

static void error_json(struct buf *out, const char *text, struct str what)
{
    buf_puts(out, "{\"error\":");
    char line[200];
    snprintf(line, sizeof line, "%s%s" STR_FMT "%s", text, what.n ? " \"" : "", (int)(what.n < 100 ? what.n : 100),
             what.p ? what.p : "", what.n ? "\"" : "");
    buf_json_str(out, str_from(line));
    buf_puts(out, "}");
}

static void cmd_help(const struct daemon_spec *spec, struct buf *out)
{
    buf_puts(out, "{\"daemon\":");
    buf_json_str(out, str_from(spec->name));
    buf_puts(out, ",\"commands\":{\"help\":\"this list\",\"version\":\"version of this daemon\","
                  "\"status\":\"what it is doing\",\"metrics\":\"Prometheus text\","
                  "\"log <level>\":\"debug, info, warn or error\"");
    for (const struct probe *p = spec->probes; p && p->name; p++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s%s", p->name, p->args_help && *p->args_help ? " " : "",
                 p->args_help ? p->args_help : "");
        buf_putc(out, ',');
        buf_json_str(out, str_from(name));
        buf_putc(out, ':');
        buf_json_str(out, str_from(p->help));
    }
    buf_puts(out, "}}");
}

static void cmd_status(const struct daemon_spec *spec, struct buf *out)
{
    buf_puts(out, "{\"daemon\":");
    buf_json_str(out, str_from(spec->name));
    buf_printf(out, ",\"version\":\"%s\",\"pid\":%d,\"uptime_ms\":%llu,\"log\":\"%s\"", MICROSWARM_VERSION,
               (int)getpid(), (unsigned long long)(clock_mono().ms - started.ms), log_level_name());
    if (spec->status)
        spec->status(out);
    buf_putc(out, '}');
}

static void cmd_metrics(const struct daemon_spec *spec, struct buf *out)
{
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    buf_printf(out, "microswarm_up{daemon=\"%s\",version=\"%s\"} 1\n", spec->name, MICROSWARM_VERSION);
    buf_printf(out, "microswarm_uptime_seconds{daemon=\"%s\"} %.3f\n", spec->name,
               (double)(clock_mono().ms - started.ms) / 1000);
    buf_printf(out, "microswarm_cpu_seconds_total{daemon=\"%s\"} %.6f\n", spec->name,
               (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
                   (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
    buf_printf(out, "microswarm_max_rss_bytes{daemon=\"%s\"} %ld\n", spec->name, ru.ru_maxrss * 1024);
    if (spec->metrics)
        spec->metrics(out);
}

static void cmd_log(const char *args, struct buf *out)
{
    if (log_set_level(args) < 0) {
        error_json(out, "log: level must be debug, info, warn or error, not", str_from(args));
        return;
    }
    buf_printf(out, "{\"log\":\"%s\"}", log_level_name());
}

void probe_answer(const struct daemon_spec *spec, struct str line, struct buf *out)
{
    char text[PROBE_LINE_MAX + 1];
    while (line.n > 0 && (isspace((unsigned char)line.p[line.n - 1]) || line.p[line.n - 1] == '\0'))
        line.n--;
    if (line.n > PROBE_LINE_MAX || (line.n && memchr(line.p, '\0', line.n))) {
        error_json(out, "a command is one line of at most 4096 bytes", (struct str){ 0 });
        return;
    }
    str_copy(text, sizeof text, line);
    size_t n = strcspn(text, " \t");
    char *args = text + n;
    if (*args)
        *args++ = '\0';
    args += strspn(args, " \t");
    if (strcmp(text, "help") == 0 || text[0] == '\0')
        cmd_help(spec, out);
    else if (strcmp(text, "version") == 0)
        buf_printf(out, "{\"daemon\":\"%s\",\"version\":\"%s\"}", spec->name, MICROSWARM_VERSION);
    else if (strcmp(text, "status") == 0)
        cmd_status(spec, out);
    else if (strcmp(text, "metrics") == 0)
        cmd_metrics(spec, out);
    else if (strcmp(text, "log") == 0)
        cmd_log(args, out);
    else {
        for (const struct probe *p = spec->probes; p && p->name; p++) {
            if (strcmp(text, p->name) == 0) {
                p->fn(args, out);
                return;
            }
        }
        error_json(out, "unknown command, try help:", str_from(text));
    }
}

/*
 * One line at a time: receive, answer, send, receive again. Not nng's receive descriptor: when a peer goes with a
 * request that nobody has taken yet, nng 1.5.2 leaves the descriptor readable although there is nothing to receive, and
 * the loop would spin.
 */
static void receive(struct probe_server *p)
{
    p->sending = false;
    nng_recv_aio(p->sock, p->aio);
}

static void answer(struct probe_server *p, nng_msg *m)
{
    struct buf out = BUF_INIT;
    probe_answer(p->spec, (struct str){ nng_msg_body(m), nng_msg_len(m) }, &out);
    nng_msg_clear(m);
    if (out.failed || nng_msg_append(m, out.p, out.n) != 0)
        nng_msg_append(m, "{\"error\":\"out of memory\"}", 25);
    buf_done(&out);
    p->sending = true;
    nng_aio_set_msg(p->aio, m);
    nng_send_aio(p->sock, p->aio);
}

static void on_inbox(struct inbox_item *item)
{
    struct probe_server *p = (struct probe_server *)item;
    int r = nng_aio_result(p->aio);
    nng_msg *m = nng_aio_get_msg(p->aio);
    nng_aio_set_msg(p->aio, NULL);
    if (r == NNG_ECLOSED) {
        if (p->sending && m)
            nng_msg_free(m);
    } else if (!p->sending && r == 0) {
        answer(p, m);
    } else {
        if (p->sending && r != 0 && m) /* the peer hung up: nobody wants it */
            nng_msg_free(m);
        receive(p);
    }
}

static void on_aio(void *arg)
{
    struct probe_server *p = arg;
    inbox_post(&p->item);
}

int probe_open(struct probe_server **ret, sd_event *loop, const char *run_dir, const struct daemon_spec *spec,
               struct err *e)
{
    char url[256];
    nng_listener l;
    int r;
    if (started.ms == 0)
        started = clock_mono();
    if (snprintf(url, sizeof url, "ipc://%s/%s.probe", run_dir, spec->name) >= (int)sizeof url)
        return err_set(e, ERR_INVALID, "run folder: name too long");
    if ((r = inbox_ref(loop, e)) < 0)
        return r;
    struct probe_server *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->spec = spec;
    p->item.fn = on_inbox;
    CHECK(nng_aio_alloc(&p->aio, on_aio, p) == 0);
    if ((r = nng_rep0_open(&p->sock)) != 0) {
        nng_aio_free(p->aio);
        free(p);
        inbox_unref();
        return err_set(e, ERR_INTERNAL, "open probe: %s", nng_strerror(r));
    }
    mode_t old = umask(0007);
    if ((r = nng_listener_create(&l, p->sock, url)) == 0 &&
        (r = nng_listener_set_int(l, NNG_OPT_IPC_PERMISSIONS, 0660)) == 0 &&
        (r = nng_listener_set_size(l, NNG_OPT_RECVMAXSZ, (size_t)2 * PROBE_LINE_MAX)) == 0)
        r = nng_listener_start(l, 0);
    umask(old);
    if (r != 0) {
        probe_close(p);
        return err_set(e, ERR_IO, "listen on %s: %s", url, nng_strerror(r));
    }
    receive(p);
    *ret = p;
    return 0;
}

struct probe_server *probe_close(struct probe_server *p)
{
    if (!p)
        return NULL;
    nng_close(p->sock);
    nng_aio_stop(p->aio); /* its callback has run when this returns */
    inbox_forget(&p->item);
    nng_msg *m = nng_aio_get_msg(p->aio);
    if (m && p->sending == (nng_aio_result(p->aio) != 0))
        nng_msg_free(m);
    nng_aio_free(p->aio);
    inbox_unref();
    free(p);
    return NULL;
}

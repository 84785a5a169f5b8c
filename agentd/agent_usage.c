/* agent_usage.c - see agent_usage.h. */
#include "agentd/agent_usage.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/fsutil.h"
#include "agentd/prom_text.h"
#include "common/object/autoscale.h"
#include "common/util/check.h"
#include "common/util/cleanup.h"

#define ANSWER_MAX (1u << 20)
#define SCRAPE_MS 1000u
#define SCRAPES_MAX 32u /* at the same time */
#define ERROR_MAX 160

struct metered { /* a task whose service asks for it */
    struct metered *next;
    struct atask *t;
    struct autoscale conf; /* its text is in `path` and `name` */
    char *path, *name;
    /* CPU */
    bool has_cpu;
    uint64_t cpu_ns, cpu_at_ms, rate; /* rate: of one CPU is 10^9 */
    uint64_t memory;
    bool measured;
    /* the metric */
    bool wanted; /* to be read in this round */
    int fd;      /* -1: nothing under way */
    sd_event_source *source;
    uint64_t until_ms;
    size_t sent;
    struct buf answer;
    bool has_metric;
    double metric;
    char error[ERROR_MAX];
};

static struct metered *all;
static struct timer *timer; /* the next round, or the end of a scrape */
static uint64_t round_ms;
static unsigned scraping;
static bool reporting; /* the round's report is still to be sent */
static int own_netns = -1;
static uint64_t rounds, scrapes, scrapes_failed;

static void go_on(struct agent *ag);

/* ---- control groups ---- */

static bool read_file(const char *path, struct buf *text)
{
    buf_clear(text);
    return fs_read(path, 1u << 16, text, NULL) == 0;
}

/* field_of - the number behind "name " at the beginning of a line. */
static bool field_of(struct buf *text, const char *name, uint64_t *ret)
{
    size_t n = strlen(name);
    for (const char *p = buf_cstr(text); p; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, name, n) == 0 && p[n] == ' ') {
            *ret = strtoull(p + n + 1, NULL, 10);
            return true;
        }
        if (*p == '\0')
            break;
    }
    return false;
}

static void group_file(const struct metered *m, const char *hierarchy, const char *file, char out[600])
{
    const struct oci_conf *c = oci_conf_of(m->t->ag->oci);
    bool v2 = oci_cgroup2(m->t->ag->oci);
    snprintf(out, 600, "/sys/fs/cgroup%s%s%.200s/%s/%s", v2 ? "" : "/", v2 ? "" : hierarchy, c->cgroup_root, m->t->id,
             file);
}

static bool read_cpu(const struct metered *m, struct buf *text, uint64_t *ret_ns)
{
    char path[600];
    uint64_t us;
    if (oci_cgroup2(m->t->ag->oci)) {
        group_file(m, "", "cpu.stat", path);
        if (!read_file(path, text) || !field_of(text, "usage_usec", &us))
            return false;
        *ret_ns = us * 1000;
        return true;
    }
    group_file(m, "cpuacct", "cpuacct.usage", path);
    if (!read_file(path, text))
        return false;
    *ret_ns = strtoull(buf_cstr(text), NULL, 10);
    return true;
}

/* Without what the kernel takes back when it must, as docker stats counts. */
static bool read_memory(const struct metered *m, struct buf *text, uint64_t *ret)
{
    bool v2 = oci_cgroup2(m->t->ag->oci);
    uint64_t used, cache = 0;
    char path[600];
    group_file(m, "memory", v2 ? "memory.current" : "memory.usage_in_bytes", path);
    if (!read_file(path, text))
        return false;
    used = strtoull(buf_cstr(text), NULL, 10);
    group_file(m, "memory", "memory.stat", path);
    if (read_file(path, text))
        (void)field_of(text, v2 ? "inactive_file" : "total_inactive_file", &cache);
    *ret = used > cache ? used - cache : 0;
    return true;
}

/* A rate needs two looks. */
static void measure(struct metered *m, uint64_t now, struct buf *text)
{
    uint64_t ns = 0;
    bool there = read_cpu(m, text, &ns) && read_memory(m, text, &m->memory);
    m->measured = there && m->has_cpu && now > m->cpu_at_ms && ns >= m->cpu_ns;
    if (m->measured)
        m->rate = (uint64_t)((double)(ns - m->cpu_ns) * 1000 / (double)(now - m->cpu_at_ms));
    m->has_cpu = there;
    m->cpu_ns = ns;
    m->cpu_at_ms = now;
}

/* ---- the metric ---- */

static void scrape_end(struct metered *m, const char *error)
{
    struct err e = ERR_INIT;
    if (m->fd < 0)
        return;
    m->source = sd_event_source_disable_unref(m->source);
    close(m->fd);
    m->fd = -1;
    CHECK(scraping > 0);
    scraping--;
    m->has_metric = !error && prom_answer(buf_str(&m->answer), str_from(m->name), &m->metric, &e) == 0;
    snprintf(m->error, sizeof m->error, "%s", error ? error : m->has_metric ? "" : e.msg);
    scrapes_failed += !m->has_metric;
    buf_done(&m->answer);
}

static bool send_request(struct metered *m)
{
    char text[700];
    int n = snprintf(text, sizeof text,
                     "GET %s HTTP/1.0\r\nHost: localhost:%u\r\nAccept: text/plain\r\nConnection: close\r\n\r\n",
                     m->path, (unsigned)m->conf.port);
    ssize_t k = send(m->fd, text + m->sent, (size_t)n - m->sent, MSG_NOSIGNAL);
    if (k < 0)
        return errno == EAGAIN || errno == EINTR;
    m->sent += (size_t)k;
    if (m->sent == (size_t)n)
        (void)sd_event_source_set_io_events(m->source, EPOLLIN);
    return true;
}

/* read_answer - false: it is over. */
static bool read_answer(struct metered *m, const char **ret_error)
{
    char *to = buf_reserve(&m->answer, 16384);
    ssize_t n = to ? recv(m->fd, to, 16384, 0) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n < 0)
        *ret_error = strerror(errno);
    if (n <= 0)
        return false;
    m->answer.n += (size_t)n;
    if (m->answer.n > ANSWER_MAX) {
        *ret_error = "the answer is larger than 1 MiB";
        return false;
    }
    return m->answer.n > 65536 || !prom_complete(buf_str(&m->answer));
}

static int on_socket(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct metered *m = userdata;
    const char *error = NULL;
    int code = 0;
    socklen_t len = sizeof code;
    bool more;
    (void)s;
    if (m->sent == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) == 0 && code) {
        error = strerror(code);
        more = false;
    } else if (revents & EPOLLOUT) {
        more = send_request(m);
        error = more ? NULL : strerror(errno);
    } else {
        more = read_answer(m, &error);
    }
    if (!more) {
        scrape_end(m, error);
        go_on(m->t->ag);
    }
    return 0;
}

/* socket_inside - made in the container's network namespace: its loopback, whatever its networks are. */
static int socket_inside(const struct metered *m)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)m->t->core.pid);
    _cleanup_(closep) int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (own_netns < 0)
        own_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (ns < 0 || own_netns < 0 || setns(ns, CLONE_NEWNET) < 0)
        return -errno;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r = fd < 0 ? -errno : fd;
    CHECK(setns(own_netns, CLONE_NEWNET) == 0); /* nothing else may be done in there */
    return r;
}

static void scrape_begin(struct metered *m, uint64_t now)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)m->conf.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    m->wanted = false;
    scrapes++;
    m->fd = socket_inside(m);
    int r = m->fd < 0 ? m->fd : connect(m->fd, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
    if (r == -EINPROGRESS)
        r = 0;
    if (m->fd >= 0)
        scraping++;
    if (r == 0)
        r = sd_event_add_io(m->t->ag->loop, &m->source, m->fd, EPOLLOUT, on_socket, m);
    m->sent = 0;
    m->until_ms = now + SCRAPE_MS;
    m->answer = (struct buf)BUF_INIT;
    if (r < 0 && m->fd >= 0) {
        scrape_end(m, strerror(-r));
    } else if (r < 0) {
        m->has_metric = false;
        snprintf(m->error, sizeof m->error, "%s", strerror(-r));
    }
}

/* ---- rounds ---- */

static bool runs(const struct metered *m)
{
    return m->t->core.phase == TP_RUNNING && m->t->core.state == TASK_RUNNING;
}

static void report(struct agent *ag)
{
    size_t n = 0, i = 0;
    for (struct metered *m = all; m; m = m->next)
        n += runs(m) && m->measured;
    struct task_usage *v = calloc(n + 1, sizeof *v);
    if (!v || n == 0) {
        free(v);
        return;
    }
    for (struct metered *m = all; m; m = m->next)
        if (runs(m) && m->measured)
            v[i++] = (struct task_usage){ .TaskID = str_from(m->t->id),
                                          .NanoCPUs = m->rate,
                                          .MemoryBytes = m->memory,
                                          .HasMetric = m->conf.has_metric && m->has_metric,
                                          .Metric = m->has_metric ? m->metric : 0,
                                          .Error = str_from(m->conf.has_metric ? m->error : "") };
    agent_dispatch_usage(ag->dispatch, v, n);
    free(v);
}

static void begin_round(uint64_t now)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT;
    rounds++;
    for (struct metered *m = all; m; m = m->next) {
        if (!runs(m)) {
            m->has_cpu = m->measured = false;
            continue;
        }
        measure(m, now, &text);
        m->wanted = m->conf.has_metric && m->fd < 0;
    }
    reporting = true;
    round_ms = now + agent_conf.usage_period_ms;
}

/* go_on - starts what may be started; the report goes out when all has been read. */
static void go_on(struct agent *ag)
{
    uint64_t now = clock_mono().ms, next = round_ms;
    bool left = false;
    for (struct metered *m = all; m; m = m->next) {
        if (m->fd >= 0 && m->until_ms <= now)
            scrape_end(m, "no answer within 1 s");
        if (m->wanted && !runs(m))
            m->wanted = false;
        if (m->wanted && scraping < SCRAPES_MAX)
            scrape_begin(m, now);
        left |= m->wanted || m->fd >= 0;
        if (m->fd >= 0 && m->until_ms < next)
            next = m->until_ms;
    }
    if (reporting && !left) {
        reporting = false;
        report(ag);
    }
    timer_arm(timer, all ? next : UINT64_MAX);
}

static void on_time(void *arg)
{
    uint64_t now = clock_mono().ms;
    if (round_ms <= now)
        begin_round(now);
    go_on(arg);
}

/* ---- which tasks ---- */

void agent_usage_labels(struct atask *t, const struct strmap *labels)
{
    struct autoscale conf;
    const char *label;
    struct err e = ERR_INIT;
    struct metered *m = t->metered;
    if (autoscale_parse(labels, &conf, &label, &e) < 0 || !conf.given) {
        agent_usage_free(t);
        return;
    }
    if (!timer && timer_open(&timer, on_time, t->ag, &e) < 0) {
        log_error("usage: %s", e.msg);
        return;
    }
    if (!m) {
        m = calloc(1, sizeof *m);
        CHECK(m != NULL);
        m->fd = -1;
        m->t = t;
        m->next = all;
        t->metered = m;
        if (!all)
            round_ms = clock_mono().ms; /* soon: rates need two looks */
        all = m;
    }
    free(m->path);
    free(m->name);
    m->path = str_dup(conf.path);
    m->name = str_dup(conf.name);
    m->conf = conf;
    go_on(t->ag);
}

void agent_usage_free(struct atask *t)
{
    struct metered *m = t->metered, **pp = &all;
    if (!m)
        return;
    t->metered = NULL;
    scrape_end(m, "the task is gone");
    while (*pp != m)
        pp = &(*pp)->next;
    *pp = m->next;
    free(m->path);
    free(m->name);
    free(m);
    if (!all && timer)
        timer_arm(timer, UINT64_MAX);
}

void agent_usage_close(void)
{
    timer = timer_free(timer);
    closep(&own_netns);
    own_netns = -1;
}

void agent_usage_metrics(struct buf *out)
{
    buf_printf(out, "microswarm_agentd_usage_rounds_total %" PRIu64 "\n", rounds);
    buf_printf(out, "microswarm_agentd_usage_scrapes_total %" PRIu64 "\n", scrapes);
    buf_printf(out, "microswarm_agentd_usage_scrapes_failed_total %" PRIu64 "\n", scrapes_failed);
}

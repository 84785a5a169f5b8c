/*
 * cli_test.c - whole commands against a daemon that knows one exchange: the texts in testdata/cli.
 *
 * A scenario is the command ("$ ..."), what it must ask (">>> METHOD path", body) and is answered ("<<< status",
 * body), and what it must print. Everything listed must be asked, and nothing else. Requests are compared as JSON, less
 * members that are null or empty; queries in any order. Most were recorded between docker's client and engine.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/util/clock.h"
#include "swarmctl/cli.h"
#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"

#define EXCHANGES_MAX 32

struct exchange {
    char *method, *path; /* path in canonical form */
    struct buf request, reply;
    int status;
    bool used;
};

struct scenario {
    char name[256];
    struct buf args, out, err;
    int exit_code;
    int64_t now_ns, tick_ns;
    struct exchange ex[EXCHANGES_MAX];
    size_t count;
    struct buf complaints;
};

static struct scenario *running; /* what the clock and the server look at */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int64_t scenario_now(void)
{
    int64_t now = running->now_ns;
    running->now_ns += running->tick_ns;
    return now;
}

/* ---- comparing ---- */

static int cmp_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void decode(const char *p, struct buf *b)
{
    for (; *p; p++) {
        char hex[3] = "";
        if (*p == '%' && p[1] && p[2]) {
            memcpy(hex, p + 1, 2);
            buf_putc(b, (char)strtol(hex, NULL, 16));
            p += 2;
        } else {
            buf_putc(b, *p);
        }
    }
}

/* A path with its query decoded and sorted, and JSON in it with sorted keys. */
static char *canonical(const char *path)
{
    struct buf b = BUF_INIT;
    char *copy = strdup(path), *query = strchr(copy, '?'), *save = NULL, *params[16] = { NULL }, *ret;
    size_t n = 0;

    if (query)
        *query++ = '\0';
    decode(copy, &b);
    for (char *p = query ? strtok_r(query, "&", &save) : NULL; p && n < 16; p = strtok_r(NULL, "&", &save))
        params[n++] = p;
    qsort(params, n, sizeof params[0], cmp_lines);
    for (size_t i = 0; i < n; i++) {
        struct buf v = BUF_INIT;
        decode(params[i], &v);
        char *eq = strchr(buf_cstr(&v), '=');
        json_t *j = eq ? json_loads(eq + 1, 0, NULL) : NULL;
        char *text = j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
        if (text)
            buf_printf(&b, " %.*s=%s", (int)(eq - v.p), v.p, text);
        else
            buf_printf(&b, " %s", buf_cstr(&v));
        free(text);
        json_decref(j);
        buf_done(&v);
    }
    ret = strdup(buf_cstr(&b));
    buf_done(&b);
    free(copy);
    return ret;
}

static void prune_empty(json_t *v)
{
    const char *key;
    json_t *child;
    void *tmp;
    size_t i;

    json_object_foreach_safe(v, tmp, key, child)
    {
        prune_empty(child);
        if (json_is_null(child) || ((json_is_object(child) || json_is_array(child)) && jempty(child)))
            json_object_del(v, key);
    }
    for_each (v, i, child)
        prune_empty(child);
}

static bool same_body(struct str a, struct str b)
{
    json_t *x = json_loadb(a.p ? a.p : "", a.n, 0, NULL), *y = json_loadb(b.p ? b.p : "", b.n, 0, NULL);
    bool same;

    if (x)
        prune_empty(x);
    if (y)
        prune_empty(y);
    same = x && y ? json_equal(x, y) : (a.n == 0 || !x) && (b.n == 0 || !y);
    json_decref(x);
    json_decref(y);
    return same;
}

/* ---- the daemon ---- */

static struct exchange *pick(const char *method, const char *path)
{
    struct exchange *last = NULL;
    char *want = canonical(path);

    for (size_t i = 0; i < running->count; i++) {
        struct exchange *x = &running->ex[i];
        if (strcmp(x->method, method) != 0 || strcmp(x->path, want) != 0)
            continue;
        last = x;
        if (!x->used)
            break;
    }
    free(want);
    return last;
}

static void answer(int fd, const char *method, const char *path, struct str body)
{
    struct buf b = BUF_INIT;

    pthread_mutex_lock(&lock);
    struct exchange *x = pick(method, path);
    if (!x) {
        buf_printf(&running->complaints, "asked for %s %s\n", method, path);
        buf_puts(&b, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    } else {
        if (!same_body(body, buf_str(&x->request)))
            buf_printf(&running->complaints, "%s %s: body " STR_FMT "\n", method, path, STR_ARG(body));
        x->used = true;
        bool none = x->status == 204;
        buf_printf(&b, "HTTP/1.1 %d X\r\nApi-Version: 1.44\r\nContent-Type: application/json\r\n", x->status);
        if (!none)
            buf_printf(&b, "Content-Length: %zu\r\n", x->reply.n);
        buf_puts(&b, "\r\n");
        if (!none && strcmp(method, "HEAD") != 0)
            buf_put(&b, x->reply.p, x->reply.n);
    }
    pthread_mutex_unlock(&lock);
    for (size_t at = 0; at < b.n;) {
        ssize_t n = send(fd, b.p + at, b.n - at, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    buf_done(&b);
}

/* One request from the connection; false when it is over. */
static bool serve_one(int fd)
{
    struct buf in = BUF_INIT;
    char method[16], path[4096];
    size_t head = 0, length = 0;
    bool ok = false;

    for (;;) {
        char chunk[4096];
        char *end = in.n ? memmem(in.p, in.n, "\r\n\r\n", 4) : NULL;
        if (end && !head) {
            head = (size_t)(end - in.p) + 4;
            const char *cl = strcasestr(buf_cstr(&in), "\nContent-Length:");
            length = cl && cl < in.p + head ? strtoul(cl + 16, NULL, 10) : 0;
        }
        if (head && in.n >= head + length)
            break;
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        if (n <= 0)
            goto out;
        buf_put(&in, chunk, (size_t)n);
    }
    if (sscanf(in.p, "%15s %4095s", method, path) == 2) {
        answer(fd, method, path, (struct str){ in.p + head, length });
        ok = true;
    }
out:
    buf_done(&in);
    return ok;
}

static void *serve(void *arg)
{
    struct pollfd fds[8] = { { .fd = *(int *)arg, .events = POLLIN } };
    nfds_t n = 1;

    while (poll(fds, n, -1) > 0 || errno == EINTR) {
        if (fds[0].revents & (POLLHUP | POLLERR | POLLNVAL))
            break;
        if (fds[0].revents && n < 8) {
            int fd = accept(fds[0].fd, NULL, NULL);
            if (fd < 0)
                break;
            fds[n++] = (struct pollfd){ .fd = fd, .events = POLLIN };
            continue;
        }
        for (nfds_t i = 1; i < n; i++)
            if (fds[i].revents && !serve_one(fds[i].fd)) {
                close(fds[i].fd);
                fds[i--] = fds[--n];
            }
    }
    for (nfds_t i = 1; i < n; i++)
        close(fds[i].fd);
    return NULL;
}

/* ---- reading scenarios ---- */

static void read_line(struct scenario *s, const char *line, struct buf **into)
{
    char method[16], path[4096];
    struct wall_ns now;
    uint64_t number;

    if (strncmp(line, "$ ", 2) == 0) {
        buf_puts(&s->args, line + 2);
    } else if (strncmp(line, "now ", 4) == 0) {
        assert_true(wall_parse(str_from(line + 4), &now));
        s->now_ns = now.ns;
    } else if (strncmp(line, "tick ", 5) == 0) {
        assert_true(duration_parse(str_from(line + 5), &s->tick_ns));
    } else if (sscanf(line, ">>> %15s %4095[^\n]", method, path) == 2) {
        assert_true(s->count < EXCHANGES_MAX);
        struct exchange *x = &s->ex[s->count++];
        x->method = strdup(method);
        x->path = canonical(path);
        *into = &x->request;
    } else if (strncmp(line, "<<< ", 4) == 0) {
        assert_true(str_u64(str_from(line + 4), &number));
        s->ex[s->count - 1].status = (int)number;
        *into = &s->ex[s->count - 1].reply;
    } else if (strcmp(line, "--- stdout") == 0) {
        *into = &s->out;
    } else if (strcmp(line, "--- stderr") == 0) {
        *into = &s->err;
    } else if (strncmp(line, "--- exit ", 9) == 0) {
        assert_true(str_u64(str_from(line + 9), &number));
        s->exit_code = (int)number;
        *into = NULL;
    } else if (*into) {
        buf_printf(*into, "%s\n", line);
    }
}

static void read_scenario(struct scenario *s, const char *path)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    struct buf *into = NULL;

    assert_non_null(f);
    while ((n = getline(&line, &cap, f)) >= 0) {
        if (n > 0 && line[n - 1] == '\n')
            line[n - 1] = '\0';
        read_line(s, line, &into);
    }
    free(line);
    fclose(f);
}

static void free_scenario(struct scenario *s)
{
    for (size_t i = 0; i < s->count; i++) {
        free(s->ex[i].method);
        free(s->ex[i].path);
        buf_done(&s->ex[i].request);
        buf_done(&s->ex[i].reply);
    }
    buf_done(&s->args);
    buf_done(&s->out);
    buf_done(&s->err);
    buf_done(&s->complaints);
}

/* ---- running ---- */

/* Lines, without blanks at their ends: recordings lost those of the last line. */
static bool same_text(const char *a, const char *b)
{
    for (;;) {
        size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n"), ta = na, tb = nb;
        while (ta > 0 && a[ta - 1] == ' ')
            ta--;
        while (tb > 0 && b[tb - 1] == ' ')
            tb--;
        if (ta != tb || memcmp(a, b, ta) != 0)
            return false;
        if (!a[na] || !b[nb])
            return strspn(a + na, "\n") == strlen(a + na) && strspn(b + nb, "\n") == strlen(b + nb);
        a += na + 1;
        b += nb + 1;
    }
}

static void run_command(struct scenario *s, const char *socket_path, int *ret_code, char **ret_out, char **ret_err)
{
    struct err e = ERR_INIT;
    json_t *words = shell_words(buf_cstr(&s->args), &e), *w;
    char *argv[256] = { NULL };
    int argc = 0;
    size_t i, out_len, err_len;
    char host[256];
    struct cli c = { .columns = 80, .now_ns = scenario_now, .in_fd = -1 };

    snprintf(host, sizeof host, "unix://%s", socket_path);
    argv[argc++] = strdup("swarmctl");
    argv[argc++] = strdup("-H");
    argv[argc++] = strdup(host);
    argv[argc++] = strdup("--config");
    argv[argc++] = strdup("/nonexistent");
    assert_non_null(words);
    for_each (words, i, w)
        argv[argc++] = strdup(json_string_value(w));
    json_decref(words);
    c.out = open_memstream(ret_out, &out_len);
    c.err = open_memstream(ret_err, &err_len);
    *ret_code = cli_main(&c, argc, argv);
    fclose(c.out);
    fclose(c.err);
    cli_done(&c);
    for (int k = 0; k < argc; k++)
        free(argv[k]);
}

static bool run_scenario(struct scenario *s, const char *dir)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), code;
    pthread_t thread;
    char *out = NULL, *err = NULL;

    running = s;
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s/sock", dir);
    unlink(addr.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(pthread_create(&thread, NULL, serve, &fd), 0);
    run_command(s, addr.sun_path, &code, &out, &err);
    shutdown(fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(fd);
    unlink(addr.sun_path);
    for (size_t i = 0; i < s->count; i++)
        if (!s->ex[i].used)
            buf_printf(&s->complaints, "never asked for %s %s\n", s->ex[i].method, s->ex[i].path);
    if (code != s->exit_code)
        buf_printf(&s->complaints, "exit %d instead of %d\n", code, s->exit_code);
    if (!same_text(out, buf_cstr(&s->out)))
        buf_printf(&s->complaints, "--- stdout\n%s", out);
    if (!same_text(err, buf_cstr(&s->err)))
        buf_printf(&s->complaints, "--- stderr\n%s", err);
    if (s->complaints.n > 0)
        print_error("%s:\n%s", s->name, buf_cstr(&s->complaints));
    free(out);
    free(err);
    return s->complaints.n == 0;
}

static int only_text(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 4 && strcmp(d->d_name + n - 4, ".txt") == 0;
}

static void test_scenarios(void **state)
{
    char dir[] = "/tmp/swarmctl-test.XXXXXX";
    struct dirent **names;
    int n = scandir("swarmctl/testdata/cli", &names, only_text, alphasort), bad = 0;

    (void)state;
    assert_true(n > 0);
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < n; i++) {
        struct scenario s = { 0 };
        char path[512];
        snprintf(s.name, sizeof s.name, "%s", names[i]->d_name);
        snprintf(path, sizeof path, "swarmctl/testdata/cli/%s", names[i]->d_name);
        read_scenario(&s, path);
        bad += !run_scenario(&s, dir);
        free_scenario(&s);
        free(names[i]);
    }
    free(names);
    rmdir(dir);
    assert_int_equal(bad, 0);
}

/* The manual page in the tree is what the tables say. */
static void test_man_page(void **state)
{
    struct cli c = { .columns = 80 };
    char *out = NULL, *words[] = { "swarmctl", "__man" };
    size_t len;
    struct buf page = BUF_INIT;
    char chunk[4096];
    size_t n;
    FILE *f = fopen("swarmctl/swarmctl.1", "re");

    (void)state;
    assert_non_null(f);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_put(&page, chunk, n);
    fclose(f);
    c.out = open_memstream(&out, &len);
    c.err = stderr;
    assert_int_equal(cli_main(&c, 2, words), 0);
    fclose(c.out);
    cli_done(&c);
    assert_string_equal(out, buf_cstr(&page));
    free(out);
    buf_done(&page);
}

/* Every command has help that names it, and no table has a flag twice. */
static void check_command(const struct cmd *cmd, const char *path)
{
    struct buf b = BUF_INIT;
    struct cli c = { .columns = 80 };
    char name[256];

    for (const struct flag *const *t = cmd->flags; t && *t; t++)
        for (const struct flag *f = *t; f->name; f++) {
            assert_ptr_equal(flag_find(cmd->flags, f->name), f);
            assert_non_null(f->type);
            assert_true(strlen(f->help) > 3);
        }
    struct call call = { .cmd = cmd, .path = path };
    cmd_help(&c, &call, &b);
    assert_non_null(strstr(buf_cstr(&b), cmd->help));
    buf_done(&b);
    assert_true((cmd->run != NULL) != (cmd->sub != NULL));
    for (const struct cmd *s = cmd->sub; s && s->name; s++) {
        snprintf(name, sizeof name, "%s %s", path, s->name);
        check_command(s, name);
    }
}

static void test_commands(void **state)
{
    (void)state;
    check_command(&root_cmd, PROG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_man_page),
        cmocka_unit_test(test_commands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

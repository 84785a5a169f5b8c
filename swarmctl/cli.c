/* Finding the command, reading its flags, saying what went wrong. */
#include "swarmctl/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/daemon/daemon.h" /* MICROSWARM_VERSION */
#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"

int cli_fail(struct cli *c, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n >= 0)
        buf_printf(&c->errors, "%s%s", c->errors.n ? "\n" : "", text);
    free(text);
    return 1;
}

int cli_fail_api(struct cli *c)
{
    return cli_fail(c, "%s", buf_cstr(&c->why));
}

int cli_exit(struct cli *c, int code)
{
    c->exit_code = code;
    return 1;
}

void cli_done(struct cli *c)
{
    c->http = http_free(c->http);
    c->side = http_free(c->side);
    buf_done(&c->why);
    buf_done(&c->errors);
    free(c->socket);
    free(c->config_dir);
}

static bool alias_is(const char *aliases, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = aliases; p && *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && memcmp(p, word, n) == 0)
            return true;
    return false;
}

static const struct cmd *find_sub(const struct cmd *group, const char *word)
{
    for (const struct cmd *s = group->sub; s && s->name; s++)
        if (strcmp(s->name, word) == 0 || alias_is(s->aliases, word))
            return s;
    return NULL;
}

/* "-p, --publish: bad ..." and the like are followed by how the command is used. */
static int usage_error(struct cli *c, const struct call *call, const char *message)
{
    struct buf use = BUF_INIT;

    cmd_use_line(call, &use);
    cli_fail(c, "%s\n\nUsage:  %s\n\nRun '%s --help' for more information", message, buf_cstr(&use), call->path);
    buf_done(&use);
    return cli_exit(c, EXIT_FLAGS);
}

static int check_args(struct cli *c, const struct call *call)
{
    const struct cmd *cmd = call->cmd;
    struct buf use = BUF_INIT;
    const char *see = "Run";
    char what[64];

    if (call->argc >= cmd->min && (cmd->max < 0 || call->argc <= cmd->max))
        return 0;
    if (cmd->max == 0)
        snprintf(what, sizeof what, "accepts no arguments");
    else if (cmd->min == cmd->max)
        snprintf(what, sizeof what, "requires %d argument%s", cmd->min, cmd->min == 1 ? "" : "s");
    else if (call->argc < cmd->min) {
        snprintf(what, sizeof what, "requires at least %d argument%s", cmd->min, cmd->min == 1 ? "" : "s");
        see = "See";
    } else {
        snprintf(what, sizeof what, "requires at most %d argument%s", cmd->max, cmd->max == 1 ? "" : "s");
    }
    cmd_use_line(call, &use);
    cli_fail(c, PROG ": '%s' %s\n\nUsage:  %s\n\n%s '%s --help' for more information", call->path, what, buf_cstr(&use),
             see, call->path);
    buf_done(&use);
    return 1;
}

struct since_arg {
    struct cli *c;
    const struct call *call;
    int r;
};

static void check_since(const struct flag *f, void *arg)
{
    struct since_arg *s = arg;

    if (s->r == 0 && f->since > 41 && flag_changed(&s->call->fs, f->name) && !api_at_least(s->c, f->since))
        s->r = cli_fail(s->c, "\"--%s\" requires API version 1.%u, but the Docker daemon API version is %s", f->name,
                        f->since, s->c->api_version);
}

static void print_help(struct cli *c, const struct call *call, FILE *to)
{
    struct buf b = BUF_INIT;

    cmd_help(c, call, &b);
    fwrite(b.p, 1, b.n, to);
    buf_done(&b);
}

/* A command with its words read: arguments counted, flags the daemon is too old for refused, then off. */
static int run_leaf(struct cli *c, struct call *call, int argc, char **argv)
{
    struct err e = ERR_INIT;
    char **rest = calloc((size_t)argc + 1, sizeof *rest);
    int r, n = flags_parse(&call->fs, argc, argv, !call->cmd->raw_tail, rest, &e);

    call->argc = n;
    call->argv = rest;
    if (n == -ERR_GONE || (n >= 0 && call->cmd->needs_flag && flag_count(&call->fs) == 0)) {
        print_help(c, call, c->out);
        r = 0;
    } else if (n < 0) {
        r = usage_error(c, call, e.msg);
    } else {
        struct since_arg since = { c, call, 0 };
        r = check_args(c, call);
        if (r == 0)
            flags_each(call->cmd->flags, check_since, &since);
        if (r == 0)
            r = since.r;
        if (r == 0)
            r = call->cmd->run(c, call);
    }
    free(rest);
    return r;
}

/* A group: its first word is a command; flags it has none, but help. */
static int run_group(struct cli *c, struct call *call, int argc, char **argv, struct buf *path)
{
    if (argc == 0) {
        print_help(c, call, c->err);
        return 0;
    }
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) {
        print_help(c, call, c->out);
        return 0;
    }
    if (argv[0][0] == '-' && argv[0][1]) {
        char message[128];
        snprintf(message, sizeof message,
                 argv[0][1] == '-' ? "unknown flag: %.100s" : "unknown shorthand flag: '%.1s' in %s",
                 argv[0][1] == '-' ? argv[0] : argv[0] + 1, argv[0]);
        return usage_error(c, call, message);
    }
    const struct cmd *sub = find_sub(call->cmd, argv[0]);
    if (!sub)
        return unknown_command(c, call->cmd, call->path, argv[0]);
    buf_printf(path, " %s", argv[0]);
    struct call next = { .cmd = sub, .path = buf_cstr(path) };
    flagset_init(&next.fs, sub->flags);
    int r = sub->run ? run_leaf(c, &next, argc - 1, argv + 1) : run_group(c, &next, argc - 1, argv + 1, path);
    flagset_done(&next.fs);
    return r;
}

static int set_socket(struct cli *c, const char *host)
{
    if (strncmp(host, "unix://", 7) == 0 && host[7])
        c->socket = strdup(host + 7);
    else if (host[0] == '/')
        c->socket = strdup(host);
    else
        return cli_fail(c, "Failed to initialize: only unix:///PATH is supported: %s", host);
    return 0;
}

static int global_flags(struct cli *c, const struct flagset *fs)
{
    const char *host = getenv("MICROSWARM_HOST"), *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    json_t *hosts = flag_json(fs, "host");

    if (json_array_size(hosts) > 1)
        return cli_fail(c, "Failed to initialize: Specify only one -H");
    if (json_array_size(hosts) == 1)
        host = json_string_value(json_array_get(hosts, 0));
    if (!host || !*host)
        host = getenv("DOCKER_HOST");
    if (!host || !*host)
        host = SOCKET_DEFAULT;
    c->debug = flag_bool(fs, "debug");
    if (flag_changed(fs, "config"))
        c->config_dir = strdup(flag_str(fs, "config"));
    else if (dir && *dir)
        c->config_dir = strdup(dir);
    else if (asprintf(&c->config_dir, "%s/.docker", home ? home : "") < 0)
        c->config_dir = NULL;
    return set_socket(c, host);
}

/* "help service ls" is "service ls --help". */
static int run_help(struct cli *c, int argc, char **argv)
{
    struct buf path = BUF_INIT;
    const struct cmd *cmd = &root_cmd;

    buf_puts(&path, PROG);
    for (int i = 0; cmd && i < argc; i++) {
        cmd = find_sub(cmd, argv[i]);
        buf_printf(&path, " %s", argv[i]);
    }
    struct call call = { .cmd = cmd, .path = buf_cstr(&path) };
    if (cmd)
        print_help(c, &call, c->out);
    int r = cmd ? 0 : cli_fail(c, "unknown help topic: %s", argv[argc - 1]);
    buf_done(&path);
    return r;
}

static int run_root(struct cli *c, int argc, char **argv)
{
    struct buf path = BUF_INIT;
    struct err e = ERR_INIT;
    struct call call = { .cmd = &root_cmd, .path = PROG };
    char **rest = calloc((size_t)argc + 1, sizeof *rest);
    int r;

    buf_puts(&path, PROG);
    flagset_init(&call.fs, root_cmd.flags);
    int n = flags_parse(&call.fs, argc, argv, false, rest, &e);
    if (n == -ERR_GONE) {
        print_help(c, &call, c->out);
        r = 0;
    } else if (n < 0) {
        r = usage_error(c, &call, e.msg);
    } else if (flag_bool(&call.fs, "version")) {
        fprintf(c->out, PROG " version %s\n", MICROSWARM_VERSION);
        r = 0;
    } else if (n > 0 && strcmp(rest[0], "help") == 0) {
        r = run_help(c, n - 1, rest + 1);
    } else {
        r = global_flags(c, &call.fs);
        if (r == 0)
            r = run_group(c, &call, n, rest, &path);
    }
    flagset_done(&call.fs);
    free(rest);
    buf_done(&path);
    return r;
}

int cli_main(struct cli *c, int argc, char **argv)
{
    int r = run_root(c, argc - 1, argv + 1);

    fflush(c->out);
    if (c->errors.n > 0) {
        fwrite(c->errors.p, 1, c->errors.n, c->err);
        fputc('\n', c->err);
    }
    if (ferror(c->out) && r == 0)
        r = 1;
    return r == 0 ? 0 : c->exit_code ? c->exit_code : 1;
}

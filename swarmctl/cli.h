/*
 * cli.h - one run of swarmctl: where it writes, whom it talks to, which command it runs.
 *
 * Commands are tables (struct cmd); what they share are flags (flags.h), requests (below) and listings (output.h).
 * Everything a command touches of the outside world is in struct cli, so that tests run commands in their own process.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/util/err.h"
#include "common/util/str.h"
#include "swarmctl/flags.h"
#include "swarmctl/http.h"

#define PROG "swarmctl"
#define SOCKET_DEFAULT "unix:///run/microswarm/docker.sock"

enum exit_code {
    EXIT_FLAGS = 125,   /* a flag is unknown or its value is wrong */
    EXIT_TEMPLATE = 64, /* --format can't be parsed */
};

struct cli {
    FILE *out, *err;
    bool out_tty;
    int columns;             /* of the terminal; 80 when there is none */
    int64_t (*now_ns)(void); /* wall clock */
    int in_fd;               /* standard input */
    bool in_tty;
    bool debug;
    char *socket;      /* path, from -H, $MICROSWARM_HOST or $DOCKER_HOST */
    char *config_dir;  /* where registry credentials are */
    struct http *http; /* made at the first request */
    struct http *side; /* a second connection, for lookups while the first streams */
    bool streaming;
    char api_version[16]; /* of the daemon, once it has answered */
    long status;          /* of the last request; 0: no reply */
    struct buf why;       /* why the last request failed, as the user sees it */
    struct buf errors;    /* what has gone wrong so far, one message a line; printed at the end */
    int exit_code;        /* set by cli_exit() */
};

struct cmd;

struct call {
    const struct cmd *cmd;
    struct flagset fs;
    int argc; /* positional arguments */
    char **argv;
    const char *path; /* "swarmctl service ls", as called */
};

struct cmd {
    const char *name, *aliases; /* aliases: comma-separated other names, or NULL */
    const char *args;           /* usage of the positional arguments */
    const char *help;
    int min, max;                    /* positional arguments; max -1: any number */
    const struct flag *const *flags; /* NULL-terminated list of tables, or NULL */
    const struct cmd *sub;           /* ended by a NULL name; a group has these and no run */
    /* Returns 0, or 1 when something failed and cli_fail() was told why. */
    int (*run)(struct cli *c, struct call *call);
    const char *same_as;  /* "image ls": the long name of a top-level shorthand, for its help */
    const char *also;     /* "images": the shorthand of a long name */
    const char *complete; /* what the arguments are: "@service", "@node", ..., or words "worker,manager" */
    bool raw_tail;        /* flags end at the first positional argument */
    bool needs_flag;      /* without any flag it prints its help */
    bool hidden;
};

extern const struct cmd root_cmd;

/* cli_main - runs argv (argv[0] is skipped) and returns the exit code. */
int cli_main(struct cli *c, int argc, char **argv);
void cli_done(struct cli *c);

/* cli_fail - adds a message to what is printed at the end; returns 1. */
int cli_fail(struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* cli_fail_api - the same with what the last request left in c->why. */
int cli_fail_api(struct cli *c);
/* cli_exit - the exit code to end with instead of 1. */
int cli_exit(struct cli *c, int code);

/* help.c */
void cmd_help(struct cli *c, const struct call *call, struct buf *b);
void cmd_use_line(const struct call *call, struct buf *b);
int unknown_command(struct cli *c, const struct cmd *group, const char *path, const char *word);

/* completion.c, man.c */
int run_complete(struct cli *c, struct call *call);
int run_completion(struct cli *c, struct call *call);
int run_man(struct cli *c, struct call *call);

/*
 * api_call - one request with a JSON body (or NULL) and a JSON reply.
 *
 * @path      without a version: the daemon's newest; built with url_path() and url_query()
 * @ret       given; NULL if there was no body. May be NULL.
 *
 * Returns 0 for a status below 400; else 1 with c->why and c->status set.
 */
int api_call(struct cli *c, const char *method, const char *path, const json_t *body, json_t **ret);
int api_get(struct cli *c, json_t **ret, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* api_raw - the same, the reply as it came. headers as in struct http_request. */
int api_raw(struct cli *c, const char *method, const char *path, const json_t *body, const char *const *headers,
            struct buf *ret);

/* api_stream - a reply handed on piece by piece; with body_fd >= 0 its content is sent. */
int api_stream(struct cli *c, const char *method, const char *path, int body_fd, const char *content_type,
               const char *const *headers, bool (*on_data)(const char *p, size_t n, void *arg), void *arg);

/* api_at_least - whether the daemon speaks API 1.minor; asks it if nothing has been asked yet. */
bool api_at_least(struct cli *c, unsigned minor);

void url_path(struct buf *b, const char *name);
void url_query(struct buf *b, const char *key, const char *value);

/* filters_of - the values of --filter as the API wants them; given. */
json_t *filters_of(const struct flagset *fs, const char *flag);
void filter_add(json_t *filters, const char *key, const char *value);
/* url_filters - ?filters=... or &filters=..., nothing when there are none; takes `filters`. */
void url_filters(struct buf *b, json_t *filters);

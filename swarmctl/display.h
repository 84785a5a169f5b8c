/* display.h - progress lines: redrawn in place on a terminal, printed once each elsewhere; also the daemon's own
 * streams. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "common/util/str.h"

struct progress {
    const char *id, *text;
    int64_t current, total; /* 0, 0: no bar */
    const char *units;      /* behind counts; "" shows them as sizes, NULL shows none */
    bool message;           /* a plain line: never redrawn */
};

struct display {
    FILE *out;
    bool tty;
    int columns;
    char **ids;  /* lines on the screen, top down */
    char **last; /* text last printed for each, when not on a terminal */
    size_t count;
};

void display_progress(struct display *d, const struct progress *p);
void display_done(struct display *d);

/* A stream of JSON messages (image load and pull), cut anywhere: feed it pieces. */
struct message_stream {
    struct display *display;
    bool quiet;
    struct buf pending;
    struct buf error; /* what an {"error":...} message said */
};

bool message_feed(const char *p, size_t n, void *stream); /* for api_stream() */
void message_done(struct message_stream *s);

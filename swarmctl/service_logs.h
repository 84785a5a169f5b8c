/* service_logs.h - "service logs": the framed stream of lines, each with where it comes from. */
#pragma once

#include "swarmctl/cli.h"

extern const struct flag service_logs_flags[];
int run_service_logs(struct cli *c, struct call *call);

/*
 * A stream of frames (docker-api reference, "Log streams"), cut anywhere. Pure.
 *
 * frames_feed() calls line() for each payload: stream 1 is standard output, 2 standard error, 3 an error of the
 * daemon. Returns false when line() did, or when the bytes can't be frames.
 */
struct frames {
    bool (*line)(void *arg, int stream, struct str payload);
    void *arg;
    struct buf pending;
};
bool frames_feed(struct frames *f, const char *p, size_t n);

/* details_parse - "k=v,k2=v2", values percent-encoded, as an object; NULL when malformed. */
json_t *details_parse(struct str text);

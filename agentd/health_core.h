/*
 * health_core.h - whether a container is healthy, from the results of its checks; pure, in Docker's terms
 * (HEALTHCHECK of the image, Healthcheck of the service; moby:daemon/health.go).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/fields.h"

#define HEALTH_LOG 5          /* results that are kept */
#define HEALTH_OUTPUT 4096u   /* bytes of a check's output that are kept */
#define HEALTH_TIMED_OUT (-1) /* as an exit code */

/* What an image or a service says; zero: not said. Text is borrowed. */
struct health_spec {
    struct strs Test; /* {"NONE"}, {"CMD", program, ...}, {"CMD-SHELL", text} */
    int64_t Interval, Timeout, Retries, StartPeriod, StartInterval;
};

/* What follows from both. */
struct health_conf {
    struct strs test, argv; /* as it was said; what is run */
    int64_t interval_ns, timeout_ns, start_period_ns, start_interval_ns;
    uint64_t retries;
};

/*
 * health_conf_of - the service's fields come before the image's; Docker's defaults fill the rest.
 *
 * @service  NULL: says nothing
 * @shell    the image's SHELL; empty: /bin/sh -c
 *
 * Returns false when nothing is to be checked. Lists are in the arena, text is borrowed.
 */
bool health_conf_of(const struct health_spec *service, const struct health_spec *image, const struct strs *shell,
                    struct arena *a, struct health_conf *ret);

enum health_state { HEALTH_NONE, HEALTH_STARTING, HEALTH_HEALTHY, HEALTH_UNHEALTHY };
const char *health_state_name(enum health_state s); /* Docker's word */

struct health_result {
    int64_t start_ns, end_ns; /* wall */
    int64_t exit_code;
    char *output; /* heap; NULL: none */
    size_t output_n;
};

struct health {
    enum health_state state;
    uint64_t streak;                      /* failures in a row that count */
    struct health_result log[HEALTH_LOG]; /* oldest first */
    unsigned nlog;
};

void health_done(struct health *h);

/*
 * health_take - a check has ended; r->output is taken. True when the state has changed.
 *
 * @age_ns  of the container when the check began
 */
bool health_take(struct health *h, const struct health_conf *c, const struct health_result *r, int64_t age_ns);

/* health_pause_ns - from the end of a check (or the container's start) to the next one. */
int64_t health_pause_ns(const struct health *h, const struct health_conf *c, int64_t age_ns);

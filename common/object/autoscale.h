/*
 * autoscale.h - the labels of a service that scales itself.
 *
 *   microswarm.autoscale.min       replicas at least (1)
 *   microswarm.autoscale.max       replicas at most; must be there
 *   microswarm.autoscale.cpu       percent of a task's CPU limit, or of one CPU without a limit
 *   microswarm.autoscale.memory    percent of a task's memory limit
 *   microswarm.autoscale.metric    "http://:PORT/PATH NAME": a number that each container exposes, as Prometheus' text
 *   microswarm.autoscale.target    what that number should be, a task
 *   microswarm.autoscale.cooldown  between two changes (30s)
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/fields.h"

#define AUTOSCALE_PREFIX "microswarm.autoscale."
#define AUTOSCALE_MAX 100000u
#define AUTOSCALE_PERIOD_MS 5000u /* nodes measure that often, unless they are told otherwise */

struct autoscale {
    bool given; /* there are such labels */
    uint64_t min, max;
    uint64_t cpu, memory; /* percent; 0: not looked at */
    bool has_metric;
    uint64_t port;
    struct str path, name; /* of the metric; borrowed from the label */
    double target;
    int64_t cooldown_ns;
};

/*
 * autoscale_parse - 0; -ERR_INVALID when a label cannot be read, is not known, or does not go with the others: then
 * *ret_label is its name and the error says what it must be. Without any such label, 0 and !given.
 */
int autoscale_parse(const struct strmap *labels, struct autoscale *ret, const char **ret_label, struct err *e);

/* autoscale_replicas - what the service shall have: @wanted by the decisions (0: none yet), else @declared; in bounds.
 */
uint64_t autoscale_replicas(const struct autoscale *a, uint64_t wanted, uint64_t declared);

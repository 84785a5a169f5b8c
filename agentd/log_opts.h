/* log_opts.h - a service's log driver and its options. Pure. */
#pragma once

#include "agentd/task_spec.h"

struct log_opts {
    bool none;         /* nothing is kept */
    uint64_t size_max; /* bytes of one file; 0: no limit */
    unsigned files;    /* with the current one; at least 1 */
};

/* log_opts_known - refuses option names that the driver does not have, in Docker's words. @d may be NULL. */
int log_opts_known(const struct tspec_driver *d, struct err *e);

/*
 * log_opts_read - what to keep of a task's output. @dflt holds when the service does not say; a service that only
 * limits the size of a file means one file, as with Docker. json-file and local are kept in the same way.
 */
int log_opts_read(const struct tspec_driver *d, const struct log_opts *dflt, struct log_opts *ret, struct err *e);

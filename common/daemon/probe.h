/* probe.h - the text socket of a daemon, for a person with nngcat: ipc://<run>/<daemon>.probe, REP. */
#pragma once

#include <systemd/sd-event.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define PROBE_LINE_MAX 4096u

struct daemon_spec;
struct probe_server;
int probe_open(struct probe_server **ret, sd_event *loop, const char *run_dir, const struct daemon_spec *spec,
               struct err *e);
struct probe_server *probe_close(struct probe_server *p);

/* probe_answer - one line in (bytes of anyone), one answer out; pure but for what the commands look at. */
void probe_answer(const struct daemon_spec *spec, struct str line, struct buf *out);

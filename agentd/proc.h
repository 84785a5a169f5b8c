/*
 * proc.h - a child program, watched by the event loop; its output is there when it has ended.
 *
 * Output goes to memory files, so that nothing needs to be read while the child runs and nothing can block.
 */
#pragma once

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/util/err.h"
#include "common/util/str.h"

struct proc;

struct proc_spec {
    const char *const *argv; /* argv[0]: absolute path; NULL-ended */
    struct str input;        /* standard input's content; empty: /dev/null */
    const char *const *env;  /* NULL: PATH only */
    const char *dir;         /* working folder; NULL: ours */
    int out_fd;              /* takes all its output instead; 0: kept until it has ended */
    int keep_fds[4];         /* descriptors the child gets as 3, 4, 5...; -1 or 0 ends the list */
};

#define PROC_OUT_MAX (8u << 20)
/* proc_done_fn - @status as waitpid's; out and errtext (at most PROC_OUT_MAX) live during the call. The proc is gone.
 */
typedef void proc_done_fn(void *arg, int status, struct str out, struct str errtext);

int proc_start(struct proc **ret, sd_event *loop, const struct proc_spec *spec, proc_done_fn *done, void *arg,
               struct err *e);
pid_t proc_pid(const struct proc *p);
void proc_kill(struct proc *p);         /* SIGKILL; `done` still comes */
struct proc *proc_free(struct proc *p); /* forgets without `done`; a running child is killed and left to be reaped */

int pidfd_of(pid_t pid); /* close-on-exec descriptor or -errno */

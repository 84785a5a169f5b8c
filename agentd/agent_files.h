/*
 * agent_files.h - the files of a task's secrets and configs.
 *
 * While the task is prepared their content is asked of the leader's dispatcherd, sealed for this process. It goes into
 * a tmpfs of the task's own, <run>/files/<task>, which is never swapped where the kernel can do without (noswap, 6.4),
 * and from there, file by file and read-only, into the container. Nothing of it is kept anywhere else: a task that is
 * prepared again asks again.
 */
#pragma once

#include "agentd/agent_task.h"

/* files_prepare - 0: there are none; 1: under way, then done is called once, with what went wrong or NULL. */
typedef void files_done_fn(struct atask *t, const struct err *e);
int files_prepare(struct atask *t, files_done_fn *done);

/* files_cancel - true: it was under way, and done will not be called. */
bool files_cancel(struct atask *t);

/* files_mount - where they go in the container, for config.json. */
int files_mount(struct atask *t, struct err *e);

/* files_drop - the task has ended, or will be prepared anew: nothing of it stays. */
void files_drop(struct atask *t);

/* files_kick - there is a session now. */
void files_kick(struct agent *ag);

/* files_leftovers - after a restart: those of tasks that are gone or have ended. */
void files_leftovers(struct agent *ag);
void files_close(void);

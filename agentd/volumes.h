/*
 * volumes.h - local volumes: <state>/volumes/<name>/{_data,labels.json}. Named ones stay until somebody removes them by
 * hand; anonymous ones have 64 hex digits as their name and go with their task.
 */
#pragma once

#include <stdbool.h>

#include "common/proto/fields.h"

#define VOLUME_PATH_MAX 1024

/* volume_name_ok - Docker's rule: [a-zA-Z0-9][a-zA-Z0-9_.-]+ */
bool volume_name_ok(struct str name);
int volume_name_check(struct str name, struct err *e); /* -ERR_INVALID in Docker's words */

void volume_anonymous_name(char name[65]);

/* volume_ensure - makes it when missing; path: the data folder; *ret_empty: it takes the image's content. */
int volume_ensure(const char *state_dir, struct str name, const struct strmap *labels, char path[VOLUME_PATH_MAX],
                  bool *ret_empty, struct err *e);

/* volume_fill_begin, _done - around the copying of an image's content. What was interrupted, or found no more room on
 * the disk, is done again at the next start, instead of passing for a volume that has content. */
int volume_fill_begin(const char *path, struct err *e);
void volume_fill_done(const char *path);

void volume_remove(const char *state_dir, const char *name);

/*
 * volume_copy_plan - what putting the image's content at `target` into the empty volume takes.
 *
 * Returns 0: nothing to copy (owner and mode were taken over); 1 with *ret_fd (given), the folder to copy from; or an
 * error code, negative.
 */
int volume_copy_plan(int rootfs_fd, const char *target, const char *volume_path, int *ret_fd, struct err *e);

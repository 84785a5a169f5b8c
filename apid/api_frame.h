/*
 * api_frame.h - lines of the log stream as Docker's clients expect them (docker-api.md §1.7). Pure.
 */
#pragma once

#include "common/util/str.h"

struct log_line {
    unsigned stream; /* 1 stdout, 2 stderr, 3 an error of ours */
    int64_t time_ns;
    struct str data;
    struct str details; /* of log_details() */
};
struct log_style {
    bool tty; /* no frames: bytes as they are */
    bool timestamps, details;
};

/* log_frame_put - one line: [8-byte header][timestamp ][details ]data. */
void log_frame_put(struct buf *out, const struct log_style *style, const struct log_line *l);

/*
 * log_details - what a client that asks for details gets with each line of a task: "key=value,..." by key, escaped.
 *
 * Node, service and task; and what the log driver was told to add: labels, env (names, comma-separated), labels-regex,
 * env-regex, and tag when it is plain text. @spec is the encoded task template, may be empty.
 */
void log_details(struct buf *out, struct str spec, struct str node_id, struct str service_id, struct str task_id);

/* query_escape - as Go's url.QueryEscape, which clients undo on the details. */
void query_escape(struct buf *out, struct str s);

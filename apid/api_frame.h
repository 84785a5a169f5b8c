/*
 * api_frame.h - lines of the log stream as Docker's clients expect them (docker-api.md §1.7). Pure.
 */
#pragma once

#include "common/util/str.h"

struct log_line {
    unsigned stream; /* 1 stdout, 2 stderr, 3 an error of ours */
    int64_t time_ns;
    struct str data;
    struct str node_id, service_id, task_id; /* the details */
};
struct log_style {
    bool tty; /* no frames: bytes as they are */
    bool timestamps, details;
};

/* log_frame_put - one line: [8-byte header][timestamp ][details ]data. */
void log_frame_put(struct buf *out, const struct log_style *style, const struct log_line *l);

/* query_escape - as Go's url.QueryEscape, which clients undo on the details. */
void query_escape(struct buf *out, struct str s);

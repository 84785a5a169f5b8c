/*
 * ctr_log.h - the log files that conmon writes ("k8s-file"): one line is
 *   2026-11-20T18:00:00.123456789+00:00 stdout F the text
 * with P instead of F when the line goes on in the next record. Pure: works on bytes.
 */
#pragma once

#include <stdbool.h>

#include "common/util/clock.h"
#include "common/util/str.h"

struct log_rec {
    struct wall_ns time;
    int stream;   /* 1 stdout, 2 stderr */
    bool partial; /* no newline after it */
    struct str text;
};

/* log_next - the first record of *s, which moves on. 1: one was read; 0: no complete record is left; a damaged line is
 * stepped over. */
int log_next(struct str *s, struct log_rec *ret);

/* log_tail - where the last n lines of the wanted streams (bit 1: stdout, bit 2: stderr) begin. *n becomes the number
 * of lines that are still missing (0: all found). @ended: a last line without its newline counts, too. */
size_t log_tail(struct str s, unsigned streams, bool ended, uint64_t *n);

/*
 * A position in the log: "inode:offset:time of the first record of that file:done". Reading goes on at @offset, where
 * the first line begins that was incomplete; what ends before @done was read already (a line of the other stream).
 */
struct log_cursor {
    uint64_t inode, offset;
    int64_t first_ns;
    uint64_t done;
};
bool log_cursor_parse(struct str text, struct log_cursor *ret);

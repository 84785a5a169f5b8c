/*
 * scenario.h - tests as text: a file holds cases of input, a line "----", the expected output, and an empty line.
 * REWRITE=1 in the environment rewrites the expected parts; read the diff. Only tests link this.
 */
#pragma once

#include <stdbool.h>

#include "common/util/str.h"

/* Called for each line of the input that is not empty and no comment; words are separated by blanks. */
typedef void scenario_line_fn(void *arg, char **words, unsigned n, struct buf *out);

struct scenario_ops {
    void *(*begin)(void); /* a new case */
    scenario_line_fn *line;
    void (*end)(void *arg, struct buf *out); /* of the input: last output, and release */
};

/* scenario_run - all files that match, relative to the top folder; false when an output differs (it is printed). */
bool scenario_run(const char *pattern, const struct scenario_ops *ops);

/* scenario_value - splits "key=value" in place; "" without "=". */
char *scenario_value(char *word);

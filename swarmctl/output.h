/* output.h - listings and inspections: --format, tables, JSON. */
#pragma once

#include "swarmctl/cli.h"

/* What a listing offers to --format, and what it shows without one. */
struct listing {
    const char *table;              /* the default template */
    const char *quiet;              /* with -q; NULL: {{.ID}} */
    const char *raw;                /* --format raw */
    const char *const (*titles)[2]; /* field, column title; ended by a NULL field */
};

/* listing_print - rows (an array of objects) as format says; 1 with the reason told when the template is wrong. */
int listing_print(struct cli *c, const struct listing *l, json_t *rows, const char *format, bool quiet);

/* row_* - building a row; texts are copied. Members must come in the order of their names: that is how json shows them.
 */
void row_text(json_t *row, const char *field, struct buf *b); /* empties b */

/* json_indent - JSON text with every member on a line, otherwise byte for byte; json_squeeze - without any blanks. */
void json_indent(struct buf *out, struct str json, const char *unit);
void json_squeeze(struct buf *out, struct str json);

/*
 * inspect_print - what "inspect" commands show for the objects named.
 *
 * @get   fetches one as text; 1 with cli_fail() told when it can't
 */
typedef int inspect_get(struct cli *c, const char *ref, void *arg, struct buf *ret);
int inspect_print(struct cli *c, char **refs, int n, const char *format, inspect_get *get, void *arg);

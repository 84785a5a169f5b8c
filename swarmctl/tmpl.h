/*
 * tmpl.h - the template language of --format: what Go's text/template offers and the docker client adds to it.
 *
 * Actions: pipelines, if/else if/else, range/else with break and continue, with/else, variables, comments, {{- -}}.
 * Functions: and or not len index slice print printf println html js urlquery eq ne lt le gt ge, and docker's
 * json split join title lower upper pad truncate. Named templates (define, template, block) and call are refused.
 *
 * Pure: a template is parsed once and executed over JSON; nesting, work and output are bounded.
 */
#pragma once

#include <jansson.h>

#include "common/util/err.h"
#include "common/util/str.h"

struct tmpl;

enum tmpl_mode {
    TMPL_ROW,    /* data is a row made by us: an unknown field is an error */
    TMPL_API,    /* data is an object of the API: a field it may have and hasn't reads as its type's zero value */
    TMPL_HEADER, /* data maps fields to column titles: functions leave them as they are, unknown ones show <no value> */
};

/* tmpl_parse - errors read "template: :LINE: why". */
int tmpl_parse(struct tmpl **ret, const char *text, struct err *e);

/* tmpl_exec - appends to out, also what came before an error; "template: :LINE:COL: executing "" at <.X>: why". */
int tmpl_exec(const struct tmpl *t, json_t *data, enum tmpl_mode mode, struct buf *out, struct err *e);

/* tmpl_uses - whether any part of the template names the field (of the top-level data or anything else). */
bool tmpl_uses(const struct tmpl *t, const char *field);

struct tmpl *tmpl_free(struct tmpl *t);

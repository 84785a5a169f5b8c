/*
 * tmpl.h - the template language: Go's text/template as far as services, secrets, configs and --format use it.
 *
 * Actions: pipelines, if/else if/else, range/else with break and continue, with/else, variables, comments, {{- -}}.
 * Functions: and or not len index slice print printf println html js urlquery eq ne lt le gt ge, and those of the
 * language it is used in (docker's for --format, env, secret and config for payloads). Named templates (define,
 * template, block) and call are refused.
 *
 * Pure: a template is parsed once and executed over JSON; nesting, work, memory and output are bounded.
 */
#pragma once

#include <jansson.h>

#include "common/util/err.h"
#include "common/util/str.h"

#define TMPL_SOURCE_MAX (1u << 20) /* bytes of a template */

struct tmpl;
struct tmpl_lang;                      /* tmpl_fn.h */
extern const struct tmpl_lang tmpl_go; /* with no functions of its own */

enum tmpl_mode {
    TMPL_ROW,    /* data is a row made by us: an unknown field is an error */
    TMPL_API,    /* data is an object of the API: a field it may have and hasn't reads as its type's zero value */
    TMPL_HEADER, /* data maps fields to column titles: functions leave them as they are, unknown ones show <no value> */
};

/* tmpl_parse - the text is copied; errors read "template: NAME:LINE: why". -ERR_TOO_BIG for a text that is too long. */
int tmpl_parse(struct tmpl **ret, const struct tmpl_lang *lang, struct str text, struct err *e);

/*
 * tmpl_exec - appends to out, also what came before an error: "template: NAME:LINE:COL: executing "NAME" at <.X>: why".
 *
 * @arg  for the language's functions
 */
int tmpl_exec(const struct tmpl *t, json_t *data, enum tmpl_mode mode, void *arg, struct buf *out, struct err *e);

/* tmpl_uses - whether any part of the template names the field (of the top-level data or anything else). */
bool tmpl_uses(const struct tmpl *t, const char *field);

/* tmpl_free - overwrites what it held: a secret's payload may be a template. */
struct tmpl *tmpl_free(struct tmpl *t);

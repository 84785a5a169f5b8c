/*
 * flags.h - command line flags, declared once.
 *
 * A command's flags are one table. Parsing, --help, shell completion, the manual page and, for services, the change
 * to the JSON spec (spec.h) are all read from its rows; nothing else knows a flag's name.
 *
 * The grammar is the docker client's: --name VALUE, --name=VALUE, -n VALUE, -nVALUE, -abc for switches, -- ends flags.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/util/err.h"
#include "common/util/str.h"

/* What kind of value a flag takes. The converters are pure functions (conv.h), which the fuzzer drives too. */
struct flag_type {
    const char *name; /* as --help shows it: "list", "duration"; "" for a switch */
    bool list;        /* may be repeated; the value is an array, and an array from parse() is appended element-wise */
    bool no_value;    /* a switch: --name alone means true */
    /* The text as JSON, given in *ret. */
    int (*parse)(const char *text, json_t **ret, struct err *e);
};

struct spec_edit;

/* How a flag changes a service spec; see spec.c. */
enum flag_apply {
    APPLY_NONE = 0,
    APPLY_SET,    /* path = value; when creating, only if it isn't a zero value */
    APPLY_ALWAYS, /* path = value or default, whether given or not (creating) */
    APPLY_GIVEN,  /* path = value if given, zero or not */
    APPLY_MAP,    /* path gets the members of "k=v" values; with `pair`, those keys are taken out first */
    APPLY_LIST,   /* values are appended, those of `pair` taken out, the result sorted and without doubles */
    APPLY_FN,     /* fn() looks at this flag and its relatives; runs once, at the first row that names it */
};

struct flag {
    const char *name;
    char shorthand; /* 0: none */
    const struct flag_type *type;
    const char *help;
    const char *def;     /* shown as (default ...); also the value flag_str() gives when absent */
    const char *choices; /* comma-separated, for completion; "@service" and the like ask the daemon */
    unsigned since;      /* smallest API 1.x that knows it; 0: any */
    enum flag_apply apply;
    const char *path; /* in the ServiceSpec */
    const char *pair; /* the flag that takes out what this one adds */
    int (*fn)(struct spec_edit *ed);
};

#define FLAGS_END                                                                                                      \
    {                                                                                                                  \
        .name = NULL                                                                                                   \
    }

/* The flags of one invocation: rows and the values given for them. */
struct flagset {
    const struct flag *const *tables; /* NULL-terminated list of tables */
    json_t *values;                   /* name -> parsed value */
};

void flagset_init(struct flagset *fs, const struct flag *const *tables);
void flagset_done(struct flagset *fs);

const struct flag *flag_find(const struct flag *const *tables, const char *name);

/*
 * flags_parse - reads argv[0..argc), puts what isn't a flag into rest[] (room for argc).
 *
 * @interspersed  false: the first positional argument ends the flags
 *
 * Returns the number of positional arguments, or -code: ERR_INVALID with the message the user sees, or
 * ERR_GONE when -h or --help was met.
 */
int flags_parse(struct flagset *fs, int argc, char **argv, bool interspersed, char **rest, struct err *e);

bool flag_changed(const struct flagset *fs, const char *name);
size_t flag_count(const struct flagset *fs); /* flags given */
bool flag_bool(const struct flagset *fs, const char *name);
const char *flag_str(const struct flagset *fs, const char *name); /* the default, or "", when absent */
int64_t flag_int(const struct flagset *fs, const char *name);
json_t *flag_json(const struct flagset *fs, const char *name); /* borrowed; NULL when absent */

/* flags_each - calls fn for every row, in the order --help lists them (by name). */
void flags_each(const struct flag *const *tables, void (*fn)(const struct flag *f, void *arg), void *arg);

/* flags_help - the "Options:" block, wrapped for a terminal of `cols` columns. */
void flags_help(struct buf *b, const struct flag *const *tables, int cols);

/* wrap_help - text broken at blanks behind `indent` columns. */
void wrap_help(struct buf *b, int indent, int cols, const char *text);

/* format.h - the templates of --format: common/template with the docker client's functions and its types' fields. */
#pragma once

#include "common/template/tmpl.h"

/* Functions besides Go's: json split join title lower upper pad truncate. Errors as tmpl_parse() and tmpl_exec(). */
int format_parse(struct tmpl **ret, const char *text, struct err *e);
int format_exec(const struct tmpl *t, json_t *data, enum tmpl_mode mode, struct buf *out, struct err *e);

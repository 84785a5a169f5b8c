/* Splitting text: CSV fields, shell words, environment files. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/cleanup.h"
#include "swarmctl/conv.h"

static int push(json_t *list, struct buf *b, struct err *e)
{
    json_t *s = json_stringn(b->p ? b->p : "", b->n);

    buf_clear(b);
    if (!s)
        return err_set(e, ERR_INVALID, "not valid UTF-8");
    json_array_append_new(list, s);
    return 0;
}

/* One quoted field, p behind its opening quote; returns what follows the closing one. */
static const char *quoted_field(const char *p, struct buf *b)
{
    for (; *p; p++) {
        if (*p != '"')
            buf_putc(b, *p);
        else if (p[1] == '"')
            buf_putc(b, *p++);
        else
            return p + 1;
    }
    return NULL;
}

json_t *csv_fields(const char *text, struct err *e)
{
    json_t *list = json_array();
    struct buf b = BUF_INIT;
    const char *p = text;

    if (!*text) {
        err_set(e, ERR_INVALID, "EOF");
        goto bad;
    }
    for (;;) {
        if (*p == '"') {
            p = quoted_field(p + 1, &b);
            if (!p || (*p && *p != ',')) {
                err_set(e, ERR_INVALID, "parse error on line 1, column %zu: extraneous or missing \" in quoted-field",
                        (p ? (size_t)(p - text) : strlen(text)) + 1);
                goto bad;
            }
        } else {
            for (; *p && *p != ','; p++) {
                if (*p == '"') {
                    err_set(e, ERR_INVALID, "parse error on line 1, column %zu: bare \" in non-quoted-field",
                            (size_t)(p - text) + 1);
                    goto bad;
                }
                buf_putc(&b, *p);
            }
        }
        if (push(list, &b, e) < 0)
            goto bad;
        if (*p++ != ',')
            break;
    }
    buf_done(&b);
    return list;
bad:
    buf_done(&b);
    json_decref(list);
    return NULL;
}

json_t *shell_words(const char *text, struct err *e)
{
    json_t *list = json_array();
    struct buf b = BUF_INIT;
    bool in_word = false;
    char quote = 0;

    for (const char *p = text; *p; p++) {
        if (quote == '\'' && *p != '\'') {
            buf_putc(&b, *p);
        } else if (quote && *p == quote) {
            quote = 0;
        } else if (!quote && (*p == '\'' || *p == '"')) {
            quote = *p;
            in_word = true;
        } else if (*p == '\\') {
            if (!p[1]) {
                err_set(e, ERR_INVALID, "EOF found after escape character");
                goto bad;
            }
            buf_putc(&b, *++p);
            in_word = true;
        } else if (!quote && isspace((unsigned char)*p)) {
            if (in_word && push(list, &b, e) < 0)
                goto bad;
            in_word = false;
        } else if (!quote && *p == '#' && !in_word) {
            p += strcspn(p, "\n");
            if (!*p)
                break;
        } else {
            buf_putc(&b, *p);
            in_word = true;
        }
    }
    if (quote) {
        err_set(e, ERR_INVALID, "EOF found when expecting closing quote");
        goto bad;
    }
    if (in_word && push(list, &b, e) < 0)
        goto bad;
    buf_done(&b);
    return list;
bad:
    buf_done(&b);
    json_decref(list);
    return NULL;
}

static int env_line(const char *line, json_t *list, struct err *e)
{
    size_t n = strcspn(line, "=");

    if (n == 0)
        return err_set(e, ERR_INVALID, "no variable name on line '%s'", line);
    if (strcspn(line, " \t") < n)
        return err_set(e, ERR_INVALID, "variable '%.*s' contains whitespaces", (int)n, line);
    if (line[n] == '\0') {
        const char *value = getenv(line);
        if (value)
            json_array_append_new(list, json_sprintf("%s=%s", line, value));
        return 0;
    }
    json_t *s = json_string(line);
    if (!s)
        return err_set(e, ERR_INVALID, "invalid UTF-8 bytes: '%s'", line);
    json_array_append_new(list, s);
    return 0;
}

int env_file(const char *path, json_t *list, struct err *e)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int r = 0;

    if (!f)
        return err_set(e, ERR_NOT_FOUND, "open %s: %s", path,
                       errno == ENOENT ? "no such file or directory" : strerror(errno));
    for (bool first = true; r == 0 && (n = getline(&line, &cap, f)) >= 0; first = false) {
        char *p = line;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (first && strncmp(p, "\xef\xbb\xbf", 3) == 0)
            p += 3;
        p += strspn(p, " \t");
        if (*p && *p != '#')
            r = env_line(p, list, e);
    }
    free(line);
    fclose(f);
    if (r < 0) {
        char msg[sizeof e->msg];
        memcpy(msg, e->msg, sizeof msg);
        err_set(e, ERR_INVALID, "invalid env file (%s): %.400s", path, msg);
    }
    return r;
}

/* prom_text.c - see prom_text.h. https://prometheus.io/docs/instrumenting/exposition_formats */
#include "agentd/prom_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* body_of - what follows the empty line; false while there is none. */
static bool body_of(struct str answer, struct str *ret_head, struct str *ret_body)
{
    const char *end = answer.n ? memmem(answer.p, answer.n, "\r\n\r\n", 4) : NULL;
    if (!end)
        return false;
    *ret_head = (struct str){ answer.p, (size_t)(end - answer.p) };
    *ret_body = (struct str){ end + 4, answer.n - (size_t)(end + 4 - answer.p) };
    return true;
}

/* next_line - without its end; false when there is no more. */
static bool next_line(struct str *s, struct str *ret)
{
    if (s->n == 0)
        return false;
    const char *nl = memchr(s->p, '\n', s->n);
    size_t n = nl ? (size_t)(nl - s->p) : s->n;
    *ret = (struct str){ s->p, n && s->p[n - 1] == '\r' ? n - 1 : n };
    *s = (struct str){ s->p + n + (nl != NULL), s->n - n - (nl != NULL) };
    return true;
}

bool prom_complete(struct str answer)
{
    static const char field[] = "content-length:";
    struct str head, body, line;
    uint64_t n;
    if (!body_of(answer, &head, &body))
        return false;
    while (next_line(&head, &line)) {
        if (line.n < sizeof field - 1 || strncasecmp(line.p, field, sizeof field - 1) != 0)
            continue;
        line = (struct str){ line.p + sizeof field - 1, line.n - (sizeof field - 1) };
        while (line.n && (line.p[0] == ' ' || line.p[0] == '\t'))
            line = (struct str){ line.p + 1, line.n - 1 };
        return str_u64(line, &n) && body.n >= n;
    }
    return false;
}

static struct str skip_blank(struct str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = (struct str){ s.p + 1, s.n - 1 };
    return s;
}

/* skip_labels - behind {a="x",b="\"}"}; an empty text when it does not end. */
static struct str skip_labels(struct str s)
{
    bool quoted = false;
    for (size_t i = 1; i < s.n; i++) {
        if (quoted && s.p[i] == '\\')
            i++;
        else if (s.p[i] == '"')
            quoted = !quoted;
        else if (!quoted && s.p[i] == '}')
            return (struct str){ s.p + i + 1, s.n - i - 1 };
    }
    return (struct str){ s.p, 0 };
}

/* value_of - of a line `name{labels} value [timestamp]`; false when it is another metric, or no line of one. */
static bool value_of(struct str line, struct str name, double *ret)
{
    char number[64], *end;
    size_t n = 0;
    line = skip_blank(line);
    if (!str_starts(line, name))
        return false;
    line = (struct str){ line.p + name.n, line.n - name.n };
    if (line.n == 0 || (line.p[0] != '{' && line.p[0] != ' ' && line.p[0] != '\t'))
        return false;
    line = skip_blank(line);
    if (line.n && line.p[0] == '{')
        line = skip_blank(skip_labels(line));
    while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t')
        n++;
    if (n == 0 || !str_copy(number, sizeof number, (struct str){ line.p, n }))
        return false;
    *ret = strtod(number, &end);
    return *end == '\0' && end != number;
}

int prom_answer(struct str answer, struct str name, double *ret, struct err *e)
{
    struct str head, body, line = { NULL, 0 };
    double sum = 0, v;
    bool found = false;
    if (!body_of(answer, &head, &body))
        return err_set(e, ERR_INVALID, answer.n ? "no HTTP answer" : "no answer");
    (void)next_line(&head, &line);
    if (line.n < 12 || strncmp(line.p, "HTTP/1.", 7) != 0)
        return err_set(e, ERR_INVALID, "no HTTP answer");
    if (strncmp(line.p + 8, " 200", 4) != 0)
        return err_set(e, ERR_INVALID, "HTTP status %.3s", line.p + 9);
    while (next_line(&body, &line))
        if (value_of(line, name, &v)) {
            sum += v;
            found = true;
        }
    if (!found)
        return err_set(e, ERR_INVALID, "%.*s is not among the metrics", (int)(name.n > 80 ? 80 : name.n), name.p);
    if (!isfinite(sum))
        return err_set(e, ERR_INVALID, "%.*s is not a number", (int)(name.n > 80 ? 80 : name.n), name.p);
    *ret = sum;
    return 0;
}

/* What is wrong with a JSON text, in the words of Go's encoding/json, which Docker's users know. */
#include <stdio.h>

#include "common/object/object_priv.h"

struct scan {
    const char *p, *end;
    const char *why; /* of the first error */
    char expect;     /* in a literal: the byte that should be there */
    const char *word;
};

static void blanks(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r' || *s->p == '\n'))
        s->p++;
}

static bool fail(struct scan *s, const char *why)
{
    s->why = why;
    return false;
}

static bool digits(struct scan *s, const char *why)
{
    if (s->p == s->end || *s->p < '0' || *s->p > '9')
        return fail(s, why);
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return true;
}

static bool number(struct scan *s)
{
    if (*s->p == '-')
        s->p++;
    if (s->p < s->end && *s->p == '0')
        s->p++;
    else if (!digits(s, "in numeric literal"))
        return false;
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        if (!digits(s, "after decimal point in numeric literal"))
            return false;
    }
    if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
        s->p++;
        if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
            s->p++;
        return digits(s, "in exponent of numeric literal");
    }
    return true;
}

static bool escape(struct scan *s)
{
    if (s->p == s->end || !strchr("bfnrt\\/\"u", *s->p) || *s->p == '\0')
        return fail(s, "in string escape code");
    if (*s->p++ != 'u')
        return true;
    for (int i = 0; i < 4; i++, s->p++)
        if (s->p == s->end || !strchr("0123456789abcdefABCDEF", *s->p) || *s->p == '\0')
            return fail(s, "in \\u hexadecimal character escape");
    return true;
}

static bool string(struct scan *s)
{
    for (s->p++; s->p < s->end && *s->p != '"';) {
        if ((unsigned char)*s->p < 0x20)
            return fail(s, "in string literal");
        if (*s->p++ == '\\' && !escape(s))
            return false;
    }
    if (s->p == s->end)
        return fail(s, "in string literal");
    s->p++;
    return true;
}

static bool literal(struct scan *s, const char *word)
{
    for (const char *w = word; *w; w++, s->p++)
        if (s->p == s->end || *s->p != *w) {
            s->word = word;
            s->expect = *w;
            return fail(s, "in literal");
        }
    return true;
}

static bool value(struct scan *s, unsigned depth);

static bool members(struct scan *s, unsigned depth)
{
    s->p++;
    blanks(s);
    if (s->p < s->end && *s->p == '}') {
        s->p++;
        return true;
    }
    for (;;) {
        blanks(s);
        if (s->p == s->end || *s->p != '"')
            return fail(s, "looking for beginning of object key string");
        if (!string(s))
            return false;
        blanks(s);
        if (s->p == s->end || *s->p != ':')
            return fail(s, "after object key");
        s->p++;
        if (!value(s, depth))
            return false;
        blanks(s);
        if (s->p == s->end || (*s->p != ',' && *s->p != '}'))
            return fail(s, "after object key:value pair");
        if (*s->p++ == '}')
            return true;
    }
}

static bool elements(struct scan *s, unsigned depth)
{
    s->p++;
    blanks(s);
    if (s->p < s->end && *s->p == ']') {
        s->p++;
        return true;
    }
    for (;;) {
        if (!value(s, depth))
            return false;
        blanks(s);
        if (s->p == s->end || (*s->p != ',' && *s->p != ']'))
            return fail(s, "after array element");
        if (*s->p++ == ']')
            return true;
    }
}

static bool value(struct scan *s, unsigned depth)
{
    blanks(s);
    if (s->p == s->end || depth > OBJ_DEPTH_MAX)
        return fail(s, "looking for beginning of value");
    switch (*s->p) {
    case '{':
        return members(s, depth + 1);
    case '[':
        return elements(s, depth + 1);
    case '"':
        return string(s);
    case 't':
        return literal(s, "true");
    case 'f':
        return literal(s, "false");
    case 'n':
        return literal(s, "null");
    default:
        if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9'))
            return number(s);
        return fail(s, "looking for beginning of value");
    }
}

/* A byte as Go quotes it: 'x', '\'', '"', '\n', '\x00'. Bytes of UTF-8 are quoted as Latin-1 characters, as Go does. */
static void quote(char *out, size_t cap, unsigned char c)
{
    if (c == '\'' || c == '\\')
        (void)snprintf(out, cap, "'\\%c'", c);
    else if (c == '\n' || c == '\r' || c == '\t')
        (void)snprintf(out, cap, "'\\%c'", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    else if (c >= 0x20 && c < 0x7f)
        (void)snprintf(out, cap, "'%c'", c);
    else if (c >= 0xa1 && c != 0xad)
        (void)snprintf(out, cap, "'%c%c'", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
    else if (c < 0x80)
        (void)snprintf(out, cap, "'\\x%02x'", c);
    else
        (void)snprintf(out, cap, "'\\u%04x'", c);
}

bool obj_syntax_error(struct str text, char *out, size_t cap)
{
    struct scan s = { .p = text.p, .end = text.p + text.n };
    char byte[16];

    if (value(&s, 0))
        return false;
    if (s.p == s.end) {
        (void)snprintf(out, cap, "unexpected EOF");
        return true;
    }
    quote(byte, sizeof byte, (unsigned char)*s.p);
    if (s.word)
        (void)snprintf(out, cap, "invalid character %s in literal %s (expecting '%c')", byte, s.word, s.expect);
    else
        (void)snprintf(out, cap, "invalid character %s %s", byte, s.why);
    return true;
}

/* generic.c - see generic.h. */
#include "agentd/generic.h"

#include <ctype.h>

#include "common/proto/mp.h"

#define MANY 1000u

static struct str next_word(struct str *text)
{
    while (text->n && isspace((unsigned char)*text->p))
        text->p++, text->n--;
    struct str word = { text->p, 0 };
    while (word.n < text->n && !isspace((unsigned char)text->p[word.n]))
        word.n++;
    text->p += word.n;
    text->n -= word.n;
    return word;
}

static int check_kind(const struct generic_list *l, const struct generic *g, struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        if (!str_eq(l->v[i].kind, g->kind))
            continue;
        if (l->v[i].named != g->named)
            return err_set(e, ERR_INVALID, "generic resource " STR_FMT ": mixed discrete and named resources",
                           STR_ARG(g->kind));
        if (!g->named || str_eq(l->v[i].value, g->value))
            return err_set(e, ERR_INVALID, "generic resource " STR_FMT "=" STR_FMT ": declared twice", STR_ARG(g->kind),
                           STR_ARG(g->value));
    }
    return 0;
}

int generic_parse(struct str text, struct generic_list *ret, struct arena *a, struct err *e)
{
    struct generic_list l = { arena_array(a, text.n / 2 + 1, sizeof(struct generic)), 0 };
    struct str word;
    if (!l.v)
        return err_set(e, ERR_NOMEM, "generic resources");
    while ((word = next_word(&text)).n) {
        const char *eq = memchr(word.p, '=', word.n);
        uint64_t amount;
        if (!eq || eq == word.p || eq + 1 == word.p + word.n || l.n == MANY)
            return err_set(e, ERR_INVALID, "generic resource \"" STR_FMT "\": must be KIND=AMOUNT or KIND=NAME",
                           STR_ARG(word));
        struct generic g = { { word.p, (size_t)(eq - word.p) }, { eq + 1, word.n - (size_t)(eq - word.p) - 1 }, false };
        g.named = !str_u64(g.value, &amount);
        if (!g.named && amount > INT64_MAX)
            return err_set(e, ERR_INVALID, "generic resource " STR_FMT ": too many", STR_ARG(word));
        int r = check_kind(&l, &g, e);
        if (r < 0)
            return r;
        l.v[l.n++] = g;
    }
    *ret = l;
    return 0;
}

void generic_put(const struct generic_list *l, struct buf *out)
{
    mp_array(out, l->n);
    for (size_t i = 0; i < l->n; i++) {
        uint64_t amount = 0;
        mp_map(out, 1);
        mp_cstr(out, l->v[i].named ? "NamedResourceSpec" : "DiscreteResourceSpec");
        mp_map(out, 2);
        mp_kv_str(out, "Kind", l->v[i].kind);
        (void)str_u64(l->v[i].value, &amount);
        if (l->v[i].named)
            mp_kv_str(out, "Value", l->v[i].value);
        else
            mp_kv_u64(out, "Value", amount);
    }
}

int generic_decode(struct str raw, struct generic_list *ret, struct arena *a)
{
    struct mp_cursor c = mp_cursor(raw);
    struct mp_val head;
    struct str one;
    if (mp_next(&c, &head) != 0 || head.type != MP_ARRAY || head.n > raw.n)
        return -ERR_INVALID;
    struct generic_list l = { arena_array(a, head.n + 1, sizeof(struct generic)), 0 };
    if (!l.v)
        return -ERR_NOMEM;
    for (size_t i = 0; i < head.n; i++) {
        struct generic g = { .named = true };
        uint64_t amount;
        if (mp_span(&c, &one) != 0)
            return -ERR_INVALID;
        if (mp_get_str(one, "NamedResourceSpec.Kind", &g.kind) &&
            mp_get_str(one, "NamedResourceSpec.Value", &g.value)) {
            l.v[l.n++] = g;
        } else if (mp_get_str(one, "DiscreteResourceSpec.Kind", &g.kind) &&
                   mp_get_u64(one, "DiscreteResourceSpec.Value", &amount)) {
            char *text = arena_printf(a, "%llu", (unsigned long long)amount);
            if (!text)
                return -ERR_NOMEM;
            g.named = false;
            g.value = str_from(text);
            l.v[l.n++] = g;
        }
    }
    *ret = l;
    return 0;
}

bool generic_env_text(const struct generic_list *l, size_t i, struct buf *out)
{
    const struct str kind = l->v[i].kind;
    for (size_t k = 0; k < i; k++)
        if (str_eq(l->v[k].kind, kind))
            return false;
    buf_clear(out);
    buf_puts(out, "DOCKER_RESOURCE_");
    for (size_t k = 0; k < kind.n; k++)
        buf_putc(out, (char)toupper((unsigned char)kind.p[k]));
    buf_putc(out, '=');
    for (size_t k = i, first = 1; k < l->n; k++)
        if (str_eq(l->v[k].kind, kind)) {
            if (!first)
                buf_putc(out, ',');
            buf_put(out, l->v[k].value.p, l->v[k].value.n);
            first = 0;
        }
    return !out->failed;
}

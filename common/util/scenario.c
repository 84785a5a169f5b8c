/* scenario.c - see scenario.h. */
#include "common/util/scenario.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util/check.h"

#define FILE_MAX (1u << 20)
#define WORDS_MAX 64

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, FILE_MAX);
    CHECK(f != NULL && text != NULL);
    size_t n = fread(text, 1, FILE_MAX - 1, f);
    CHECK(n > 0 && n < FILE_MAX - 1);
    fclose(f);
    return text;
}

char *scenario_value(char *word)
{
    char *v = strchr(word, '=');
    if (!v)
        return word + strlen(word);
    *v = 0;
    return v + 1;
}

static void run_lines(const struct scenario_ops *ops, char *input, struct buf *out)
{
    void *arg = ops->begin();
    for (char *line = input, *next; line && *line; line = next) {
        char *words[WORDS_MAX] = { 0 }, *save = NULL;
        unsigned n = 0;
        if ((next = strchr(line, '\n')))
            *next++ = 0;
        for (char *w = strtok_r(line, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
            CHECK(n < WORDS_MAX);
            words[n++] = w;
        }
        if (n && words[0][0] != '#')
            ops->line(arg, words, n, out);
    }
    ops->end(arg, out);
}

/* end_of_output - behind the line before the next empty one. */
static char *end_of_output(char *at)
{
    if (at[0] == '\n')
        return at;
    char *end = strstr(at, "\n\n");
    return end ? end + 1 : at + strlen(at);
}

static bool run_file(const char *path, const struct scenario_ops *ops, bool rewrite)
{
    char *text = read_file(path), *at = text;
    struct buf all = BUF_INIT;
    bool same = true;
    while (*at) {
        struct buf got = BUF_INIT;
        char *sep = strstr(at, "----\n"), *want, *end;
        CHECK(sep != NULL);
        buf_put(&all, at, (size_t)(sep - at));
        buf_puts(&all, "----\n");
        want = sep + 5;
        end = end_of_output(want);
        *sep = 0;
        char *title = strdup(at);
        CHECK(title != NULL);
        run_lines(ops, at, &got);
        if (got.n != (size_t)(end - want) || (got.n && memcmp(got.p, want, got.n) != 0)) {
            same = false;
            if (!rewrite)
                printf("%s:\n%s----\n%s---- instead of\n%.*s\n", path, title, buf_cstr(&got), (int)(end - want), want);
        }
        free(title);
        buf_put(&all, got.p ? got.p : "", got.n);
        at = end;
        while (*at == '\n')
            buf_putc(&all, *at++);
        buf_done(&got);
    }
    if (rewrite && !same) {
        FILE *f = fopen(path, "w");
        CHECK(f != NULL && fwrite(all.p, 1, all.n, f) == all.n && fclose(f) == 0);
    }
    buf_done(&all);
    free(text);
    return same || rewrite;
}

bool scenario_run(const char *pattern, const struct scenario_ops *ops)
{
    glob_t g = { 0 };
    bool ok = true;
    if (glob(pattern, 0, NULL, &g) != 0) {
        printf("no scenarios: %s\n", pattern);
        return false;
    }
    for (size_t i = 0; i < g.gl_pathc; i++)
        ok &= run_file(g.gl_pathv[i], ops, getenv("REWRITE") != NULL);
    globfree(&g);
    return ok;
}

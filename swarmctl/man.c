/* The manual page, out of the command tables: "swarmctl __man > swarmctl.1". */
#include "swarmctl/cmds.h"

/* Text of a page: what roff would read as its own is escaped. */
static void put(struct buf *b, const char *text)
{
    for (bool start = true; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            buf_puts(b, "\\&");
        if (*text == '\\')
            buf_puts(b, "\\e");
        else if (*text == '-')
            buf_puts(b, "\\-");
        else
            buf_putc(b, *text);
        start = *text == '\n';
    }
}

static void put_flag(const struct flag *f, void *arg)
{
    struct buf *b = arg;

    buf_puts(b, ".TP\n\\fB");
    if (f->shorthand)
        buf_printf(b, "\\-%c\\fR, \\fB", f->shorthand);
    buf_puts(b, "\\-\\-");
    put(b, f->name);
    buf_puts(b, "\\fR");
    if (*f->type->name) {
        buf_puts(b, " \\fI");
        put(b, f->type->name);
        buf_puts(b, "\\fR");
    }
    buf_putc(b, '\n');
    for (const char *p = f->help; *p;) {
        char line[256];
        size_t n = strcspn(p, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, p);
        put(b, line);
        buf_puts(b, p[n] ? "\n.br\n" : "");
        p += n + (p[n] == '\n');
    }
    if (f->def && strcmp(f->def, "[]") != 0) {
        buf_puts(b, " (default ");
        put(b, f->def);
        buf_putc(b, ')');
    }
    buf_putc(b, '\n');
}

static void put_commands(struct buf *b, const struct cmd *group, const char *path)
{
    for (const struct cmd *s = group->sub; s->name; s++) {
        char name[128];
        struct buf use = BUF_INIT;
        if (s->hidden)
            continue;
        snprintf(name, sizeof name, "%s %s", path, s->name);
        if (s->sub) {
            put_commands(b, s, name);
            continue;
        }
        struct call call = { .cmd = s, .path = name };
        cmd_use_line(&call, &use);
        buf_puts(b, ".SS ");
        put(b, buf_cstr(&use));
        buf_putc(b, '\n');
        if (s->same_as) {
            buf_printf(b, "Short for \\fB" PROG " %s\\fR.\n", s->same_as);
        } else {
            put(b, s->help);
            buf_puts(b, ".\n");
            flags_each(s->flags, put_flag, b);
        }
        buf_done(&use);
    }
}

static const char head[] =
    ".\\\" Made by \"swarmctl __man\" from the command tables: change those.\n"
    ".TH SWARMCTL 1 \"\" microswarm \"User commands\"\n"
    ".SH NAME\nswarmctl \\- the command line of a swarm of containers\n"
    ".SH SYNOPSIS\n\\fBswarmctl\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARG...\\fR]\n"
    ".SH DESCRIPTION\n"
    "swarmctl declares services, looks at what runs, and manages nodes and images, in the grammar of\n"
    "\\fBdocker\\fR(1) and over the same HTTP API on a Unix socket, served by \\fBapid\\fR(8).\n"
    ".PP\n"
    "Commands that change a service wait until it has converged, and show how far it is, unless \\fB\\-d\\fR is "
    "given.\n"
    ".SH OPTIONS\n";

static const char tail[] =
    ".SH FORMAT\n"
    "\\fB\\-\\-format\\fR takes \\fBtable\\fR, \\fBtable\\fR \\fITEMPLATE\\fR, \\fBjson\\fR or a template in the "
    "language of\n"
    "Go's text/template: {{.Name}}, {{if}}, {{range}}, {{with}}, variables and pipelines. Functions: and, or, not, "
    "len, index,\n"
    "slice, print, printf, println, html, js, urlquery, eq, ne, lt, le, gt, ge, json, split, join, title, lower, "
    "upper,\n"
    "pad, truncate.\n"
    ".SH ENVIRONMENT\n"
    ".TP\n\\fBMICROSWARM_HOST\\fR, \\fBDOCKER_HOST\\fR\nthe socket when \\fB\\-H\\fR isn't given: unix:///PATH\n"
    ".TP\n\\fBDOCKER_CONFIG\\fR\nfolder of config.json with registry credentials (default ~/.docker)\n"
    ".TP\n\\fBNO_COLOR\\fR\nservice logs without colours\n"
    ".SH EXIT STATUS\n0 on success, 1 when something failed, 64 for a template that can't be parsed, 125 for a wrong "
    "flag.\n"
    ".SH BUGS\n"
    "Only Unix sockets are spoken to. Named templates, and the order of fields when a whole structure is printed by a\n"
    "template, differ from Go's. Credential helpers and stores of config.json are not asked.\n"
    ".SH SEE ALSO\n\\fBapid\\fR(8), \\fBdocker\\fR(1)\n";

int run_man(struct cli *c, struct call *call)
{
    struct buf b = BUF_INIT;

    (void)call;
    buf_puts(&b, head);
    flags_each(root_cmd.flags, put_flag, &b);
    buf_puts(&b, ".SH COMMANDS\n");
    put_commands(&b, &root_cmd, PROG);
    buf_puts(&b, tail);
    fwrite(b.p, 1, b.n, c->out);
    buf_done(&b);
    return 0;
}

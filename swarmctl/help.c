/* --help, and help for words nobody knows. */
#include <stdlib.h>

#include "swarmctl/cli.h"
#include "swarmctl/human.h"

void cmd_use_line(const struct call *call, struct buf *b)
{
    const struct cmd *cmd = call->cmd;

    buf_puts(b, call->path);
    if (cmd == &root_cmd) {
        buf_puts(b, " [OPTIONS] COMMAND [ARG...]");
        return;
    }
    if (cmd->flags)
        buf_puts(b, " [OPTIONS]");
    if (cmd->args)
        buf_printf(b, " %s", cmd->args);
}

static size_t widest_name(const struct cmd *group)
{
    size_t widest = 11;
    for (const struct cmd *s = group->sub; s->name; s++)
        if (!s->hidden && strlen(s->name) > widest)
            widest = strlen(s->name);
    return widest;
}

static void put_commands(struct buf *b, const struct cmd *group, const char *title, bool groups)
{
    bool any = false;

    for (const struct cmd *s = group->sub; s->name; s++) {
        if (s->hidden || (s->sub != NULL) != groups)
            continue;
        if (!any)
            buf_printf(b, "\n%s:\n", title);
        any = true;
        buf_printf(b, "  %-*s %s\n", (int)widest_name(group), s->name, s->help);
    }
}

/* "swarmctl node ls, swarmctl node list": every name a command has. */
static void put_aliases(struct buf *b, const struct call *call)
{
    const struct cmd *cmd = call->cmd;
    const char *last = strrchr(call->path, ' ');
    int stem = last ? (int)(last - call->path) : 0;

    if (!cmd->aliases && !cmd->same_as && !cmd->also)
        return;
    buf_puts(b, "\nAliases:\n  ");
    if (cmd->same_as)
        buf_printf(b, PROG " %s, " PROG " %s", cmd->same_as, cmd->name);
    else
        buf_printf(b, "%.*s %s", stem, call->path, cmd->name);
    for (const char *p = cmd->same_as ? NULL : cmd->aliases; p && *p; p += strcspn(p, ","), p += *p == ',')
        buf_printf(b, ", %.*s %.*s", stem, call->path, (int)strcspn(p, ","), p);
    if (cmd->also)
        buf_printf(b, ", " PROG " %s", cmd->also);
    buf_putc(b, '\n');
}

void cmd_help(struct cli *c, const struct call *call, struct buf *b)
{
    const struct cmd *cmd = call->cmd;

    buf_puts(b, "Usage:  ");
    if (cmd == &root_cmd)
        buf_puts(b, PROG " [OPTIONS] COMMAND");
    else if (cmd->sub)
        buf_printf(b, "%s COMMAND", call->path);
    else
        cmd_use_line(call, b);
    buf_printf(b, "\n\n%s\n", cmd->help);
    put_aliases(b, call);
    if (cmd->sub) {
        put_commands(b, cmd, "Management Commands", true);
        put_commands(b, cmd, "Commands", false);
    }
    if (cmd->flags && *cmd->flags) {
        buf_printf(b, "\n%s:\n", cmd == &root_cmd ? "Global Options" : "Options");
        flags_help(b, cmd->flags, c->columns);
    }
    if (cmd->sub)
        buf_printf(b, "\nRun '%s COMMAND --help' for more information on a command.\n", call->path);
}

int unknown_command(struct cli *c, const struct cmd *group, const char *path, const char *word)
{
    const char *best = NULL;
    unsigned best_distance = 3; /* at most two edits away */

    for (const struct cmd *s = group->sub; s->name; s++) {
        unsigned d = edit_distance(s->name, word);
        if (!s->hidden && d < best_distance && d < strlen(s->name)) {
            best_distance = d;
            best = s->name;
        }
    }
    cli_fail(c, PROG ": unknown command: %s %s", path, word);
    if (best)
        cli_fail(c, "\nDid you mean '%s %s'?", path, best);
    if (group != &root_cmd)
        cli_fail(c, "\nUsage:  %s", path);
    return cli_fail(c, "\nRun '%s --help' for more information", path);
}

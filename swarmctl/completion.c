/*
 * Shell completion. The scripts for bash, zsh and fish are a few lines each: they hand the words typed so far to
 * "swarmctl __complete", which reads the command tables and, for names of services and the like, asks the daemon.
 * It prints one candidate a line, with a tab and a description behind it where there is one.
 */
#include <stdlib.h>

#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"

/* Bash splits words at ':' and '=' too: the words are taken from the line, and what is before the split is cut off. */
static const char bash_script[] = "# bash completion for swarmctl\n"
                                  "_swarmctl() {\n"
                                  "    local line value word cut=\n"
                                  "    local -a words\n"
                                  "    read -ra words <<< \"${COMP_LINE:0:COMP_POINT}\"\n"
                                  "    [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=(\"\")\n"
                                  "    word=${words[-1]}\n"
                                  "    [[ $word == *[:=]* ]] && cut=${word%\"${word##*[:=]}\"}\n"
                                  "    COMPREPLY=()\n"
                                  "    while IFS= read -r line; do\n"
                                  "        value=${line%%$'\\t'*}\n"
                                  "        case $value in\n"
                                  "        :files) compopt -o default; COMPREPLY=(); return ;;\n"
                                  "        :nospace) compopt -o nospace ;;\n"
                                  "        *) [[ $cut == --*= ]] && cut=\n"
                                  "           COMPREPLY+=(\"${value#\"$cut\"}\") ;;\n"
                                  "        esac\n"
                                  "    done < <(\"${words[0]}\" __complete -- \"${words[@]:1}\" 2>/dev/null)\n"
                                  "}\n"
                                  "complete -F _swarmctl swarmctl\n";

static const char zsh_script[] =
    "#compdef swarmctl\n"
    "_swarmctl() {\n"
    "    local line value help nospace\n"
    "    local -a found\n"
    "    while IFS= read -r line; do\n"
    "        value=${line%%$'\\t'*}\n"
    "        help=${line#*$'\\t'}\n"
    "        case $value in\n"
    "        :files) _files; return ;;\n"
    "        :nospace) nospace=1 ;;\n"
    "        *) [[ $line == *$'\\t'* ]] && found+=(\"${value//:/\\\\:}:$help\") || found+=(\"${value//:/\\\\:}\") ;;\n"
    "        esac\n"
    "    done < <($words[1] __complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
    "    _describe swarmctl found ${nospace:+-S} ${nospace:+''}\n"
    "}\n"
    /* sourced: registered; found by compinit in fpath: this is the function's first call */
    "if [ \"$funcstack[1]\" = _swarmctl ]; then _swarmctl \"$@\"; else compdef _swarmctl swarmctl; fi\n";

static const char fish_script[] = "# fish completion for swarmctl\n"
                                  "function __swarmctl_complete\n"
                                  "    set -l words (commandline -opc) (commandline -ct)\n"
                                  "    for line in ($words[1] __complete -- $words[2..-1] 2>/dev/null)\n"
                                  "        switch $line\n"
                                  "            case ':files*'\n"
                                  "                __fish_complete_path (commandline -ct)\n"
                                  "            case ':nospace*'\n"
                                  "            case '*'\n"
                                  "                echo $line\n"
                                  "        end\n"
                                  "    end\n"
                                  "end\n"
                                  "complete -c swarmctl -f -a '(__swarmctl_complete)'\n";

static int print_script(struct cli *c, const char *script)
{
    fputs(script, c->out);
    return 0;
}

static int run_bash(struct cli *c, struct call *call)
{
    (void)call;
    return print_script(c, bash_script);
}

static int run_zsh(struct cli *c, struct call *call)
{
    (void)call;
    return print_script(c, zsh_script);
}

static int run_fish(struct cli *c, struct call *call)
{
    (void)call;
    return print_script(c, fish_script);
}

const struct cmd completion_cmds[] = {
    { .name = "bash", .help = "Generate the autocompletion script for bash", .run = run_bash },
    { .name = "fish", .help = "Generate the autocompletion script for fish", .run = run_fish },
    { .name = "zsh", .help = "Generate the autocompletion script for zsh", .run = run_zsh },
    { .name = NULL },
};

struct asked {
    struct cli *c;
    const char *prefix; /* what the word begins with */
};

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static void offer(struct asked *a, const char *value, const char *help)
{
    if (!begins(value, a->prefix))
        return;
    fprintf(a->c->out, help ? "%s\t%.*s\n" : "%s\n", value, help ? (int)strcspn(help, "\n") : 0, help);
}

static void offer_words(struct asked *a, const char *words)
{
    for (const char *p = words; *p; p += strcspn(p, ","), p += *p == ',') {
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)strcspn(p, ","), p);
        offer(a, word, NULL);
    }
}

/* Names of what the daemon has; nothing when it doesn't answer. */
static void offer_objects(struct asked *a, const char *path, const char *field, const char *suffix)
{
    json_t *list = NULL, *item, *tag;
    size_t i, k;
    struct buf b = BUF_INIT;

    if (api_get(a->c, &list, "%s", path) != 0)
        return;
    for_each (list, i, item) {
        if (strcmp(field, "RepoTags") == 0) {
            for_each (jget(item, field), k, tag)
                offer(a, json_string_value(tag), NULL);
            continue;
        }
        buf_printf(&b, "%s%s", jstr(item, field), suffix);
        offer(a, buf_cstr(&b), NULL);
        buf_clear(&b);
    }
    buf_done(&b);
    json_decref(list);
}

static const char capabilities[] =
    "ALL,CAP_AUDIT_CONTROL,CAP_AUDIT_READ,CAP_AUDIT_WRITE,CAP_BLOCK_SUSPEND,CAP_BPF,CAP_CHECKPOINT_RESTORE,CAP_CHOWN,"
    "CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH,CAP_FOWNER,CAP_FSETID,CAP_IPC_LOCK,CAP_IPC_OWNER,CAP_KILL,CAP_LEASE,"
    "CAP_LINUX_IMMUTABLE,CAP_MAC_ADMIN,CAP_MAC_OVERRIDE,CAP_MKNOD,CAP_NET_ADMIN,CAP_NET_BIND_SERVICE,CAP_NET_BROADCAST,"
    "CAP_NET_RAW,CAP_PERFMON,CAP_SETFCAP,CAP_SETGID,CAP_SETPCAP,CAP_SETUID,CAP_SYSLOG,CAP_SYS_ADMIN,CAP_SYS_BOOT,"
    "CAP_SYS_CHROOT,CAP_SYS_MODULE,CAP_SYS_NICE,CAP_SYS_PACCT,CAP_SYS_PTRACE,CAP_SYS_RAWIO,CAP_SYS_RESOURCE,CAP_SYS_"
    "TIME,"
    "CAP_SYS_TTY_CONFIG,CAP_WAKE_ALARM";
static const char signals[] =
    "SIGHUP,SIGINT,SIGQUIT,SIGABRT,SIGKILL,SIGUSR1,SIGUSR2,SIGPIPE,SIGALRM,SIGTERM,SIGCONT,SIGSTOP,"
    "SIGWINCH";

static void offer_kind(struct asked *a, const char *what)
{
    static const struct {
        const char *what, *path, *field, *suffix;
    } objects[] = {
        { "@service", "/services", "Spec.Name", "" },
        { "@service=", "/services", "Spec.Name", "=" },
        { "@node", "/nodes", "Description.Hostname", "" },
        { "@network", "/networks?filters=%7B%22scope%22%3A%7B%22swarm%22%3Atrue%7D%7D", "Name", "" },
        { "@secret", "/secrets", "Spec.Name", "" },
        { "@config", "/configs", "Spec.Name", "" },
        { "@image", "/images/json", "RepoTags", "" },
    };

    if (!what)
        return;
    if (*what != '@')
        offer_words(a, what);
    if (strcmp(what, "@file") == 0)
        fputs(":files\n", a->c->out);
    if (strcmp(what, "@capability") == 0)
        offer_words(a, capabilities);
    if (strcmp(what, "@signal") == 0)
        offer_words(a, signals);
    if (strcmp(what, "@node") == 0)
        offer(a, "self", NULL);
    if (strcmp(what, "@service=") == 0)
        fputs(":nospace\n", a->c->out);
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++)
        if (strcmp(what, objects[i].what) == 0)
            offer_objects(a, objects[i].path, objects[i].field, objects[i].suffix);
}

static void offer_flag(const struct flag *f, void *arg)
{
    char name[80];

    snprintf(name, sizeof name, "--%s", f->name);
    offer(arg, name, f->help);
}

static const struct flag *flag_of_word(const struct cmd *cmd, const char *word)
{
    char shorthand = word[0] == '-' && word[1] != '-' && word[1] ? word[strlen(word) - 1] : '\0';

    for (const struct flag *const *t = cmd->flags; t && *t; t++)
        for (const struct flag *f = *t; f->name; f++)
            if ((begins(word, "--") && strcmp(word + 2, f->name) == 0) || (shorthand && f->shorthand == shorthand))
                return f;
    return NULL;
}

static const struct cmd *sub_named(const struct cmd *group, const char *word)
{
    for (const struct cmd *s = group->sub; s && s->name; s++)
        if (strcmp(s->name, word) == 0)
            return s;
    return NULL;
}

int run_complete(struct cli *c, struct call *call)
{
    struct asked a = { .c = c, .prefix = "" };
    const struct cmd *cmd = &root_cmd;
    const struct flag *waiting = NULL; /* a flag whose value comes next */
    int positional = 0, last = call->argc - 1;

    for (int i = 0; i < last; i++) {
        const char *word = call->argv[i];
        const struct flag *f = waiting ? NULL : flag_of_word(cmd, word);
        if (waiting && strcmp(word, "=") == 0)
            continue;
        if (waiting && cmd == &root_cmd && strcmp(waiting->name, "host") == 0 && begins(word, "unix://")) {
            free(c->socket);
            c->socket = strdup(word + 7);
        }
        waiting = f && !f->type->no_value ? f : NULL;
        if (f || waiting || *word == '-')
            continue;
        if (cmd->sub && sub_named(cmd, word))
            cmd = sub_named(cmd, word);
        else
            positional++;
    }
    if (last >= 0)
        a.prefix = strcmp(call->argv[last], "=") == 0 ? "" : call->argv[last];
    const char *eq = begins(a.prefix, "--") ? strchr(a.prefix, '=') : NULL;
    if (waiting) {
        offer_kind(&a, waiting->choices);
    } else if (eq) {
        char word[80];
        snprintf(word, sizeof word, "%.*s", (int)(eq - a.prefix), a.prefix);
        const struct flag *f = flag_of_word(cmd, word);
        a.prefix = eq + 1;
        offer_kind(&a, f ? f->choices : NULL);
    } else if (*a.prefix == '-') {
        flags_each(cmd->flags, offer_flag, &a);
        offer(&a, "--help", "Print usage");
    } else if (cmd->sub) {
        for (const struct cmd *s = cmd->sub; s->name; s++)
            if (!s->hidden)
                offer(&a, s->name, s->help);
    } else if (cmd->max < 0 || positional < cmd->max) {
        offer_kind(&a, cmd->complete);
    }
    return 0;
}

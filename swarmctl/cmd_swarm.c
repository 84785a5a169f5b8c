#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "common/util/cleanup.h"
#include "swarmctl/cmds.h"
#include "swarmctl/conv.h"
#include "swarmctl/jpath.h"

#define SECRET_MAX 1024u /* bytes of a key or passphrase */
/* What init, update and ca share; .path is where the value goes in the swarm's spec. */
static const struct flag ca_spec_flags[] = {
    { .name = "cert-expiry",
      .type = &T_DURATION,
      .def = "2160h0m0s",
      .help = "Validity period for node certificates (ns|us|ms|s|m|h)",
      .path = "CAConfig.NodeCertExpiry" },
    { .name = "external-ca",
      .type = &T_EXTERNAL_CA,
      .help = "Specifications of one or more certificate signing endpoints",
      .path = "CAConfig.ExternalCAs" },
    FLAGS_END,
};
/* What init and update share. */
static const struct flag spec_flags[] = {
    { .name = "dispatcher-heartbeat",
      .type = &T_DURATION,
      .def = "5s",
      .help = "Dispatcher heartbeat period (ns|us|ms|s|m|h)",
      .path = "Dispatcher.HeartbeatPeriod" },
    { .name = "max-snapshots",
      .type = &T_UINT,
      .help = "Number of additional Raft snapshots to retain",
      .path = "Raft.KeepOldSnapshots" },
    { .name = "snapshot-interval",
      .type = &T_UINT,
      .def = "10000",
      .help = "Number of log entries between Raft snapshots",
      .path = "Raft.SnapshotInterval" },
    { .name = "task-history-limit",
      .type = &T_INT,
      .def = "5",
      .help = "Task history retention limit",
      .path = "Orchestration.TaskHistoryRetentionLimit" },
    FLAGS_END,
};

/* init, join and restore */
static const struct flag address_flags[] = {
    { .name = "advertise-addr", .type = &T_STRING, .help = "Advertised address (format: \"<ip|interface>[:port]\")" },
    { .name = "listen-addr",
      .type = &T_NODE_ADDR,
      .def = "0.0.0.0:2377",
      .help = "Listen address (format: \"<ip|interface>[:port]\")" },
    FLAGS_END,
};
static const struct flag node_flags[] = {
    { .name = "availability",
      .type = &T_STRING,
      .def = "active",
      .choices = "active,pause,drain",
      .help = "Availability of the node (\"active\", \"pause\", \"drain\")" },
    { .name = "data-path-addr",
      .type = &T_STRING,
      .help = "Address or interface to use for data path traffic (format: \"<ip|interface>\")" },
    FLAGS_END,
};

static const struct flag init_flags[] = {
    { .name = "autolock",
      .type = &T_BOOL,
      .help = "Enable manager autolocking (requiring an unlock key to start a stopped manager)" },
    { .name = "data-path-port",
      .type = &T_UINT32,
      .help = "Port number to use for data path traffic (1024 - 49151). If no value is set or is set to 0, the default "
              "port "
              "(4789) is used." },
    { .name = "default-addr-pool", .type = &T_POOL, .def = "[]", .help = "default address pool in CIDR format" },
    { .name = "default-addr-pool-mask-length",
      .type = &T_UINT32,
      .def = "24",
      .help = "default address pool subnet mask length" },
    { .name = "force-new-cluster", .type = &T_BOOL, .help = "Force create a new cluster from current state" },
    FLAGS_END,
};

static const struct flag join_flags[] = {
    { .name = "token", .type = &T_STRING, .help = "Token for entry into the swarm" },
    FLAGS_END,
};
static const struct flag leave_flags[] = {
    { .name = "force",
      .shorthand = 'f',
      .type = &T_BOOL,
      .help = "Force this node to leave the swarm, ignoring warnings" },
    FLAGS_END,
};
static const struct flag update_flags[] = {
    { .name = "autolock",
      .type = &T_BOOL,
      .help = "Change manager autolocking setting (true|false)",
      .path = "EncryptionConfig.AutoLockManagers" },
    FLAGS_END,
};
static const struct flag quiet_token_flags[] = {
    { .name = "quiet", .shorthand = 'q', .type = &T_BOOL, .help = "Only display token" },
    FLAGS_END,
};
static const struct flag token_flags[] = {
    { .name = "rotate", .type = &T_BOOL, .help = "Rotate join token" },
    FLAGS_END,
};
static const struct flag key_flags[] = {
    { .name = "rotate", .type = &T_BOOL, .help = "Rotate unlock key" },
    FLAGS_END,
};
static const struct flag ca_flags[] = {
    { .name = "ca-cert",
      .type = &T_PEM,
      .choices = "@file",
      .help = "Path to the PEM-formatted root CA certificate to use for the new cluster" },
    { .name = "ca-key",
      .type = &T_PEM,
      .choices = "@file",
      .help = "Path to the PEM-formatted root CA key to use for the new cluster" },
    { .name = "detach",
      .shorthand = 'd',
      .type = &T_BOOL,
      .help = "Exit immediately instead of waiting for the root rotation to converge" },
    { .name = "rotate",
      .type = &T_BOOL,
      .help = "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated" },
    FLAGS_END,
};
static const struct flag backup_flags[] = {
    { .name = "passphrase-file",
      .type = &T_STRING,
      .choices = "@file",
      .help = "Read the passphrase from the first line of a file instead of asking for it" },
    FLAGS_END,
};
static const struct flag *const backup_tables[] = { backup_flags, NULL };
static const struct flag *const restore_tables[] = { backup_flags, address_flags, NULL };
static const struct flag *const init_tables[] = {
    address_flags, node_flags, init_flags, ca_spec_flags, spec_flags, NULL
};
static const struct flag *const join_tables[] = { address_flags, node_flags, join_flags, NULL };
static const struct flag *const leave_tables[] = { leave_flags, NULL };
static const struct flag *const update_tables[] = { update_flags, ca_spec_flags, spec_flags, NULL };
static const struct flag *const token_tables[] = { quiet_token_flags, token_flags, NULL };
static const struct flag *const key_tables[] = { quiet_token_flags, key_flags, NULL };
static const struct flag *const ca_tables[] = { ca_spec_flags, ca_flags, progress_flags, NULL };

/* Flags of a table that were given, into the spec at their paths. */
static void merge_spec(const struct call *call, json_t *spec)
{
    for (const struct flag *const *t = call->cmd->flags; *t; t++)
        for (const struct flag *f = *t; f->name; f++)
            if (f->path && flag_changed(&call->fs, f->name))
                jset(spec, f->path, json_incref(flag_json(&call->fs, f->name)));
}

/* The availability given, lower-cased; NULL with the user told when it isn't one. "" when not given. */
static const char *availability(struct cli *c, const struct call *call)
{
    static const char *const known[] = { "active", "pause", "drain" };
    const char *text = flag_str(&call->fs, "availability");

    if (!flag_changed(&call->fs, "availability"))
        return "";
    for (size_t i = 0; i < 3; i++)
        if (strcasecmp(text, known[i]) == 0)
            return known[i];
    cli_fail(c, "invalid availability \"%s\", only active, pause and drain are supported", text);
    return NULL;
}

static void print_join(struct cli *c, json_t *swarm, json_t *node, const char *role)
{
    const char *addr = jstr(node, "ManagerStatus.Addr");
    char path[32];

    if (!jget(node, "ManagerStatus"))
        return;
    snprintf(path, sizeof path, "JoinTokens.%s", strcmp(role, "worker") == 0 ? "Worker" : "Manager");
    fprintf(c->out,
            "To add a %s to this swarm, run the following command:\n\n    " PROG " swarm join --token %s %s\n\n", role,
            jstr(swarm, path), addr);
}

static int show_join(struct cli *c, const char *node_id, const char *role)
{
    json_t *node = NULL, *swarm = NULL;
    int r = api_get(c, &node, "/nodes/%s", node_id);

    if (r == 0)
        r = api_get(c, &swarm, "/swarm");
    if (r == 0)
        print_join(c, swarm, node, role);
    else
        cli_fail_api(c);
    json_decref(node);
    json_decref(swarm);
    return r;
}

static int show_key(struct cli *c, bool quiet, bool must)
{
    json_t *key = NULL;
    const char *text;
    int r = 0;

    if (api_get(c, &key, "/swarm/unlockkey") != 0)
        return cli_fail(c, "could not fetch unlock key: %s", buf_cstr(&c->why));
    text = jstr(key, "UnlockKey");
    if (!*text)
        r = must ? cli_fail(c, "no unlock key is set") : 0;
    else if (quiet)
        fprintf(c->out, "%s\n", text);
    else
        fprintf(c->out,
                "To unlock a swarm manager after it restarts, run the `" PROG
                " swarm unlock`\ncommand and provide the following "
                "key:\n\n    %s\n\nRemember to store this key in a password manager, since without it you\nwill not be "
                "able to "
                "restart the manager.\n",
                text);
    json_decref(key);
    return r;
}

static json_t *init_request(const struct call *call, const char *avail)
{
    const struct flagset *fs = &call->fs;
    json_t *rq = json_object(), *spec = json_object(), *pool = json_array();

    merge_spec(call, spec);
    if (flag_changed(fs, "autolock"))
        jset(spec, "EncryptionConfig.AutoLockManagers", json_boolean(flag_bool(fs, "autolock")));
    if (flag_changed(fs, "default-addr-pool"))
        json_array_append(pool, flag_json(fs, "default-addr-pool"));
    json_object_set_new(rq, "ListenAddr", json_string(flag_str(fs, "listen-addr")));
    json_object_set_new(rq, "AdvertiseAddr", json_string(flag_str(fs, "advertise-addr")));
    json_object_set_new(rq, "DataPathAddr", json_string(flag_str(fs, "data-path-addr")));
    json_object_set_new(rq, "DataPathPort", json_integer(flag_int(fs, "data-path-port")));
    json_object_set_new(rq, "ForceNewCluster", json_boolean(flag_bool(fs, "force-new-cluster")));
    json_object_set_new(rq, "Spec", spec);
    json_object_set_new(rq, "AutoLockManagers", json_boolean(flag_bool(fs, "autolock")));
    json_object_set_new(rq, "Availability", json_string(avail));
    json_object_set_new(rq, "DefaultAddrPool", pool);
    json_object_set_new(rq, "SubnetSize",
                        json_integer(flag_changed(fs, "default-addr-pool-mask-length")
                                         ? flag_int(fs, "default-addr-pool-mask-length")
                                         : 24));
    return rq;
}

static int run_init(struct cli *c, struct call *call)
{
    const char *avail = availability(c, call);
    json_t *rq, *node = NULL;
    int r;

    if (!avail)
        return 1;
    rq = init_request(call, avail);
    r = api_call(c, "POST", "/swarm/init", rq, &node);
    if (r != 0) {
        const char *why = buf_cstr(&c->why);
        bool addr =
            strstr(why, "could not choose an IP address") || strstr(why, "could not find the system's IP address");
        cli_fail(c, "%s%s", why, addr ? " - specify one with --advertise-addr" : "");
    } else {
        fprintf(c->out, "Swarm initialized: current node (%s) is now a manager.\n\n", json_string_value(node) ?: "");
        r = show_join(c, json_string_value(node) ?: "", "worker");
    }
    if (r == 0) {
        fputs("To add a manager to this swarm, run '" PROG " swarm join-token manager' and follow the instructions.\n",
              c->out);
        if (flag_bool(&call->fs, "autolock"))
            r = show_key(c, false, false);
    }
    json_decref(rq);
    json_decref(node);
    return r;
}

static int run_join(struct cli *c, struct call *call)
{
    const struct flagset *fs = &call->fs;
    const char *avail = availability(c, call);
    json_t *rq, *info = NULL;
    int r;

    if (!avail)
        return 1;
    rq = json_pack("{s:s,s:s,s:s,s:[s],s:s,s:s}", "ListenAddr", flag_str(fs, "listen-addr"), "AdvertiseAddr",
                   flag_str(fs, "advertise-addr"), "DataPathAddr", flag_str(fs, "data-path-addr"), "RemoteAddrs",
                   call->argv[0], "JoinToken", flag_str(fs, "token"), "Availability", avail);
    r = api_call(c, "POST", "/swarm/join", rq, NULL);
    if (r == 0)
        r = api_get(c, &info, "/info");
    if (r == 0)
        fprintf(c->out, "This node joined a swarm as a %s.\n",
                jbool(info, "Swarm.ControlAvailable") ? "manager" : "worker");
    else
        cli_fail_api(c);
    json_decref(rq);
    json_decref(info);
    return r;
}

static int run_leave(struct cli *c, struct call *call)
{
    if (api_call(c, "POST", flag_bool(&call->fs, "force") ? "/swarm/leave?force=1" : "/swarm/leave", NULL, NULL) != 0)
        return cli_fail_api(c);
    fputs("Node left the swarm.\n", c->out);
    return 0;
}

/* Sends the swarm's spec back; `rotate` names the one thing to rotate, NULL for none. */
static int post_spec(struct cli *c, json_t *swarm, const char *rotate)
{
    struct buf path = BUF_INIT;
    static const char *const all[] = { "rotateManagerToken", "rotateManagerUnlockKey", "rotateWorkerToken" };
    int r;

    buf_puts(&path, "/swarm/update");
    for (size_t i = 0; i < 3; i++)
        url_query(&path, all[i], rotate && strcmp(rotate, all[i]) == 0 ? "true" : "false");
    buf_printf(&path, "&version=%lld", (long long)jint(swarm, "Version.Index"));
    r = api_call(c, "POST", buf_cstr(&path), jget(swarm, "Spec"), NULL);
    buf_done(&path);
    return r != 0 ? cli_fail_api(c) : 0;
}

static json_t *get_swarm(struct cli *c)
{
    json_t *swarm = NULL;

    if (api_get(c, &swarm, "/swarm") == 0)
        return swarm;
    cli_fail_api(c);
    return NULL;
}

static int run_update(struct cli *c, struct call *call)
{
    json_t *swarm = get_swarm(c), *ca;
    bool locked;
    size_t i;
    int r;

    if (!swarm)
        return 1;
    locked = jbool(swarm, "Spec.EncryptionConfig.AutoLockManagers");
    merge_spec(call, jenter(swarm, "Spec"));
    for_each (flag_json(&call->fs, "external-ca"), i, ca)
        if (!jget(ca, "CACert")) /* an external CA signs for the present root unless it brings its own */
            json_object_set_new(ca, "CACert", json_string(jstr(swarm, "TLSInfo.TrustRoot")));
    r = post_spec(c, swarm, NULL);
    if (r == 0) {
        fputs("Swarm updated.\n", c->out);
        if (!locked && jbool(swarm, "Spec.EncryptionConfig.AutoLockManagers"))
            r = show_key(c, false, false);
    }
    json_decref(swarm);
    return r;
}

static int run_join_token(struct cli *c, struct call *call)
{
    const char *role = call->argv[0];
    bool worker = strcmp(role, "worker") == 0, quiet = flag_bool(&call->fs, "quiet");
    json_t *swarm, *info = NULL;
    int r = 0;

    if (!worker && strcmp(role, "manager") != 0)
        return cli_fail(c, "unknown role %s", role);
    if (!(swarm = get_swarm(c)))
        return 1;
    if (flag_bool(&call->fs, "rotate")) {
        r = post_spec(c, swarm, worker ? "rotateWorkerToken" : "rotateManagerToken");
        if (r == 0 && !quiet)
            fprintf(c->out, "Successfully rotated %s join token.\n\n", role);
        json_decref(swarm);
        swarm = r == 0 ? get_swarm(c) : NULL;
        r = !swarm;
    }
    if (r == 0 && quiet)
        fprintf(c->out, "%s\n", jstr(swarm, worker ? "JoinTokens.Worker" : "JoinTokens.Manager"));
    else if (r == 0 && (r = api_get(c, &info, "/info")) != 0)
        cli_fail_api(c);
    else if (r == 0)
        r = show_join(c, jstr(info, "Swarm.NodeID"), role);
    json_decref(swarm);
    json_decref(info);
    return r;
}

static int run_unlock_key(struct cli *c, struct call *call)
{
    bool quiet = flag_bool(&call->fs, "quiet");
    int r = 0;

    if (flag_bool(&call->fs, "rotate")) {
        json_t *swarm = get_swarm(c);
        if (!swarm)
            return 1;
        if (!jbool(swarm, "Spec.EncryptionConfig.AutoLockManagers"))
            r = cli_fail(c, "cannot rotate because autolock is not turned on");
        else
            r = post_spec(c, swarm, "rotateManagerUnlockKey");
        json_decref(swarm);
        if (r == 0 && !quiet)
            fputs("Successfully rotated manager unlock key.\n", c->out);
    }
    return r == 0 ? show_key(c, quiet, true) : r;
}

/* One line from standard input; typed unseen on a terminal. Blanks are not part of a key. */
static void read_secret(struct cli *c, const char *prompt, bool blanks, struct buf *key)
{
    struct termios old, quiet;
    char ch;
    bool hidden = c->in_tty && tcgetattr(c->in_fd, &old) == 0;

    if (hidden) {
        quiet = old;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(c->in_fd, TCSANOW, &quiet);
    }
    if (c->in_tty) {
        fputs(prompt, c->out);
        fflush(c->out);
    }
    while (key->n <= SECRET_MAX && read(c->in_fd, &ch, 1) == 1 && ch != '\n')
        if (blanks ? ch != '\r' : !isspace((unsigned char)ch))
            buf_putc(key, ch);
    if (hidden) {
        tcsetattr(c->in_fd, TCSANOW, &old);
        fputc('\n', c->out);
    }
}

static int run_unlock(struct cli *c, struct call *call)
{
    json_t *info = NULL, *rq;
    struct buf key = BUF_INIT;
    const char *state;
    int r;

    (void)call;
    if (api_get(c, &info, "/info") != 0)
        return cli_fail_api(c);
    state = jstr(info, "Swarm.LocalNodeState");
    if (strcmp(state, "inactive") == 0) {
        r = cli_fail(c, "Error: This node is not part of a swarm");
    } else if (strcmp(state, "locked") != 0) {
        r = cli_fail(c, "Error: swarm is not locked");
    } else {
        read_secret(c, "Enter unlock key: ", false, &key);
        rq = json_pack("{s:s}", "UnlockKey", buf_cstr(&key));
        r = api_call(c, "POST", "/swarm/unlock", rq, NULL) != 0 ? cli_fail_api(c) : 0;
        json_decref(rq);
        if (key.n)
            explicit_bzero(key.p, key.n);
    }
    json_decref(info);
    buf_done(&key);
    return r;
}

/* ---- backup, restore: not docker's ---- */

static int read_passphrase(struct cli *c, struct call *call, bool twice, struct buf *pass)
{
    const char *path = flag_str(&call->fs, "passphrase-file");
    struct buf again = BUF_INIT;
    int r = 0;

    if (*path) {
        FILE *f = fopen(path, "re");
        if (!f)
            return cli_fail(c, "open %s: %s", path, strerror(errno));
        for (int ch; pass->n <= SECRET_MAX && (ch = fgetc(f)) != EOF && ch != '\n';)
            if (ch != '\r')
                buf_putc(pass, (char)ch);
        fclose(f);
    } else {
        read_secret(c, "Enter passphrase: ", true, pass);
        if (twice && c->in_tty) {
            read_secret(c, "Enter it again: ", true, &again);
            if (strcmp(buf_cstr(pass), buf_cstr(&again)) != 0)
                r = cli_fail(c, "the two passphrases differ");
        }
    }
    if (r == 0 && (pass->n == 0 || pass->n > SECRET_MAX))
        r = cli_fail(c, pass->n == 0 ? "a passphrase is needed" : "the passphrase is longer than %u bytes", SECRET_MAX);
    if (again.p)
        explicit_bzero(again.p, again.cap);
    buf_done(&again);
    return r;
}

/* "X-Swarm-Passphrase: <base64>" */
static void passphrase_header(struct buf *pass, struct buf *ret)
{
    buf_puts(ret, "X-Swarm-Passphrase: ");
    unsigned char *to = (unsigned char *)buf_reserve(ret, 4 * (pass->n / 3 + 1) + 1);
    if (to)
        ret->n += (size_t)EVP_EncodeBlock(to, (const unsigned char *)pass->p, (int)pass->n);
    if (pass->p)
        explicit_bzero(pass->p, pass->cap);
    buf_done(pass);
}

struct sink {
    int fd;
    uint64_t bytes;
    int error; /* errno */
};

static bool to_file(const char *p, size_t n, void *arg)
{
    struct sink *s = arg;

    for (size_t done = 0; done < n;) {
        ssize_t k = write(s->fd, p + done, n - done);
        if (k < 0 && errno != EINTR) {
            s->error = errno;
            return false;
        }
        done += k > 0 ? (size_t)k : 0;
    }
    s->bytes += n;
    return true;
}

/* Written beside the file and renamed when it is whole: a backup that was cut short is none. */
static int run_backup(struct cli *c, struct call *call)
{
    const char *path = call->argv[0];
    struct buf pass = BUF_INIT, header = BUF_INIT, tmp = BUF_INIT;
    struct sink s = { .fd = -1 };
    int r = read_passphrase(c, call, true, &pass);

    if (r != 0)
        goto out;
    passphrase_header(&pass, &header);
    buf_printf(&tmp, "%s.part", path);
    s.fd = open(buf_cstr(&tmp), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (s.fd < 0) {
        r = cli_fail(c, "open %s: %s", buf_cstr(&tmp), strerror(errno));
        goto out;
    }
    const char *headers[] = { buf_cstr(&header), NULL };
    if (api_stream(c, "POST", "/swarm/backup", -1, NULL, headers, to_file, &s) != 0)
        r = cli_fail_api(c);
    else if (s.error != 0 || fsync(s.fd) < 0 || rename(buf_cstr(&tmp), path) < 0)
        r = cli_fail(c, "write %s: %s", path, strerror(s.error ? s.error : errno));
    else
        fprintf(c->out,
                "Backup of the swarm written to %s (%" PRIu64 " bytes). Keep the passphrase: nobody can open it "
                "without.\n",
                path, s.bytes);
    if (r != 0)
        unlink(buf_cstr(&tmp));
out:
    closep(&s.fd);
    if (header.p)
        explicit_bzero(header.p, header.cap);
    if (pass.p)
        explicit_bzero(pass.p, pass.cap);
    buf_done(&header);
    buf_done(&pass);
    buf_done(&tmp);
    return r;
}

static bool ignore(const char *p, size_t n, void *arg)
{
    (void)p, (void)n, (void)arg;
    return true;
}

static int run_restore(struct cli *c, struct call *call)
{
    struct buf pass = BUF_INIT, header = BUF_INIT, path = BUF_INIT;
    _cleanup_(closep) int fd = open(call->argv[0], O_RDONLY | O_CLOEXEC);
    int r;

    if (fd < 0)
        return cli_fail(c, "open %s: %s", call->argv[0], strerror(errno));
    r = read_passphrase(c, call, false, &pass);
    if (r == 0) {
        passphrase_header(&pass, &header);
        buf_puts(&path, "/swarm/restore");
        url_query(&path, "listenaddr", flag_str(&call->fs, "listen-addr"));
        url_query(&path, "advertiseaddr", flag_str(&call->fs, "advertise-addr"));
        const char *headers[] = { buf_cstr(&header), NULL };
        if (api_stream(c, "POST", buf_cstr(&path), fd, "application/octet-stream", headers, ignore, NULL) != 0)
            r = cli_fail_api(c);
        else
            fputs("Swarm restored: this node is its only manager now.\n", c->out);
    }
    if (header.p)
        explicit_bzero(header.p, header.cap);
    if (pass.p)
        explicit_bzero(pass.p, pass.cap);
    buf_done(&header);
    buf_done(&pass);
    buf_done(&path);
    return r;
}

static int show_root(struct cli *c, json_t *swarm)
{
    const char *pem = jstr(swarm, "TLSInfo.TrustRoot");
    size_t n = strlen(pem);

    while (n > 0 && isspace((unsigned char)pem[n - 1]))
        n--;
    if (n == 0)
        return cli_fail(c, "No CA information available");
    fprintf(c->out, "%.*s\n", (int)n, pem);
    return 0;
}

/* What --rotate allows together; 1 with the user told. */
static int check_ca_flags(struct cli *c, const struct flagset *fs)
{
    static const char *const need_rotate[] = { "ca-cert", "ca-key", "cert-expiry", "external-ca" };
    bool cert = flag_changed(fs, "ca-cert"), external = flag_changed(fs, "external-ca");

    for (size_t i = 0; i < 4 && !flag_bool(fs, "rotate"); i++)
        if (flag_changed(fs, need_rotate[i]))
            return cli_fail(c, "`--%s` flag requires the `--rotate` flag to update the CA", need_rotate[i]);
    if (external && !cert)
        return cli_fail(
            c, "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - to add "
               "an external CA with the current root CA certificate, use the `update` command instead");
    if (cert && !external && !flag_changed(fs, "ca-key"))
        return cli_fail(
            c, "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well");
    return 0;
}

static int run_ca(struct cli *c, struct call *call)
{
    const struct flagset *fs = &call->fs;
    json_t *swarm, *spec;
    int r = check_ca_flags(c, fs);

    if (r != 0 || !(swarm = get_swarm(c)))
        return 1;
    if (!flag_bool(fs, "rotate")) {
        r = show_root(c, swarm);
    } else {
        spec = jenter(swarm, "Spec");
        merge_spec(call, spec);
        if (flag_changed(fs, "ca-cert"))
            jset(spec, "CAConfig.SigningCACert", json_string(flag_str(fs, "ca-cert")));
        if (flag_changed(fs, "ca-key"))
            jset(spec, "CAConfig.SigningCAKey", json_string(flag_str(fs, "ca-key")));
        if (!flag_changed(fs, "ca-cert") && !flag_changed(fs, "ca-key"))
            jset(spec, "CAConfig.ForceRotate", json_integer(jint(spec, "CAConfig.ForceRotate") + 1));
        r = post_spec(c, swarm, NULL);
        if (r == 0 && !flag_bool(fs, "detach"))
            r = wait_rotation(c, flag_bool(fs, "quiet"));
    }
    json_decref(swarm);
    return r;
}

const struct cmd swarm_cmds[] = {
    { .name = "backup",
      .args = "FILE",
      .help = "Write the whole swarm to a file, sealed with a passphrase",
      .min = 1,
      .max = 1,
      .flags = backup_tables,
      .run = run_backup,
      .complete = "@file" },
    { .name = "ca", .help = "Display and rotate the root CA", .flags = ca_tables, .run = run_ca },
    { .name = "init", .help = "Initialize a swarm", .flags = init_tables, .run = run_init },
    { .name = "join",
      .args = "HOST:PORT",
      .help = "Join a swarm as a node and/or manager",
      .min = 1,
      .max = 1,
      .flags = join_tables,
      .run = run_join },
    { .name = "join-token",
      .args = "(worker|manager)",
      .help = "Manage join tokens",
      .min = 1,
      .max = 1,
      .flags = token_tables,
      .run = run_join_token,
      .complete = "worker,manager" },
    { .name = "leave", .help = "Leave the swarm", .flags = leave_tables, .run = run_leave },
    { .name = "restore",
      .args = "FILE",
      .help = "Start a swarm of one manager from a backup",
      .min = 1,
      .max = 1,
      .flags = restore_tables,
      .run = run_restore,
      .complete = "@file" },
    { .name = "unlock", .help = "Unlock swarm", .run = run_unlock },
    { .name = "unlock-key", .help = "Manage the unlock key", .flags = key_tables, .run = run_unlock_key },
    { .name = "update", .help = "Update the swarm", .flags = update_tables, .run = run_update, .needs_flag = true },
    { .name = NULL },
};

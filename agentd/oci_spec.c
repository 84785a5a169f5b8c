/* oci_spec.c - see oci_spec.h. */
#include "agentd/oci_spec.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "agentd/oci_seccomp.h"

/* CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE
 * SETFCAP */
#define CAPS_DEFAULT                                                                                                   \
    (1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 7 | 1ull << 8 | 1ull << 10 |      \
     1ull << 13 | 1ull << 18 | 1ull << 27 | 1ull << 29 | 1ull << 31)
#define CAPS_ALL ((1ull << CAPABILITY_COUNT) - 1)

static json_t *jstr(struct str s)
{
    json_t *j = json_stringn(s.p ? s.p : "", s.n);
    return j ? j : json_string("");
}

static struct strs strs_of(json_t *arr, struct arena *a)
{
    struct strs r = { arena_array(a, json_array_size(arr), sizeof(struct str)), 0 };
    size_t i;
    json_t *v;
    if (!r.v)
        return r;
    json_array_foreach (arr, i, v)
        if (json_is_string(v))
            r.v[r.n++] = (struct str){ json_string_value(v), json_string_length(v) };
    return r;
}

static struct str text_of(json_t *obj, const char *key)
{
    json_t *v = json_object_get(obj, key);
    return json_is_string(v) ? (struct str){ json_string_value(v), json_string_length(v) } : (struct str){ "", 0 };
}

static struct health_spec health_of(json_t *h, struct arena *a)
{
    return (struct health_spec){ .Test = strs_of(json_object_get(h, "Test"), a),
                                 .Interval = json_integer_value(json_object_get(h, "Interval")),
                                 .Timeout = json_integer_value(json_object_get(h, "Timeout")),
                                 .Retries = json_integer_value(json_object_get(h, "Retries")),
                                 .StartPeriod = json_integer_value(json_object_get(h, "StartPeriod")),
                                 .StartInterval = json_integer_value(json_object_get(h, "StartInterval")) };
}

int image_conf_read(json_t *image, struct image_conf *ret, struct arena *a, struct err *e)
{
    json_t *c = json_object_get(image, "config"), *v, *vols;
    const char *key;
    *ret = (struct image_conf){ 0 };
    if (!json_is_object(image))
        return err_set(e, ERR_CORRUPT, "image configuration is not an object");
    ret->Entrypoint = strs_of(json_object_get(c, "Entrypoint"), a);
    ret->Cmd = strs_of(json_object_get(c, "Cmd"), a);
    ret->Env = strs_of(json_object_get(c, "Env"), a);
    ret->WorkingDir = text_of(c, "WorkingDir");
    ret->User = text_of(c, "User");
    ret->StopSignal = text_of(c, "StopSignal");
    ret->Shell = strs_of(json_object_get(c, "Shell"), a);
    ret->Healthcheck = health_of(json_object_get(c, "Healthcheck"), a);
    vols = json_object_get(c, "Volumes");
    ret->Volumes.v = arena_array(a, json_object_size(vols) + 1, sizeof(struct str));
    if (!ret->Volumes.v)
        return err_set(e, ERR_NOMEM, "image configuration: out of memory");
    json_object_foreach (vols, key, v)
        ret->Volumes.v[ret->Volumes.n++] = str_from(key);
    return 0;
}

int oci_signal(struct str name)
{
    const struct {
        const char *n;
        int s;
    } t[] = {
        { "HUP", SIGHUP },       { "INT", SIGINT },     { "QUIT", SIGQUIT },   { "ILL", SIGILL },   { "TRAP", SIGTRAP },
        { "ABRT", SIGABRT },     { "IOT", SIGIOT },     { "BUS", SIGBUS },     { "FPE", SIGFPE },   { "KILL", SIGKILL },
        { "USR1", SIGUSR1 },     { "SEGV", SIGSEGV },   { "USR2", SIGUSR2 },   { "PIPE", SIGPIPE }, { "ALRM", SIGALRM },
        { "TERM", SIGTERM },     { "CHLD", SIGCHLD },   { "CONT", SIGCONT },   { "STOP", SIGSTOP }, { "TSTP", SIGTSTP },
        { "TTIN", SIGTTIN },     { "TTOU", SIGTTOU },   { "URG", SIGURG },     { "XCPU", SIGXCPU }, { "XFSZ", SIGXFSZ },
        { "VTALRM", SIGVTALRM }, { "PROF", SIGPROF },   { "WINCH", SIGWINCH }, { "IO", SIGIO },     { "PWR", SIGPWR },
        { "SYS", SIGSYS },       { "RTMIN", SIGRTMIN }, { "RTMAX", SIGRTMAX },
    };
    uint64_t v;
    if (str_u64(name, &v))
        return v > 0 && v <= (uint64_t)SIGRTMAX ? (int)v : 0;
    if (name.n > 3 && strncasecmp(name.p, "SIG", 3) == 0)
        name = (struct str){ name.p + 3, name.n - 3 };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        if (name.n == strlen(t[i].n) && strncasecmp(name.p, t[i].n, name.n) == 0)
            return t[i].s;
    if (name.n > 6 && strncasecmp(name.p, "RTM", 3) == 0 && str_u64((struct str){ name.p + 6, name.n - 6 }, &v) &&
        v <= 31) {
        int s = strncasecmp(name.p, "RTMIN+", 6) == 0   ? SIGRTMIN + (int)v
                : strncasecmp(name.p, "RTMAX-", 6) == 0 ? SIGRTMAX - (int)v
                                                        : 0;
        return s >= SIGRTMIN && s <= SIGRTMAX ? s : 0;
    }
    return 0;
}

static int cap_bits(const struct strs *names, const char *option, uint64_t *ret, struct err *e)
{
    *ret = 0;
    for (size_t i = 0; i < names->n; i++) {
        struct str n = names->v[i];
        if (n.n == 3 && strncasecmp(n.p, "ALL", 3) == 0) {
            *ret |= CAPS_ALL;
            continue;
        }
        int c = capability_by_name(n);
        if (c < 0)
            return err_set(e, ERR_INVALID, "invalid %s: unknown capability: \"" STR_FMT "\"", option, STR_ARG(n));
        *ret |= 1ull << c;
    }
    return 0;
}

int oci_caps(const struct tspec_container *c, uint64_t *ret, struct err *e)
{
    uint64_t add = 0, drop = 0;
    int r = cap_bits(&c->CapabilityAdd, "CapAdd", &add, e);
    if (r == 0)
        r = cap_bits(&c->CapabilityDrop, "CapDrop", &drop, e);
    if (r < 0)
        return r;
    if (drop == CAPS_ALL)
        *ret = add == CAPS_ALL ? CAPS_ALL : add; /* drop all, then add back: Docker's order */
    else
        *ret = (CAPS_DEFAULT | add) & ~drop;
    return 0;
}

int oci_argv(const struct tspec_container *c, const struct image_conf *image, struct arena *a, struct strs *ret,
             struct err *e)
{
    const struct strs *entry = c->Command.n ? &c->Command : &image->Entrypoint;
    /* a service that replaces the entrypoint does not get the image's arguments */
    static const struct strs none;
    const struct strs *args = c->Args.n ? &c->Args : c->Command.n ? &none : &image->Cmd;
    ret->n = 0;
    ret->v = arena_array(a, entry->n + args->n + 1, sizeof(struct str));
    if (!ret->v)
        return err_set(e, ERR_NOMEM, "command: out of memory");
    for (size_t i = 0; i < entry->n; i++)
        ret->v[ret->n++] = entry->v[i];
    for (size_t i = 0; i < args->n; i++)
        ret->v[ret->n++] = args->v[i];
    if (ret->n == 0)
        return err_set(e, ERR_INVALID, "No command specified");
    return 0;
}

int oci_path_clean(struct str path, struct arena *a, struct str *ret, struct err *e)
{
    if (path.n == 0 || path.p[0] != '/' || memchr(path.p, 0, path.n))
        return err_set(e, ERR_INVALID, "invalid mount path: '" STR_FMT "' mount path must be absolute", STR_ARG(path));
    char *out = arena_alloc(a, path.n + 2);
    if (!out)
        return err_set(e, ERR_NOMEM, "path: out of memory");
    size_t n = 0;
    for (size_t i = 0; i < path.n;) {
        while (i < path.n && path.p[i] == '/')
            i++;
        size_t start = i;
        while (i < path.n && path.p[i] != '/')
            i++;
        struct str part = { path.p + start, i - start };
        if (part.n == 0 || str_is(part, "."))
            continue;
        if (str_is(part, "..")) {
            while (n > 0 && out[--n] != '/')
                ;
            continue;
        }
        out[n++] = '/';
        memcpy(out + n, part.p, part.n);
        n += part.n;
    }
    if (n == 0)
        out[n++] = '/';
    out[n] = '\0';
    *ret = (struct str){ out, n };
    return 0;
}

static int tmpfs_options(const struct tspec_mount *m, struct arena *a, struct str *ret, struct err *e)
{
    const struct tspec_tmpfs *t = m->TmpfsOptions;
    char size[40] = "", mode[24] = "", extra[256] = "";
    if (t && t->SizeBytes > 0)
        snprintf(size, sizeof size, ",size=%lld", (long long)t->SizeBytes);
    if (t && t->Mode > 0)
        snprintf(mode, sizeof mode, ",mode=%llo", (unsigned long long)(t->Mode & 07777));
    struct mp_cursor c = mp_cursor(t ? t->Options : (struct str){ 0, 0 });
    struct mp_val v, in;
    if (t && t->Options.n > 0 && mp_next(&c, &v) == 0 && v.type == MP_ARRAY) {
        for (size_t i = 0, used = 0; i < v.n && mp_next(&c, &in) == 0 && in.type == MP_ARRAY; i++) {
            for (size_t k = 0; k < in.n; k++) {
                struct mp_val s;
                if (mp_next(&c, &s) < 0 || s.type != MP_STR || used + s.s.n + 2 >= sizeof extra ||
                    memchr(s.s.p, ',', s.s.n))
                    return err_set(e, ERR_INVALID, "invalid tmpfs options");
                used += (size_t)snprintf(extra + used, sizeof extra - used, "%c" STR_FMT, k ? '=' : ',', STR_ARG(s.s));
            }
        }
    }
    char *o = arena_printf(a, "noexec,nosuid,nodev%s%s%s%s", m->ReadOnly ? ",ro" : "", size, mode, extra);
    *ret = str_from(o);
    return o ? 0 : err_set(e, ERR_NOMEM, "mount: out of memory");
}

int oci_mount_options(const struct tspec_mount *m, struct arena *a, struct str *ret, struct err *e)
{
    static const char *const props[] = { "private", "rprivate", "shared", "rshared", "slave", "rslave" };
    const struct tspec_bind *b = m->BindOptions;
    const char *prop = NULL;
    if (str_is(m->Type, "tmpfs"))
        return tmpfs_options(m, a, ret, e);
    if (!b || b->Propagation.n == 0)
        prop = "rprivate";
    for (size_t i = 0; !prop && i < sizeof props / sizeof props[0]; i++)
        if (str_is(b->Propagation, props[i]))
            prop = props[i];
    if (!prop)
        return err_set(e, ERR_INVALID, "invalid propagation mode: " STR_FMT, STR_ARG(b->Propagation));
    char *o = arena_printf(a, "%s,%s%s", b && b->NonRecursive ? "bind" : "rbind", prop, m->ReadOnly ? ",ro" : "");
    *ret = str_from(o);
    return o ? 0 : err_set(e, ERR_NOMEM, "mount: out of memory");
}

/* ---- the DOM ---- */

static void put(json_t *obj, const char *key, json_t *v)
{
    json_object_set_new(obj, key, v);
}

static json_t *jstrs(const struct strs *s)
{
    json_t *arr = json_array();
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(arr, jstr(s->v[i]));
    return arr;
}

static json_t *split(struct str csv)
{
    json_t *arr = json_array();
    while (csv.n) {
        const char *c = memchr(csv.p, ',', csv.n);
        struct str one = { csv.p, c ? (size_t)(c - csv.p) : csv.n };
        if (one.n)
            json_array_append_new(arr, jstr(one));
        size_t used = one.n + (c ? 1 : 0);
        csv = (struct str){ csv.p + used, csv.n - used };
    }
    return arr;
}

static void add_mount(json_t *arr, struct str type, struct str source, struct str target, struct str options)
{
    json_t *m = json_object();
    put(m, "destination", jstr(target));
    put(m, "type", jstr(type));
    put(m, "source", jstr(source));
    put(m, "options", split(options));
    json_array_append_new(arr, m);
}

static bool mounted_over(const struct oci_in *in, const char *target)
{
    for (size_t i = 0; i < in->nmounts; i++)
        if (str_is(in->mounts[i].target, target))
            return true;
    return false;
}

static void add_file(const struct oci_in *in, json_t *arr, const char *host, const char *target)
{
    if (host && !mounted_over(in, target))
        add_mount(arr, STR("bind"), str_from(host), str_from(target), STR("rbind,rprivate"));
}

static json_t *mounts_json(const struct oci_in *in)
{
    static const struct {
        const char *type, *source, *target, *options;
    } base[] = {
        { "proc", "proc", "/proc", "nosuid,noexec,nodev" },
        { "tmpfs", "tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k" },
        { "devpts", "devpts", "/dev/pts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5" },
        { "sysfs", "sysfs", "/sys", "nosuid,noexec,nodev,ro" },
        { "cgroup", "cgroup", "/sys/fs/cgroup", "ro,nosuid,noexec,nodev" },
        { "mqueue", "mqueue", "/dev/mqueue", "nosuid,noexec,nodev" },
        { "tmpfs", "shm", "/dev/shm", "nosuid,noexec,nodev,mode=1777,size=67108864" },
    };
    json_t *arr = json_array();
    for (size_t i = 0; i < sizeof base / sizeof base[0]; i++)
        if (!mounted_over(in, base[i].target))
            add_mount(arr, str_from(base[i].type), str_from(base[i].source), str_from(base[i].target),
                      str_from(base[i].options));
    add_file(in, arr, in->resolv_file, "/etc/resolv.conf");
    add_file(in, arr, in->hostname_file, "/etc/hostname");
    add_file(in, arr, in->hosts_file, "/etc/hosts");
    for (size_t i = 0; i < in->nmounts; i++)
        add_mount(arr, in->mounts[i].type, in->mounts[i].source, in->mounts[i].target, in->mounts[i].options);
    if (in->init_path)
        add_mount(arr, STR("bind"), str_from(in->init_path), STR("/sbin/docker-init"), STR("bind,ro"));
    return arr;
}

/* a later VAR=x replaces an earlier one; "VAR" without "=" removes it */
static void env_put(json_t *arr, struct str kv)
{
    const char *eq = kv.n ? memchr(kv.p, '=', kv.n) : NULL;
    size_t klen = eq ? (size_t)(eq - kv.p) : kv.n;
    for (size_t i = 0; i < json_array_size(arr); i++) {
        const char *old = json_string_value(json_array_get(arr, i));
        if (strncmp(old, kv.p, klen) == 0 && old[klen] == '=') {
            if (eq)
                json_array_set_new(arr, i, jstr(kv));
            else
                json_array_remove(arr, i);
            return;
        }
    }
    if (eq)
        json_array_append_new(arr, jstr(kv));
}

static bool env_has(json_t *arr, const char *prefix)
{
    size_t i;
    json_t *v;
    json_array_foreach (arr, i, v)
        if (strncmp(json_string_value(v), prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

static json_t *env_json(const struct oci_in *in, struct arena *a)
{
    json_t *arr = json_array();
    json_array_append_new(arr, json_string("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    char *h = arena_printf(a, "HOSTNAME=" STR_FMT, STR_ARG(in->hostname));
    if (h)
        json_array_append_new(arr, json_string(h));
    if (in->spec->ContainerSpec->TTY)
        json_array_append_new(arr, json_string("TERM=xterm"));
    for (size_t i = 0; i < in->image->Env.n; i++)
        env_put(arr, in->image->Env.v[i]);
    for (size_t i = 0; i < in->env.n; i++)
        env_put(arr, in->env.v[i]);
    if (!env_has(arr, "HOME=")) {
        char *home = arena_printf(a, "HOME=%s", in->user->home);
        if (home)
            json_array_append_new(arr, json_string(home));
    }
    return arr;
}

static json_t *caps_json(const struct oci_in *in, uint64_t caps)
{
    json_t *o = json_object(), *list = json_array();
    for (int i = 0; i < CAPABILITY_COUNT; i++)
        if (caps & (1ull << i))
            json_array_append_new(list, json_string(capability_name(i)));
    put(o, "bounding", json_incref(list));
    if (in->user->uid == 0) { /* a plain execve leaves an unprivileged user without effective capabilities */
        put(o, "effective", json_incref(list));
        put(o, "permitted", json_incref(list));
    }
    json_decref(list);
    return o;
}

static int rlimits_json(const struct tspec_container *c, json_t *process, struct err *e)
{
    static const char *const known[] = { "core",    "cpu",      "data",   "fsize",      "locks",
                                         "memlock", "msgqueue", "nice",   "nofile",     "nproc",
                                         "rss",     "rtprio",   "rttime", "sigpending", "stack" };
    if (c->Ulimits.n == 0)
        return 0;
    json_t *arr = json_array();
    put(process, "rlimits", arr);
    for (size_t i = 0; i < c->Ulimits.n; i++) {
        const struct tspec_ulimit *u = &((const struct tspec_ulimit *)c->Ulimits.v)[i];
        char name[32] = "RLIMIT_";
        size_t k = 0, n = sizeof known / sizeof known[0];
        while (k < n && !str_is(u->Name, known[k]))
            k++;
        if (k == n)
            return err_set(e, ERR_INVALID, "invalid ulimit type: " STR_FMT, STR_ARG(u->Name));
        for (size_t j = 0; known[k][j]; j++) {
            name[7 + j] = (char)(known[k][j] - 'a' + 'A');
            name[8 + j] = '\0';
        }
        json_t *o = json_object();
        put(o, "type", json_string(name));
        /* -1 is "unlimited": the runtime reads it with strtoull(), which makes it the largest uint64, RLIM_INFINITY */
        put(o, "soft", json_integer(u->Soft < 0 ? -1 : u->Soft));
        put(o, "hard", json_integer(u->Hard < 0 ? -1 : u->Hard));
        json_array_append_new(arr, o);
    }
    return 0;
}

static int process_json(const struct oci_in *in, struct arena *a, json_t *root, struct err *e)
{
    const struct tspec_container *c = in->spec->ContainerSpec;
    json_t *p = json_object(), *user, *args;
    struct strs argv;
    uint64_t caps = 0;
    put(root, "process", p);
    int r = oci_argv(c, in->image, a, &argv, e);
    if (r == 0)
        r = oci_caps(c, &caps, e);
    if (r == 0)
        r = rlimits_json(c, p, e);
    if (r < 0)
        return r;
    args = jstrs(&argv);
    if (in->init_path) {
        json_array_insert_new(args, 0, json_string("--"));
        json_array_insert_new(args, 0, json_string("/sbin/docker-init"));
    }
    put(p, "terminal", json_boolean(c->TTY));
    user = json_object();
    put(user, "uid", json_integer(in->user->uid));
    put(user, "gid", json_integer(in->user->gid));
    if (in->user->ngids) {
        json_t *g = json_array();
        for (size_t i = 0; i < in->user->ngids; i++)
            json_array_append_new(g, json_integer(in->user->gids[i]));
        put(user, "additionalGids", g);
    }
    put(p, "user", user);
    put(p, "args", args);
    put(p, "env", env_json(in, a));
    struct str cwd = c->Dir.n ? c->Dir : in->image->WorkingDir.n ? in->image->WorkingDir : STR("/");
    put(p, "cwd", jstr(cwd));
    put(p, "capabilities", caps_json(in, caps));
    put(p, "noNewPrivileges", json_boolean(c->Privileges && c->Privileges->NoNewPrivileges));
    put(p, "oomScoreAdj", json_integer(c->OomScoreAdj));
    return 0;
}

static json_t *device_rules(void)
{
    static const struct {
        int allow, major, minor;
        const char *type, *access;
    } t[] = {
        { 0, -1, -1, NULL, "rwm" }, { 1, 1, 5, "c", "rwm" }, { 1, 1, 3, "c", "rwm" }, { 1, 1, 9, "c", "rwm" },
        { 1, 1, 8, "c", "rwm" },    { 1, 5, 0, "c", "rwm" }, { 1, 5, 1, "c", "rwm" }, { 0, 10, 229, "c", "rwm" },
    };
    json_t *arr = json_array();
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        json_t *o = json_object();
        put(o, "allow", json_boolean(t[i].allow));
        if (t[i].type)
            put(o, "type", json_string(t[i].type));
        if (t[i].major >= 0) {
            put(o, "major", json_integer(t[i].major));
            put(o, "minor", json_integer(t[i].minor));
        }
        put(o, "access", json_string(t[i].access));
        json_array_append_new(arr, o);
    }
    return arr;
}

#define CPU_PERIOD_US 100000
static json_t *resources_json(const struct oci_in *in)
{
    const struct tspec_limits *l = &in->spec->Resources.Limits;
    json_t *r = json_object();
    int64_t swap, swappiness;
    put(r, "devices", device_rules());
    if (l->NanoCPUs > 0) {
        json_t *cpu = json_object();
        int64_t quota = l->NanoCPUs / (1000000000 / CPU_PERIOD_US);
        put(cpu, "quota", json_integer(quota < 1000 ? 1000 : quota)); /* the kernel's smallest is 1 ms */
        put(cpu, "period", json_integer(CPU_PERIOD_US));
        put(r, "cpu", cpu);
    }
    if (l->MemoryBytes > 0) {
        json_t *mem = json_object();
        put(mem, "limit", json_integer(l->MemoryBytes));
        if (in->swap_limit) {
            bool given = in->spec->Resources.SwapBytes.n && mp_as_i64(in->spec->Resources.SwapBytes, &swap);
            int64_t extra = given ? swap : l->MemoryBytes; /* Docker: as much swap again as memory */
            bool over = extra >= 0 && l->MemoryBytes > INT64_MAX - extra;
            put(mem, "swap", json_integer(extra < 0 || over ? -1 : l->MemoryBytes + extra));
        }
        if (!in->cgroup2 && in->spec->Resources.MemorySwappiness.n &&
            mp_as_i64(in->spec->Resources.MemorySwappiness, &swappiness))
            put(mem, "swappiness", json_integer(swappiness));
        put(r, "memory", mem);
    }
    if (l->Pids > 0) {
        json_t *pids = json_object();
        put(pids, "limit", json_integer(l->Pids));
        put(r, "pids", pids);
    }
    return r;
}

static json_t *namespaces_json(const struct oci_in *in)
{
    static const char *const types[] = { "mount", "uts", "pid", "ipc" };
    json_t *arr = json_array(), *o;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        o = json_object();
        put(o, "type", json_string(types[i]));
        json_array_append_new(arr, o);
    }
    if (in->netns) {
        o = json_object();
        put(o, "type", json_string("network"));
        put(o, "path", json_string(in->netns));
        json_array_append_new(arr, o);
    }
    if (in->cgroup2) {
        o = json_object();
        put(o, "type", json_string("cgroup"));
        json_array_append_new(arr, o);
    }
    return arr;
}

static json_t *paths_json(const char *const *paths)
{
    json_t *arr = json_array();
    for (; *paths; paths++)
        json_array_append_new(arr, json_string(*paths));
    return arr;
}

/* A bind takes part in its source's propagation only if the container's root does, too. NULL: nothing asks for it. */
static const char *root_propagation(const struct oci_in *in)
{
    const char *ret = NULL;
    for (size_t i = 0; i < in->nmounts; i++) {
        struct str o = in->mounts[i].options;
        if (o.n && memmem(o.p, o.n, "shared", 6))
            return "shared";
        if (o.n && memmem(o.p, o.n, "slave", 5))
            ret = "rslave";
    }
    return ret;
}

static json_t *linux_json(const struct oci_in *in)
{
    const char *prop = root_propagation(in);
    static const char *const masked[] = { "/proc/asound",
                                          "/proc/acpi",
                                          "/proc/kcore",
                                          "/proc/keys",
                                          "/proc/latency_stats",
                                          "/proc/timer_list",
                                          "/proc/timer_stats",
                                          "/proc/sched_debug",
                                          "/proc/scsi",
                                          "/sys/firmware",
                                          "/sys/devices/virtual/powercap",
                                          NULL };
    static const char *const readonly[] = { "/proc/bus",           "/proc/fs", "/proc/irq", "/proc/sys",
                                            "/proc/sysrq-trigger", NULL };
    const struct strmap *sysctls = &in->spec->ContainerSpec->Sysctls;
    json_t *l = json_object();
    put(l, "cgroupsPath", json_string(in->cgroup_path));
    put(l, "namespaces", namespaces_json(in));
    put(l, "resources", resources_json(in));
    if (prop)
        put(l, "rootfsPropagation", json_string(prop));
    put(l, "maskedPaths", paths_json(masked));
    put(l, "readonlyPaths", paths_json(readonly));
    if (sysctls->n) {
        json_t *s = json_object();
        for (size_t i = 0; i < sysctls->n; i++) {
            char key[256];
            if (str_copy(key, sizeof key, sysctls->v[i].key))
                put(s, key, jstr(sysctls->v[i].val));
        }
        put(l, "sysctl", s);
    }
    return l;
}

int oci_spec_build(const struct oci_in *in, struct arena *a, json_t **ret, struct err *e)
{
    json_t *root = json_object(), *fs = json_object(), *ann = json_object();
    put(root, "ociVersion", json_string("1.0.2"));
    int r = process_json(in, a, root, e);
    put(fs, "path", json_string(in->rootfs));
    put(fs, "readonly", json_boolean(in->spec->ContainerSpec->ReadOnly));
    put(root, "root", fs);
    put(root, "hostname", jstr(in->hostname));
    put(root, "mounts", mounts_json(in));
    put(root, "linux", linux_json(in));
    if (in->seccomp_b64.n)
        put(ann, "run.oci.seccomp_bpf_data", jstr(in->seccomp_b64));
    put(root, "annotations", ann);
    if (r < 0) {
        json_decref(root);
        return r;
    }
    *ret = root;
    return 0;
}

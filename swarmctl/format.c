/* format.c - see format.h. */
#include "swarmctl/format.h"

#include <ctype.h>

#include "common/template/gotext.h"
#include "common/template/tmpl_fn.h"
#include "swarmctl/jpath.h"

/* How fields of the API's types read in Go. Sorted by name. Where two types share a name, what is asked for most often
 * decides. */
static const struct {
    const char *name;
    enum hint hint;
} hints[] = {
    { "Actor", HINT_STRUCT },
    { "Addr", HINT_STRING },
    { "Addresses", HINT_LIST },
    { "Aliases", HINT_LIST },
    { "Architecture", HINT_STRING },
    { "Args", HINT_LIST },
    { "Attributes", HINT_MAP },
    { "AutoLockManagers", HINT_BOOL },
    { "Availability", HINT_STRING },
    { "BindOptions", HINT_NIL },
    { "CapabilityAdd", HINT_LIST },
    { "CapabilityDrop", HINT_LIST },
    { "Command", HINT_LIST },
    { "CompletedAt", HINT_NIL },
    { "Condition", HINT_STRING },
    { "Configs", HINT_LIST },
    { "Constraints", HINT_LIST },
    { "ContainerSpec", HINT_NIL },
    { "ContainerStatus", HINT_NIL },
    { "CreatedAt", HINT_TIME },
    { "DNSConfig", HINT_NIL },
    { "Delay", HINT_DURATION },
    { "Description", HINT_STRUCT },
    { "DesiredState", HINT_STRING },
    { "Details", HINT_MAP },
    { "Dir", HINT_STRING },
    { "DriverOpts", HINT_MAP },
    { "Endpoint", HINT_STRUCT },
    { "EndpointSpec", HINT_NIL },
    { "Engine", HINT_STRUCT },
    { "EngineVersion", HINT_STRING },
    { "Env", HINT_LIST },
    { "Err", HINT_STRING },
    { "FailureAction", HINT_STRING },
    { "ForceUpdate", HINT_INT },
    { "GenericResources", HINT_LIST },
    { "Global", HINT_NIL },
    { "GlobalJob", HINT_NIL },
    { "Groups", HINT_LIST },
    { "Healthcheck", HINT_NIL },
    { "HeartbeatPeriod", HINT_DURATION },
    { "Hostname", HINT_STRING },
    { "Hosts", HINT_LIST },
    { "Init", HINT_NIL },
    { "Interval", HINT_DURATION },
    { "Isolation", HINT_STRING },
    { "JobStatus", HINT_NIL },
    { "Labels", HINT_MAP },
    { "Leader", HINT_BOOL },
    { "Limits", HINT_NIL },
    { "LogDriver", HINT_NIL },
    { "ManagerStatus", HINT_NIL },
    { "MaxAttempts", HINT_NIL },
    { "MaxConcurrent", HINT_NIL },
    { "MaxFailureRatio", HINT_INT },
    { "MaxReplicas", HINT_INT },
    { "MemoryBytes", HINT_INT },
    { "Message", HINT_STRING },
    { "Mode", HINT_STRUCT },
    { "Monitor", HINT_DURATION },
    { "Mounts", HINT_LIST },
    { "Name", HINT_STRING },
    { "Nameservers", HINT_LIST },
    { "NanoCPUs", HINT_INT },
    { "Networks", HINT_LIST },
    { "NetworksAttachments", HINT_LIST },
    { "NodeCertExpiry", HINT_DURATION },
    { "NodeID", HINT_STRING },
    { "OS", HINT_STRING },
    { "OomScoreAdj", HINT_INT },
    { "OpenStdin", HINT_BOOL },
    { "Options", HINT_MAP },
    { "Order", HINT_STRING },
    { "PID", HINT_INT },
    { "Parallelism", HINT_INT },
    { "Pids", HINT_INT },
    { "Placement", HINT_NIL },
    { "Platforms", HINT_LIST },
    { "Plugins", HINT_LIST },
    { "PortStatus", HINT_STRUCT },
    { "Ports", HINT_LIST },
    { "Preferences", HINT_LIST },
    { "PreviousSpec", HINT_NIL },
    { "Privileges", HINT_NIL },
    { "Protocol", HINT_STRING },
    { "PublishMode", HINT_STRING },
    { "PublishedPort", HINT_INT },
    { "Reachability", HINT_STRING },
    { "ReadOnly", HINT_BOOL },
    { "RepoDigests", HINT_LIST },
    { "RepoTags", HINT_LIST },
    { "Replicated", HINT_NIL },
    { "ReplicatedJob", HINT_NIL },
    { "Reservations", HINT_NIL },
    { "Resources", HINT_NIL },
    { "RestartPolicy", HINT_NIL },
    { "Retries", HINT_INT },
    { "RollbackConfig", HINT_NIL },
    { "Role", HINT_STRING },
    { "RootRotationInProgress", HINT_BOOL },
    { "Runtime", HINT_STRING },
    { "Search", HINT_LIST },
    { "Secrets", HINT_LIST },
    { "ServiceID", HINT_STRING },
    { "ServiceStatus", HINT_NIL },
    { "Slot", HINT_INT },
    { "Source", HINT_STRING },
    { "Spec", HINT_STRUCT },
    { "StartInterval", HINT_DURATION },
    { "StartPeriod", HINT_DURATION },
    { "StartedAt", HINT_NIL },
    { "State", HINT_STRING },
    { "Status", HINT_STRUCT },
    { "StopGracePeriod", HINT_NIL },
    { "StopSignal", HINT_STRING },
    { "Sysctls", HINT_MAP },
    { "TLSInfo", HINT_STRUCT },
    { "TTY", HINT_BOOL },
    { "Target", HINT_STRING },
    { "TargetPort", HINT_INT },
    { "TaskTemplate", HINT_STRUCT },
    { "Test", HINT_LIST },
    { "Timeout", HINT_DURATION },
    { "Timestamp", HINT_TIME },
    { "TmpfsOptions", HINT_NIL },
    { "Type", HINT_STRING },
    { "Ulimits", HINT_LIST },
    { "UpdateConfig", HINT_NIL },
    { "UpdateStatus", HINT_NIL },
    { "UpdatedAt", HINT_TIME },
    { "User", HINT_STRING },
    { "Version", HINT_STRUCT },
    { "VirtualIPs", HINT_LIST },
    { "VolumeOptions", HINT_NIL },
    { "Window", HINT_DURATION },
};

static enum hint hint_of(struct str field)
{
    size_t lo = 0, hi = sizeof hints / sizeof hints[0];

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = str_cmp(field, str_from(hints[mid].name));
        if (c == 0)
            return hints[mid].hint;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return HINT_NONE;
}

/* ---- what the docker client adds to Go's functions ---- */

#define FN(name) static int fn_##name(struct exec *ex, const struct val *a, unsigned n, struct val *ret)

FN(json)
{
    struct buf b = TMPL_BUF;

    (void)n;
    if (exec_mode(ex) == TMPL_HEADER) {
        *ret = a[0];
        return 0;
    }
    if (a[0].j)
        jdump(&b, a[0].j);
    else
        buf_puts(&b, "null");
    *ret = val_text(ex, &b);
    return 0;
}

FN(split)
{
    if (n != 2 || val_want_text(ex, a[0]) < 0 || val_want_text(ex, a[1]) < 0)
        return -ERR_INVALID;
    *ret = a[0];
    if (exec_mode(ex) == TMPL_HEADER)
        return 0;
    json_t *list = json_array();
    struct str s = val_str(a[0]), sep = val_str(a[1]);
    for (const char *hit; sep.n > 0 && (hit = memmem(s.p, s.n, sep.p, sep.n));) {
        json_array_append_new(list, json_stringn_nocheck(s.p, (size_t)(hit - s.p)));
        s.n -= (size_t)(hit - s.p) + sep.n;
        s.p = hit + sep.n;
    }
    json_array_append_new(list, json_stringn_nocheck(s.p, s.n));
    *ret = val_new(ex, list);
    return 0;
}

FN(join)
{
    struct buf b = TMPL_BUF;
    json_t *item;
    size_t i;

    (void)n;
    *ret = a[0];
    if (exec_mode(ex) == TMPL_HEADER)
        return 0;
    if (val_want_text(ex, a[1]) < 0)
        return -ERR_INVALID;
    if (a[0].j && !json_is_array(a[0].j))
        return exec_fail(ex, "wrong type for value; expected []string");
    for_each (a[0].j, i, item) {
        if (i)
            buf_put(&b, json_string_value(a[1].j), json_string_length(a[1].j));
        val_print(&b, (struct val){ .j = item });
    }
    *ret = val_text(ex, &b);
    return 0;
}

static int letters(struct exec *ex, const struct val *a, struct val *ret, char mode)
{
    struct buf b = TMPL_BUF;

    *ret = a[0];
    if (exec_mode(ex) == TMPL_HEADER)
        return 0;
    if (val_want_text(ex, a[0]) < 0)
        return -ERR_INVALID;
    struct str s = val_str(a[0]);
    for (size_t i = 0; i < s.n; i++) {
        int c = (unsigned char)s.p[i];
        bool start = i == 0 || !(isalnum((unsigned char)s.p[i - 1]) || s.p[i - 1] == '_');
        if (mode == 'l')
            c = tolower(c);
        else if (mode == 'u' || start)
            c = toupper(c);
        buf_putc(&b, (char)c);
    }
    *ret = val_text(ex, &b);
    return 0;
}

FN(lower)
{
    (void)n;
    return letters(ex, a, ret, 'l');
}

FN(upper)
{
    (void)n;
    return letters(ex, a, ret, 'u');
}

FN(title)
{
    (void)n;
    return letters(ex, a, ret, 't');
}

FN(pad)
{
    struct buf b = TMPL_BUF;

    (void)n;
    if (val_want_text(ex, a[0]) < 0 || val_want_int(ex, a[1]) < 0 || val_want_int(ex, a[2]) < 0)
        return -ERR_INVALID;
    json_int_t before = json_integer_value(a[1].j), after = json_integer_value(a[2].j);
    if (before < 0 || after < 0 || before > 4096 || after > 4096)
        return exec_fail(ex, "padding out of range");
    struct str s = val_str(a[0]);
    if (s.n)
        buf_printf(&b, "%*s" STR_FMT "%*s", (int)before, "", STR_ARG(s), (int)after, "");
    *ret = val_text(ex, &b);
    return 0;
}

FN(truncate)
{
    struct buf b = TMPL_BUF;

    (void)n;
    *ret = a[0];
    if (exec_mode(ex) == TMPL_HEADER)
        return 0;
    if (val_want_text(ex, a[0]) < 0 || val_want_int(ex, a[1]) < 0)
        return -ERR_INVALID;
    json_int_t max = json_integer_value(a[1].j);
    struct str s = val_str(a[0]);
    if (max < 0)
        return exec_fail(ex, "negative length");
    if ((json_int_t)s.n <= max)
        return 0;
    size_t cut = (size_t)max; /* not through a character */
    while (cut > 0 && ((unsigned char)s.p[cut] & 0xc0) == 0x80)
        cut--;
    buf_put(&b, s.p, cut);
    *ret = val_text(ex, &b);
    return 0;
}

static const struct tmpl_fn functions[] = {
    { "join", 2, 2, fn_join },         { "json", 1, 1, fn_json },   { "lower", 1, 1, fn_lower },
    { "pad", 3, 3, fn_pad },           { "split", 2, 2, fn_split }, { "title", 1, 1, fn_title },
    { "truncate", 2, 2, fn_truncate }, { "upper", 1, 1, fn_upper },
};
static const struct tmpl_lang docker = {
    .name = "", .fns = functions, .fn_count = sizeof functions / sizeof functions[0], .hint = hint_of
};

int format_parse(struct tmpl **ret, const char *text, struct err *e)
{
    return tmpl_parse(ret, &docker, str_from(text), e);
}

int format_exec(const struct tmpl *t, json_t *data, enum tmpl_mode mode, struct buf *out, struct err *e)
{
    return tmpl_exec(t, data, mode, NULL, out, e);
}
